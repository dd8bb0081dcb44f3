"""RTP packets (RFC 3550 §5) and the two counters of a receiver: sequence numbers and timestamps."""

import struct
from typing import Final

import msgspec

from streams.errors import ProtocolError

HEADER_BYTES: Final = 12
VERSION: Final = 2
MAX_DROPOUT: Final = 3000
"""A gap that is still believed to be loss (RFC 3550 §A.1)."""
MAX_MISORDER: Final = 100
"""How late a packet may be to count as misordered instead of as a restarted sender (RFC 3550 §A.1)."""
DISCARD: Final = -1
"""`SequenceTracker.update`'s answer for a packet that must not be used."""

_HEADER: Final = struct.Struct(">BBHII")
_EXTENSION: Final = struct.Struct(">HH")
PLAIN: Final = VERSION << 6
"""No padding, extension or contributing sources."""
_FLAG_PADDING: Final = 0x20
_FLAG_EXTENSION: Final = 0x10
_SEQUENCE_MASK: Final = 0xFFFF
_TIMESTAMP_MASK: Final = 0xFFFFFFFF


class RtpPacket(msgspec.Struct, frozen=True, gc=False):
    """`timestamp`: 32 bits of the payload's clock, from a random offset. `payload`: without padding."""

    payload_type: int
    marker: bool
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse_rtp(data: bytes) -> RtpPacket:
    """One packet (RFC 3550 §5.1); header extensions and contributing sources are skipped.

    Raises ProtocolError and nothing else.
    """
    if len(data) < HEADER_BYTES:
        raise ProtocolError("RTP packet is too short")
    flags, kind, sequence_number, timestamp, ssrc = _HEADER.unpack_from(data)
    if flags == PLAIN:
        payload = data[HEADER_BYTES:]
    elif flags >> 6 == VERSION:
        payload = _payload_of_long_header(data, flags)
    else:
        raise ProtocolError("not an RTP packet")
    return RtpPacket(kind & 0x7F, kind > 0x7F, sequence_number, timestamp, ssrc, payload)  # noqa: PLR2004


def _payload_of_long_header(data: bytes, flags: int) -> bytes:
    start, end = HEADER_BYTES + 4 * (flags & 0x0F), len(data)
    if flags & _FLAG_EXTENSION:
        if start + _EXTENSION.size > end:
            raise ProtocolError("RTP header extension is cut off")
        _, words = _EXTENSION.unpack_from(data, start)
        start += _EXTENSION.size + 4 * words
    if flags & _FLAG_PADDING:
        if data[-1] == 0:
            raise ProtocolError("RTP padding of length zero")
        end -= data[-1]
    if start > end:
        raise ProtocolError("RTP header is longer than its packet")
    return data[start:end]


def serialize_rtp(packet: RtpPacket) -> bytes:
    """The packet's bytes, without padding, extension or contributing sources."""
    header = _HEADER.pack(
        PLAIN,
        packet.marker << 7 | packet.payload_type,
        packet.sequence_number,
        packet.timestamp,
        packet.ssrc,
    )
    return header + packet.payload


class SequenceTracker:
    """Counts what is missing, after RFC 3550 §A.1, without its probation: RTSP has announced the source.

    `expected`: the next sequence number; None before the first packet. `lost`: packets that never came.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.expected: int | None = None
        self._after_jump: int | None = None

    def update(self, sequence_number: int) -> int:
        """How many packets are missing right before this one, or DISCARD if it is late or a duplicate.

        A jump too large to be loss is believed from the second consecutive packet on, as a restarted sender.
        """
        if sequence_number == self.expected:
            self.expected = (sequence_number + 1) & _SEQUENCE_MASK
            return 0
        return self._update_after_gap(sequence_number)

    def skip(self, count: int) -> None:
        """So many packets have come after the last one, in order."""
        assert self.expected is not None  # noqa: S101 (`update` comes first)
        self.expected = (self.expected + count) & _SEQUENCE_MASK

    def restart(self) -> None:
        """The next packet comes from another sender: whatever its number is, nothing is missing before it."""
        self.expected = self._after_jump = None

    def _update_after_gap(self, sequence_number: int) -> int:
        missing = 0
        if self.expected is not None:
            missing = (sequence_number - self.expected) & _SEQUENCE_MASK
            if missing > _SEQUENCE_MASK - MAX_MISORDER:
                return DISCARD
            if missing > MAX_DROPOUT:
                if sequence_number != self._after_jump:
                    self._after_jump = (sequence_number + 1) & _SEQUENCE_MASK
                    return DISCARD
                missing = 1  # the packet before this one, discarded while the jump was in doubt
        self._after_jump = None
        self.expected = (sequence_number + 1) & _SEQUENCE_MASK
        self.lost += missing
        return missing


class TimestampUnwrapper:
    """Continues 32-bit timestamps beyond their wrap, which at 90 kHz comes every 13 hours.

    `last`: the newest, unwrapped; None before the first.
    """

    def __init__(self) -> None:
        self.last: int | None = None

    def unwrap(self, timestamp: int) -> int:
        """The timestamp nearest to the previous one that has these lowest 32 bits."""
        if self.last is None:
            self.last = timestamp
            return timestamp
        difference = (timestamp - self.last + 0x80000000 & _TIMESTAMP_MASK) - 0x80000000
        self.last += difference
        return self.last
