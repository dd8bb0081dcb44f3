"""Single pictures for people and jobs: a snapshot, and sampled frames as WebSocket or multipart.

The worker opens the session in the caller's name with control, redeems its ticket itself, and reports the
end: one use in the ledger for a snapshot, one for a subscription.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Protocol, TypeVar

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from analytics.messages import MAX_JPEG_WIDTH
from analytics.runner import PictureUnavailableError, SampledFrame
from gateway.relay.answering import SESSION_ID
from gateway.relay.cameras import Cameras, wait_for_picture
from gateway.relay.media import MAX_INCOMING_MESSAGE_BYTES, MEDIA_HEADERS, listen, refuse_cross_origin
from gateway.relay.proxy import ControlProxy
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import OverReason, ViewerSession, ViewerSessions
from gateway.relay.viewer import ViewerSettings, ViewerSocket, end_websocket
from policies.access import Action
from streams.hub import Stream

JPEG_QUALITY = 85
MIN_WIDTH = 16
_BOUNDARY = "custos-frame"
MULTIPART = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
_PROTOCOLS = {Action.LIVE_SNAPSHOT: "snapshot", Action.FRAMES_CONSUME: "frames"}
_STALLED_SECONDS = 10.0
"""A job that takes no picture for so long is slow."""
_CREATED = 201

Frames = AsyncGenerator[SampledFrame, None]
Query = TypeVar("Query", bound=msgspec.Struct)


class Pictures(Protocol):
    """Where pictures come from: `analytics.runner`. Both raise PictureUnavailableError."""

    async def jpeg(self, camera_id: str, stream: Stream, width: int, quality: int) -> bytes: ...

    def frames(
        self, camera_id: str, stream: Stream, *, every_seconds: float, width: int, quality: int
    ) -> AsyncGenerator[SampledFrame, None]: ...


class _Use(msgspec.Struct, frozen=True, kw_only=True):
    """The declared purpose; without one, control says what is missing."""

    purpose: str | None = None
    reference: str | None = None
    note: str | None = None


class _SnapshotQuery(_Use, frozen=True, kw_only=True):
    width: Annotated[int, Meta(ge=MIN_WIDTH, le=MAX_JPEG_WIDTH)] = MAX_JPEG_WIDTH


class _FramesQuery(_Use, frozen=True, kw_only=True):
    width: Annotated[int, Meta(ge=MIN_WIDTH, le=MAX_JPEG_WIDTH)] = 640
    every: Annotated[float, Meta(ge=0.2, le=3600)] = 2.0


class _Ticket(msgspec.Struct):
    ticket: str


class _OpenedMedia(msgspec.Struct):
    """What the worker needs of control's answer to a new session."""

    id: str
    media: _Ticket


class Answered(Exception):  # noqa: N818 - not an error of ours
    """Control said something else than yes; the caller gets it as it is."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body

    @property
    def response(self) -> web.Response:
        return web.Response(
            status=self.status,
            body=self.body,
            content_type="application/problem+json",
            headers=MEDIA_HEADERS,
        )


class _Subscription:
    """Sends a session's pictures, one at a time, and ends the session when that is no longer possible."""

    def __init__(self, session: ViewerSession, send: Callable[[SampledFrame], Awaitable[None]]) -> None:
        self._session = session
        self._send = send
        self._bytes_sent = 0
        self._dropped = 0
        session.counts = lambda: (self._bytes_sent, self._dropped)

    async def run(self, frames: Frames) -> None:
        try:
            async with aclosing(frames):
                async for frame in frames:
                    async with asyncio.timeout(_STALLED_SECONDS):
                        await self._send(frame)
                    self._bytes_sent += len(frame.jpeg)
                    self._dropped += frame.dropped_since_last
            self._session.end(OverReason.CAMERA_GONE)
        except PictureUnavailableError as error:
            self._session.end(OverReason.FAILED, error.code)
        except TimeoutError:
            self._session.end(OverReason.SLOW)
        except ConnectionError:
            self._session.end(OverReason.LOST, lost=True)


