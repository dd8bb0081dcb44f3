"""Grants: given, taken back, and what either would do."""

import msgspec
from aiohttp import web

from gateway.forms import Text
from gateway.grant_entries import GrantEntry, NewGrant
from gateway.grants import GrantFilter
from gateway.rehearsal import Rehearsal
from gateway.web.middleware import json_answer
from gateway.web.routing import API, Access, Call, Page, Route
from policies.access import Action, ObjectKind, SubjectKind


class GrantPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[GrantEntry]
    next_page_token: str | None


class GrantQuery(Page, frozen=True, kw_only=True):
    """`subject` and `object`: ids. `active`: only those that have begun and are not over."""

    subject_kind: SubjectKind | None = None
    subject: str | None = None
    object_kind: ObjectKind | None = None
    object: str | None = None
    active: bool = False


class DryRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With `dry_run` nothing is written, and the answer, 200, is a Rehearsal."""

    dry_run: bool = False


class RevokeQuery(DryRun, frozen=True, kw_only=True):
    reason: Text = ""


async def list_grants(call: Call, _: None) -> GrantPage:
    query = call.query(GrantQuery)
    size = query.size()
    wanted = GrantFilter(
        subject_kind=query.subject_kind,
        subject=query.subject,
        object_kind=query.object_kind,
        object=query.object,
        active=query.active,
    )
    found = await call.services.grants.visible_to(call.who, wanted, query.page_token or "", size)
    more = len(found) > size
    return GrantPage(items=found[:size], next_page_token=found[size - 1].id if more else None)


async def create_grant(call: Call, body: NewGrant) -> GrantEntry | web.Response:
    grants = call.services.grants
    if call.query(DryRun).dry_run:
        return json_answer(await grants.rehearse_creation(call.who, body))
    return await grants.create(call.who, body, call.circumstances())


async def revoke_grant(call: Call, _: None) -> web.Response | None:
    grants, query = call.services.grants, call.query(RevokeQuery)
    if query.dry_run:
        return json_answer(await grants.rehearse_revocation(call.who, call.path("id")))
    await grants.revoke(call.who, call.path("id"), query.reason, call.circumstances())
    return None


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/grants",
        handler=list_grants,
        access=Access.AUTHENTICATED,
        summary="Grants on what the caller shares, and those given to him",
        query=GrantQuery,
        answer=GrantPage,
    ),
    Route(
        method="POST",
        path=f"{API}/grants",
        handler=create_grant,
        access=Action.CAMERA_SHARE,
        summary="Grant actions on cameras to somebody, or say what that would do",
        body=NewGrant,
        query=DryRun,
        rehearsal=Rehearsal,
        answer=GrantEntry,
        status=201,
    ),
    Route(
        method="DELETE",
        path=f"{API}/grants/{{id}}",
        handler=revoke_grant,
        access=Action.CAMERA_SHARE,
        summary="Revoke a grant and those under it; pictures that rest on them end within a second",
        query=RevokeQuery,
        rehearsal=Rehearsal,
    ),
)
