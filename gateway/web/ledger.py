"""The ledger: records, proofs, export. What everybody may know of it is in `heads`."""

import msgspec
from aiohttp import web

from gateway.audit.records import AuditKind
from gateway.ledger import InclusionAnswer, RecordEntry, RecordFilter
from gateway.problems import Problem
from gateway.web.purposes import DeclaredInQuery, declared
from gateway.web.routing import (
    API,
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    MAX_SEQ,
    Call,
    Route,
    Sequence,
)
from policies.access import Action


class RecordQuery(DeclaredInQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`before`, `kind`, `actor`, `unit`, `camera`, `owner` and `session` filter."""

    before: Sequence | None = None
    kind: AuditKind | None = None
    actor: str | None = None
    unit: str | None = None
    camera: str | None = None
    owner: str | None = None
    session: str | None = None
    page_size: int = DEFAULT_PAGE_SIZE

    def wanted(self) -> RecordFilter:
        return msgspec.convert(self, RecordFilter, from_attributes=True)


class RecordPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `next_before` is the `before` of the next page."""

    items: list[RecordEntry]
    next_before: int | None


class ProofQuery(DeclaredInQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tree_size: Sequence | None = None


class ExportQuery(DeclaredInQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def _checked(size: int) -> int:
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise Problem("invalid_field", f"page_size: 1 to {MAX_PAGE_SIZE}")
    return size


async def list_records(call: Call, _: None) -> RecordPage:
    query = call.query(RecordQuery)
    size = _checked(query.page_size)
    circumstances = call.circumstances(await declared(call, query, Action.AUDIT_READ))
    found = await call.services.ledger.records(call.who, query.wanted(), size, circumstances)
    more = len(found) > size
    return RecordPage(items=found[:size], next_before=found[size - 1].seq if more else None)


async def prove_inclusion(call: Call, _: None) -> InclusionAnswer:
    seq = call.path("seq")
    if not seq.isascii() or not seq.isdigit() or int(seq) > MAX_SEQ:
        raise Problem("not_found", f"record {seq[:32]}")
    query = call.query(ProofQuery)
    circumstances = call.circumstances(await declared(call, query, Action.AUDIT_READ))
    return await call.services.ledger.inclusion(call.who, int(seq), query.tree_size, circumstances)


async def export(call: Call, _: None) -> web.StreamResponse:
    query = call.query(ExportQuery)
    circumstances = call.circumstances(await declared(call, query, Action.AUDIT_READ))
    lines = await call.services.ledger.export(call.who, circumstances)
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/jsonl",
            "Content-Disposition": 'attachment; filename="ledger.jsonl"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(call.request)
    async for chunk in lines:
        await response.write(chunk)
    await response.write_eof()
    return response


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/audit/records",
        handler=list_records,
        access=Action.AUDIT_READ,
        summary="Records of the ledger, the newest first",
        query=RecordQuery,
        answer=RecordPage,
    ),
    Route(
        method="GET",
        path=f"{API}/audit/proofs/{{seq}}",
        handler=prove_inclusion,
        access=Action.AUDIT_READ,
        summary="Proof that a record is in the tree of a signed head (RFC 9162 §2.1.3)",
        query=ProofQuery,
        answer=InclusionAnswer,
    ),
    Route(
        method="GET",
        path=f"{API}/audit/export",
        handler=export,
        access=Action.AUDIT_READ,
        summary="The whole ledger, for `custos audit verify --export`",
        query=ExportQuery,
        stream="application/jsonl",
    ),
)
