"""What a client may cost before it is known: bounds on connections, and deadlines that aiohttp lacks.

aiohttp closes neither a connection that sends half a header nor one whose body drips. A `GuardedConnection`
stands between the transport and aiohttp's protocol, passes everything on, and keeps one timer:

    header ──handler starts──▶ body ──body read──▶ open (no deadline: media flows)
      ▲                                              │
      └──first byte──── idle ◀──────answer sent──────┘

The middleware `track_request` tells it about handlers; bytes tell it the rest.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

_REFUSAL_BODY = (
    b'{"type":"urn:custos:problem:connection_limit","title":"Too many connections","status":503,'
    b'"code":"connection_limit"}'
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Retry-After: 5\r\nContent-Length: %d\r\n\r\n%s" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Bounds of one worker; `max_connections_per_address` 0 means no bound of its own."""

    header_seconds: float = 15.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    max_connections: int = 8192
    max_connections_per_address: int = 256


class ConnectionGuard:
    """Counts a worker's connections; `protocol_factory` is what the listening socket needs."""

    def __init__(self, server: web.Server, settings: GuardSettings) -> None:
        self.settings = settings
        self._server = server
        self._by_address: Counter[str] = Counter()
        self._total = 0

    def protocol_factory(self) -> "GuardedConnection":
        return GuardedConnection(self, self._server())

    def admit(self, address: str) -> bool:
        """Count a connection; False if it is one too many."""
        limit = self.settings.max_connections_per_address
        if self._total >= self.settings.max_connections or (limit and self._by_address[address] >= limit):
            return False
        self._total += 1
        self._by_address[address] += 1
        return True

    def release(self, address: str) -> None:
        self._total -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class GuardedConnection(asyncio.Protocol):
    """One connection: admission, the deadline of its present phase, and aiohttp behind it."""

    def __init__(self, guard: ConnectionGuard, handler: asyncio.Protocol) -> None:
        self._guard = guard
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._address: str | None = None
        self._idle = False
        self._timer: asyncio.TimerHandle | None = None
        self._request: web.BaseRequest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else ""
        if not self._guard.admit(address):
            self._transport.write(_REFUSAL)
            self._transport.close()
            return
        self._address = address
        self._arm(self._guard.settings.header_seconds)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._address is None:
            return
        if self._idle:
            self._idle = False
            self._arm(self._guard.settings.header_seconds)
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received() if self._address is not None else None

    def pause_writing(self) -> None:
        if self._address is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._address is not None:
            self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._address is not None:
            self._guard.release(self._address)
            self._address = None
            self._handler.connection_lost(exc)

    def request_started(self, request: web.BaseRequest) -> None:
        """The header is complete; the body has its own deadline."""
        self._idle = False
        self._request = request
        if request.content.is_eof():
            self._disarm()
        else:
            self._arm(self._guard.settings.body_seconds)

    def request_finished(self) -> None:
        """The answer is written: the next request may take its time."""
        self._request = None
        self._idle = True
        self._arm(self._guard.settings.idle_seconds)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self._request is not None and self._request.content.is_eof():
            return
        if self._transport is not None:
            self._transport.abort()


@web.middleware
async def track_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection's guard where the request stands. The outermost middleware."""
    connection = request.transport.get_protocol() if request.transport is not None else None
    if not isinstance(connection, GuardedConnection):
        return await handler(request)
    connection.request_started(request)
    try:
        return await handler(request)
    finally:
        connection.request_finished()
