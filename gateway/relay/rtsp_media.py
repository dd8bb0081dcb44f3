"""Where an RTSP viewer's packets go: into the RTSP connection, or over UDP.

The hub's container "rtp" is a sequence of interleaved packets, shared by all viewers: pictures on channel 0,
sound on channel 2. Over TCP they are written as they are to a client that took these channels for all there
is; for every other client they are taken apart, once for all viewers of a picture.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.relay.rtsp_ports import PortPair, send
from gateway.relay.sessions import OverReason, ViewerSession
from gateway.relay.viewer import ViewerReader, ViewerSettings, ViewerSocket
from streams.hub import ReaderFailedError, Stream
from streams.media import TIME_BASE_HZ, Track
from streams.mux.rtp import AUDIO_CHANNEL, VIDEO_CHANNEL
from streams.wire.rtcp import (
    SenderReport,
    ntp_timestamp,
    serialize_bye,
    serialize_canonical_name,
    serialize_sender_report,
)
from streams.wire.rtp import HEADER_BYTES
from streams.wire.rtsp import INTERLEAVED_HEADER_BYTES, serialize_interleaved

UDP_BURST_BYTES = 128 * 1024
UDP_BURST_SECONDS = 0.01
"""A new viewer gets the pictures since the last keyframe at this pace: all at once, they would be lost."""

_CANONICAL_NAME = "custos"
_WORD = 0xFFFFFFFF
_HEADERS_BYTES = INTERLEAVED_HEADER_BYTES + HEADER_BYTES


class FirstPacket(msgspec.Struct, frozen=True):
    """The header of a medium's first packet (RFC 3550 §5.1), for RTP-Info and the reports."""

    sequence_number: int
    timestamp: int
    ssrc: int


class Split(msgspec.Struct, frozen=True, gc=False):
    """Some of the container's bytes: whole packets with their interleaved headers, and what is left over.

    `counts`: channel, packets and octets of payload (RFC 3550 §6.4.1) for each channel that has packets.
    """

    packets: tuple[tuple[int, memoryview], ...]
    rest: bytes
    counts: tuple[tuple[int, int, int], ...] = ()


class Splitter:
    """Remembers the last answer: all viewers of a camera are written the same object, one after the other."""

    def __init__(self) -> None:
        self._data = b""
        self._split = Split((), b"")

    def split(self, data: bytes) -> Split:
        if data is not self._data:
            self._data, self._split = data, split_packets(data)
        return self._split


def split_packets(data: bytes) -> Split:
    """Cut at the packets' own lengths (RFC 2326 §10.12). Never raises."""
    packets: list[tuple[int, memoryview]] = []
    counts: dict[int, tuple[int, int]] = {}
    view = memoryview(data)
    position, end = 0, len(data)
    while position + INTERLEAVED_HEADER_BYTES <= end:
        stop = position + INTERLEAVED_HEADER_BYTES + (data[position + 2] << 8 | data[position + 3])
        if stop > end:
            break
        channel = data[position + 1]
        packets.append((channel, view[position:stop]))
        number, octets = counts.get(channel, (0, 0))
        counts[channel] = number + 1, octets + max(0, stop - position - _HEADERS_BYTES)
        position = stop
    return Split(tuple(packets), data[position:], tuple((c, n, o) for c, (n, o) in counts.items()))


class RtpTransport(ABC):
    """A `ReaderTransport` for the container "rtp"; counts what really goes out.

    `media`: the container's channels that the client has set up. Until `release`, packets are held, so that
    the answer to PLAY goes first and can say what they begin with (`first`, by channel).
    """

    def __init__(self, media: Sequence[int], splitter: Splitter) -> None:
        self.first: dict[int, FirstPacket] = {}
        self.bytes_sent = 0
        self.dropped_access_units = 0
        self._splitter = splitter
        self._packets = dict.fromkeys(media, 0)
        self._octets = dict.fromkeys(media, 0)
        self._rest = b""
        self._held: list[tuple[bytes, Split]] | None = []
        self._held_bytes = 0

    def write(self, data: bytes) -> None:
        """Raises ReaderFailedError("lost") if the connection is closed."""
        if self._rest:
            data = self._rest + data
        split = self._splitter.split(data)
        self._rest = split.rest
        if len(self.first) < len(self._packets):
            self._look_at(split)
        if self._held is None:
            self._send(data, split)
        else:
            self._held.append((data, split))
            self._held_bytes += len(data)

    @property
    def plain_write(self) -> Callable[[bytes], None]:
        return self.write

    def write_marked(self, head: bytes, tail: bytes) -> None:
        """Raises ReaderFailedError("lost") if the connection is closed."""
        self.write(head)
        self.write(tail)

    def backlog_bytes(self) -> int:
        return self._held_bytes

    def release(self) -> None:
        """Send what was held, and from now on at once."""
        held, self._held = self._held or [], None
        self._held_bytes = 0
        for data, split in held:
            self._send(data, split)

    def forget_first(self) -> None:
        """The track has changed, and with it the sources of the packets."""
        self.first.clear()

    def report(self, ticks: int, clock_rates: Mapping[int, int], unix_ns: int) -> None:
        """Say which RTP timestamps belong to now (RFC 3550 §6.4.1). `ticks`: now, in `TIME_BASE_HZ`."""
        ntp = ntp_timestamp(unix_ns)
        for channel, first in self.first.items():
            report = SenderReport(
                ssrc=first.ssrc,
                ntp_timestamp=ntp,
                rtp_timestamp=ticks * clock_rates[channel] // clock_rates[VIDEO_CHANNEL] & _WORD,
                packet_count=self._packets[channel] & _WORD,
                octet_count=self._octets[channel] & _WORD,
            )
            name = serialize_canonical_name(first.ssrc, _CANONICAL_NAME)
            self._send_control(channel, serialize_sender_report(report) + name)

    def say_goodbye(self, reason: str) -> None:
        for channel, first in self.first.items():
            self._send_control(channel, serialize_bye(first.ssrc, reason))

    @abstractmethod
    def close(self) -> None:
        """Stop what goes on by itself; the sockets stay their owner's."""

    @abstractmethod
    def _send(self, data: bytes, split: Split) -> None: ...

    @abstractmethod
    def _send_control(self, channel: int, packet: bytes) -> None: ...

    def _count(self, split: Split) -> None:
        for channel, number, octets in split.counts:
            if channel in self._packets:
                self._packets[channel] += number
                self._octets[channel] += octets

    def _look_at(self, split: Split) -> None:
        for channel, packet in split.packets:
            if channel in self._packets and channel not in self.first:
                header = packet[INTERLEAVED_HEADER_BYTES:]
                self.first[channel] = FirstPacket(
                    int.from_bytes(header[2:4]), int.from_bytes(header[4:8]), int.from_bytes(header[8:12])
                )


