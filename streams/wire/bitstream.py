"""What H.264 and H.265 share below the NAL unit: bits, Exp-Golomb codes, escaping, start codes."""

from typing import Final

from streams.errors import LimitExceededError, ProtocolError
from streams.media import MAX_NAL_UNITS

MAX_GOLOMB_ZEROS: Final = 32
"""ue(v) codes 32 bits at most (H.264 §9.1)."""

_START_CODE: Final = b"\x00\x00\x01"


class BitReader:
    """Reads an RBSP from its first bit on. Raises ProtocolError when it ends too early."""

    def __init__(self, rbsp: bytes) -> None:
        self._value = int.from_bytes(rbsp, "big")
        self._remaining = 8 * len(rbsp)

    def bits(self, count: int) -> int:
        """u(n): an unsigned integer of `count` bits."""
        self._remaining -= count
        if self._remaining < 0:
            raise ProtocolError("bit stream ends too early")
        return (self._value >> self._remaining) & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.bits(1) == 1

    def ue(self, maximum: int = (1 << MAX_GOLOMB_ZEROS) - 2) -> int:
        """An unsigned Exp-Golomb code, at most `maximum` (inclusive); more is a ProtocolError."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
            if zeros > MAX_GOLOMB_ZEROS:
                raise ProtocolError("malformed Exp-Golomb code")
        value = (1 << zeros) - 1 + self.bits(zeros)
        if value > maximum:
            raise ProtocolError("syntax element out of range")
        return value

    def se(self) -> int:
        """A signed Exp-Golomb code (H.264 §9.1.1)."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def unescape(nal_unit_payload: bytes) -> bytes:
    """The RBSP: without emulation prevention bytes (H.264 §7.3.1, H.265 §7.3.1.1)."""
    return nal_unit_payload.replace(b"\x00\x00\x03", b"\x00\x00")


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream (H.264 Annex B), without start codes and trailing zeros.

    Raises ProtocolError if there are bytes before the first start code, LimitExceededError for more than
    MAX_NAL_UNITS NAL units.
    """
    start = data.find(_START_CODE)
    if start < 0 or data[:start].strip(b"\x00"):
        raise ProtocolError("no start code at the beginning of the byte stream")
    pieces = data[start + len(_START_CODE) :].split(_START_CODE, MAX_NAL_UNITS)
    if len(pieces) > MAX_NAL_UNITS:
        raise LimitExceededError("too many NAL units in one byte stream")
    # A NAL unit never ends in a zero byte: these belong to the next start code or are trailing_zero_8bits.
    return [nal_unit for piece in pieces if (nal_unit := piece.rstrip(b"\x00"))]
