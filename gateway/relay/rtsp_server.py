"""The RTSP port of a relay worker: viewers at `/live/{session}`, encoders at `/publish/{camera}`.

Each connection has a task of its own and waits for nobody else's. Tickets are in no log: only paths are.
"""

import asyncio
import re
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import structlog

from gateway.relay.cameras import Cameras
from gateway.relay.control_link import ControlLink, ControlUnavailableError, RefusedError
from gateway.relay.guard import ConnectionGuard
from gateway.relay.listening import listening
from gateway.relay.publishers import Publishers
from gateway.relay.refusals import Refusal
from gateway.relay.rtsp_connection import RtspConnection, status_of
from gateway.relay.rtsp_login import Nonces, authorization_of, challenges, is_about, proof_of
from gateway.relay.rtsp_media import Splitter
from gateway.relay.rtsp_publisher import RtspPublishers
from gateway.relay.rtsp_viewer import RtspViewers
from gateway.relay.sessions import ViewerSessions
from gateway.relay.viewer import ViewerSettings
from streams.wire.digest import DigestAuthorization
from streams.wire.rtsp import RtspRequest

METHODS = "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, RECORD, GET_PARAMETER, SET_PARAMETER, TEARDOWN"

_VIEWER = re.compile(r"/live/([0-9A-Za-z_-]{1,64})/?")
_PUBLISHER = re.compile(r"/publish/([^/]{1,128})/?")
_LATER = frozenset({"SETUP", "PLAY", "PAUSE", "RECORD", "GET_PARAMETER", "SET_PARAMETER", "TEARDOWN"})
_MAX_QUERY_FIELDS = 16

_log = structlog.get_logger(__name__)


class RtspServer:
    """Owns the connections; `serving` is its life."""

    def __init__(
        self,
        guard: ConnectionGuard,
        sessions: ViewerSessions,
        cameras: Cameras,
        publishers: Publishers,
        link: ControlLink,
        settings: ViewerSettings,
    ) -> None:
        self._guard = guard
        self._nonce_key = secrets.token_bytes(32)
        self._viewers = RtspViewers(
            sessions=sessions,
            cameras=cameras,
            report=link.report,
            settings=settings,
            splitter=Splitter(),
        )
        self._publishers = RtspPublishers(publishers=publishers)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """Listen within the context, and end every connection with it. Raises OSError."""
        async with asyncio.TaskGroup() as self._group:
            try:
                async with listening(self._connection, host, port, self._guard, tls):
                    yield
            finally:
                for task in self._tasks:
                    task.cancel()

    def _connection(self) -> RtspConnection:
        return RtspConnection(self, self._guard.settings)

    def connection_opened(self, connection: RtspConnection) -> asyncio.Task[None] | None:
        if self._group is None or not self._guard.admit(connection.remote):
            return None
        task = self._group.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def connection_closed(self, connection: RtspConnection) -> None:
        self._guard.release(connection.remote)

    async def _serve(self, connection: RtspConnection) -> None:
        try:
            await self._converse(connection)
        except Exception:  # noqa: BLE001 - a bug in one connection must end that one, and no other
            _log.exception("rtsp_connection_failed", remote=connection.remote)
        finally:
            connection.abort()

    async def _converse(self, connection: RtspConnection) -> None:
        nonces = Nonces(self._nonce_key)
        while (request := await connection.next_request()) is not None:
            match request.method:
                case "OPTIONS":
                    connection.respond(request, 200, ("Public", METHODS))
                case "DESCRIBE" | "ANNOUNCE":
                    await self._begin(connection, request, nonces)
                case method:
                    connection.respond(request, 454 if method in _LATER else 501)

    async def _begin(self, connection: RtspConnection, request: RtspRequest, nonces: Nonces) -> None:
        try:
            path, ticket = _path_and_ticket(request.url)
            if request.method == "DESCRIBE" and (viewer := _VIEWER.fullmatch(path)):
                await self._describe(connection, request, viewer[1], ticket, nonces)
            elif request.method == "ANNOUNCE" and (publisher := _PUBLISHER.fullmatch(path)):
                await self._publishers.serve(connection, request, publisher[1], nonces)
            else:
                connection.respond(request, 404)
        except (Refusal, RefusedError, ControlUnavailableError) as error:
            _log.info("rtsp_refused", remote=connection.remote, reason=str(error))
            connection.respond(request, status_of(error))

    async def _describe(
        self, connection: RtspConnection, request: RtspRequest, session_id: str, ticket: str, nonces: Nonces
    ) -> None:
        """With the ticket in the URL, or with a digest made with it; each nonce is good for one."""
        if ticket:
            await self._viewers.watch(connection, request, session_id, ticket, None)
            return
        authorization = authorization_of(request)
        is_stale = False
        if isinstance(authorization, DigestAuthorization) and authorization.username == session_id:
            is_stale = nonces.is_own(authorization.nonce)
            if nonces.use(authorization.nonce) and is_about(authorization, request):
                proof = proof_of(authorization, request)
                try:
                    await self._viewers.watch(connection, request, session_id, "", proof)
                except RefusedError as error:
                    if status_of(error) != HTTPStatus.FORBIDDEN:
                        raise
                    is_stale = False
                else:
                    return
        connection.respond(request, 401, *challenges(nonces, allows_basic=False, is_stale=is_stale))


def _path_and_ticket(url: str) -> tuple[str, str]:
    """Raises Refusal for what is no URL."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise Refusal("bad_request") from None
    return parts.path, query.get("ticket", [""])[0]
