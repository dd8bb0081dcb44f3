"""Pictures that a relay worker takes once control has decided: thumbnails; and a test of a connection."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.forms import Identifier
from gateway.problems import Problem
from gateway.purposes import DeclaredPurpose
from gateway.relay.camera_tests import ConnectionTest
from gateway.thumbnails import MAX_CAMERAS
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action

MIN_THUMBNAIL_WIDTH = 16
MAX_THUMBNAIL_WIDTH = 320


class NewThumbnails(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`width`: of the pictures, at most."""

    cameras: Annotated[list[Identifier], Meta(min_length=1, max_length=MAX_CAMERAS)]
    purpose: DeclaredPurpose | None = None
    width: Annotated[int, Meta(ge=MIN_THUMBNAIL_WIDTH, le=MAX_THUMBNAIL_WIDTH)] = MAX_THUMBNAIL_WIDTH


class Thumbnail(msgspec.Struct, frozen=True, kw_only=True):
    """`jpeg` in base64, or the code of the `problem`; `reason`: of a problem `access_denied`."""

    camera: str
    jpeg: str | None = None
    problem: str | None = None
    reason: str | None = None


class ThumbnailList(msgspec.Struct, frozen=True, kw_only=True):
    """Each camera once, in the order in which they were asked for. `batch`: for the worker's own use."""

    items: list[Thumbnail]
    batch: str


class ThumbnailCamera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    camera: Identifier


class ThumbnailTicket(msgspec.Struct, frozen=True, kw_only=True):
    """What opens one picture, once, within 30 s."""

    id: str
    media: "Ticket"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    ticket: str

    def __repr__(self) -> str:
        return "Ticket(...)"


async def begin_thumbnails(call: Call, body: NewThumbnails) -> ThumbnailList:
    """What control has to say: who is refused. The worker that passed the question on adds the pictures."""
    services = call.services
    purpose = await services.purposes.check(body.purpose, Action.LIVE_SNAPSHOT, call.who)
    batch = await services.thumbnails.begin(call.who, body.cameras, call.circumstances(purpose))
    items = [_item(camera, batch.refused.get(camera)) for camera in dict.fromkeys(body.cameras)]
    return ThumbnailList(items=items, batch=batch.id)


async def open_thumbnail(call: Call, body: ThumbnailCamera) -> ThumbnailTicket:
    opened = await call.services.thumbnails.open(call.who, call.path("id"), body.camera)
    return ThumbnailTicket(id=opened.id, media=Ticket(ticket=opened.ticket))


async def look_at_connection(call: Call, _: None) -> ConnectionTest:
    """What control has to say; the worker that passed the question on looks for itself."""
    await call.services.camera_tests.begin(call.who, call.path("id"), call.circumstances())
    return ConnectionTest(error="worker_unavailable")


def _item(camera: str, problem: Problem | None) -> Thumbnail:
    if problem is None:
        return Thumbnail(camera=camera)
    return Thumbnail(camera=camera, problem=problem.code, reason=problem.reason)


ROUTES = (
    Route(
        method="POST",
        path=f"{API}/thumbnails",
        handler=begin_thumbnails,
        access=Access.AUTHENTICATED,
        summary="Small pictures of up to 50 cameras: one use, whose record names each of them",
        body=NewThumbnails,
        answer=ThumbnailList,
    ),
    Route(
        method="POST",
        path=f"{API}/thumbnails/{{id}}/sessions",
        handler=open_thumbnail,
        access=Access.AUTHENTICATED,
        summary="Open one camera of a batch of thumbnails: what the relay worker asks that serves it",
        body=ThumbnailCamera,
        answer=ThumbnailTicket,
        status=201,
    ),
    Route(
        method="POST",
        path=f"{API}/cameras/{{id}}/test",
        handler=look_at_connection,
        access=Action.CAMERA_MANAGE,
        summary="Pull a camera for a few seconds: what its stream is like, or why there is none; no picture",
        answer=ConnectionTest,
    ),
)
