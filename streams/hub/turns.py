"""Reading in turns: a busy loop reads its cameras at a beat, instead of each one whenever bytes come.

What a camera costs is less its bytes than the events: a wake-up, a read and a way through cold caches for
each of its pictures. Network drivers poll under load for the same reason (Linux's NAPI). While writes are
merged, each stream has its turn once in a merge window, and what a turn reads is written as one group: a
picture waits for its turn instead of for its group, and no longer than before.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from streams.hub.merging import MergeControl
from streams.sources.source import ReadInTurns

SLOTS: Final = 2
"""Parts of the window. A stream keeps its slot, so that its turns come at a steady beat. Few slots, since
many turns on end find the processor's caches warm: with ten, each turn cost a quarter more."""
TURNS_ON_END: Final = 16
"""Then the loop's other events come."""
MIN_WINDOW_SECONDS: Final = 0.04
"""In a shorter one most turns would find nothing: pictures come every 40 ms at 25 fps."""
_LOOK_SECONDS: Final = 0.25
"""While there are no turns: how often to see whether there should be."""

_log = structlog.get_logger(__name__)


class Turns:
    """The streams of one loop that can be read in turns, and their turns while `run` runs."""

    def __init__(
        self,
        merging: MergeControl,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._merging = merging
        self._clock = clock
        self._sleep = sleep
        self._slots: tuple[dict[int, ReadInTurns], ...] = tuple({} for _ in range(SLOTS))
        self._again: dict[int, ReadInTurns] = {}

    def add(self, member: ReadInTurns) -> None:
        min(self._slots, key=len)[id(member)] = member

    def remove(self, member: ReadInTurns) -> None:
        """Its `end_turns` is the caller's to call."""
        self._again.pop(id(member), None)
        for slot in self._slots:
            slot.pop(id(member), None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while self._merging.window_seconds < MIN_WINDOW_SECONDS:
                await self._sleep(_LOOK_SECONDS)
            await self._take_turns()
            for slot in self._slots:
                for member in tuple(slot.values()):
                    member.end_turns()

    async def _take_turns(self) -> None:
        """While the window is long enough. A slot that comes late is not caught up with."""
        number, due = 0, self._clock()
        while (window := self._merging.window_seconds) >= MIN_WINDOW_SECONDS:
            members, self._again = tuple(self._again.values()), {}
            now = self._clock()
            if now >= due:
                members += tuple(self._slots[number].values())
                number, due = (number + 1) % SLOTS, max(due + window / SLOTS, now)
            for count, member in enumerate(members, 1):
                self._take(member)
                if count % TURNS_ON_END == 0:
                    await self._sleep(0)
            # Whoever sends more than a turn reads is read again after the loop's other events.
            await self._sleep(0 if self._again else max(due - self._clock(), 0))

    def _take(self, member: ReadInTurns) -> None:
        try:
            if member.take_turn():
                self._again[id(member)] = member
        except Exception:  # noqa: BLE001 - a camera's turn must not be the end of the others'
            _log.exception("turn_failed")
