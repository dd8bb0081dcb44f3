"""Reading in turns: a busy loop reads its cameras at a beat, instead of each one whenever bytes come.

What a camera costs is less its bytes than the events: a wake-up, a read and a way through cold caches for
each of its pictures. Network drivers poll under load for the same reason (Linux's NAPI). While writes are
merged, each stream has its turn once in a merge window, and what a turn reads is written as one group: a
picture waits for its turn instead of for its group, and no longer than before.

Many streams take each step of a turn together: all are read, then all are parsed, then all are written. So
the code of a step, the kernel's included, is in the processor's caches for all but the first (the vectors of
FD.io's VPP, for the same reason).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from streams.hub.merging import MergeControl
from streams.sources.source import ReadInTurns

TURNS_AT_ONCE: Final = 64
"""Then the loop's other events come: 7 ms of work at 1 Mbit/s. With 16 at once, turns cost an eighth more."""
MIN_WINDOW_SECONDS: Final = 0.04
"""In a shorter one most turns would find nothing: pictures come every 40 ms at 25 fps."""
_LOOK_SECONDS: Final = 0.25
"""While there are no turns: how often to see whether there should be."""

_log = structlog.get_logger(__name__)


class Member(ReadInTurns, Protocol):
    """What has turns. `write` is the third step, and follows `take` whatever that raised."""

    def write(self) -> None:
        """Write what was taken."""


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
        self._members: dict[int, Member] = {}
        self._again: dict[int, Member] = {}

    def add(self, member: Member) -> None:
        self._members[id(member)] = member

    def remove(self, member: Member) -> None:
        """Its `end_turns` is the caller's to call."""
        self._members.pop(id(member), None)
        self._again.pop(id(member), None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while self._merging.window_seconds < MIN_WINDOW_SECONDS:
                await self._sleep(_LOOK_SECONDS)
            await self._take_turns()
            for member in tuple(self._members.values()):
                member.end_turns()

    async def _take_turns(self) -> None:
        """While the window is long enough. A beat that comes late is not caught up with."""
        due = self._clock()
        while (window := self._merging.window_seconds) >= MIN_WINDOW_SECONDS:
            members, self._again = tuple(self._again.values()), {}
            now = self._clock()
            if now >= due:
                members = tuple(self._members.values())
                due = (now if now >= due + window else due) + window
            for start in range(0, len(members), TURNS_AT_ONCE):
                if start:
                    await self._sleep(0)
                self._take(members[start : start + TURNS_AT_ONCE])
            # Whoever sends more than a turn reads is read again after the loop's other events.
            await self._sleep(0 if self._again else max(due - self._clock(), 0))

    def _take(self, members: Sequence[Member]) -> None:
        fetched = [member for member in members if _done(member.fetch)]
        for member in fetched:
            if _done(member.take) and id(member) in self._members:
                self._again[id(member)] = member
        for member in fetched:
            _done(member.write)


def _done(step: Callable[[], bool | None]) -> bool:
    """What the step returns; False if it fails: one camera's turn must not be the end of the others'."""
    try:
        return bool(step())
    except Exception:  # noqa: BLE001 - whatever a camera's bytes have led to
        _log.exception("turn_failed")
        return False
