"""The ledger: records, proofs, export. What everybody may know of it is in `heads`."""

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.audit.export import FORMATS
from gateway.audit.records import SENSITIVE_FIELDS, AuditKind
from gateway.forms import Identifier, Name
from gateway.ledger import InclusionAnswer, RecordEntry, RecordFilter
from gateway.problems import Problem
from gateway.purposes import DeclaredPurpose
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


class LedgerExportQuery(DeclaredInQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["jsonl", "csv"] = "jsonl"


class Erasure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fields`: of `actor_name`, `content`, `purpose_note`, `purpose_reference`, `remote`."""

    fields: Annotated[list[Identifier], Meta(min_length=1, max_length=len(SENSITIVE_FIELDS))]
    reason: Name
    purpose: DeclaredPurpose | None = None


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
    query = call.query(ProofQuery)
    circumstances = call.circumstances(await declared(call, query, Action.AUDIT_READ))
    return await call.services.ledger.inclusion(call.who, _seq(call), query.tree_size, circumstances)


def _seq(call: Call) -> int:
    seq = call.path("seq")
    if not seq.isascii() or not seq.isdigit() or len(seq) > len(str(MAX_SEQ)) or int(seq) > MAX_SEQ:
        raise Problem("not_found", f"record {seq[:32]}")
    return int(seq)


async def export(call: Call, _: None) -> web.StreamResponse:
    query = call.query(LedgerExportQuery)
    circumstances = call.circumstances(await declared(call, query, Action.AUDIT_READ))
    form = FORMATS[query.format]
    chunks = await call.services.ledger.export(call.who, form, circumstances)
    response = web.StreamResponse(
        headers={
            "Content-Type": form.media_type,
            "Content-Disposition": f'attachment; filename="ledger.{query.format}"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(call.request)
    async for chunk in chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


async def erase(call: Call, body: Erasure) -> None:
    # who erases from the ledger reads it for the same purpose
    purpose = await call.services.purposes.check(body.purpose, Action.AUDIT_READ, call.who)
    await call.services.ledger.erase(
        call.who, _seq(call), body.fields, body.reason, call.circumstances(purpose)
    )


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
        query=LedgerExportQuery,
        stream="application/jsonl",
    ),
    Route(
        method="POST",
        path=f"{API}/audit/records/{{seq}}/erasure",
        handler=erase,
        access=Action.SECURITY_MANAGE,
        summary="Erase what is about a person from a record; every proof stays good",
        body=Erasure,
    ),
)
