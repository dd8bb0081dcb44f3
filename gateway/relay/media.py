"""The media routes of viewers: FLV and fragmented MP4, each over HTTP and over WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, WSMsgType, hdrs, web

from gateway.relay.answering import SESSION_ID
from gateway.relay.cameras import Cameras, wait_for_picture
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import OverReason, ViewerSession, ViewerSessions
from gateway.relay.viewer import ViewerReader, ViewerSettings, ViewerSocket, end_websocket
from policies.access import Action
from streams.hub import BoundedReader, Stream

MAX_INCOMING_MESSAGE_BYTES = 4096
"""A viewer has nothing to say; players send a few bytes at most."""
MEDIA_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One of the forms in which a session's media may be had."""

    protocol: str
    container: str
    content_type: str = ""
    announces_medium: bool = False


_FLV = _Form(protocol="flv", container="flv", content_type="video/x-flv")
_FMP4 = _Form(protocol="fmp4", container="fmp4", content_type="video/mp4")
_WS = _Form(protocol="ws", container="fmp4", announces_medium=True)
_WS_FLV = _Form(protocol="ws-flv", container="flv")
_CODEC_ID_12 = "flv-12"
"""FLV whose H.265 has the codec id 12, for players from before Enhanced RTMP."""


class MediaRoutes:
    def __init__(self, sessions: ViewerSessions, cameras: Cameras, settings: ViewerSettings) -> None:
        self._sessions = sessions
        self._cameras = cameras
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/media/{session}/live.flv", self.flv, allow_head=False),
            web.get("/media/{session}/live.mp4", self.fmp4, allow_head=False),
            web.get("/media/{session}/ws", self.websocket, allow_head=False),
            web.get("/media/{session}/ws.flv", self.websocket_flv, allow_head=False),
            web.route("*", "/media/{rest:.*}", self.refuse),
        ]

    async def refuse(self, request: web.Request) -> web.StreamResponse:
        """No other request under /media/ leaves this worker: it may carry a ticket."""
        raise Refusal("not_found" if request.method == hdrs.METH_GET else "method_not_allowed")

    async def flv(self, request: web.Request) -> web.StreamResponse:
        return await self._over_http(request, _as_asked(request, _FLV))

    async def fmp4(self, request: web.Request) -> web.StreamResponse:
        return await self._over_http(request, _FMP4)

    async def _over_http(self, request: web.Request, form: _Form) -> web.StreamResponse:
        async with self._opened(request, form) as (session, stream):
            await wait_for_picture(stream, session, self._settings.first_picture_seconds)
            if not session.may_see(stream.track):
                raise Refusal("obligation_unmet", "the picture is larger than the permission allows")
            response = web.StreamResponse(headers={**MEDIA_HEADERS, hdrs.CONTENT_TYPE: form.content_type})
            response.force_close()
            framing = "unframed"
            if request.version >= HttpVersion11:
                framing = "chunked"
                response.enable_chunked_encoding()
            writer = await response.prepare(request)
            if writer is None or request.transport is None:
                raise ConnectionResetError("the viewer is gone")
            writer.send_headers()
            viewer = ViewerSocket(request.transport, self._settings)
            reader = ViewerReader(session, stream, viewer, self._settings)
            await _watch(stream, reader, form.container, framing, session)
            if viewer.backlog_bytes():
                viewer.discard()
            return response

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        return await self._as_websocket(request, _WS)

    async def websocket_flv(self, request: web.Request) -> web.StreamResponse:
        return await self._as_websocket(request, _as_asked(request, _WS_FLV))

    async def _as_websocket(self, request: web.Request, form: _Form) -> web.StreamResponse:
        refuse_cross_origin(request)
        if not web.WebSocketResponse().can_prepare(request).ok:
            raise Refusal("upgrade_required")
        async with self._opened(request, form) as (session, stream):
            response = web.WebSocketResponse(
                compress=False,
                heartbeat=self._settings.websocket_heartbeat_seconds,
                max_msg_size=MAX_INCOMING_MESSAGE_BYTES,
                timeout=self._settings.end_message_seconds,
            )
            response.headers.update(MEDIA_HEADERS)
            await response.prepare(request)
            if request.transport is None:
                raise ConnectionResetError("the viewer is gone")
            viewer = ViewerSocket(request.transport, self._settings)
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(listen(response, session))
                await self._over_websocket(viewer, session, stream, form)
                listening.cancel()
            return response

    async def _over_websocket(
        self, viewer: ViewerSocket, session: ViewerSession, stream: Stream, form: _Form
    ) -> None:
        reader = ViewerReader(session, stream, viewer, self._settings, announces_medium=form.announces_medium)
        try:
            await wait_for_picture(stream, session, self._settings.first_picture_seconds)
            await _watch(stream, reader, form.container, "websocket", session)
        except Refusal:
            pass  # the session says why, and the connection is no longer one for HTTP answers
        await end_websocket(viewer, session, self._settings.end_message_seconds)

    @asynccontextmanager
    async def _opened(self, request: web.Request, form: _Form) -> AsyncIterator[tuple[ViewerSession, Stream]]:
        session_id = request.match_info["session"]
        request[SESSION_ID] = session_id
        ticket = request.query.get("ticket", "")
        if not ticket:
            raise Refusal("ticket_required")
        async with (
            self._sessions.redeemed(
                session_id, ticket, form.protocol, request.remote or "", Action.LIVE_VIEW
            ) as session,
            self._cameras.stream(session.stream) as stream,
        ):
            yield session, stream


def _as_asked(request: web.Request, form: _Form) -> _Form:
    """`hevc=12` chooses how FLV names H.265. Raises Refusal."""
    match request.query.get("hevc"):
        case None:
            return form
        case "12":
            return replace(form, container=_CODEC_ID_12)
        case _:
            raise Refusal("invalid_field", "hevc: 12, or nothing")


def refuse_cross_origin(request: web.Request) -> None:
    """A page of another site may not use the portal's cookie or ticket for a WebSocket (RFC 6455 §10.2)."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Refusal("cross_origin", "Origin is not this host")


async def _watch(
    stream: Stream, reader: BoundedReader, container: str, framing: str, session: ViewerSession
) -> None:
    """Let the reader have the stream until the session is over."""
    if session.over.done():
        return
    stream.subscribe(reader, container, framing)
    try:
        await asyncio.wait({session.over})
    finally:
        stream.unsubscribe(reader)


async def listen(response: web.WebSocketResponse, session: ViewerSession) -> None:
    """Answer pings until the viewer closes the connection; what he says is ignored."""
    async for message in response:
        if message.type is WSMsgType.ERROR:
            break
    session.end(OverReason.LOST, lost=True)
