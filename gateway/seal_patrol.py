"""While control runs: the rows that decide are held against their seals again and again, a few at a time.

What a start would not let count counts no longer, and the alarm is the start's. Each read is one snapshot, in
which a row stands with its seal and the sums with all rows: what control writes meanwhile raises no alarm.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.camera_reading import cameras_after
from gateway.freeze import Freeze
from gateway.policy_feed import PolicyFacts, PolicyFeed, Write, stored_grants
from gateway.roles import Roles
from gateway.sealed_facts import SealedFacts
from gateway.store.schema import grants
from gateway.store.sealed_rows import TABLES, Sealed, key_of
from gateway.store.sealing import StoredRow, read_rows
from gateway.store.seals import is_of_denial
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import GrantRule

log = structlog.get_logger(__name__)

SLICE_ROWS = 200
"""Rows that are held against their seals between two pauses: 5 ms of work."""
SUMMED_ROWS = 1000
"""Seals that are added up between two pauses: 5 ms of work."""
SUMMING_PAUSE_SECONDS = 0.01
"""Shorter, since the sums are asked of one snapshot, which must not stay open long."""
ROUND_SECONDS = 60.0
"""Rest between two rounds."""

Sleep = Callable[[float], Awaitable[None]]


class SealPatrol:
    """`run` lives as long as control does, from the end of its start."""

    def __init__(
        self,
        store: Store,
        feed: PolicyFeed,
        roles: Roles,
        freeze: Freeze,
        rows_per_second: float,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._feed = feed
        self._roles = roles
        self._freeze = freeze
        self._pause = SLICE_ROWS / rows_per_second
        self._sleep = sleep
        self._parts: list[Callable[[], Awaitable[None]]] = [
            *(partial(self._hold_kind, kind) for kind in Sealed),
            self._hold_sums,
        ]

    async def run(self) -> None:
        """Round after round until cancelled; the start has made the first."""
        while True:
            await self._sleep(ROUND_SECONDS)
            for part in self._parts:
                try:
                    await part()
                # a row may hold anything: one that cannot even be read ends neither control nor the round
                except Exception:
                    log.exception("seal_patrol_failed")

    async def round(self) -> None:
        """Every row once, then what a start asks of all of them. Raise StoreError."""
        for part in self._parts:
            await part()

    async def _hold_kind(self, kind: Sealed) -> None:
        after: str | None = ""
        while after is not None:
            after = await self._hold_slice(kind, after)
            await self._sleep(self._pause)

    async def _hold_slice(self, kind: Sealed, after: str) -> str | None:
        """Hold the next rows after a key against their seals; return the last one's key, None at the end."""
        async with self._store.read() as conn:
            rows = await _rows_after(conn, kind, after)
        fit, unfit = set(), []
        for row in rows:
            if row.fits(self._store.seals):
                fit.add(row.id)
            elif isinstance(row.id, str):  # as at a start, what no text names is no row
                unfit.append(row.id)
        known = self._freeze.unfit.setdefault(kind, set())
        known -= fit
        if found := [identifier for identifier in unfit if identifier not in known]:
            await self._store.run(partial(self._void, kind, found))
        return rows[-1].id if len(rows) == SLICE_ROWS else None

    async def _void(self, kind: Sealed, identifiers: list[str], work: Unit) -> None:
        """Look again, for somebody may have written meanwhile; then record, and tell the PDP."""
        found = SealedFacts(work.seals)
        writes = await _voiding(work.conn, found, kind, identifiers)
        unfit = found.unfit.get(kind, [])
        if not unfit:
            return
        if kind is Sealed.ROLE:
            writes = [lambda _: self._roles.leave_out(unfit)]
        work.record(found.alarm())
        await self._feed.write(work, *writes, about=[f"{kind}:{identifier}" for identifier in unfit])
        work.after_commit(lambda: self._freeze.unfit[kind].update(unfit))

    async def _hold_sums(self) -> None:
        """Whether rows are gone, or older ones back: each alone is as it was sealed."""
        found = SealedFacts(self._store.seals)
        async with self._store.read() as conn:
            for kind in Sealed:
                await self._add_up(conn, kind, found)
            async for row in read_rows(conn, Sealed.GRANT, self._freeze.unfit.get(Sealed.GRANT, ())):
                if isinstance(row.seal, bytes) and is_of_denial(row.seal):
                    found.lost_denials[row.id] = row.seal
            await self._freeze.hold(conn, found)

    async def _add_up(self, conn: AsyncConnection, kind: Sealed, found: SealedFacts) -> None:
        key = key_of(kind)
        query = _present(kind).where(key > sa.bindparam("after")).order_by(key).limit(SUMMED_ROWS)
        after = ""
        while rows := (await conn.execute(query, {"after": after})).all():
            for row in rows:
                found.count(kind, row.seal)
            if len(rows) < SUMMED_ROWS:
                return
            after = rows[-1][0]
            await self._sleep(SUMMING_PAUSE_SECONDS)


async def _rows_after(conn: AsyncConnection, kind: Sealed, after: str) -> list[StoredRow]:
    if kind is Sealed.CAMERA:
        return await cameras_after(conn, after, SLICE_ROWS)
    query = _present(kind).where(key_of(kind) > after).order_by(key_of(kind)).limit(SLICE_ROWS)
    keys = [row[0] for row in await conn.execute(query)]
    rows = {row.id: row async for row in read_rows(conn, kind, keys)}
    return [rows[key] for key in keys]


def _present(kind: Sealed) -> sa.Select[str, bytes | None]:
    """Keys and seals of all rows; a revoked grant is a removed one."""
    query = sa.select(key_of(kind), TABLES[kind].c.seal)
    return query.where(grants.c.revoked_at.is_(None)) if kind is Sealed.GRANT else query


async def _voiding(
    conn: AsyncConnection, found: SealedFacts, kind: Sealed, identifiers: Collection[str]
) -> list[Write]:
    """Of a few rows, what makes the PDP take those that do not fit their seal for what a start would.

    `found` is told of them. A denial that is lost goes on in the PDP until grants freeze for it: see
    `gateway.freeze`. Roles are `Roles'`.
    """
    if kind is Sealed.GRANT:
        rules = [rule async for page in stored_grants(conn, found, None, identifiers) for rule in page]
        unfit = set(found.unfit.get(kind, ())) - found.lost_denials.keys()
        return [partial(_set_grant, rule) for rule in rules if rule.id in unfit]
    async for row in read_rows(conn, kind, identifiers):
        found.check(kind, row)
    if kind is Sealed.ROLE:
        return []
    return [partial(_FORGET[kind], identifier) for identifier in found.unfit.get(kind, ())]


def _set_grant(rule: GrantRule, engine: PolicyFacts) -> None:
    engine.set_grant(rule)


_FORGET: dict[Sealed, Callable[[str, PolicyFacts], None]] = {
    Sealed.USER: lambda identifier, engine: engine.set_user(identifier, None, enabled=False),
    Sealed.DEPARTMENT: lambda identifier, engine: engine.forget_department(identifier),
    Sealed.GROUP: lambda identifier, engine: engine.forget_group(identifier),
    Sealed.CAMERA: lambda identifier, engine: engine.remove_camera(identifier),
}
