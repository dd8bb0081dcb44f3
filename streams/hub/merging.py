"""Adaptive merging: an idle loop writes every access unit at once, a busy one several of them together.

What a viewer costs is the writes, not the bytes: two and a half access units in one write halve it. The price
is latency, so only a loop that is short of time pays it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from streams.hub.settings import HubSettings

_TICK_SECONDS = 0.25
_LATE_SECONDS = 0.05
_STEPS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Parts of the whole window. Half the window doubles the writes at most, so one step back never more than
doubles the load; the smallest is shorter than a picture's time at 25 fps."""
_CALM_SHARE = 0.4
"""Below this share of the threshold a step back is safe: doubled, the load is still under it."""
_CALM_TICKS = 8


class MergeControl:
    """How long the access units of this loop's streams may wait: `window_seconds`, kept by `run`.

    The load is the CPU time of this thread against the clock on the wall; a loop whose ticks come late is
    busy too, even if it was others who had the processor. One busy tick is a step up; a step down takes two
    seconds of calm, so that a load near the threshold does not make the window flutter.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        thread_time: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._thread_time = thread_time
        self._sleep = sleep
        self._step = 0
        self._calm_ticks = 0
        self.window_seconds = 0.0 if settings.merge_above_load else settings.merge_seconds

    async def run(self) -> None:
        """Until cancelled."""
        if not self._settings.merge_above_load:
            await asyncio.get_running_loop().create_future()
        while True:
            began, busy = self._clock(), self._thread_time()
            await self._sleep(_TICK_SECONDS)
            elapsed = self._clock() - began
            load = (self._thread_time() - busy) / elapsed if elapsed > 0 else 0.0
            self.tick(load, elapsed - _TICK_SECONDS)

    def tick(self, load: float, late_seconds: float) -> None:
        """Take in the last quarter of a second: its load, 0 to 1, and how late its end came."""
        settings = self._settings
        if load > settings.merge_above_load or late_seconds > _LATE_SECONDS:
            self._step = min(self._step + 1, len(_STEPS) - 1)
            self._calm_ticks = 0
        elif load < _CALM_SHARE * settings.merge_above_load:
            self._calm_ticks += 1
            if self._calm_ticks >= _CALM_TICKS:
                self._step = max(self._step - 1, 0)
                self._calm_ticks = 0
        else:
            self._calm_ticks = 0
        self.window_seconds = _STEPS[self._step] * settings.merge_seconds
