"""Erasing what is about a person from a record, on the record (PIPL art. 47).

The leaf stays as it is, with the commitments, so every proof and signed head holds. What was exported, backed
up or copied to another database before keeps the values.
"""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from gateway.audit.commitments import parse_disclosures, serialize_disclosures
from gateway.audit.records import ERASED_FIELDS, ERASED_SEQ, AuditEvent, DetailValue
from gateway.store.schema import audit_records
from gateway.store.unit import Unit


class ErasureRefusedError(Exception):
    """This cannot be erased, or not by this person."""

    code = "erasure_refused"


class NoSuchRecordError(Exception):
    """There is no record of that number."""

    code = "not_found"


async def erase(work: Unit, seq: int, fields: Sequence[str], event: AuditEvent) -> None:
    """Delete the disclosures of a record's fields, and record `event`, completed with what was erased.

    Raise NoSuchRecordError, or ErasureRefusedError: a field that is no sensitive one, was not recorded or is
    erased already; a record of version 1; a record of what the eraser did himself.
    """
    wanted = sa.select(audit_records).where(audit_records.c.seq == seq)
    row = (await work.conn.execute(wanted)).one_or_none()
    if row is None:
        raise NoSuchRecordError(f"record {seq}")
    if row.disclosures is None:
        raise ErasureRefusedError(f"record {seq} was written before anything could be erased")
    if event.actor_id is None or row.actor_id == event.actor_id:
        raise ErasureRefusedError("nobody erases from a record of what he did himself")
    disclosures = parse_disclosures(row.disclosures)
    if not fields or not disclosures.keys() >= set(fields):
        raise ErasureRefusedError(f"record {seq} has: {', '.join(sorted(disclosures))}")
    left = {name: disclosed for name, disclosed in disclosures.items() if name not in fields}
    values: dict[str, object] = {"disclosures": serialize_disclosures(left)}
    # a sensitive field may have a readable column of its own
    values |= {name: None for name in fields if name in audit_records.c}
    await work.conn.execute(audit_records.update().where(audit_records.c.seq == seq).values(values))
    detail: dict[str, DetailValue] = {ERASED_SEQ: seq, ERASED_FIELDS: sorted(set(fields))}
    work.record(msgspec.structs.replace(event, resource=f"record:{seq}", detail=detail))
