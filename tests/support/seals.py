"""Rows that a test writes by itself, as if the product had; and what happens when somebody else did."""

import sqlalchemy as sa

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.seal_patrol import SealPatrol
from gateway.store.schema import policy_sums


async def seal(work, *rows):
    event = AuditEvent(kind=AuditKind.POLICY_CHANGED, outcome=Outcome.OK, content="what the test wrote")
    await work.seal(event, *rows)


async def freeze_grants(city):
    """Somebody removes the sum of all grants, and the patrol comes by."""

    async def unit(work):
        await work.conn.execute(sa.delete(policy_sums).where(policy_sums.c.kind == "grant"))

    services = city.services
    await services.store.run(unit)
    await SealPatrol(services.store, None, services.roles, services.freeze, 1e9).round()
