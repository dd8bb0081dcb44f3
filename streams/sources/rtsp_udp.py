"""The UDP ports of one track: RTP on an even one, RTCP on the next (RFC 3550 §11).

Datagrams count only if they come from the camera's checked address. Those of RTP are put in order before they
are delivered; every five seconds the camera hears how they arrive.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from typing import Final

from streams.errors import ProtocolError, SourceUnreachableError
from streams.port_pair import bind_port_pair
from streams.sources.bit_rate_limit import MIN_CHARGE_BYTES, BitRateLimit
from streams.wire.reception import ReceptionStatistics
from streams.wire.reordering import ReorderBuffer
from streams.wire.rtcp import SenderReport, serialize_receiver_report
from streams.wire.rtp import RtpPacket, parse_rtp, serialize_rtp

REPORT_SECONDS: Final = 5.0
"""RFC 3550 §6.2."""
RECEIVE_BUFFER_BYTES: Final = 1024 * 1024
"""A keyframe comes in one burst; the kernel's default holds some 130 packets."""

_NS_PER_SECOND: Final = 1_000_000_000
_PUNCH: Final = RtpPacket(0, False, 0, 0, 0, b"")

TakePacket = Callable[[RtpPacket, int], None]
TakeControl = Callable[[bytes], SenderReport | None]


class UdpTrack:
    """One track's ports, open until `close`. `rtp_port`: ours; RTCP has the next.

    `take_packet` and `take_control` get what arrives; whatever they raise goes to `on_error`.
    """

    def __init__(
        self,
        camera_ip: str,
        clock_rate: int,
        limit: BitRateLimit,
        on_error: Callable[[Exception], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.take_packet: TakePacket = lambda _packet, _received_ns: None
        self.take_control: TakeControl = lambda _data: None
        self.rtp_port = 0
        self._camera_ip = camera_ip
        self._limit = limit
        self._on_error = on_error
        self._clock_ns = clock_ns
        self._reordering = ReorderBuffer()
        self._statistics = ReceptionStatistics(secrets.randbits(32), clock_rate)
        self._transports: list[asyncio.DatagramTransport] = []
        self._timer: asyncio.TimerHandle | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        self._camera_ports: tuple[int, int] | None = None

    async def open(self, local_ip: str) -> None:
        """Bind both ports to the address that the RTSP connection has. Raises SourceUnreachableError."""
        loop = asyncio.get_running_loop()
        try:
            sockets = bind_port_pair(local_ip)
        except OSError as error:
            raise SourceUnreachableError(str(error)) from error
        self.rtp_port = sockets[0].getsockname()[1]
        for own, take in zip(sockets, (self._receive_rtp, self._receive_rtcp), strict=True):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            transport, _ = await loop.create_datagram_endpoint(
                lambda take=take: _Port(self._camera_ip, take, self._on_error),  # type: ignore[misc]  # bound at once
                sock=own,
            )
            self._transports.append(transport)

    def start(self, camera_ports: tuple[int, int] | None) -> None:
        """Open the way through firewalls, and report from now on, if the camera has told its ports."""
        self._camera_ports = camera_ports
        if camera_ports is not None:
            self._transports[0].sendto(serialize_rtp(_PUNCH), (self._camera_ip, camera_ports[0]))
            self._report()

    def close(self) -> None:
        for timer in (self._timer, self._report_timer):
            if timer is not None:
                timer.cancel()
        for transport in self._transports:
            transport.abort()

    def _receive_rtp(self, data: bytes) -> None:
        now_ns = self._clock_ns()
        self._limit.take(max(len(data), MIN_CHARGE_BYTES), now_ns)
        try:
            packet = parse_rtp(data)
        except ProtocolError:
            return  # a datagram stands for itself: the next may be well
        self._statistics.take_packet(packet, now_ns)
        for ready in self._reordering.receive(packet, now_ns):
            self.take_packet(ready, now_ns)
        self._set_timer(now_ns)

    def _receive_rtcp(self, data: bytes) -> None:
        now_ns = self._clock_ns()
        self._limit.take(max(len(data), MIN_CHARGE_BYTES), now_ns)
        report = self.take_control(data)
        if report is not None:
            self._statistics.take_report(report, now_ns)

    def _set_timer(self, now_ns: int) -> None:
        deadline_ns = self._reordering.deadline_ns
        if deadline_ns is not None and self._timer is None:
            delay = max(deadline_ns - now_ns, 0) / _NS_PER_SECOND
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_ns = self._clock_ns()
        try:
            for ready in self._reordering.expire(now_ns):
                self.take_packet(ready, now_ns)
        except Exception as error:  # noqa: BLE001 (as in _Port)
            self._on_error(error)
        else:
            self._set_timer(now_ns)

    def _report(self) -> None:
        assert self._camera_ports is not None  # noqa: S101 (`start` comes first)
        report = self._statistics.receiver_report(self._clock_ns())
        if report is not None:
            target = self._camera_ip, self._camera_ports[1]
            self._transports[1].sendto(serialize_receiver_report(report), target)
        self._report_timer = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report)


class _Port(asyncio.DatagramProtocol):
    def __init__(
        self, camera_ip: str, take: Callable[[bytes], None], on_error: Callable[[Exception], None]
    ) -> None:
        self._camera_ip = camera_ip
        self._take = take
        self._on_error = on_error

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if addr[0] != self._camera_ip:
            return
        try:
            self._take(data)
        except Exception as error:  # noqa: BLE001 (a bug of ours too must surface in whoever runs the source)
            self._on_error(error)

    def error_received(self, exc: Exception) -> None:
        """The camera has no RTCP port, says ICMP: nothing depends on our reports."""
