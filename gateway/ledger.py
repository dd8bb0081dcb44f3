"""Reading the ledger: for a purpose, decided, recorded, and never more than a page or a stream at a time."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.audit.erasure import ErasureRefusedError, NoSuchRecordError, erase
from gateway.audit.export import export_chunks
from gateway.audit.lines import ExportFormat
from gateway.audit.proofs import inclusion_proof
from gateway.audit.records import AuditEvent, AuditKind, parse
from gateway.clock import from_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads, audit_records, audit_state, audit_subjects, departments
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action, Object, ObjectKind

FIRST_SPAN = 4096
SPAN_GROWTH = 8
"""A page is looked for in the newest records, then in so many times more: to find and sort a department's
records of years would take seconds."""


class RecordFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`unit`: the department of who acted; `owner`: a department whose camera it was done with. `camera`: the
    uses of one, batches of thumbnails among them; an import's record names no camera.
    """

    before: int | None = None
    kind: AuditKind | None = None
    actor: str | None = None
    unit: str | None = None
    camera: str | None = None
    owner: str | None = None
    session: str | None = None


class RecordEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`leaf_hash` in hexadecimal; `record` is what the leaf says; `erased` names what it says no more."""

    seq: int
    at: datetime
    leaf_hash: str
    record: AuditEvent
    erased: tuple[str, ...]


class InclusionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that record `seq` is in the tree of `tree_size` records; hashes in hexadecimal."""

    seq: int
    tree_size: int
    leaf_hash: str
    path: list[str]
    head: dict[str, Any]


@dataclass(frozen=True)
class _Reach:
    """How far an auditor sees: `held` is where he audits (None: everywhere), `place` what is asked about."""

    place: Object
    held: tuple[str, ...] | None

    def condition(self, span: "_Span") -> sa.ColumnElement[bool]:
        """Of the records that are his to read: what his departments did, and what was done to their cameras.

        Records without a unit, and those of a department that is gone, are for who audits everything.
        """
        if self.held is None:
            return sa.true()
        below = sa.select(departments.c.id).where(departments.c.id.in_(self.held)).cte(recursive=True)
        below = below.union(sa.select(departments.c.id).where(departments.c.parent_id == below.c.id))
        ids = sa.select(below.c.id)
        return sa.or_(audit_records.c.unit_id.in_(ids), _is_about(audit_records.c.owner_id, ids, span))


@dataclass(frozen=True)
class _Span:
    """Records by their numbers, `end` not included."""

    start: int
    end: int

    def holds(self, column: sa.Column[int]) -> sa.ColumnElement[bool]:
        return sa.and_(column >= self.start, column < self.end)


