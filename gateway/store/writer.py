"""The one writer: groups waiting units of work into transactions and acknowledges them after COMMIT."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.audit.heads import SignedHead
from gateway.audit.liveness import SignOfLife, sign_of_life
from gateway.audit.records import AuditEvent
from gateway.store.errors import StoreBusyError, StoreUnavailableError, unavailable
from gateway.store.ledger import Ledger
from gateway.store.seals import Seals
from gateway.store.signing_key import SigningKey
from gateway.store.unit import KeyChange, T, Unit, UnitFunction

STATEMENT_ERRORS = (IntegrityError, DataError, ProgrammingError, NotSupportedError)
"""What a statement's own content can cause. Any other database error condemns the whole transaction."""


@dataclass(eq=False)
class _Waiting:
    """`function` None: nothing but the events, known beforehand."""

    function: UnitFunction[Any] | None
    answer: asyncio.Future[Any]
    result: Any = None
    events: list[AuditEvent] = field(default_factory=list)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    key_change: KeyChange | None = None

    def refuse(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def accept(self) -> None:
        for callback in self.callbacks:
            callback()
        if not self.answer.done():
            self.answer.set_result(self.result)


class Writer:
    """Owns the write connection. `run` is its task; `submit` may be called from any other."""

    def __init__(
        self,
        engine: AsyncEngine,
        key: SigningKey,
        clock: Callable[[], int],
        on_head: Callable[[SignedHead], None],
        seals: Seals,
        *,
        max_queued_units: int,
        max_group_units: int,
    ) -> None:
        self._engine = engine
        self._key = key
        self._newest: SignedHead | None = None
        self._clock = clock
        self._on_head = on_head
        self._seals = seals
        self._max_group_units = max_group_units
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(max_queued_units)
        self._is_closed = False
        self.steps = 0
        """How often long units have said that they write."""
        self._wake = asyncio.Event()

    async def submit(self, function: UnitFunction[T]) -> T:
        """Run the unit and return its result once it is durable. Raise what the unit raises.

        A caller that is cancelled before its unit begins has it dropped; later, the unit still completes.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._enqueue(_Waiting(function, answer))
        return await answer

    async def record(self, events: list[AuditEvent]) -> None:
        """A unit that only records, and so needs no savepoint (a third of a small unit's cost)."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue(_Waiting(None, answer, events=events))
        await answer

    def _enqueue(self, waiting: _Waiting) -> None:
        if self._is_closed:
            raise StoreUnavailableError("the store is closed")
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise StoreBusyError("too many writes are waiting") from None
        self._wake.set()

    def begin_at(self, newest: SignedHead) -> None:
        """What the ledger's newest head is before anything is written."""
        self._newest = newest

    def sign_of_life(self) -> SignOfLife | None:
        """That the ledger's newest head is the newest now; None while the ledger is empty."""
        if self._newest is None:
            return None
        return sign_of_life(self._key.signer, self._newest.head, self._clock())

    def _count_step(self) -> None:
        self.steps += 1

    def close(self) -> None:
        """Take no more units; `run` returns when those that wait are done."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                if self._queue.empty():
                    if self._is_closed:
                        return
                    self._wake.clear()
                    continue
                await self._commit()
        finally:
            self._is_closed = True
            while not self._queue.empty():
                self._queue.get_nowait().refuse(StoreUnavailableError("the store is closed"))

    def _take(self, most: int) -> list[_Waiting]:
        return [self._queue.get_nowait() for _ in range(min(self._queue.qsize(), most))]

    async def _commit(self) -> None:
        """One transaction for a group of those that wait once the ledger is locked.

        If it cannot be locked, all that wait are refused: none waits for a lock longer than one attempt.
        """
        group: list[_Waiting] = []
        try:
            async with self._engine.begin() as connection:
                ledger = await Ledger.lock(connection)
                await self._key.settle(connection)
                now = self._clock()
                group = self._take(self._max_group_units)
                done: list[_Waiting] = []
                for waiting in group:
                    if await self._run_unit(connection, waiting, now, done):
                        done.append(waiting)
                head = await self._append(connection, ledger, done, now)
        except (SQLAlchemyError, OSError) as error:
            for waiting in group or self._take(self._queue.qsize()):
                waiting.refuse(unavailable(error))
            return
        except BaseException:
            for waiting in group:
                waiting.refuse(StoreUnavailableError("the store is closed"))
            raise
        await self._key.committed()
        if head is not None:
            self._newest = head
            self._on_head(head)
        for waiting in done:
            waiting.accept()

    async def _append(
        self, connection: AsyncConnection, ledger: Ledger, done: list[_Waiting], now: int
    ) -> SignedHead | None:
        events = [event for waiting in done for event in waiting.events]
        change = next((waiting.key_change for waiting in done if waiting.key_change), None)
        if change is not None:
            events.append(change.event)
        head = await ledger.append(events, now, self._key.signer)
        if change is not None and head is not None:
            await self._key.hand_over(connection, head.head.size, change.signer)
        return head

    async def _run_unit(
        self, connection: AsyncConnection, waiting: _Waiting, now: int, before: list[_Waiting]
    ) -> bool:
        """Whether the unit is part of the transaction; if not, its caller has been told."""
        if waiting.answer.done():
            return False
        if waiting.function is None:
            return True
        may_change_key = all(other.key_change is None for other in before)
        unit = Unit(connection, now, self._seals, may_change_key=may_change_key, on_step=self._count_step)
        savepoint = await connection.begin_nested()
        try:
            waiting.result = await waiting.function(unit)
        # whatever a unit raises belongs to its caller and must not reach its neighbours
        except Exception as error:
            if isinstance(error, DBAPIError) and not isinstance(error, STATEMENT_ERRORS):
                raise
            await savepoint.rollback()
            waiting.refuse(error)
            return False
        await savepoint.commit()
        waiting.events, waiting.callbacks = unit.events, unit.callbacks
        waiting.key_change = unit.key_change
        return True
