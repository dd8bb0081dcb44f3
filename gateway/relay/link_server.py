"""Hands the streams that this worker has to the node's other workers: one connection for each stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import structlog

from gateway.private_socket import private_socket
from gateway.relay.claims import Claims
from streams.errors import ProtocolError, SourceUnreachableError
from streams.hub import Stream
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources.link import StreamEnd, parse_wanted, serialize
from streams.supervisor import StreamSupervisor

MAX_BACKLOG_BYTES = 8 * 1024 * 1024
"""Unsent bytes after which a worker is behind; a cached GOP fits."""
STUCK_NS = 5_000_000_000
"""A worker that has been behind for so long loses the connection, and may ask again."""

_log = structlog.get_logger(__name__)


class LinkServer:
    """Refuses a stream that this worker has not claimed: there are no chains, hence no loops."""

    def __init__(self, claims: Claims, supervisor: StreamSupervisor) -> None:
        self._claims = claims
        self._supervisor = supervisor
        self._links: dict[str, set[_Link]] = {}
        self._last: tuple[object, bytes] = (None, b"")

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Listen on a Unix socket that only this user may open. Raises OSError."""
        async with private_socket(path) as name:
            server = await asyncio.get_running_loop().create_unix_server(lambda: _Link(self), name)
        try:
            yield
        finally:
            server.close()
            for stream in tuple(self._links):
                self.close(stream)

    def close(self, stream: str) -> None:
        """The stream is not this worker's any more: whoever takes it from here asks control again."""
        for link in tuple(self._links.get(stream, ())):
            link.end("moved")

    def interrupt(self, stream: str) -> None:
        """The stream's source is gone. Who has its pictures must not show old ones to newcomers."""
        for link in tuple(self._links.get(stream, ())):
            if link.has_started:
                link.end(SourceUnreachableError.code)

    def open(self, link: "_Link", stream: str) -> Stream | None:
        if not self._claims.holds(stream):
            return None
        self._links.setdefault(stream, set()).add(link)
        return self._supervisor.acquire(stream)

    def leave(self, link: "_Link", stream: str) -> None:
        links = self._links[stream]
        links.discard(link)
        if not links:
            del self._links[stream]
        self._supervisor.release(stream)

    def serialized(self, message: Track | AccessUnit | AudioUnit) -> bytes:
        """One object for all workers that get the message, which they do one right after the other."""
        if self._last[0] is not message:
            self._last = message, serialize(message)
        return self._last[1]


class _Link(asyncio.Protocol):
    """One worker that takes one stream: a reader of the hub's, bounded in bytes and in time."""

    def __init__(self, server: LinkServer) -> None:
        self.has_started = False
        self._server = server
        self._transport: asyncio.Transport
        self._request = b""
        self._wanted: str | None = None
        self._stream: Stream | None = None
        self._behind_since_ns: int | None = None
        self._dropped = 0

    # The other worker's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's transport by asyncio's word; uvloop's does not inherit from it.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._wanted is not None:
            return
        self._request += data
        try:
            wanted = parse_wanted(self._request)
        except ProtocolError as error:
            _log.warning("link_refused", code=error.code)
            self._transport.abort()
            return
        if wanted is not None:
            self._open(wanted.stream)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._leave()

    def _open(self, stream: str) -> None:
        self._wanted = stream
        self._stream = self._server.open(self, stream)
        if self._stream is None:
            self.end("not_claimed")
        else:
            self._stream.subscribe_media(self)

    # The hub's side

    def configure(self, track: Track) -> None:
        self.has_started = True
        self._transport.write(self._server.serialized(track))

    def publish(self, unit: AccessUnit) -> None:
        if self._behind_since_ns is not None or self._backlog() > MAX_BACKLOG_BYTES:
            self._skip(unit)
        if self._behind_since_ns is None:
            self._transport.write(self._server.serialized(unit))

    def publish_audio(self, unit: AudioUnit) -> None:
        if self._behind_since_ns is None:
            self._transport.write(self._server.serialized(unit))

    def end(self, reason: str) -> None:
        """Say why, and close."""
        if not self._transport.is_closing():
            self._transport.write(serialize(StreamEnd(code=reason, detail="")))
            self._transport.close()
        self._leave()

    def _leave(self) -> None:
        if self._stream is not None and self._wanted is not None:
            self._stream.unsubscribe(self)
            self._stream = None
            self._server.leave(self, self._wanted)

    def _backlog(self) -> int:
        return self._transport.get_write_buffer_size()

    def _skip(self, unit: AccessUnit) -> None:
        """Leave access units out until the worker has caught up, then go on at a random access point."""
        if self._behind_since_ns is None:
            self._behind_since_ns = unit.received_ns
        elif unit.is_random_access and self._backlog() <= MAX_BACKLOG_BYTES // 2:
            _log.warning("link_was_behind", stream=self._wanted, dropped_access_units=self._dropped)
            self._behind_since_ns = None
            return
        elif unit.received_ns - self._behind_since_ns > STUCK_NS:
            self._transport.abort()
        self._dropped += 1
