"""Disputes about grants."""

import msgspec

from gateway.disputes import DisputeClosing, DisputeEntry, NewDispute
from gateway.web.routing import API, Access, Call, Page, Route
from policies.access import Action


class DisputeQuery(Page, frozen=True, kw_only=True):
    """`open`: only those that nobody has decided yet."""

    open: bool = False


class DisputePage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[DisputeEntry]
    next_page_token: str | None


async def list_disputes(call: Call, _: None) -> DisputePage:
    query = call.query(DisputeQuery)
    size = query.size()
    found = await call.services.disputes.visible_to(
        call.who, query.page_token or "", size, is_open=query.open
    )
    more = len(found) > size
    return DisputePage(items=found[:size], next_page_token=found[size - 1].id if more else None)


async def open_dispute(call: Call, body: NewDispute) -> DisputeEntry:
    return await call.services.disputes.open(call.who, body, call.circumstances())


async def close_dispute(call: Call, body: DisputeClosing) -> DisputeEntry:
    return await call.services.disputes.close(call.who, call.path("id"), body, call.circumstances())


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/disputes",
        handler=list_disputes,
        access=Access.AUTHENTICATED,
        summary="Disputes about what the caller owns or audits, and those that he raised",
        query=DisputeQuery,
        answer=DisputePage,
    ),
    Route(
        method="POST",
        path=f"{API}/disputes",
        handler=open_dispute,
        access=Action.CAMERA_SHARE,
        summary="Dispute a grant: it allows nothing until somebody else has decided",
        body=NewDispute,
        answer=DisputeEntry,
        status=201,
    ),
    Route(
        method="POST",
        path=f"{API}/disputes/{{id}}/close",
        handler=close_dispute,
        access=Action.CAMERA_SHARE,
        summary="Decide a dispute: upheld, the grant is revoked; dismissed, it counts again",
        body=DisputeClosing,
        answer=DisputeEntry,
    ),
)
