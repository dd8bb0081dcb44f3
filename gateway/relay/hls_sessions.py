"""The HLS sessions of one worker: no connection holds them, so their playlists being asked for does.

One `LiveSegments` cuts a camera's stream for all its HLS viewers. Each viewer has a capability, which is part
of every address of his media and names the worker that has his session.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest

import structlog

from gateway.relay.cameras import Cameras, wait_for_picture
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import OverReason, ViewerSession, ViewerSessions
from policies.access import Action
from streams.hub import Stream, Tally
from streams.mux import Marker, MuxedUnit
from streams.mux.hls import Segmenter, SegmenterSettings

CAPABILITY_BYTES = 24
"""Random; in addresses as base64url of 32 characters."""
MAX_REQUESTS_AT_ONCE = 16
"""Of one session. Players have up to four: a playlist, a part, a segment, an init segment."""
_PROTOCOL = "hls"
_CONTAINER, _FRAMING = "fmp4", "unframed"
_SEGMENTER = SegmenterSettings()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class HlsSettings:
    """`lost_seconds`: a viewer who asks for nothing for so long is gone. It is three target durations."""

    lost_seconds: float = 9.0
    segmenter: SegmenterSettings = _SEGMENTER


class LiveSegments:
    """A camera's segments, and those who wait for the next one: a `Reader` of the hub."""

    def __init__(self, stream: Stream, settings: SegmenterSettings) -> None:
        self.stream = stream
        self.mime = ""
        self.segmenter = Segmenter(settings, _captured_at)
        self.viewers: list[HlsViewer] = []
        self.has_ended = False
        self._epoch = 0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, init: bytes, mime: str) -> None:
        """The track is new. Who may not see it is ended, as every viewer of a picture too large is.

        hls.js takes no other set of tracks than its first: nobody is to begin with the one before.
        """
        has_same_tracks = mime.count(",") == self.mime.count(",")
        self.mime = mime
        for viewer in self.viewers:
            if not viewer.session.may_see(self.stream.track):
                viewer.session.end(OverReason.FAILED)
        self.segmenter.restart(init, keeps_earlier=has_same_tracks)
        self._tell()

    def restart(self, init: bytes, mime: str) -> None:
        self.start(init, mime)

    def write(self, unit: MuxedUnit) -> None:
        if unit.is_random_access:
            self._epoch = self.stream.epoch
        if self.segmenter.write(unit, self._epoch):
            self._tell()

    def check(self) -> None:
        """Nothing to look after: each viewer's session does."""

    def plain_write(self, tally: Tally | None) -> None:
        """Every unit is looked at."""

    def end(self, reason: str) -> None:
        self.has_ended = True
        for viewer in self.viewers:
            viewer.session.end(reason)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    async def until(self, is_there: Callable[[], bool], session: ViewerSession, seconds: float) -> None:
        """Wait for what the camera sends. Raises Refusal if the session ends, or nothing comes."""
        deadline = time.monotonic() + seconds
        while not is_there():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Refusal("camera_unavailable")
            await asyncio.wait(
                {self._changed, session.over}, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if session.over.done():
                raise Refusal("address_gone", session.why)


class HlsViewer:
    """One viewer's session over HLS, from the redeemed ticket to its end."""

    def __init__(self, session: ViewerSession, live: LiveSegments, worker: int) -> None:
        self.session = session
        self.live = live
        self.marker = Marker(session.mark_key, bytes.fromhex(session.id), session.camera)
        self.capability = f"{worker}-{secrets.token_urlsafe(CAPABILITY_BYTES)}"
        self.bytes_sent = 0
        self._asking = 0
        self._asked_at = time.monotonic()
        session.counts = lambda: (self.bytes_sent, 0)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While this lasts, and for a while after it, the viewer is there. Raises Refusal."""
        if self._asking >= MAX_REQUESTS_AT_ONCE:
            raise Refusal("connection_limit", f"{MAX_REQUESTS_AT_ONCE} requests at once in a session")
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            self._asked_at = time.monotonic()

    async def run(self, lost_seconds: float) -> None:
        """Until the session is over; ends it when the viewer has asked for nothing for `lost_seconds`."""
        while not self.session.over.done():
            left = lost_seconds
            if not self._asking:
                left += self._asked_at - time.monotonic()
            if left <= 0:
                self.session.end(OverReason.LOST, lost=True)
            else:
                await asyncio.wait({self.session.over}, timeout=left)


class HlsSessions:
    """All HLS viewers of a worker by session id. `run` must run for any to be there."""

    def __init__(
        self,
        sessions: ViewerSessions,
        cameras: Cameras,
        settings: HlsSettings,
        *,
        worker: int,
        first_picture_seconds: float,
    ) -> None:
        self.worker = worker
        self._sessions = sessions
        self._cameras = cameras
        self._settings = settings
        self._first_picture_seconds = first_picture_seconds
        self._group: asyncio.TaskGroup | None = None
        self._viewers: dict[str, HlsViewer] = {}
        self._live: dict[str, LiveSegments] = {}

    async def run(self) -> None:
        """Hold the sessions until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.Event().wait()

    async def open(self, session_id: str, ticket: str, remote: str) -> HlsViewer:
        """Redeem a ticket; the session then lives by itself.

        Raises as `ViewerSessions.redeemed` and `wait_for_picture` do.
        """
        if self._group is None:
            raise Refusal("draining")
        opened: asyncio.Future[HlsViewer] = asyncio.get_running_loop().create_future()
        task = self._group.create_task(self._hold(session_id, ticket, remote, opened))
        try:
            return await opened
        except asyncio.CancelledError:
            task.cancel()
            raise

    def find(self, session_id: str, capability: str) -> HlsViewer:
        """The viewer whose address this is. Raises Refusal `address_gone`, whatever is wrong with it."""
        viewer = self._viewers.get(session_id)
        if viewer is None or not compare_digest(viewer.capability.encode(), capability.encode()):
            raise Refusal("address_gone")
        if viewer.session.over.done():
            raise Refusal("address_gone", viewer.session.why)
        return viewer

    async def _hold(
        self, session_id: str, ticket: str, remote: str, opened: asyncio.Future[HlsViewer]
    ) -> None:
        try:
            async with self._viewer(session_id, ticket, remote) as viewer:
                if not opened.cancelled():
                    opened.set_result(viewer)
                await viewer.run(self._settings.lost_seconds)
        # Whatever stops the opening is the answer to its request, and nobody else's trouble.
        except Exception as error:  # noqa: BLE001
            if not opened.done():
                opened.set_exception(error)
            elif not opened.cancelled():
                _log.exception("session_failed", session=session_id)

    @asynccontextmanager
    async def _viewer(self, session_id: str, ticket: str, remote: str) -> AsyncIterator[HlsViewer]:
        async with (
            self._sessions.redeemed(session_id, ticket, _PROTOCOL, remote, Action.LIVE_VIEW) as session,
            self._cameras.stream(session.stream) as stream,
        ):
            await wait_for_picture(stream, session, self._first_picture_seconds)
            if not session.may_see(stream.track):
                raise Refusal("obligation_unmet", "the picture is larger than the permission allows")
            viewer = HlsViewer(session, self._segments_of(stream), self.worker)
            viewer.live.viewers.append(viewer)
            self._viewers[session_id] = viewer
            try:
                yield viewer
            finally:
                self._leave(viewer)

    def _segments_of(self, stream: Stream) -> LiveSegments:
        live = self._live.get(stream.camera_id)
        if live is None or live.has_ended or live.stream is not stream:
            live = self._live[stream.camera_id] = LiveSegments(stream, self._settings.segmenter)
            stream.subscribe(live, _CONTAINER, _FRAMING)
        return live

    def _leave(self, viewer: HlsViewer) -> None:
        live = viewer.live
        live.viewers.remove(viewer)
        if not live.viewers:
            live.stream.unsubscribe(live)
            if self._live.get(live.stream.camera_id) is live:
                del self._live[live.stream.camera_id]
        if self._viewers.get(viewer.session.id) is viewer:
            del self._viewers[viewer.session.id]


def _captured_at(received_ns: int) -> datetime:
    return datetime.fromtimestamp(time.time() - (time.monotonic_ns() - received_ns) / 1e9, UTC)
