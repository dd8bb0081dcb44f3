"""Taking over the rows of a database that has no seals yet: once, when the seals' key is made."""

from collections.abc import AsyncIterator

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditEvent, AuditKind, DetailValue, Outcome
from gateway.store.schema import grants, policy_sums
from gateway.store.sealed_rows import Sealed, key_of
from gateway.store.sealing import BATCH, PolicyState, seal_rows, write_policy_state, write_totals
from gateway.store.seals import Total
from gateway.store.unit import Unit


async def adopt(work: Unit) -> None:
    """Seal every row as it is, and record its state.

    Where the rows were sealed before, with a key that is lost, all grants are frozen: nobody can say any more
    that they are what was given.
    """
    was_sealed = (await work.conn.execute(sa.select(policy_sums.c.kind).limit(1))).first() is not None
    epoch = 0
    if was_sealed:
        newest = (await work.conn.execute(sa.select(sa.func.max(grants.c.epoch)))).scalar_one_or_none()
        epoch = (newest or 0) + 1
    state = PolicyState(epoch=epoch, frozen_since=work.now if was_sealed else None)
    await write_policy_state(work.conn, work.seals, state)
    await write_totals(work.conn, work.seals, {kind: Total() for kind in Sealed})
    counts: dict[str, DetailValue] = {}
    for kind in Sealed:
        count = 0
        async for identifiers in _pages(work.conn, kind):
            changes = await seal_rows(work.conn, work.seals, [(kind, i) for i in identifiers])
            # what was sealed with the lost key is in no sum
            await work.record_sealed(
                _event(f"{kind} rows taken over as they were"), [c._replace(old=None) for c in changes]
            )
            count += len(changes)
        counts[kind.value] = count
    if was_sealed:
        told = "the key of the seals was lost: all grants are frozen until their owners confirm them"
        work.record(
            AuditEvent(
                kind=AuditKind.POLICY_FROZEN,
                outcome=Outcome.ERROR,
                content=told,
                reason="seal_key_lost",
                detail=counts,
            )
        )


async def _pages(conn: AsyncConnection, kind: Sealed) -> AsyncIterator[list[str]]:
    key = key_of(kind)
    query = sa.select(key).where(key > sa.bindparam("after")).order_by(key).limit(BATCH)
    if kind is Sealed.GRANT:
        query = query.where(grants.c.revoked_at.is_(None))
    after = ""
    while identifiers := list((await conn.execute(query, {"after": after})).scalars()):
        yield identifiers
        after = identifiers[-1]


def _event(content: str) -> AuditEvent:
    return AuditEvent(kind=AuditKind.INSTALLATION, outcome=Outcome.OK, content=content)
