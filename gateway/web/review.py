"""Who may do what, and why."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.access_review import CameraViewer, Explained, ViewedCamera
from gateway.forms import Identifier
from gateway.web.routing import API, Access, Call, Page, Route, Sequence
from policies.access import Action


class ExplainQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`principal`: a user's id; without it, the caller. `min_revision`: of the policy that must be known."""

    camera: Identifier
    action: Action = Action.LIVE_VIEW
    principal: Identifier | None = None
    purpose: Annotated[str, Meta(max_length=64)] | None = None
    min_revision: Sequence = 0


class ViewersQuery(Page, frozen=True, kw_only=True):
    action: Action = Action.LIVE_VIEW


class CamerasQuery(Page, frozen=True, kw_only=True):
    """Without `action`, whatever makes a camera visible."""

    action: Action | None = None


class ViewersPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[CameraViewer]
    next_page_token: str | None
    total: int


class ViewedCamerasPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[ViewedCamera]
    next_page_token: str | None
    total: int


async def explain(call: Call, _: None) -> Explained:
    query = call.query(ExplainQuery)
    return await call.services.review.explain(
        call.who,
        query.principal or call.who.id,
        query.action,
        query.camera,
        query.purpose,
        query.min_revision,
    )


async def list_viewers(call: Call, _: None) -> ViewersPage:
    query = call.query(ViewersQuery)
    size = query.size()
    found, total = await call.services.review.viewers(
        call.who, call.path("id"), query.action, query.page_token or "", size
    )
    more = len(found) > size
    return ViewersPage(items=found[:size], next_page_token=found[size - 1].id if more else None, total=total)


async def list_viewed_cameras(call: Call, _: None) -> ViewedCamerasPage:
    query = call.query(CamerasQuery)
    size = query.size()
    found, total = await call.services.review.cameras_of(
        call.who, call.path("id"), query.action, query.page_token, size
    )
    more = len(found) > size
    return ViewedCamerasPage(
        items=found[:size], next_page_token=found[size - 1].id if more else None, total=total
    )


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/explain",
        handler=explain,
        access=Access.AUTHENTICATED,
        summary="A decision, the rules that matched, the near misses, and all that in sentences",
        query=ExplainQuery,
        answer=Explained,
    ),
    Route(
        method="GET",
        path=f"{API}/cameras/{{id}}/viewers",
        handler=list_viewers,
        access=Access.AUTHENTICATED,
        summary="Who can see this camera: for who shares it, and for auditors",
        query=ViewersQuery,
        answer=ViewersPage,
    ),
    Route(
        method="GET",
        path=f"{API}/users/{{id}}/cameras",
        handler=list_viewed_cameras,
        access=Access.AUTHENTICATED,
        summary="What this person can see: for himself, who manages the account, and auditors",
        query=CamerasQuery,
        answer=ViewedCamerasPage,
    ),
)
