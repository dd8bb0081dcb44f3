"""The bit rate of one stream over the last minute."""

import math

WINDOW_SECONDS = 60
_PERCENTILE = 0.95
_NS_PER_SECOND = 1_000_000_000


class BitRate:
    """Bytes per second of the last minute. Times are of the monotonic clock, in ns.

    Counting is one sum for each access unit; the seconds' parts of it are taken when the next second begins.
    """

    def __init__(self) -> None:
        self._total_bytes = 0
        self._earlier_bytes = 0
        self._bytes = [0] * WINDOW_SECONDS
        self._first_second: int | None = None
        self._second = -1
        self._ends_ns = 0

    def count(self, size_bytes: int, now_ns: int) -> None:
        if now_ns >= self._ends_ns:
            self._advance(now_ns // _NS_PER_SECOND)
        self._total_bytes += size_bytes

    def p95_bps(self, now_ns: int) -> int:
        """The rate that 95 % of the last minute's whole seconds did not exceed; silent ones count as 0."""
        second = now_ns // _NS_PER_SECOND
        if self._first_second is None:
            return 0
        self._advance(second)
        # The first second is not whole: nobody knows when in it the stream began.
        oldest = max(self._first_second + 1, self._second - WINDOW_SECONDS + 1)
        if oldest >= self._second:
            return 0
        start, end = oldest % WINDOW_SECONDS, self._second % WINDOW_SECONDS
        rates = self._bytes[start:end] if start < end else self._bytes[start:] + self._bytes[:end]
        rates.sort()
        return 8 * rates[math.ceil(_PERCENTILE * len(rates)) - 1]

    def _advance(self, second: int) -> None:
        if self._first_second is None:
            self._first_second = self._second = second
        self._bytes[self._second % WINDOW_SECONDS] += self._total_bytes - self._earlier_bytes
        self._earlier_bytes = self._total_bytes
        for passed in range(max(self._second + 1, second - WINDOW_SECONDS + 1), second + 1):
            self._bytes[passed % WINDOW_SECONDS] = 0
        self._second = max(self._second, second)
        self._ends_ns = (self._second + 1) * _NS_PER_SECOND
