"""The public part of the ledger: heads, consistency, keys; and the change of the signing key."""

from typing import Any

import msgspec

from gateway.audit.liveness import SignOfLifeJson
from gateway.problems import Problem
from gateway.public_ledger import KeyEntry
from gateway.web.routing import (
    API,
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    Access,
    Call,
    Route,
    Sequence,
)
from policies.access import Action


class HeadQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    before: Sequence | None = None
    page_size: int = DEFAULT_PAGE_SIZE


class HeadList(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first.

    `public_key`, the ledger's first, is for comparison only: hold it from elsewhere. `alive` states the time,
    signed over the newest head: what was recorded last may be old, this is not.
    """

    public_key: str
    items: list[dict[str, Any]]
    alive: SignOfLifeJson | None


class ConsistencyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    old_size: Sequence
    tree_size: Sequence


class ConsistencyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: hashes in hexadecimal."""

    old_size: int
    tree_size: int
    path: list[str]


class KeyQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: only changes after so many records."""

    after: Sequence = 0
    page_size: int = DEFAULT_PAGE_SIZE


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """The first public key, and every change of it, the oldest first."""

    public_key: str
    items: list[KeyEntry]


def _checked(size: int) -> int:
    if not 1 <= size <= MAX_PAGE_SIZE:
        raise Problem("invalid_field", f"page_size: 1 to {MAX_PAGE_SIZE}")
    return size


async def list_heads(call: Call, _: None) -> HeadList:
    query = call.query(HeadQuery)
    ledger = call.services.public_ledger
    items = await ledger.heads(query.before, _checked(query.page_size))
    return HeadList(public_key=ledger.public_key, items=items, alive=ledger.alive())


async def prove_consistency(call: Call, _: None) -> ConsistencyAnswer:
    query = call.query(ConsistencyQuery)
    path = await call.services.public_ledger.consistency(query.old_size, query.tree_size)
    return ConsistencyAnswer(old_size=query.old_size, tree_size=query.tree_size, path=path)


async def list_keys(call: Call, _: None) -> KeyList:
    query = call.query(KeyQuery)
    ledger = call.services.public_ledger
    items = await ledger.keys(query.after, _checked(query.page_size))
    return KeyList(public_key=ledger.public_key, items=items)


async def rotate_key(call: Call, _: None) -> KeyEntry:
    return await call.services.public_ledger.rotate(call.who, call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/audit/heads",
        handler=list_heads,
        access=Access.PUBLIC,
        summary="Signed heads of the ledger, the newest first, and a sign of life",
        query=HeadQuery,
        answer=HeadList,
    ),
    Route(
        method="GET",
        path=f"{API}/audit/consistency",
        handler=prove_consistency,
        access=Access.PUBLIC,
        summary="Proof that a later tree continues an earlier one (RFC 9162 §2.1.4)",
        query=ConsistencyQuery,
        answer=ConsistencyAnswer,
    ),
    Route(
        method="GET",
        path=f"{API}/audit/keys",
        handler=list_keys,
        access=Access.PUBLIC,
        summary="The keys that sign the ledger's heads, each vouched for by the one before",
        query=KeyQuery,
        answer=KeyList,
    ),
    Route(
        method="POST",
        path=f"{API}/audit/keys",
        handler=rotate_key,
        access=Action.SECURITY_MANAGE,
        summary="Sign the ledger's heads with a new key; the old one is destroyed",
        answer=KeyEntry,
        status=201,
    ),
)
