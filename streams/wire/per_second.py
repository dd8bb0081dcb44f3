"""What a peer may do only so often within a second."""

from typing import Final

_NS_PER_SECOND: Final = 1_000_000_000


class PerSecond:
    """Counts up to `maximum` within a second, which begins with the first that comes after the last one."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._since_ns = 0
        self._count = 0

    def take(self, count: int, now_ns: int) -> bool:
        """So many more at this time of a monotonic clock; False if they are too many."""
        if now_ns - self._since_ns >= _NS_PER_SECOND:
            self._since_ns, self._count = now_ns, 0
        self._count += count
        return self._count <= self._maximum
