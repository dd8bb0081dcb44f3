"""When a keyframe is due for whom: pure bookkeeping, no clock and no I/O. Times are monotonic nanoseconds."""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import msgspec

from analytics.events import Event
from analytics.messages import AnalysisOrder, JpegOrder
from streams.media import AccessUnit, Track

_TOLERANCE = 4
"""A keyframe that comes this fraction of the period early counts: cameras' intervals are not exact."""
_MAX_TOLERANCE_NS = 500_000_000
_MEASURED_SAMPLES = 9


@dataclass(frozen=True)
class Keyframe:
    """`number` counts the camera's keyframes since its tap was opened."""

    number: int
    track: Track
    unit: AccessUnit


class Schedule:
    """The samples that one consumer wants of one camera: every `period_ns`, as far as keyframes allow."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._tolerance_ns = min(period_ns // _TOLERANCE, _MAX_TOLERANCE_NS)
        self._last_number = 0
        self._taken: deque[int] = deque(maxlen=_MEASURED_SAMPLES)
        self.due_ns = 0
        self.dropped = 0
        """Due keyframes that a newer one replaced before they could be worked on."""

    def wants(self, keyframe: Keyframe) -> bool:
        is_new = keyframe.number > self._last_number
        return is_new and keyframe.unit.received_ns >= self.due_ns - self._tolerance_ns

    def take(self, keyframe: Keyframe) -> None:
        """The keyframe is dealt with. The next one is due a period after this one was, if it is not late."""
        at_ns = keyframe.unit.received_ns
        self._last_number = keyframe.number
        self._taken.append(at_ns)
        self.due_ns += self._period_ns
        if self.due_ns <= at_ns:
            self.due_ns = at_ns + self._period_ns

    @property
    def achieved_period_seconds(self) -> float | None:
        """The mean of the last samples' intervals; None before the second sample."""
        if len(self._taken) < 2:  # noqa: PLR2004 (an interval has two ends)
            return None
        return (self._taken[-1] - self._taken[0]) / (len(self._taken) - 1) / 1e9


class AnalysisStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an analysis is doing. `error`: a stable code, None while it works. Counts are since its start."""

    analysis: str
    achieved_period_seconds: float | None
    error: str | None
    samples: int
    dropped_keyframes: int


@dataclass
class AnalysisDemand:
    """One running analysis, as the worker knows it."""

    order: AnalysisOrder
    schedule: Schedule
    on_event: Callable[[Event], None]
    on_status: Callable[[AnalysisStatus], None]
    samples: int = 0
    error: str | None = None
    reported: AnalysisStatus | None = None
    reported_ns: int = 0

    def status(self) -> AnalysisStatus:
        return AnalysisStatus(
            analysis=self.order.analysis,
            achieved_period_seconds=self.schedule.achieved_period_seconds,
            error=self.error,
            samples=self.samples,
            dropped_keyframes=self.schedule.dropped,
        )


@dataclass
class FrameDemand:
    """One subscription to sampled pictures. `deliver` gets each keyframe and its JPEG."""

    order: JpegOrder
    schedule: Schedule
    deliver: Callable[[Keyframe, bytes], None]
    end: Callable[[], None]


@dataclass(eq=False)
class Snapshot:
    """One picture, wanted now."""

    order: JpegOrder
    resolve: Callable[[bytes], None]
    refuse: Callable[[str], None]


@dataclass(frozen=True)
class Batch:
    """All that is done with one keyframe at once. `jpegs`: the distinct ones, each encoded once."""

    keyframe: Keyframe
    analyses: list[AnalysisDemand]
    frames: list[FrameDemand]
    snapshots: list[Snapshot]
    jpegs: list[JpegOrder]

    def jpeg(self, jpegs: list[bytes], order: JpegOrder) -> bytes:
        return jpegs[self.jpegs.index(order)]


@dataclass
class Demands:
    """Everything that is wanted of one camera."""

    analyses: dict[str, AnalysisDemand] = field(default_factory=dict)
    frames: dict[Hashable, FrameDemand] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.analyses or self.frames or self.snapshots)

    def deadline_ns(self, keyframe: Keyframe) -> int | None:
        """When the keyframe should have been worked on, None if nobody wants it. A snapshot comes first."""
        if self.snapshots:
            return 0
        due = (schedule.due_ns for schedule in self._schedules() if schedule.wants(keyframe))
        return min(due, default=None)

    def replace(self, keyframe: Keyframe) -> int:
        """The keyframe is lost to a newer one; returns how many consumers wanted it."""
        lost = [schedule for schedule in self._schedules() if schedule.wants(keyframe)]
        for schedule in lost:
            schedule.dropped += 1
        return len(lost)

    def batch(self, keyframe: Keyframe, *, max_analyses: int, max_jpegs: int) -> Batch | None:
        """What is to be done with the keyframe now; what exceeds the limits is due again at once."""
        analyses = [demand for demand in self.analyses.values() if demand.schedule.wants(keyframe)]
        frames = [demand for demand in self.frames.values() if demand.schedule.wants(keyframe)]
        wanted: list[Snapshot | FrameDemand] = [
            *self.snapshots,
            *sorted(frames, key=lambda demand: demand.schedule.due_ns),
        ]
        jpegs = list(dict.fromkeys(demand.order for demand in wanted))[:max_jpegs]
        batch = Batch(
            keyframe,
            sorted(analyses, key=lambda demand: demand.schedule.due_ns)[:max_analyses],
            [demand for demand in frames if demand.order in jpegs],
            [demand for demand in self.snapshots if demand.order in jpegs],
            jpegs,
        )
        return batch if batch.analyses or batch.jpegs else None

    def _schedules(self) -> list[Schedule]:
        analyses = [demand.schedule for demand in self.analyses.values()]
        return analyses + [demand.schedule for demand in self.frames.values()]