class PictureRoutes:
    def __init__(
        self,
        sessions: ViewerSessions,
        cameras: Cameras,
        control: ControlProxy,
        pictures: Pictures,
        settings: ViewerSettings,
    ) -> None:
        self._sessions = sessions
        self._cameras = cameras
        self._control = control
        self._pictures = pictures
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/cameras/{camera}/snapshot", self.snapshot, allow_head=False),
            web.get("/api/v1/frames/{camera}", self.frames, allow_head=False),
        ]

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        query = parse_query(request, _SnapshotQuery)
        try:
            async with self._opened(request, query, Action.LIVE_SNAPSHOT) as (session, stream):
                jpeg = await single_jpeg(self._pictures, session, stream, query.width, JPEG_QUALITY)
                return web.Response(body=jpeg, content_type="image/jpeg", headers=MEDIA_HEADERS)
        except Answered as answered:
            return answered.response
        except PictureUnavailableError as error:
            raise Refusal(unavailable_code(error), error.code) from error

    async def frames(self, request: web.Request) -> web.StreamResponse:
        query = parse_query(request, _FramesQuery)
        socket = web.WebSocketResponse(
            compress=False,
            heartbeat=self._settings.websocket_heartbeat_seconds,
            max_msg_size=MAX_INCOMING_MESSAGE_BYTES,
            timeout=self._settings.end_message_seconds,
        )
        wants_socket = hdrs.UPGRADE in request.headers
        if wants_socket:
            refuse_cross_origin(request)
            if not socket.can_prepare(request).ok:
                raise Refusal("upgrade_required")
        try:
            async with self._opened(request, query, Action.FRAMES_CONSUME) as (session, stream):
                frames = self._pictures.frames(
                    session.camera,
                    stream,
                    every_seconds=query.every,
                    width=width_for(query.width, session, stream),
                    quality=JPEG_QUALITY,
                )
                if wants_socket:
                    return await self._over_websocket(request, socket, session, frames)
                return await send_multipart(request, session, frames, self._settings)
        except Answered as answered:
            return answered.response

    async def _over_websocket(
        self, request: web.Request, socket: web.WebSocketResponse, session: ViewerSession, frames: Frames
    ) -> web.StreamResponse:
        """For each picture a text message that describes it, then the JPEG as a binary message."""

        async def send(frame: SampledFrame) -> None:
            await socket.send_str(msgspec.json.encode(_description(frame)).decode())
            await socket.send_bytes(frame.jpeg)

        socket.headers.update(MEDIA_HEADERS)
        await socket.prepare(request)
        viewer = ViewerSocket(_transport(request), self._settings)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(listen(socket, session)),
                group.create_task(_Subscription(session, send).run(frames)),
            ]
            await asyncio.wait({session.over})
            for task in tasks:
                task.cancel()
        await end_websocket(viewer, session, self._settings.end_message_seconds)
        return socket

    @asynccontextmanager
    async def _opened(
        self, request: web.Request, use: _Use, action: Action
    ) -> AsyncIterator[tuple[ViewerSession, Stream]]:
        """A session in the caller's name, redeemed, with a picture in its stream. Raises `Answered`."""
        camera = request.match_info["camera"]
        purpose = {"code": use.purpose, "reference": use.reference, "note": use.note}
        question = {"camera": camera, "action": action} | ({"purpose": purpose} if use.purpose else {})
        opened = await open_media(self._control, request, "/api/v1/sessions", question)
        request[SESSION_ID] = opened.id
        async with (
            self._sessions.redeemed(
                opened.id, opened.media.ticket, _PROTOCOLS[action], request.remote or "", action
            ) as session,
            self._cameras.stream(session.stream) as stream,
        ):
            await wait_for_picture(stream, session, self._settings.first_picture_seconds)
            yield session, stream


async def send_multipart(
    request: web.Request, session: ViewerSession, frames: Frames, settings: ViewerSettings
) -> web.StreamResponse:
    """multipart/x-mixed-replace (as RFC 2046 §5.1, without an end): one part for each picture."""
    response = web.StreamResponse(headers={**MEDIA_HEADERS, hdrs.CONTENT_TYPE: MULTIPART})
    response.force_close()

    async def send(frame: SampledFrame) -> None:
        await response.write(_part(frame))

    await response.prepare(request)
    viewer = ViewerSocket(_transport(request), settings)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(_Subscription(session, send).run(frames))
        await asyncio.wait({session.over})
        sending.cancel()
    if viewer.backlog_bytes():
        viewer.discard()
    return response


async def open_media(
    control: ControlProxy, request: web.Request, path: str, question: Mapping[str, object]
) -> _OpenedMedia:
    """A session in the caller's name. Raises `Answered`, ControlUnavailableError."""
    status, body = await control.ask(request, hdrs.METH_POST, path, msgspec.json.encode(question))
    if status != _CREATED:
        raise Answered(status, body)
    return msgspec.json.decode(body, type=_OpenedMedia)


async def single_jpeg(
    pictures: Pictures, session: ViewerSession, stream: Stream, width: int, quality: int
) -> bytes:
    """A picture of a session that is still on. Raises PictureUnavailableError, Refusal `session_over`."""
    size = width_for(width, session, stream)
    jpeg = await pictures.jpeg(session.stream, stream, size, quality)
    if session.over.done():
        raise Refusal("session_over", session.why)
    session.counts = lambda: (len(jpeg), 0)
    return jpeg


def unavailable_code(error: PictureUnavailableError) -> str:
    return "analysis_unavailable" if error.code == "busy" else "camera_unavailable"


def parse_query(request: web.Request, shape: type[Query]) -> Query:
    try:
        return msgspec.convert(dict(request.query), shape, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal("invalid_field", str(error)) from None


def width_for(wanted: int, session: ViewerSession, stream: Stream) -> int:
    """The width that keeps the session's obligation on the height as well."""
    track = stream.track
    if track is None or session.may_see(track) or session.obligations.max_height is None:
        return wanted
    return max(MIN_WIDTH, min(wanted, session.obligations.max_height * track.width // track.height))


def _transport(request: web.Request) -> asyncio.Transport:
    if request.transport is None:
        raise ConnectionResetError("the caller is gone")
    return request.transport


def _description(frame: SampledFrame) -> dict[str, float | None]:
    """`age_ms`: since the picture's last byte arrived here; `achieved_period` in seconds, null at first."""
    return {
        "seq": frame.sequence,
        "pts": frame.pts,
        "age_ms": (time.monotonic_ns() - frame.received_ns) // 1_000_000,
        "dropped_since_last": frame.dropped_since_last,
        "achieved_period": frame.achieved_period_seconds,
    }


def _part(frame: SampledFrame) -> bytes:
    lines = [f"--{_BOUNDARY}", "Content-Type: image/jpeg", f"Content-Length: {len(frame.jpeg)}"]
    for name, value in _description(frame).items():
        if value is not None:
            lines.append(f"X-{name.replace('_', '-').title()}: {value}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + frame.jpeg + b"\r\n"
