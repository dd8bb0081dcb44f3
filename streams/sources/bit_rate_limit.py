"""How much a camera may send."""

from typing import Final

from streams.errors import LimitExceededError

MIN_CHARGE_BYTES: Final = 1000
"""What the smallest packet or message counts: handling one costs as much, however small it is."""

_NS_PER_SECOND: Final = 1_000_000_000


class BitRateLimit:
    """A bit rate that must not be exceeded on average over a second: a leaky bucket of one second's bits."""

    def __init__(self, max_bit_rate_bps: int) -> None:
        self._max_bytes = max_bit_rate_bps // 8
        self._level_bytes = 0
        self._at_ns = 0

    def take(self, size_bytes: int, now_ns: int) -> None:
        """Count one packet or message. Raises LimitExceededError."""
        leaked = (now_ns - self._at_ns) * self._max_bytes // _NS_PER_SECOND
        self._at_ns = now_ns
        self._level_bytes = max(self._level_bytes - leaked, 0) + max(size_bytes, MIN_CHARGE_BYTES)
        if self._level_bytes > self._max_bytes:
            raise LimitExceededError("the camera sends more than its bit rate allows")
