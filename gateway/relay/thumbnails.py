"""Thumbnails: what control allows of a batch, a few at a time, each in a session of its own.

A camera that fails costs its own picture only. What is not done when the batch's time is over is late.
"""

import asyncio
import base64
from collections.abc import Iterator

import msgspec
from aiohttp import hdrs, web

from analytics.runner import PictureUnavailableError
from gateway.relay.cameras import Cameras, wait_for_picture
from gateway.relay.control_link import ControlUnavailableError, RefusedError
from gateway.relay.media import MEDIA_HEADERS
from gateway.relay.pictures import Answered, Pictures, open_media, single_jpeg, unavailable_code
from gateway.relay.proxy import ControlProxy
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import ViewerSessions
from policies.access import Action

MAX_QUESTION_BYTES = 64 * 1024
AT_ONCE_PER_BATCH = 4
AT_ONCE = 8
"""Of all batches of a worker."""
BATCH_SECONDS = 20.0
PICTURE_SECONDS = 8.0
"""A camera that nobody watches has so long for its first keyframe."""
JPEG_QUALITY = 70
_OK = 200


class _Question(msgspec.Struct):
    width: int = 320


class _Item(msgspec.Struct, kw_only=True):
    camera: str
    jpeg: str | None = None
    problem: str | None = None
    reason: str | None = None


class _Batch(msgspec.Struct, kw_only=True):
    items: list[_Item]
    batch: str


class ThumbnailRoutes:
    def __init__(
        self, sessions: ViewerSessions, cameras: Cameras, control: ControlProxy, pictures: Pictures
    ) -> None:
        self._sessions = sessions
        self._cameras = cameras
        self._control = control
        self._pictures = pictures
        self._slots = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/thumbnails", self.thumbnails)]

    async def thumbnails(self, request: web.Request) -> web.StreamResponse:
        question = await _read(request)
        status, body = await self._control.ask(request, hdrs.METH_POST, "/api/v1/thumbnails", question)
        if status != _OK:
            return Answered(status, body).response
        batch = msgspec.json.decode(body, type=_Batch)
        width = msgspec.json.decode(question, type=_Question).width
        waiting = iter([item for item in batch.items if item.problem is None])
        try:
            async with asyncio.timeout(BATCH_SECONDS), asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE_PER_BATCH):
                    group.create_task(self._fill(request, batch.batch, waiting, width))
        except TimeoutError:
            for item in batch.items:
                if item.jpeg is None and item.problem is None:
                    item.problem = "thumbnail_late"
        return web.Response(
            body=msgspec.json.encode(batch), content_type="application/json", headers=MEDIA_HEADERS
        )

    async def _fill(self, request: web.Request, batch: str, waiting: Iterator[_Item], width: int) -> None:
        for item in waiting:
            async with self._slots:
                try:
                    jpeg = await self._picture(request, batch, item.camera, width)
                except _FAILURES as error:
                    item.problem = _code(error)
                else:
                    item.jpeg = base64.b64encode(jpeg).decode()

    async def _picture(self, request: web.Request, batch: str, camera: str, width: int) -> bytes:
        path = f"/api/v1/thumbnails/{batch}/sessions"
        opened = await open_media(self._control, request, path, {"camera": camera})
        async with (
            self._sessions.redeemed(
                opened.id, opened.media.ticket, "thumbnail", request.remote or "", Action.LIVE_SNAPSHOT
            ) as session,
            self._cameras.stream(session.stream) as stream,
        ):
            await wait_for_picture(stream, session, PICTURE_SECONDS)
            return await single_jpeg(self._pictures, session, stream, width, JPEG_QUALITY)


_FAILURES = (Answered, PictureUnavailableError, RefusedError, ControlUnavailableError, Refusal)


class _Code(msgspec.Struct):
    code: str


async def _read(request: web.Request) -> bytes:
    """The body. Raises Refusal `body_too_large`."""
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_QUESTION_BYTES:
            raise Refusal("body_too_large")
    return bytes(body)


def _code(error: Exception) -> str:
    """Of the problem that stands where a picture should."""
    match error:
        case Answered():
            return msgspec.json.decode(error.body, type=_Code).code
        case PictureUnavailableError():
            return unavailable_code(error)
        case RefusedError() | Refusal():
            return error.code
        case _:
            return "control_unavailable"
