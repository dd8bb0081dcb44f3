"""The routes that relay workers serve themselves, for the API's description; control never sees them."""

import msgspec

from gateway.catalogue import Identifier
from gateway.problems import Problem
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action


class TicketQuery(msgspec.Struct, frozen=True, kw_only=True):
    ticket: str


class SnapshotQuery(msgspec.Struct, frozen=True, kw_only=True):
    """`purpose` is a code of `/purposes`."""

    purpose: Identifier
    reference: str | None = None
    note: str | None = None
    width: int | None = None


class FramesQuery(SnapshotQuery, frozen=True, kw_only=True):
    """`every`: seconds between two pictures, as far as keyframes and load allow."""

    every: float = 2.0


async def _not_here(call: Call, _: None) -> None:
    raise Problem("worker_unavailable", call.request.path)


ROUTES = (
    *(
        Route(
            method="GET",
            path=f"/media/{{session}}/{name}",
            handler=_not_here,
            access=Access.PUBLIC,
            summary=summary,
            query=TicketQuery,
            stream=media_type,
        )
        for name, summary, media_type in (
            ("live.flv", "HTTP-FLV, opened once with the session's ticket", "video/x-flv"),
            ("live.mp4", "Fragmented MP4, opened once with the session's ticket", "video/mp4"),
            ("ws", "Fragmented MP4 over WebSocket, for Media Source Extensions", "video/mp4"),
        )
    ),
    Route(
        method="GET",
        path=f"{API}/cameras/{{id}}/snapshot",
        handler=_not_here,
        access=Action.LIVE_SNAPSHOT,
        summary="The newest keyframe as JPEG: a use like any other",
        query=SnapshotQuery,
        stream="image/jpeg",
    ),
    Route(
        method="GET",
        path=f"{API}/frames/{{camera}}",
        handler=_not_here,
        access=Action.FRAMES_CONSUME,
        summary="Sampled pictures for analytics jobs: WebSocket, or multipart/x-mixed-replace",
        query=FramesQuery,
        stream="multipart/x-mixed-replace",
    ),
)
