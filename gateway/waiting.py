"""Those who wait for a place: a bounded queue, ordered by priority, then by arrival.

When it is full, the last of a lower priority makes room, and nobody fills it alone.

Whoever waits runs in his own request's task. When a session ends, its limits are free for a turn, and when
running ones reserve less, the bandwidth is: the turn goes to the first who waits for one of them, he asks
again, and passes it on. Who finds his limit full again closes it for those behind him in this round, and only
for them: a full camera holds up nobody who waits for bandwidth. So an end costs one attempt per limit that it
touched, and one per place that it gives.

Nothing is reserved: whoever asks at the very moment a place is given back may be first.
"""

import asyncio
import bisect
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.admission import RETRY_AFTER_SECONDS, Limit, LimitProblem, limits_of
from gateway.live_session import LiveSession
from gateway.problems import Problem

MAX_WAIT_SECONDS = 60

T = TypeVar("T")


@dataclass(order=True, slots=True)
class _Waiter:
    """`limit`: the one that was full when he last asked. `turn` is set when he shall ask again, or leave."""

    urgency: int
    number: int
    user: str = field(compare=False)
    limit: Limit = field(compare=False)
    must_leave: bool = field(default=False, compare=False)
    turn: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


class WaitingRoom:
    def __init__(self, capacity: int, per_user: int) -> None:
        """`per_user`: how many of the `capacity` one user may take."""
        self._capacity = capacity
        self._per_user = per_user
        self._numbers = itertools.count()
        self._waiting: list[_Waiter] = []
        self._asking: _Waiter | None = None
        self._freed: set[Limit] = set()
        self._releases = 0
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def session_over(self, session: LiveSession) -> None:
        """Listener of `LiveSessions`: the end is durable, so the session's places are free."""
        self.freed(limits_of(session))

    def freed(self, limits: Iterable[Limit]) -> None:
        """These limits may have room: their first waiter gets a turn."""
        self._releases += 1
        if self._waiting:
            self._freed.update(limits)
            self._pass_on()

    def close(self) -> None:
        """Turn everybody away: the gateway stops."""
        self._is_closed = True
        for waiter in self._waiting:
            waiter.turn.set()

    async def ask(
        self, attempt: Callable[[bool], Awaitable[T]], user: str, priority: int, seconds: float
    ) -> T:
        """The result of `attempt`, asked again, for up to `seconds`, while it raises LimitProblem.

        `attempt` is told whether it is the first. Raises what it raises, the LimitProblem when the time is
        over, Problem `limit_waiting` if too many wait already, or who comes is more urgent when they do,
        `draining` when the gateway stops.
        """
        releases = self._releases
        try:
            return await attempt(True)
        except LimitProblem as problem:
            if not seconds:
                raise
            full = problem
        deadline = asyncio.get_running_loop().time() + seconds
        with self._queued(user, priority, full.limit) as waiter:
            if self._releases != releases:  # while the answer was on its way
                self._freed.add(waiter.limit)
                self._pass_on()
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await waiter.turn.wait()
                except TimeoutError:
                    raise full from None
                if self._is_closed:
                    raise Problem("draining")
                if waiter.must_leave:
                    raise self._full(self._capacity, self._capacity)
                waiter.turn.clear()
                releases = self._releases
                try:
                    return await attempt(False)
                except LimitProblem as problem:
                    full = problem
                waiter.limit = full.limit
                if self._releases == releases:
                    self._freed.discard(full.limit)
                else:  # what was full may not be so any more
                    self._freed.add(full.limit)
                self._asking = None
                self._pass_on()

    @contextmanager
    def _queued(self, user: str, priority: int, limit: Limit) -> Iterator[_Waiter]:
        if self._is_closed:
            raise Problem("draining")
        own = sum(waiter.user == user for waiter in self._waiting)
        if own >= self._per_user:
            raise self._full(own, self._per_user)
        if len(self._waiting) >= self._capacity:
            self._make_room(priority)
        waiter = _Waiter(-priority, next(self._numbers), user, limit)
        bisect.insort(self._waiting, waiter)
        try:
            yield waiter
        finally:
            if not waiter.must_leave:
                self._waiting.remove(waiter)
            if self._asking is waiter:
                self._asking = None
                self._pass_on()

    def _make_room(self, priority: int) -> None:
        """The last of a lower priority leaves. Raises Problem `limit_waiting` if there is none."""
        # who asks just now may be given his place
        last = next((waiter for waiter in reversed(self._waiting) if waiter is not self._asking), None)
        if last is None or last.urgency <= -priority:
            raise self._full(len(self._waiting), self._capacity)
        self._waiting.remove(last)
        last.must_leave = True
        last.turn.set()

    @staticmethod
    def _full(waiting: int, bound: int) -> Problem:
        return Problem(
            "limit_waiting",
            f"{waiting} of {bound} wait",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            running=waiting,
            bound=bound,
        )

    def _pass_on(self) -> None:
        """Give the turn to the first who waits for a limit that may have room, unless somebody has it."""
        if self._asking is not None:
            return
        self._asking = next((waiter for waiter in self._waiting if waiter.limit in self._freed), None)
        if self._asking is None:
            self._freed.clear()
        else:
            self._asking.turn.set()
