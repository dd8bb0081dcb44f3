"""Grants, and why a decision comes out as it does."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.catalogue import Identifier, Text
from gateway.grants import GrantEntry, NewGrant
from gateway.problems import Problem
from gateway.web.routing import API, Access, Call, Page, Route
from policies.access import INSTALLATION, Action, Explanation, Object, ObjectKind


class GrantPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[GrantEntry]
    next_page_token: str | None


class RevokeQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Text = ""


class ExplainQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`principal`: a user's id; without it, the caller."""

    camera: Identifier
    action: Action = Action.LIVE_VIEW
    principal: Identifier | None = None
    purpose: Annotated[str, Meta(max_length=64)] | None = None


async def list_grants(call: Call, _: None) -> GrantPage:
    query = call.query(Page)
    size = query.size()
    found = await call.services.grants.visible_to(call.who, query.page_token or "", size)
    more = len(found) > size
    return GrantPage(items=found[:size], next_page_token=found[size - 1].id if more else None)


async def create_grant(call: Call, body: NewGrant) -> GrantEntry:
    return await call.services.grants.create(call.who, body, call.circumstances())


async def revoke_grant(call: Call, _: None) -> None:
    reason = call.query(RevokeQuery).reason
    await call.services.grants.revoke(call.who, call.path("id"), reason, call.circumstances())


async def explain(call: Call, _: None) -> Explanation:
    """Of oneself; of others for who shares the camera, and for auditors."""
    query = call.query(ExplainQuery)
    enforcement = call.services.enforcement
    camera = Object(ObjectKind.CAMERA, query.camera)
    subject = query.principal or call.who.id
    may_ask = (
        subject == call.who.id
        or enforcement.decide(call.who.id, Action.CAMERA_SHARE, camera).allowed
        or enforcement.decide(call.who.id, Action.AUDIT_READ, INSTALLATION).allowed
    )
    if not may_ask:
        raise Problem("access_denied", "explanations about others are for who shares the camera")
    return enforcement.explain(subject, query.action, camera, query.purpose)


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/grants",
        handler=list_grants,
        access=Access.AUTHENTICATED,
        summary="Grants on what the caller shares, and those given to him",
        query=Page,
        answer=GrantPage,
    ),
    Route(
        method="POST",
        path=f"{API}/grants",
        handler=create_grant,
        access=Action.CAMERA_SHARE,
        summary="Grant actions on cameras to somebody",
        body=NewGrant,
        answer=GrantEntry,
        status=201,
    ),
    Route(
        method="DELETE",
        path=f"{API}/grants/{{id}}",
        handler=revoke_grant,
        access=Action.CAMERA_SHARE,
        summary="Revoke a grant; pictures that rest on it end within a second",
        query=RevokeQuery,
    ),
    Route(
        method="GET",
        path=f"{API}/explain",
        handler=explain,
        access=Access.AUTHENTICATED,
        summary="A decision, the rules that matched, and the near misses",
        query=ExplainQuery,
        answer=Explanation,
    ),
)
