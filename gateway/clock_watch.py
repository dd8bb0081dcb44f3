"""Whoever sets the clock back is noticed: a record for each step, and a line in the log."""

import asyncio

import structlog

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import BackwardStep, LedgerClock
from gateway.store.errors import StoreError
from gateway.store.store import Store

log = structlog.get_logger(__name__)

CHECK_SECONDS = 1.0


class ClockWatch:
    """`run` lives as long as control does."""

    def __init__(self, store: Store, clock: LedgerClock) -> None:
        self._store = store
        self._clock = clock
        self._unrecorded: BackwardStep | None = None

    async def run(self) -> None:
        """Check once a second until cancelled. A failing store is tried again."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self) -> None:
        """One round of `run`: log and record a new step back."""
        step = self._clock.backward_step()
        if step is not None:
            log.error("clock_went_back", step_seconds=step.step_us / 1e6, behind_seconds=step.behind_us / 1e6)
            earlier = self._unrecorded.step_us if self._unrecorded is not None else 0
            self._unrecorded = BackwardStep(earlier + step.step_us, step.behind_us)
        if self._unrecorded is None:
            return
        try:
            await self._store.record(_event(self._unrecorded))
        except StoreError as error:
            log.error("clock_alarm_not_recorded", code=error.code)
            return
        self._unrecorded = None


def _event(step: BackwardStep) -> AuditEvent:
    return AuditEvent(
        kind=AuditKind.CLOCK_ALARM,
        outcome=Outcome.OK,
        content="the clock went back; decisions go on from the ledger's time",
        detail={"step_us": step.step_us, "behind_us": step.behind_us},
    )
