"""The routes that relay workers serve themselves, for the API's description; control never sees them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.forms import Identifier
from gateway.problems import Problem
from gateway.relay.mjpeg import MAX_FPS, MIN_FPS
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action
from streams.mux.hls import PLAYLIST, PLAYLIST_TYPE

MULTIPART = "multipart/x-mixed-replace"


class TicketQuery(msgspec.Struct, frozen=True, kw_only=True):
    ticket: str


class FlvQuery(TicketQuery, frozen=True, kw_only=True):
    """`hevc`: 12 names H.265 by the codec id 12, for players from before Enhanced RTMP."""

    hevc: Literal[12] | None = None


class MjpegQuery(TicketQuery, frozen=True, kw_only=True):
    """`fps`: pictures a second, as far as keyframes and load allow."""

    fps: Annotated[float, Meta(ge=MIN_FPS, le=MAX_FPS)] = 1.0
    width: int | None = None


class ReloadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Answer when the playlist has this segment, or this part of it (RFC 8216bis §6.2.5.2)."""

    segment: int | None = msgspec.field(default=None, name="_HLS_msn")
    part: int | None = msgspec.field(default=None, name="_HLS_part")


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


_HLS = "hls/{capability}"
_MEDIA: tuple[tuple[str, str, str, type[msgspec.Struct] | None], ...] = (
    ("live.flv", "HTTP-FLV", "video/x-flv", FlvQuery),
    ("ws.flv", "FLV over WebSocket, one binary message for each piece", "video/x-flv", FlvQuery),
    ("live.mp4", "Fragmented MP4", "video/mp4", TicketQuery),
    ("ws", "Fragmented MP4 over WebSocket, for Media Source Extensions", "video/mp4", TicketQuery),
    ("index.m3u8", "HTTP Live Streaming: its addresses are the session's own", PLAYLIST_TYPE, TicketQuery),
    ("live.mjpeg", "JPEG pictures at a low rate, of keyframes only", MULTIPART, MjpegQuery),
    # opened once with the ticket; the addresses below are those that index.m3u8 gives away
    (f"{_HLS}/{PLAYLIST}", "The playlist of now, or a blocking reload", PLAYLIST_TYPE, ReloadQuery),
    (_HLS + "/init-{number}.mp4", "What a player needs before the segments that name it", "video/mp4", None),
    (_HLS + "/segment-{number}.mp4", "A segment", "video/mp4", None),
    (_HLS + "/segment-{number}.{part}.mp4", "A part; awaited, if it is the next one", "video/mp4", None),
)

ROUTES = (
    *(
        Route(
            method="GET",
            path=f"/media/{{session}}/{name}",
            handler=_not_here,
            access=Access.PUBLIC,
            summary=summary,
            query=query,
            stream=media_type,
        )
        for name, summary, media_type, query in _MEDIA
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
        stream=MULTIPART,
    ),
)
