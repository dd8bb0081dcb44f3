"""Retention: whole months whose years have passed are removed from the ledger's front, and nothing else.

A record `period_removed` states up to where; then rows go in bounded units, always whole blocks of 256, whose
stored hashes stay and prove the rest. Signed heads, nodes and keys are never removed. What stands before the
newest stated end and is still there is verified like everything else.
"""

import sqlalchemy as sa

from gateway.audit.proofs import tree_frontier
from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.audit.removed_records import BLOCK_RECORDS, MIN_RETENTION_YEARS, cutoff
from gateway.clock import from_micros
from gateway.store.schema import audit_periods, audit_records, audit_state
from gateway.store.store import Store
from gateway.store.unit import Unit

ROWS_PER_UNIT = 8 * BLOCK_RECORDS
UNITS_PER_RUN = 50
"""A run leaves the rest to the next one, an hour later."""


class Retention:
    """Keeps records for so many calendar years, never fewer than `MIN_RETENTION_YEARS`."""

    def __init__(self, store: Store, years: int) -> None:
        self._store = store
        self._years = max(years, MIN_RETENTION_YEARS)

    async def apply(self) -> int:
        """State a period's end if one is due, and remove rows of what was stated; return how many rows.

        Raise StoreError.
        """
        await self._store.run(self._state)
        removed = 0
        for _ in range(UNITS_PER_RUN):
            rows = await self._store.run(_remove)
            removed += rows
            if not rows:
                break
        return removed

    async def _state(self, work: Unit) -> None:
        state = (await work.conn.execute(sa.select(audit_state.c.size, audit_state.c.last_at))).one()
        # a clock that is ahead removes nothing before the ledger's own time has come
        before = cutoff(min(work.now, state.last_at), self._years)
        first_kept = sa.select(sa.func.min(audit_records.c.seq)).where(audit_records.c.at >= before)
        end = (await work.conn.execute(first_kept)).scalar_one()
        end = (state.size if end is None else end) // BLOCK_RECORDS * BLOCK_RECORDS
        if end <= await _stated_end(work):
            return
        last = sa.select(audit_records.c.at).where(audit_records.c.seq == end - 1)
        last_at = (await work.conn.execute(last)).scalar_one()
        frontier = await tree_frontier(work.conn, end)
        row = {"end_size": end, "last_at": last_at, "removed_at": work.now}
        await work.conn.execute(audit_periods.insert().values(**row, frontier=frontier.to_bytes()))
        work.record(
            AuditEvent(
                kind=AuditKind.PERIOD_REMOVED,
                outcome=Outcome.OK,
                content=f"removed the records before number {end}, up to {from_micros(last_at).date()}",
                detail={**row},
            )
        )


async def _remove(work: Unit) -> int:
    first = (await work.conn.execute(sa.select(sa.func.min(audit_records.c.seq)))).scalar_one()
    end = min(await _stated_end(work), (first or 0) + ROWS_PER_UNIT)
    if first is None or first >= end:
        return 0
    await work.conn.execute(audit_records.delete().where(audit_records.c.seq < end))
    return int(end - first)


async def _stated_end(work: Unit) -> int:
    return (await work.conn.execute(sa.select(sa.func.max(audit_periods.c.end_size)))).scalar_one() or 0
