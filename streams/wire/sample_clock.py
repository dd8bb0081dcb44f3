"""The clock of a sound's samples, beside the stream's time line."""

from typing import Final

from streams.media import TIME_BASE_HZ

_TOLERATED_PER_SECOND: Final = 100


class SampleClock:
    """Counts samples without a gap as long as the time line agrees to 1/100 s.

    Time stamps that were rounded on their way, to 1/90,000 s or to RTMP's ms, would else make every unit
    overlap its neighbour or leave a hole, and players hear both.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._tolerance = sample_rate // _TOLERATED_PER_SECOND
        self._next: int | None = None

    def advance(self, pts: int, samples: int) -> int:
        """When a unit of `samples` begins, in samples; `pts` in `TIME_BASE_HZ`."""
        time = pts * self._sample_rate // TIME_BASE_HZ
        if self._next is not None and abs(time - self._next) <= self._tolerance:
            time = self._next
        self._next = time + samples
        return time
