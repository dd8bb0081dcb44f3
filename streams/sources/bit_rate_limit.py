"""How much a camera may send."""

from typing import Final

from streams.errors import LimitExceededError

MIN_CHARGE_BYTES: Final = 1000
"""What a packet or message counts at least: handling one costs as much, however small it is."""

_NS_PER_SECOND: Final = 1_000_000_000


class BitRateLimit:
    """A bit rate that must not be exceeded in any second, or period of so many, one after the other."""

    def __init__(self, max_bit_rate_bps: int, seconds: int = 1) -> None:
        self._max_bytes = max_bit_rate_bps // 8 * seconds
        self._period_ns = seconds * _NS_PER_SECOND
        self._bytes = 0
        self._ends_ns = 0

    def take(self, size_bytes: int, now_ns: int) -> None:
        """Count what came. Raises LimitExceededError."""
        if now_ns >= self._ends_ns:
            self._bytes, self._ends_ns = 0, now_ns + self._period_ns
        self._bytes += size_bytes
        if self._bytes > self._max_bytes:
            raise LimitExceededError("the camera sends more than its bit rate allows")
