"""The fast path of the input: consecutive fragments of one NAL unit, read from the stream in one loop.

Nearly every packet of a camera is a fragment (FU-A, RFC 6184 §5.8; FU, RFC 7798 §4.4.3) that follows its
predecessor. Such a run is found here by comparing a few integers per packet, and means the same as one packet
with all its data: `Depacketizer.receive_run` takes it as that. Everything else, and every run that is
unexpected there, goes the general way packet by packet; both ways give the same access units.
"""

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from streams.media import Codec
from streams.wire.rtp import HEADER_BYTES, PLAIN, RtpPacket

FU_START: Final = 0x80
FU_END: Final = 0x40
H264_FU_A: Final = 28
H265_FU: Final = 49

_INTERLEAVED_BYTES: Final = 4
_DOLLAR: Final = 0x24
_MARKER: Final = 0x80 << 16
_SEQUENCE_MASK: Final = 0xFFFF
_LENGTH_SHIFT: Final = 32
_NO_LENGTH: Final = ~(0xFFFF << _LENGTH_SHIFT | _MARKER)
_TRACK: Final = _NO_LENGTH & ~_SEQUENCE_MASK
_TIMESTAMP_SHIFT: Final = 32
_SSRC_MASK: Final = 0xFFFFFFFF
_FU_TYPE: Final = 0x3F
_MAX_LEARNED: Final = 64
"""A camera sends two or three kinds of NAL units in fragments."""
_PAYLOAD_HEADER_BYTES: Final = {Codec.H264: 2, Codec.H265: 3}
"""With the FU header, its last byte."""


class FragmentRun(msgspec.Struct, frozen=True, gc=False):
    """Packets with consecutive sequence numbers, one timestamp and one synchronization source.

    `payload_header`: of the first, whose last byte is the FU header. `parts`: each packet's piece of the NAL
    unit. `is_end`, `marker`: of the last packet; no other has them. `size_bytes`: all payloads together.
    `stop`: where in the scanned bytes the run ends.
    """

    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload_header: bytes
    parts: list[bytes]
    is_end: bool
    marker: bool
    size_bytes: int
    stop: int

    def packets(self) -> Iterator[RtpPacket]:
        """The run, packet by packet."""
        indicator, fu_header = self.payload_header[:-1], self.payload_header[-1]
        for index, part in enumerate(self.parts):
            is_last = index == len(self.parts) - 1
            flags = fu_header & FU_START if index == 0 else 0
            if is_last and self.is_end:
                flags |= FU_END
            yield RtpPacket(
                self.payload_type,
                is_last and self.marker,
                self.sequence_number + index & _SEQUENCE_MASK,
                self.timestamp,
                self.ssrc,
                indicator + bytes((flags | fu_header & _FU_TYPE,)) + part,
            )


class FragmentScanner:
    """Finds the runs of one track in what comes over an RTSP connection. Keeps nothing but a table."""

    def __init__(self, codec: Codec, channel: int, payload_type: int) -> None:
        """`channel`: of the track's packets in the connection (RFC 2326 §10.12)."""
        header_bytes = _PAYLOAD_HEADER_BYTES[codec]
        # "$", channel, length, flags, marker, payload type and sequence number, of which the next packet's
        # is by one larger; timestamp and synchronization source; payload header.
        self._packet = struct.Struct(f">QQ{header_bytes}s")
        self._track = _DOLLAR << 56 | channel << 48 | PLAIN << 24 | payload_type << 16
        self._payload_type = payload_type
        # The payload's first byte, less what belongs to the fragmented NAL unit.
        self._mask, self._fragment = (0x1F, H264_FU_A) if codec is Codec.H264 else (0x7E, H265_FU << 1)
        self._followers: dict[bytes, tuple[bytes, bytes, bool]] = {}

    def scan(self, data: bytes, position: int) -> FragmentRun | None:
        """The run of at least one fragment that begins at `position`, where a packet does; None if not."""
        unpack_from, head_bytes, end = self._packet.unpack_from, self._packet.size, len(data)
        if (first := position + head_bytes) > end:
            return None
        front, source, header = unpack_from(data, position)
        size = _INTERLEAVED_BYTES + (front >> _LENGTH_SHIFT & _SEQUENCE_MASK)
        stop = position + size
        if (
            not first < stop <= end
            or front & _TRACK != self._track
            or (followers := self._followers.get(header) or self._learn(header)) is None
        ):
            return None
        middle, last, is_end = followers
        number, marker, parts = front & _SEQUENCE_MASK, front & _MARKER, [data[first:stop]]
        expected, next_source, next_header = front + 1, source, header
        while not (is_end or marker):
            # Nearly all are as long as the one before: these are compared and cut out in one step.
            latest = end - size
            unpack_whole = _unpack_whole(head_bytes, size) if stop <= latest else unpack_from
            while stop <= latest and expected & _SEQUENCE_MASK:
                front, next_source, next_header, part = unpack_whole(data, stop)
                if front != expected or next_header != middle or next_source != source:
                    break
                parts.append(part)
                stop, expected = stop + size, expected + 1
            else:
                # A run ends where the sequence numbers wrap: the next one begins there.
                if stop + head_bytes > end or not expected & _SEQUENCE_MASK:
                    break
                front, next_source, next_header = unpack_from(data, stop)
            # The last has the marker, and is shorter.
            size = _INTERLEAVED_BYTES + (front >> _LENGTH_SHIFT & _SEQUENCE_MASK)
            first, next_stop = stop + head_bytes, stop + size
            if (front ^ expected) & _NO_LENGTH or next_source != source or not first < next_stop <= end:
                break
            if next_header == last:
                is_end, marker = True, front & _MARKER
            elif next_header != middle or front & _MARKER:
                break
            parts.append(data[first:next_stop])
            stop, expected = next_stop, front + 1
        timestamp, ssrc = source >> _TIMESTAMP_SHIFT, source & _SSRC_MASK
        size_bytes = stop - position - len(parts) * (_INTERLEAVED_BYTES + HEADER_BYTES)
        return FragmentRun(
            self._payload_type, number, timestamp, ssrc, header, parts, is_end, marker != 0, size_bytes, stop
        )

    def _learn(self, header: bytes) -> tuple[bytes, bytes, bool] | None:
        """What follows a fragment with this payload header: that of the middle ones, and of the last one.

        And whether it is itself the last. None if it is no fragment's.
        """
        if header[0] & self._mask != self._fragment:
            return None
        if len(self._followers) == _MAX_LEARNED:
            self._followers.clear()
        indicator, kind, is_end = header[:-1], header[-1] & _FU_TYPE, header[-1] & FU_END != 0
        followers = indicator + bytes((kind,)), indicator + bytes((kind | FU_END,)), is_end
        self._followers[header] = followers
        return followers


@lru_cache(maxsize=1024)
def _unpack_whole(head_bytes: int, size: int) -> Callable[[bytes, int], tuple[int, int, bytes, bytes]]:
    """What takes a packet of `size` bytes apart: what `FragmentScanner._packet` does, and then its part."""
    header_bytes = head_bytes - 2 * struct.calcsize(">Q")
    return struct.Struct(f">QQ{header_bytes}s{size - head_bytes}s").unpack_from
