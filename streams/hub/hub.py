"""The set of live streams of one process, by camera."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

from streams.hub.merging import MergeControl
from streams.hub.outputs import Outputs, Timer
from streams.hub.settings import HubSettings
from streams.hub.stream import Stream
from streams.hub.turns import Turns
from streams.media import Track
from streams.mux import CONTAINERS, FRAMINGS, Framing, Muxer

_CHECK_SECONDS = 1.0


def _call_later(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)


class Hub:
    """Streams by camera id, all of one event loop; `run` merges reads and writes while the loop is busy.

    `clock_ns` is the monotonic clock of the access units' `received_ns`.
    """

    def __init__(
        self,
        settings: HubSettings,
        containers: Mapping[str, Callable[[Track], Muxer]] = CONTAINERS,
        framings: Mapping[str, Framing] = FRAMINGS,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        merging: MergeControl | None = None,
        schedule: Callable[[float, Callable[[], None]], Timer] = _call_later,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`schedule` as `call_later` of an event loop."""
        self._containers = containers
        self._framings = framings
        self._settings = settings
        self._clock_ns = clock_ns
        self._merging = merging or MergeControl(settings)
        self._turns = Turns(self._merging)
        self._schedule = schedule
        self._sleep = sleep
        self._streams: dict[str, Stream] = {}

    async def run(self) -> None:
        """Until cancelled. Without it the loop never counts as busy, and silent readers are not looked at."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._merging.run())
            group.create_task(self._turns.run())
            group.create_task(self._check_readers())

    async def _check_readers(self) -> None:
        while True:
            await self._sleep(_CHECK_SECONDS)
            for stream in self:
                stream.check_readers()

    def open(self, camera_id: str) -> Stream:
        """The camera's stream, made if there is none yet."""
        stream = self._streams.get(camera_id)
        if stream is None:
            outputs = Outputs(
                camera_id, self._containers, self._framings, self._merging, self._schedule, self._clock_ns
            )
            stream = Stream(camera_id, outputs, self._turns, self._settings, self._clock_ns)
            self._streams[camera_id] = stream
        return stream

    def close(self, camera_id: str, reason: str) -> None:
        """End all readers of the camera and forget its stream, if there is one."""
        stream = self._streams.pop(camera_id, None)
        if stream is not None:
            stream.end(reason)

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))