class Ledger:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    async def records(
        self, principal: Principal, wanted: RecordFilter, size: int, circumstances: Circumstances
    ) -> list[RecordEntry]:
        """Those that he may read, the newest first, one more than `size` if there are more.

        Raises Problem `access_denied`.
        """
        reach = await self._admit(
            principal, circumstances, AuditKind.LEDGER_READ, f"read records: {_words(wanted)}"
        )
        found: list[RecordEntry] = []
        async with self._store.read() as conn:
            end = (await conn.execute(sa.select(audit_state.c.size))).scalar_one()
            if wanted.before is not None:
                end = min(end, wanted.before)
            length = FIRST_SPAN
            while end > 0 and len(found) <= size:
                span = _Span(max(0, end - length), end)
                query = _matching(wanted, span).where(reach.condition(span)).limit(size + 1 - len(found))
                found += [_entry(row) for row in await conn.execute(query)]
                end, length = span.start, length * SPAN_GROWTH
        return found

    async def inclusion(
        self, principal: Principal, seq: int, tree_size: int | None, circumstances: Circumstances
    ) -> InclusionAnswer:
        """Raises Problem `access_denied`, `not_found` or `invalid_field` (no head of that size)."""
        reach = await self._admit(principal, circumstances, AuditKind.LEDGER_READ, f"prove record {seq}")
        query = sa.select(audit_heads).order_by(audit_heads.c.tree_size.desc()).limit(1)
        if tree_size is not None:
            query = query.where(audit_heads.c.tree_size == tree_size)
        async with self._store.read() as conn:
            head = (await conn.execute(query)).one_or_none()
            wanted = sa.select(audit_records.c.leaf_hash).where(
                audit_records.c.seq == seq, reach.condition(_Span(seq, seq + 1))
            )
            leaf_hash = (await conn.execute(wanted)).scalar_one_or_none()
            if leaf_hash is None:
                raise Problem("not_found", f"record {seq}")
            if head is None or seq >= head.tree_size:
                raise Problem("invalid_field", "tree_size: no signed head of that size holds the record")
            path = await inclusion_proof(conn, seq, head.tree_size)
        return InclusionAnswer(
            seq=seq,
            tree_size=head.tree_size,
            leaf_hash=leaf_hash.hex(),
            path=[node.hex() for node in path],
            head=signed_head(head, self._store.verifier.origin).to_json(),
        )

    async def export(
        self, principal: Principal, form: ExportFormat, circumstances: Circumstances
    ) -> AsyncIterator[bytes]:
        """The whole ledger as a file's chunks, for who audits everything.

        Raises Problem `access_denied` before the first of them.
        """
        await self._admit(principal, circumstances, AuditKind.EXPORT, "export the ledger", is_whole=True)
        return self._export(form)

    async def _export(self, form: ExportFormat) -> AsyncIterator[bytes]:
        async with self._store.read() as conn:
            async for chunk in export_chunks(conn, self._store.verifier, form):
                yield chunk

    async def erase(
        self, principal: Principal, seq: int, fields: list[str], reason: str, circumstances: Circumstances
    ) -> None:
        """Raises Problem `access_denied`, `not_found` or `erasure_refused`."""
        content = f"erase {', '.join(fields)} of record {seq}: {reason}"

        async def act(work: Unit, grant: Grant) -> Refused | None:
            try:
                await erase(work, seq, fields, grant.event(AuditKind.ERASURE, content))
            except (NoSuchRecordError, ErasureRefusedError) as error:
                return Refused(Problem(error.code, str(error)))
            return None

        await self._enforcement.perform(
            principal, Action.SECURITY_MANAGE, INSTALLATION, circumstances, content, act
        )

    async def _admit(
        self,
        principal: Principal,
        circumstances: Circumstances,
        kind: AuditKind,
        content: str,
        *,
        is_whole: bool = False,
    ) -> _Reach:
        """Decide and record. `is_whole`: only who audits everything."""

        async def act(work: Unit, grant: Grant) -> None:
            work.record(grant.event(kind, content))

        reach = self._reach(principal)
        place = INSTALLATION if is_whole and reach.held is not None else reach.place
        await self._enforcement.perform(principal, Action.AUDIT_READ, place, circumstances, content, act)
        return reach

    def _reach(self, principal: Principal) -> _Reach:
        audits, user_id = self._enforcement.audits, principal.id
        if audits(user_id, INSTALLATION):
            return _Reach(INSTALLATION, None)
        assigned = sorted({held.department for held in principal.roles})
        held = tuple(each for each in assigned if audits(user_id, _department(each)))
        if not held:
            return _Reach(_department(principal.department_id), ())
        return _Reach(_department(held[0]), None if audits(user_id) else held)


def _matching(wanted: RecordFilter, span: _Span) -> sa.Select[Any]:
    columns = audit_records.c
    query = sa.select(audit_records).where(span.holds(columns.seq)).order_by(columns.seq.desc())
    conditions = {
        columns.kind: wanted.kind,
        columns.actor_id: wanted.actor,
        columns.unit_id: wanted.unit,
        columns.session_id: wanted.session,
    }
    for column, value in conditions.items():
        if value is not None:
            query = query.where(column == value)
    for column, wanted_id in ((columns.camera_id, wanted.camera), (columns.owner_id, wanted.owner)):
        if wanted_id is not None:
            query = query.where(_is_about(column, sa.select(sa.literal(wanted_id)), span))
    return query


def _is_about(column: sa.Column[str], ids: sa.Select[str], span: _Span) -> sa.ColumnElement[bool]:
    """`column`: the camera's or the owner's of a record about one; those about several have subjects."""
    named = ids.subquery().c[0]
    subjects = sa.select(sa.literal(column.name.removesuffix("_id") + ":") + named)
    shared = sa.select(audit_subjects.c.seq).where(
        audit_subjects.c.subject.in_(subjects), span.holds(audit_subjects.c.seq)
    )
    return sa.or_(column.in_(ids), audit_records.c.seq.in_(shared))


def _department(identifier: str) -> Object:
    return Object(ObjectKind.DEPARTMENT, identifier)


def _entry(row: sa.Row[Any]) -> RecordEntry:
    record = parse(row.leaf, row.disclosures)
    return RecordEntry(
        seq=row.seq,
        at=from_micros(row.at),
        leaf_hash=row.leaf_hash.hex(),
        record=record.event,
        erased=record.erased,
    )


def _words(wanted: RecordFilter) -> str:
    given = {k: v for k, v in msgspec.structs.asdict(wanted).items() if v is not None}
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "all"
