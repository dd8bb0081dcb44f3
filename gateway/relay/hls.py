"""HTTP Live Streaming for viewers: the ticket opens a playlist, whose addresses carry a session's capability.

A player's next connection may reach any worker of the node, so each address names the one that has the
session, and the others pass the request on to it.
"""

import asyncio
import re
from collections.abc import Callable, Iterable

from aiohttp import hdrs, web

from gateway.relay.answering import SESSION_ID
from gateway.relay.elsewhere import OtherWorkers
from gateway.relay.hls_sessions import HlsSessions, HlsViewer
from gateway.relay.media import MEDIA_HEADERS
from gateway.relay.refusals import Refusal
from gateway.relay.viewer import ViewerSettings, ViewerSocket
from streams.mux import MuxedUnit
from streams.mux.hls import PLAYLIST, PLAYLIST_TYPE, marked, multivariant_playlist

HLS_PATH = "/media/{session}/hls/{capability}/{name}"
_CAPABILITY = re.compile(r"(\d{1,2})-[A-Za-z0-9_-]{32}")
_NUMBER = r"(0|[1-9]\d{0,17})"
_INIT = re.compile(rf"init-{_NUMBER}\.mp4")
_SEGMENT = re.compile(rf"segment-{_NUMBER}(?:\.{_NUMBER})?\.mp4")
_RELOAD = re.compile(_NUMBER)
_WAIT_TARGETS = 3
"""A blocked request is answered after so many target durations at the latest (RFC 8216bis §6.2.5.2)."""
_DEFAULT_BIT_RATE_BPS = 4_000_000
_STALLED_SECONDS = 10.0
_WRITE_BYTES = 64 * 1024


