"""Rows that a test writes by itself, as if the product had."""

from gateway.audit.records import AuditEvent, AuditKind, Outcome


async def seal(work, *rows):
    event = AuditEvent(kind=AuditKind.POLICY_CHANGED, outcome=Outcome.OK, content="what the test wrote")
    await work.seal(event, *rows)