class InterleavedTransport(RtpTransport):
    """Into the RTSP connection (RFC 2326 §10.12). `channels`: the client's (RTP, RTCP) by the container's."""

    def __init__(
        self,
        socket: ViewerSocket,
        channels: Mapping[int, tuple[int, int]],
        *,
        has_sound: bool,
        splitter: Splitter,
    ) -> None:
        super().__init__(list(channels), splitter)
        self._socket = socket
        self._channels = channels
        everything = {VIDEO_CHANNEL, AUDIO_CHANNEL} if has_sound else {VIDEO_CHANNEL}
        are_same = all(own == rtp for own, (rtp, _) in channels.items())
        self._is_plain = are_same and channels.keys() == everything

    def backlog_bytes(self) -> int:
        return self._held_bytes + self._socket.backlog_bytes()

    def close(self) -> None:
        """Nothing goes on by itself."""

    def _send(self, data: bytes, split: Split) -> None:
        if self._is_plain:
            # Packets stay whole: what is left over comes back at the beginning of the next write.
            data = data[: len(data) - len(split.rest)] if split.rest else data
        else:
            data = b"".join(
                [
                    part
                    for channel, packet in split.packets
                    if channel in self._channels
                    for part in (b"$", self._channels[channel][0].to_bytes(), packet[2:])
                ]
            )
        self._count(split)
        if data:
            self.bytes_sent += len(data)
            self._socket.write(data)

    def _send_control(self, channel: int, packet: bytes) -> None:
        self._socket.write(serialize_interleaved(self._channels[channel][1], packet))


class UdpTransport(RtpTransport):
    """Datagrams; what the kernel does not take at once is dropped and counted. `ports`: by channel."""

    def __init__(self, ports: Mapping[int, PortPair], splitter: Splitter) -> None:
        super().__init__(list(ports), splitter)
        self._ports = ports
        self._pacer: asyncio.TimerHandle | None = None

    def release(self) -> None:
        """Send what was held at a pace that arrives; what comes meanwhile waits behind it."""
        burst = 0
        while self._held and burst < UDP_BURST_BYTES:
            data, split = self._held.pop(0)
            self._held_bytes -= len(data)
            burst += len(data)
            self._send(data, split)
        if self._held:
            self._pacer = asyncio.get_running_loop().call_later(UDP_BURST_SECONDS, self.release)
        else:
            self._held, self._pacer = None, None

    def close(self) -> None:
        if self._pacer is not None:
            self._pacer.cancel()

    def _send(self, data: bytes, split: Split) -> None:  # noqa: ARG002 - datagrams are the packets
        for channel, packet in split.packets:
            if (pair := self._ports.get(channel)) is None:
                continue
            datagram = packet[INTERLEAVED_HEADER_BYTES:]
            if not send(pair.rtp, datagram):
                self.dropped_access_units += 1
                return
            self.bytes_sent += len(datagram)
            self._packets[channel] += 1
            self._octets[channel] += len(datagram) - HEADER_BYTES

    def _send_control(self, channel: int, packet: bytes) -> None:
        send(self._ports[channel].rtcp, packet)


class RtspReader(ViewerReader):
    """A viewer's bounded reader. A change that RTP cannot tell in band ends the session."""

    def __init__(
        self, session: ViewerSession, stream: Stream, transport: RtpTransport, settings: ViewerSettings
    ) -> None:
        super().__init__(session, stream, transport, settings)
        session.counts = lambda: (
            transport.bytes_sent,
            self.dropped_access_units + transport.dropped_access_units,
        )
        self._rtp = transport
        self._described = described(stream.track)
        self._of_stream = stream

    def restart(self, init: bytes, mime: str) -> None:
        """Raises ReaderFailedError if codec or sound are no longer what the description said."""
        if described(self._of_stream.track) != self._described:
            raise ReaderFailedError(OverReason.FAILED)
        super().restart(init, mime)
        self._rtp.forget_first()


def described(track: Track | None) -> tuple[object, ...]:
    """What of a track a session description fixes; parameter sets come again in band."""
    return () if track is None else (track.codec, track.audio)


def ticks_now(received_ns: int, pts: int) -> int:
    """Where the stream's time line stands now, from a keyframe and when it came."""
    return pts + (time.monotonic_ns() - received_ns) * TIME_BASE_HZ // 1_000_000_000
