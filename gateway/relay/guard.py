"""What a client may cost before it is known: bounds on connections, and deadlines that aiohttp lacks.

aiohttp closes neither a connection that sends half a header nor one whose body drips. A `GuardedConnection`
stands between the transport and aiohttp's protocol, passes everything on, and keeps one timer:

    header ──handler starts──▶ body ──body read──▶ open (no deadline: media flows)
      ▲                                              │
      └──first byte──── idle ◀──────answer sent──────┘

The middleware `track_request` tells it about handlers; bytes tell it the rest.
"""

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
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
    """Bounds of one worker; `max_connections_per_address` 0 means no bound of its own.

    An IPv6 address counts with its neighbours of the same /64, which is what one customer gets.
    `unacknowledged_seconds`: a peer that has vanished without a word is given up after (TCP_USER_TIMEOUT).
    """

    header_seconds: float = 15.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    max_connections: int = 8192
    max_connections_per_address: int = 256
    unacknowledged_seconds: float = 30.0


class ConnectionGuard:
    """Counts a worker's connections, on all its ports."""

    def __init__(self, settings: GuardSettings, is_proxy: Callable[[str], bool] = lambda _: False) -> None:
        """`is_proxy`: whether many clients share this address; it has no bound of its own."""
        self.settings = settings
        self._is_proxy = is_proxy
        self._by_address: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._total = 0

    def alike(self) -> "ConnectionGuard":
        """Another one with the same bounds, which counts for itself."""
        return ConnectionGuard(self.settings, self._is_proxy)

    def before(self, server: web.Server) -> Callable[[], "GuardedConnection"]:
        """The protocol factory of a socket that listens for aiohttp."""
        return lambda: GuardedConnection(self, server())

    def admit(self, address: str) -> bool:
        """Count a connection; False if it is one too many."""
        if self._total >= self.settings.max_connections:
            return False
        if not self._is_proxy(address) and not self._count(self._by_address, address):
            return False
        self._total += 1
        return True

    def release(self, address: str) -> None:
        self._total -= 1
        if not self._is_proxy(address):
            _discount(self._by_address, address)

    def admit_request(self, address: str) -> bool:
        """Count a request of a client behind a proxy; False if it is one too many."""
        return self._count(self._requests, address)

    def release_request(self, address: str) -> None:
        _discount(self._requests, address)

    def _count(self, counter: "Counter[str]", address: str) -> bool:
        limit = self.settings.max_connections_per_address
        key = neighbourhood(address)
        if limit and counter[key] >= limit:
            return False
        counter[key] += 1
        return True


def _discount(counter: "Counter[str]", address: str) -> None:
    key = neighbourhood(address)
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def neighbourhood(address: str) -> str:
    """The address, or the /64 that an IPv6 address is one of."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
        return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    except ValueError:
        return address


class Deadline:
    """One timer at a time: `expire` is called unless the deadline is set anew or dropped before."""

    def __init__(self, expire: Callable[[], None]) -> None:
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        self.drop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def give_up_the_vanished(transport: asyncio.BaseTransport, settings: GuardSettings) -> None:
    """Let the kernel close a TCP connection whose peer acknowledges nothing any more."""
    connection = transport.get_extra_info("socket")
    if connection.family in {socket.AF_INET, socket.AF_INET6}:
        milliseconds = int(1000 * settings.unacknowledged_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, milliseconds // 1000))


class GuardedConnection(asyncio.Protocol):
    """One connection: admission, the deadline of its present phase, and aiohttp behind it."""

    def __init__(self, guard: ConnectionGuard, handler: asyncio.Protocol) -> None:
        self._guard = guard
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._address: str | None = None
        self._idle = False
        self._deadline = Deadline(self._expire)
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
        give_up_the_vanished(transport, self._guard.settings)
        self._deadline.set(self._guard.settings.header_seconds)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._address is None:
            return
        if self._idle:
            self._idle = False
            self._deadline.set(self._guard.settings.header_seconds)
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
        self._deadline.drop()
        if self._address is not None:
            self._guard.release(self._address)
            self._address = None
            self._handler.connection_lost(exc)

    def request_started(self, request: web.BaseRequest) -> None:
        """The header is complete; the body has its own deadline."""
        self._idle = False
        self._request = request
        if request.content.is_eof():
            self._deadline.drop()
        else:
            self._deadline.set(self._guard.settings.body_seconds)

    def request_finished(self) -> None:
        """The answer is written: the next request may take its time."""
        self._request = None
        self._idle = True
        self._deadline.set(self._guard.settings.idle_seconds)

    def _expire(self) -> None:
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
