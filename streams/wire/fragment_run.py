"""The fast path of the input: consecutive fragments of one NAL unit, read from the stream in one loop.

Nearly every packet of a camera is a fragment (FU-A, RFC 6184 §5.8; FU, RFC 7798 §4.4.3) that follows its
predecessor. Such a run is found here by comparing a few integers per packet, and means the same as one packet
with all its data: `Depacketizer.receive_run` takes it as that. Everything else, and every run that is
unexpected there, goes the general way packet by packet; both ways give the same access units.
"""

import struct
from collections.abc import Iterator
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
        self._followers: dict[bytes, tuple[bytes, bytes]] = {}

    def scan(self, data: bytes, position: int) -> FragmentRun | None:
        """The run of at least one fragment that begins at `position`, where a packet does; None if not."""
        unpack_from, head_bytes, end = self._packet.unpack_from, self._packet.size, len(data)
        first = position + head_bytes
        if first > end:
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
        middle, last = followers
        sequence_number, expected, parts = front & _SEQUENCE_MASK, front + 1, [data[first:stop]]
        is_end, marker = header[-1] & FU_END != 0, front & _MARKER
        # A run ends where the sequence numbers wrap: the next one begins there.
        while not is_end and not marker and expected & _SEQUENCE_MASK and (first := stop + head_bytes) <= end:
            front, next_source, next_header = unpack_from(data, stop)
            next_stop = stop + size
            if front != expected:
                # Nearly all are as long as the first; the last is not, and has the marker.
                if front & _NO_LENGTH != expected & _NO_LENGTH:
                    break
                next_stop = stop + _INTERLEAVED_BYTES + (front >> _LENGTH_SHIFT & _SEQUENCE_MASK)
            if next_source != source or not first < next_stop <= end:
                break
            if next_header == last:
                is_end, marker = True, front & _MARKER
            elif next_header != middle or front & _MARKER:
                break
            parts.append(data[first:next_stop])
            stop = next_stop
            expected += 1
        return FragmentRun(
            self._payload_type,
            sequence_number,
            source >> _TIMESTAMP_SHIFT,
            source & _SSRC_MASK,
            header,
            parts,
            is_end,
            marker != 0,
            stop - position - len(parts) * (_INTERLEAVED_BYTES + HEADER_BYTES),
            stop,
        )

    def _learn(self, header: bytes) -> tuple[bytes, bytes] | None:
        """The payload headers of the middle and the last fragment after one with this; None if it is none."""
        if header[0] & self._mask != self._fragment:
            return None
        if len(self._followers) == _MAX_LEARNED:
            self._followers.clear()
        kind = header[-1] & _FU_TYPE
        followers = header[:-1] + bytes((kind,)), header[:-1] + bytes((kind | FU_END,))
        self._followers[header] = followers
        return followers
