"""If the ledger cannot be written nobody looks on: what runs is ended, and why is recorded when it is back.

A sign is written through the store's writer every few seconds. Like each record it needs the database's lock
and room in its log, so it fails where they fail, but it makes the ledger no longer. Nothing new is granted
without its own record anyhow; this ends what was granted before.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
import structlog

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import Clock
from gateway.live import LiveSessions
from gateway.live_session import EndReason
from gateway.problems import Problem
from gateway.store.errors import StoreError
from gateway.store.schema import counters
from gateway.store.store import Store
from gateway.store.unit import Unit

log = structlog.get_logger(__name__)

BEATS_PER_OUTAGE = 10
"""The sign is written so many times in what would be an outage, if the store answers at once."""
MAX_BEAT_SECONDS = 3.0
CHECK_SECONDS = 0.5
_SIGN = "heartbeat"


class LedgerWatch:
    """`run` lives as long as control does. `monotonic`: seconds."""

    def __init__(
        self,
        store: Store,
        live: LiveSessions,
        outage_seconds: float,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._live = live
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._written = monotonic()
        self._written_at = clock()
        self._steps = store.steps
        self._lost_at: datetime | None = None

    @property
    def is_available(self) -> bool:
        """Whether something was written within the last `outage_seconds`."""
        return self._lost_at is None

    def require_available(self) -> None:
        """Raises Problem `store_unavailable`."""
        if not self.is_available:
            raise Problem("store_unavailable", "the ledger cannot be written")

    async def run(self) -> None:
        """Until cancelled. A write that never answers must not delay the verdict: two tasks."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._judge())

    async def _beat(self) -> None:
        pause = min(self._outage_seconds / BEATS_PER_OUTAGE, MAX_BEAT_SECONDS)
        while True:
            await self.beat()
            await asyncio.sleep(pause)

    async def _judge(self) -> None:
        while True:
            self.judge()
            await asyncio.sleep(min(CHECK_SECONDS, self._outage_seconds))

    async def beat(self) -> None:
        """Write the sign; after an outage, its record with it."""
        lost_at = self._lost_at
        try:
            await self._store.run(self._sign)
            if lost_at is not None:
                await self._store.record(_outage(lost_at, self._clock()))
        except StoreError as error:
            log.warning("ledger_not_written", code=error.code)
            return
        self._written, self._written_at = self._monotonic(), self._clock()
        if lost_at is not None:
            log.warning("ledger_back", lost_at=lost_at.isoformat())
            self._lost_at = None

    def judge(self) -> None:
        """End every session if the sign is overdue, and whatever was opened meanwhile."""
        if self._store.steps != self._steps:
            # an import writes, and the sign waits behind it
            self._steps, self._written = self._store.steps, self._monotonic()
        if self._monotonic() - self._written < self._outage_seconds:
            return
        if self._lost_at is None:
            self._lost_at = self._written_at
            log.error("ledger_lost", since=self._lost_at.isoformat(), sessions=len(self._live))
        for session in list(self._live.all()):
            self._live.end(session.id, EndReason.LEDGER_UNAVAILABLE)

    async def _sign(self, work: Unit) -> None:
        written = await work.conn.execute(
            counters.update().where(counters.c.name == _SIGN).values(value=work.now)
        )
        if not written.rowcount:
            await work.conn.execute(sa.insert(counters).values(name=_SIGN, value=work.now))


def _outage(lost_at: datetime, back_at: datetime) -> AuditEvent:
    return AuditEvent(
        kind=AuditKind.LEDGER_OUTAGE,
        outcome=Outcome.OK,
        content="the ledger could not be written; every picture was ended",
        detail={"from": lost_at.isoformat(), "to": back_at.isoformat()},
    )
