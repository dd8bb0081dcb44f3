"""The unit of work: what one caller changes and records, all of it or nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.heads import Signer
from gateway.audit.records import MAX_DETAIL_ITEMS, AuditEvent, normalize
from gateway.store.errors import StoreBusyError
from gateway.store.schema import POLICY_REVISION, counters
from gateway.store.sealing import MARKED, RowChange, RowName, add_up, read_rows, seal_rows, unseal_rows
from gateway.store.seals import Seals

T = TypeVar("T")
UnitFunction = Callable[["Unit"], Awaitable[T]]


@dataclass(frozen=True)
class KeyChange:
    """The ledger's next key, and the record that hands over to it: the last of its commit."""

    event: AuditEvent
    signer: Signer


class Unit:
    """Handed to a unit function for as long as it runs, in the store's writer task.

    `conn`: the open transaction, at this unit's savepoint. `now`: microseconds since the epoch, UTC. The
    function awaits nothing but `conn` and this object: every other writer waits for it. If it raises, its
    rows, records and callbacks are dropped; so a refusal that must be recorded is returned, not raised.
    """

    def __init__(
        self,
        conn: AsyncConnection,
        now: int,
        seals: Seals,
        *,
        may_change_key: bool = True,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        self.conn = conn
        self._on_step = on_step
        self.seals = seals
        self.now = now
        self._may_change_key = may_change_key
        self.key_change: KeyChange | None = None
        self._events: list[AuditEvent] = []
        self._callbacks: list[Callable[[], None]] = []

    def step(self) -> None:
        """A unit of many seconds has written again: who waits behind it learns that rows are taken."""
        if self._on_step is not None:
            self._on_step()

    def record(self, event: AuditEvent) -> None:
        """Append to the ledger in this transaction. Raise ValueError for an event that breaks its rules."""
        self._events.append(normalize(event))

    async def seal(self, event: AuditEvent, *rows: RowName, epoch: int | None = None) -> None:
        """After rows that decide were written: seal them as they are, and record `event` with their states.

        Of one row, `resource` becomes its name. `epoch`: see `gateway.freeze`. A row without a seal that fits
        counts for nothing: see `gateway.policy_feed`.
        """
        await self.record_sealed(event, await seal_rows(self.conn, self.seals, rows, epoch=epoch))

    async def unseal(self, events: Mapping[RowName, AuditEvent]) -> None:
        """Before rows are deleted or grants revoked: record each row's event with its end."""
        changes = await unseal_rows(self.conn, events)
        missing = events.keys() - {(change.kind, change.id) for change in changes}
        changes += [RowChange(kind, identifier, None, None, "") for kind, identifier in sorted(missing)]
        mark = await add_up(self.conn, self.seals, changes)
        of_row = {(change.kind, change.id): change for change in changes}
        for name, event in events.items():
            self.record(_stating(event, [of_row[name]], mark))

    async def is_sealed(self, *rows: RowName) -> bool:
        """Whether all are as they were sealed. Ask before they are changed: what is sealed then counts."""
        for kind, identifier in rows:
            async for row in read_rows(self.conn, kind, [identifier]):
                if not row.fits(self.seals):
                    return False
        return True

    async def record_sealed(self, event: AuditEvent, changes: Sequence[RowChange]) -> None:
        """Of rows that were written with their seals: bring the sums to them, and record their states.

        What is too much for one record, states or owners, goes on in another one. Raise ValueError for an
        event whose kind is not one of `MARKED`, as `seal` and `unseal` do.
        """
        mark = await add_up(self.conn, self.seals, changes)
        most = max(len(changes), len(event.owner_ids), 1)
        for start in range(0, most, MAX_DETAIL_ITEMS):
            if start:
                # an import has hundreds: the loop must not stand still
                await asyncio.sleep(0)
            part = slice(start, start + MAX_DETAIL_ITEMS)
            own = msgspec.structs.replace(event, owner_ids=event.owner_ids[part])
            self.record(_stating(own, changes[part], mark))

    def change_key(self, event: AuditEvent, signer: Signer) -> None:
        """Record the change, and sign every head after this commit's with the new key.

        Raise StoreBusyError if another unit of the same commit does so, ValueError like `record`.
        """
        if not self._may_change_key:
            raise StoreBusyError("the ledger's key is being changed")
        self._may_change_key = False
        self.key_change = KeyChange(normalize(event), signer)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once this is durable, before the caller gets its answer; it must not raise."""
        self._callbacks.append(callback)

    async def bump_revision(self) -> int:
        """Raise the policy revision by one and return it: for every write that a decision could depend on."""
        statement = (
            counters.update()
            .where(counters.c.name == POLICY_REVISION)
            .values(value=counters.c.value + 1)
            .returning(counters.c.value)
        )
        return int((await self.conn.execute(statement)).scalar_one())

    @property
    def events(self) -> list[AuditEvent]:
        return self._events

    @property
    def callbacks(self) -> list[Callable[[], None]]:
        return self._callbacks


def _stating(event: AuditEvent, changes: Sequence[RowChange], mark: str) -> AuditEvent:
    if event.kind not in MARKED:
        raise ValueError(f"{event.kind} is no kind of records that states what was sealed")
    detail = {**event.detail, "policy": mark}
    if len(changes) == 1:
        detail["state"] = changes[0].state
        return msgspec.structs.replace(event, resource=changes[0].name, detail=detail)
    detail["states"] = [f"{change.name} {change.state}" for change in changes]
    return msgspec.structs.replace(event, detail=detail)


async def read_revision(conn: AsyncConnection) -> int:
    """The policy revision as this connection's transaction sees it."""
    query = sa.select(counters.c.value).where(counters.c.name == POLICY_REVISION)
    return int((await conn.execute(query)).scalar_one())
