"""Taps of cameras: each keeps the newest keyframe of one stream and what is wanted of it."""

import heapq
import itertools
from collections.abc import Callable
from typing import Protocol

from analytics.sampling import Demands, Keyframe
from streams.media import AccessUnit, Track


class TappedStream(Protocol):
    """What a tap needs of a `streams.hub.Stream`."""

    last_random_access: tuple[Track, AccessUnit] | None

    def subscribe_units(self, reader: "Tap") -> None: ...

    def unsubscribe(self, reader: "Tap") -> None: ...


class Tap:
    """A `UnitReader` of one camera's stream. `deaths`: of the process, in a row, by its keyframes."""

    def __init__(self, camera_id: str, stream: TappedStream, offer: Callable[["Tap"], None]) -> None:
        self.camera_id = camera_id
        self.stream = stream
        self.demands = Demands()
        self.newest: Keyframe | None = None
        self.is_queued = False
        self.at_work: Keyframe | None = None
        self.deaths = 0
        self.undecodable = 0
        self.quarantined_until_ns = 0
        self._offer = offer
        self._track: Track | None = None
        self._keyframes = 0

    def configure(self, track: Track) -> None:
        self._track = track

    def publish(self, unit: AccessUnit) -> None:
        if unit.is_random_access and self._track is not None:
            self.accept(self._track, unit)

    def accept(self, track: Track, unit: AccessUnit) -> None:
        if self.newest is not None and self.newest is not self.at_work:
            self.demands.replace(self.newest)
        self._keyframes += 1
        self.newest = Keyframe(self._keyframes, track, unit)
        self._offer(self)

    def end(self, reason: str) -> None:
        """The stream is over: nothing more will come."""
        del reason
        for snapshot in tuple(self.demands.snapshots):
            snapshot.refuse("stream_ended")
        for frames in tuple(self.demands.frames.values()):
            frames.end()
        for analysis in self.demands.analyses.values():
            analysis.error = "stream_ended"
            analysis.on_status(analysis.status())


class TapQueue:
    """Cameras that wait for one analysis process, by deadline."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Tap]] = []
        self._order = itertools.count()

    def push(self, camera: Tap, deadline_ns: int) -> None:
        camera.is_queued = True
        heapq.heappush(self._heap, (deadline_ns, next(self._order), camera))

    def pop(self) -> Tap | None:
        if not self._heap:
            return None
        camera = heapq.heappop(self._heap)[2]
        camera.is_queued = False
        return camera
