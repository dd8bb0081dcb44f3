"""The ledger: records, signed heads, proofs, export."""

from typing import Any

import msgspec
from aiohttp import web

from gateway.ledger import InclusionAnswer, RecordEntry, RecordFilter
from gateway.problems import Problem
from gateway.web.routing import (
    API,
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    MAX_SEQ,
    Access,
    Call,
    Route,
    Sequence,
)
from policies.access import Action


class RecordQuery(RecordFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    before: Sequence | None = None
    page_size: int = DEFAULT_PAGE_SIZE


class RecordPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `next_before` is the `before` of the next page."""

    items: list[RecordEntry]
    next_before: int | None


class HeadQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    before: Sequence | None = None
    page_size: int = DEFAULT_PAGE_SIZE


class HeadList(msgspec.Struct, frozen=True, kw_only=True):
    """`public_key` is for comparison only: hold it from elsewhere."""

    public_key: str
    items: list[dict[str, Any]]


class ProofQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tree_size: Sequence | None = None


class ConsistencyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    old_size: Sequence
    tree_size: Sequence


class ConsistencyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    old_size: int
    tree_size: int
    path: list[str]


def _checked(size: int) -> int:
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise Problem("invalid_field", f"page_size: 1 to {MAX_PAGE_SIZE}")
    return size


async def list_records(call: Call, _: None) -> RecordPage:
    query = call.query(RecordQuery)
    size = _checked(query.page_size)
    found = await call.services.ledger.records(call.who, query, size, call.circumstances())
    more = len(found) > size
    return RecordPage(items=found[:size], next_before=found[size - 1].seq if more else None)


async def list_heads(call: Call, _: None) -> HeadList:
    query = call.query(HeadQuery)
    return HeadList(
        public_key=call.services.ledger.public_key,
        items=await call.services.ledger.heads(query.before, _checked(query.page_size)),
    )


async def prove_inclusion(call: Call, _: None) -> InclusionAnswer:
    seq = call.path("seq")
    if not seq.isascii() or not seq.isdigit() or int(seq) > MAX_SEQ:
        raise Problem("not_found", f"record {seq[:32]}")
    return await call.services.ledger.inclusion(
        call.who, int(seq), call.query(ProofQuery).tree_size, call.circumstances()
    )


async def prove_consistency(call: Call, _: None) -> ConsistencyAnswer:
    query = call.query(ConsistencyQuery)
    path = await call.services.ledger.consistency(query.old_size, query.tree_size)
    return ConsistencyAnswer(old_size=query.old_size, tree_size=query.tree_size, path=path)


async def export(call: Call, _: None) -> web.StreamResponse:
    lines = await call.services.ledger.export(call.who, call.circumstances())
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
        path=f"{API}/audit/heads",
        handler=list_heads,
        access=Access.AUTHENTICATED,
        summary="Signed heads of the ledger, the newest first",
        query=HeadQuery,
        answer=HeadList,
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
        path=f"{API}/audit/consistency",
        handler=prove_consistency,
        access=Access.AUTHENTICATED,
        summary="Proof that a later tree continues an earlier one (RFC 9162 §2.1.4)",
        query=ConsistencyQuery,
        answer=ConsistencyAnswer,
    ),
    Route(
        method="GET",
        path=f"{API}/audit/export",
        handler=export,
        access=Action.AUDIT_READ,
        summary="The whole ledger, for `custos audit verify --export`",
        stream="application/jsonl",
    ),
)
