"""MJPEG for the walls of old: a session's pictures as JPEG, one by one, at a low rate.

They are keyframes, decoded by the analysis process as jobs' frames are: so few of these viewers at once, and
for each only the newest picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from analytics.messages import MAX_JPEG_WIDTH
from gateway.relay.answering import SESSION_ID
from gateway.relay.cameras import Cameras, wait_for_picture
from gateway.relay.pictures import (
    JPEG_QUALITY,
    MIN_WIDTH,
    Pictures,
    parse_query,
    send_multipart,
    width_for,
)
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import ViewerSessions
from gateway.relay.viewer import ViewerSettings
from policies.access import Action

MIN_FPS, MAX_FPS = 0.1, 2.0
_PROTOCOL = "mjpeg"


@dataclass(frozen=True, kw_only=True)
class MjpegSettings:
    """`viewers`: so many at once, of one worker."""

    viewers: int = 16


class _Query(msgspec.Struct, frozen=True, kw_only=True):
    ticket: str = ""
    fps: Annotated[float, Meta(ge=MIN_FPS, le=MAX_FPS)] = 1.0
    width: Annotated[int, Meta(ge=MIN_WIDTH, le=MAX_JPEG_WIDTH)] = 1280


class MjpegRoutes:
    def __init__(
        self,
        sessions: ViewerSessions,
        cameras: Cameras,
        pictures: Pictures,
        settings: MjpegSettings,
        viewer: ViewerSettings,
    ) -> None:
        self._sessions = sessions
        self._cameras = cameras
        self._pictures = pictures
        self._settings = settings
        self._viewer = viewer
        self._viewers = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/media/{session}/live.mjpeg", self.mjpeg, allow_head=False)]

    async def mjpeg(self, request: web.Request) -> web.StreamResponse:
        session_id = request.match_info["session"]
        request[SESSION_ID] = session_id
        query = parse_query(request, _Query)
        if not query.ticket:
            raise Refusal("ticket_required")
        with self._place():
            async with (
                self._sessions.redeemed(
                    session_id, query.ticket, _PROTOCOL, request.remote or "", Action.LIVE_VIEW
                ) as session,
                self._cameras.stream(session.stream) as stream,
            ):
                await wait_for_picture(stream, session, self._viewer.first_picture_seconds)
                frames = self._pictures.frames(
                    session.stream,
                    stream,
                    every_seconds=1 / query.fps,
                    width=width_for(query.width, session, stream),
                    quality=JPEG_QUALITY,
                )
                return await send_multipart(request, session, frames, self._viewer)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the few places, taken before a ticket is used up. Raises Refusal."""
        if self._viewers >= self._settings.viewers:
            raise Refusal("limit_mjpeg", f"{self._settings.viewers} at once on one worker")
        self._viewers += 1
        try:
            yield
        finally:
            self._viewers -= 1
