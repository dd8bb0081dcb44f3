"""One RTSP session as its client: the tracks that were set up, and how their packets reach the receiver."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from streams.errors import ProtocolError, StreamError, UnsupportedError
from streams.media import Codec
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_connection import RtspConnection, RtspRequester, discard
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.rtsp_udp import UdpTrack
from streams.sources.source import ReadInTurns
from streams.wire.fragment_run import FragmentScanner
from streams.wire.per_second import PerSecond
from streams.wire.rtcp import SenderReport
from streams.wire.rtp import RtpPacket, parse_rtp
from streams.wire.rtsp import (
    DEFAULT_SESSION_TIMEOUT_SECONDS,
    InterleavedPacket,
    RtspResponse,
    Transport,
    UdpTransport,
    parse_session,
    parse_transport,
    parse_udp_answer,
)

MAX_MALFORMED_PACKETS_PER_SECOND: Final = 64
"""Over TCP: cameras send an odd packet now and then, some one with every picture."""

Take = Callable[[bytes, int], object]


class RtspSession:
    """What SETUP opens and TEARDOWN ends, controlled by the presentation's URL.

    `timeout_seconds`: the smallest that the camera has named, since a track's answer may leave it out.
    """

    def __init__(self, requester: RtspRequester, url: str, options: RtspResponse) -> None:
        self._named_timeouts: set[int] = set()
        self._requester = requester
        self._url = url
        self._header: tuple[tuple[str, str], ...] = ()
        methods = {method.strip() for method in (options.header("Public") or "").split(",")}
        self._keepalive_method = "GET_PARAMETER" if "GET_PARAMETER" in methods else "OPTIONS"

    @property
    def timeout_seconds(self) -> int:
        return min(self._named_timeouts, default=DEFAULT_SESSION_TIMEOUT_SECONDS)

    async def set_up(self, url: str, transport: str) -> str:
        """Ask for one track; returns the Transport header of the answer. Raises StreamError."""
        answer = await self._requester.request("SETUP", url, ("Transport", transport), *self._header)
        session = parse_session(answer.header("Session") or "")
        if session.timeout_seconds is not None:
            self._named_timeouts.add(session.timeout_seconds)
        self._header = (("Session", session.id),)
        return answer.header("Transport") or ""

    async def play(self) -> None:
        await self._requester.request("PLAY", self._url, *self._header, ("Range", "npt=0.000-"))

    async def keep_alive(self) -> None:
        await self._requester.request(self._keepalive_method, self._url, *self._header)

    async def tear_down(self, *, timeout_seconds: float) -> None:
        """As far as the camera lets us: the connection is closed afterwards in any case."""
        if self._header:
            with suppress(StreamError, TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._requester.request("TEARDOWN", self._url, *self._header)


class TrackReceiver(msgspec.Struct, frozen=True, kw_only=True):
    """Where one track's packets go. `codec`: of a video track; None for sound.

    `malformed`: what came over TCP and was no RTP packet.
    """

    payload_type: int
    clock_rate: int
    take_packet: Callable[[RtpPacket, int], None]
    take_control: Callable[[bytes], SenderReport | None]
    codec: Codec | None = None
    malformed: PerSecond = msgspec.field(default_factory=lambda: PerSecond(MAX_MALFORMED_PACKETS_PER_SECOND))

    def take_interleaved(self, data: bytes, received_ns: int) -> None:
        """What is no RTP packet is dropped; more than a few in a second raise ProtocolError."""
        try:
            packet = parse_rtp(data)
        except ProtocolError:
            if self.malformed.take(1, received_ns):
                return
            raise
        if packet.payload_type != self.payload_type:
            packet = _emptied(packet)
        self.take_packet(packet, received_ns)

    def take_own(self, packet: RtpPacket, received_ns: int) -> None:
        if packet.payload_type != self.payload_type:
            packet = _emptied(packet)
        self.take_packet(packet, received_ns)


def _emptied(packet: RtpPacket) -> RtpPacket:
    """What is left of another payload type's packet: its sequence number may be the track's too."""
    return msgspec.structs.replace(packet, marker=False, payload=b"")


class Delivery(Protocol):
    """A way for the packets to come. `set_up` may raise any StreamError; `start` comes before PLAY.

    `reading`: what of it can be read in turns.
    """

    reading: ReadInTurns | None

    async def set_up(self, session: RtspSession, url: str, track: TrackReceiver) -> None: ...

    def start(self, receiver: MediaReceiver) -> None: ...

    def close(self) -> None: ...


class InterleavedDelivery:
    """In the RTSP connection, between its messages (RFC 2326 §10.12)."""

    def __init__(self, connection: RtspConnection) -> None:
        self.reading: ReadInTurns | None = connection
        self._connection = connection
        self._takers: dict[int, Take] = {}

    async def set_up(self, session: RtspSession, url: str, track: TrackReceiver) -> None:
        first = len(self._takers)
        wanted = Transport(rtp_channel=first, rtcp_channel=first + 1)
        transport = parse_transport(await session.set_up(url, str(wanted)))
        if transport is None:
            raise UnsupportedError("the camera does not send over its RTSP connection")
        if {transport.rtp_channel, transport.rtcp_channel} & self._takers.keys():
            raise ProtocolError("the camera sends two tracks in one channel")
        self._takers[transport.rtp_channel] = track.take_interleaved
        self._takers[transport.rtcp_channel] = lambda data, _ns: track.take_control(data)
        if track.codec is not None:
            self._connection.scan_for(FragmentScanner(track.codec, transport.rtp_channel, track.payload_type))

    def start(self, receiver: MediaReceiver) -> None:
        self._connection.deliver = self._deliver
        self._connection.deliver_run = receiver.take_run

    def close(self) -> None:
        self._connection.deliver = self._connection.deliver_run = discard

    def _deliver(self, packet: InterleavedPacket, received_ns: int) -> None:
        take = self._takers.get(packet.channel)
        if take is not None:
            take(packet.payload, received_ns)


class UdpDelivery:
    """In datagrams, to ports of our own for each track."""

    def __init__(
        self,
        connection: RtspConnection,
        camera_ip: str,
        limit: BitRateLimit,
        clock_ns: Callable[[], int],
    ) -> None:
        self.reading: ReadInTurns | None = None
        self._connection = connection
        self._camera_ip = camera_ip
        self._limit = limit
        self._clock_ns = clock_ns
        self._ports: list[UdpTrack] = []
        self._answers: list[tuple[UdpTrack, UdpTransport]] = []

    async def set_up(self, session: RtspSession, url: str, track: TrackReceiver) -> None:
        ports = UdpTrack(self._camera_ip, track.clock_rate, self._limit, self._connection.end, self._clock_ns)
        self._ports.append(ports)
        await ports.open(self._connection.local_ip)
        ports.take_packet, ports.take_control = track.take_own, track.take_control
        wanted = UdpTransport(client_ports=(ports.rtp_port, ports.rtp_port + 1))
        answer = parse_udp_answer(await session.set_up(url, str(wanted)), wanted)
        if answer is None:
            raise UnsupportedError("the camera does not send over UDP")
        self._answers.append((ports, answer))

    def start(self, receiver: MediaReceiver) -> None:
        del receiver  # the ports know their tracks
        for ports, answer in self._answers:
            ports.start(answer.server_ports)

    def close(self) -> None:
        for ports in self._ports:
            ports.close()
