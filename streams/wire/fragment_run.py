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
_TIMESTAMP_SHIFT: Final = 32
_SSRC_MASK: Final = 0xFFFFFFFF
_FU_TYPE: Final = 0x3F
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
    """Finds the runs of one track in what comes over an RTSP connection. Keeps nothing between calls."""

    def __init__(self, codec: Codec, channel: int, payload_type: int) -> None:
        """`channel`: of the track's packets in the connection (RFC 2326 §10.12)."""
        header_bytes = _PAYLOAD_HEADER_BYTES[codec]
        # "$" and channel; length; flags, marker, payload type and sequence number; timestamp and
        # synchronization source; payload header.
        self._packet = struct.Struct(f">HHIQ{header_bytes}s")
        self._start = _DOLLAR << 8 | channel
        self._kind = PLAIN << 24 | payload_type << 16
        self._payload_type = payload_type
        self._shortest = HEADER_BYTES + header_bytes
        # The payload's first byte, less what belongs to the fragmented NAL unit.
        self._mask, self._fragment = (0x1F, H264_FU_A) if codec is Codec.H264 else (0x7E, H265_FU << 1)

    def scan(self, data: bytes, position: int) -> FragmentRun | None:
        """The run of at least one fragment that begins at `position`, where a packet does; None if not."""
        head_bytes = self._packet.size
        if position + head_bytes > len(data):
            return None
        start, length, numbers, source, header = self._packet.unpack_from(data, position)
        stop = position + _INTERLEAVED_BYTES + length
        marker = numbers & _MARKER
        sequence = numbers & _SEQUENCE_MASK
        if (
            start != self._start
            or numbers != self._kind | marker | sequence
            or header[0] & self._mask != self._fragment
            or length <= self._shortest
            or stop > len(data)
        ):
            return None
        parts = [data[position + head_bytes : stop]]
        is_end = header[-1] & FU_END != 0
        if not is_end and not marker:
            stop, marker, is_end = self._follow(data, stop, sequence, source, header, parts)
        return FragmentRun(
            self._payload_type,
            sequence,
            source >> _TIMESTAMP_SHIFT,
            source & _SSRC_MASK,
            header,
            parts,
            is_end,
            marker != 0,
            stop - position - len(parts) * (_INTERLEAVED_BYTES + HEADER_BYTES),
            stop,
        )

    def _follow(
        self, data: bytes, stop: int, sequence: int, source: int, header: bytes, parts: list[bytes]
    ) -> tuple[int, int, bool]:
        """Add to `parts` what continues the fragment before `stop`; the new stop, marker and end."""
        unpack_from, head_bytes, shortest = self._packet.unpack_from, self._packet.size, self._shortest
        track, kind, end = self._start, self._kind, len(data)
        middle = header[:-1] + bytes((header[-1] & _FU_TYPE,))
        last = header[:-1] + bytes((header[-1] & _FU_TYPE | FU_END,))
        while stop + head_bytes <= end:
            start, length, numbers, next_source, next_header = unpack_from(data, stop)
            sequence = sequence + 1 & _SEQUENCE_MASK
            next_stop = stop + _INTERLEAVED_BYTES + length
            if next_stop > end or start != track or next_source != source or length <= shortest:
                break
            if next_header == middle and numbers == kind | sequence:
                parts.append(data[stop + head_bytes : next_stop])
                stop = next_stop
                continue
            if next_header == last and numbers & ~_MARKER == kind | sequence:
                parts.append(data[stop + head_bytes : next_stop])
                return next_stop, numbers & _MARKER, True
            break
        return stop, 0, False