class HlsRoutes:
    def __init__(self, hls: HlsSessions, elsewhere: OtherWorkers, settings: ViewerSettings) -> None:
        self._hls = hls
        self._elsewhere = elsewhere
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        """For everybody."""
        return [
            web.get("/media/{session}/index.m3u8", self.index, allow_head=False),
            web.get(HLS_PATH, self.media, allow_head=False),
        ]

    def local_routes(self) -> list[web.RouteDef]:
        """For the other workers: what is not here is nowhere."""
        return [web.get(HLS_PATH, self.local_media, allow_head=False)]

    async def index(self, request: web.Request) -> web.StreamResponse:
        session_id = request.match_info["session"]
        request[SESSION_ID] = session_id
        ticket = request.query.get("ticket", "")
        if not ticket:
            raise Refusal("ticket_required")
        viewer = await self._hls.open(session_id, ticket, request.remote or "")
        with viewer.asking():
            # Whether the camera sends the sound that it declares shows within the first segment.
            await self._until(viewer, lambda: viewer.live.segmenter.is_ready)
        stream = viewer.live.stream
        if stream.track is None:
            raise Refusal("camera_unavailable")
        content = multivariant_playlist(
            f"hls/{viewer.capability}/{PLAYLIST}",
            mime=viewer.live.mime,
            width=stream.track.width,
            height=stream.track.height,
            bit_rate_bps=stream.bit_rate_bps or _DEFAULT_BIT_RATE_BPS,
        )
        return _playlist_answer(viewer, content)

    async def media(self, request: web.Request) -> web.StreamResponse:
        worker = _worker_of(request)
        if worker != self._hls.worker:
            return await self._elsewhere.forward(request, worker)
        return await self.local_media(request)

    async def local_media(self, request: web.Request) -> web.StreamResponse:
        """A playlist, an init segment, a segment or a part. Raises Refusal."""
        _worker_of(request)
        viewer = self._hls.find(request.match_info["session"], request.match_info["capability"])
        name = request.match_info["name"]
        with viewer.asking():
            if name == PLAYLIST:
                return await self._playlist(request, viewer)
            if match := _INIT.fullmatch(name):
                init = viewer.live.segmenter.init(int(match[1]))
                if init is not None:
                    return await self._send(request, viewer, [init])
            if match := _SEGMENT.fullmatch(name):
                units = await self._units(viewer, int(match[1]), None if match[2] is None else int(match[2]))
                if units is not None:
                    return await self._send(request, viewer, marked(units, viewer.marker))
            raise Refusal("not_found")

    async def _playlist(self, request: web.Request, viewer: HlsViewer) -> web.StreamResponse:
        """The playlist of now, or as soon as it has what a blocking reload asks for."""
        segmenter = viewer.live.segmenter
        number, index = (_reload(request, name) for name in ("_HLS_msn", "_HLS_part"))
        if number is None and index is not None:
            raise Refusal("bad_request", "_HLS_part without _HLS_msn")
        if number is not None and segmenter.is_too_far(number):
            raise Refusal("bad_request", "_HLS_msn is too far ahead")
        await self._until(
            viewer,
            lambda: segmenter.is_ready and (number is None or segmenter.has_reached(number, index)),
        )
        return _playlist_answer(viewer, segmenter.playlist())

    async def _units(self, viewer: HlsViewer, number: int, index: int | None) -> Iterable[MuxedUnit] | None:
        """What a segment or a part consists of, also of the part that a hint has named; None if unknown."""
        segmenter = viewer.live.segmenter
        if index is None:
            segment = segmenter.segment(number)
            return None if segment is None else segment.units
        if segmenter.is_hinted(number, index):
            await self._until(viewer, lambda: not segmenter.is_hinted(number, index))
        part = segmenter.part(number, index)
        return None if part is None else part.units

    async def _until(self, viewer: HlsViewer, is_there: Callable[[], bool]) -> None:
        seconds = _WAIT_TARGETS * viewer.live.segmenter.target_seconds
        await viewer.live.until(is_there, viewer.session, seconds)

    async def _send(
        self, request: web.Request, viewer: HlsViewer, pieces: Iterable[bytes]
    ) -> web.StreamResponse:
        """Write the pieces; when the session ends meanwhile, what is queued is discarded."""
        content = list(pieces)
        response = web.StreamResponse(headers={**MEDIA_HEADERS, hdrs.CONTENT_TYPE: "video/mp4"})
        response.content_length = sum(map(len, content))
        await response.prepare(request)
        if request.transport is None:
            raise ConnectionResetError("the viewer is gone")
        socket = ViewerSocket(request.transport, self._settings)

        def discard(_: asyncio.Future[None]) -> None:
            socket.discard()

        viewer.session.over.add_done_callback(discard)
        try:
            for joined in _joined(content):
                async with asyncio.timeout(_STALLED_SECONDS):
                    await response.write(joined)
                viewer.bytes_sent += len(joined)
            await response.write_eof()
        except TimeoutError:
            socket.discard()
        finally:
            viewer.session.over.remove_done_callback(discard)
        return response


def _worker_of(request: web.Request) -> int:
    """The worker that an address names; notes the session for the log. Raises Refusal `not_found`."""
    request[SESSION_ID] = request.match_info["session"]
    match = _CAPABILITY.fullmatch(request.match_info["capability"])
    if match is None:
        raise Refusal("not_found")
    return int(match[1])


def _joined(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """The pieces in writes of about `_WRITE_BYTES`."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _reload(request: web.Request, name: str) -> int | None:
    """A number of a blocking reload. Raises Refusal."""
    value = request.query.get(name)
    if value is None:
        return None
    if not _RELOAD.fullmatch(value):
        raise Refusal("bad_request", f"{name}: a number")
    return int(value)


def _playlist_answer(viewer: HlsViewer, content: str) -> web.Response:
    body = content.encode()
    viewer.bytes_sent += len(body)
    return web.Response(body=body, headers={**MEDIA_HEADERS, hdrs.CONTENT_TYPE: PLAYLIST_TYPE})
