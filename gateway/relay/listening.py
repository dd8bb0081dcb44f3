"""The workers' ports. On an encrypted one a client counts from the start, not once it has shaken hands.

asyncio's own TLS servers tell nobody of a connection before its handshake is done, so one address could hold
any number of them for as long as a handshake may take. Here each is accepted, counted, and then encrypted.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from gateway.relay.guard import ConnectionGuard
from gateway.relay.tls import HANDSHAKE_SECONDS

SHUTDOWN_SECONDS = 1.0
"""For the client's part of the end of TLS; whoever was one too many would stay uncounted for as long."""
_BACKLOG = 1024
_OUT_OF_FILES_SECONDS = 1.0

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(
    factory: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    guard: ConnectionGuard,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator["asyncio.Server | TlsServer"]:
    """Listen within the context, on a port that all workers share. Raises OSError."""
    loop = asyncio.get_running_loop()
    if tls is None:
        server = await loop.create_server(factory, host, port, reuse_port=True, backlog=_BACKLOG)
        with contextlib.closing(server):
            yield server
        return
    sockets = await _bound(host, port)
    try:
        encrypted = TlsServer(factory, tls, guard, sockets)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(encrypted.run())
            try:
                yield encrypted
            finally:
                running.cancel()
    finally:
        for each in sockets:
            each.close()


class TlsServer:
    """Accepts until `close`; `sockets` are those that listen."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        guard: ConnectionGuard,
        sockets: Sequence[socket.socket],
    ) -> None:
        """As many clients may shake hands at once as `guard` lets be connected."""
        self.sockets = sockets
        self._factory = factory
        self._context = context
        self._handshakes = guard.alike()
        self._accepting: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until cancelled, which ends the handshakes but no connection that has one."""
        async with asyncio.TaskGroup() as group:
            self._accepting = [group.create_task(self._accept(each, group)) for each in self.sockets]
            await asyncio.Event().wait()

    def close(self) -> None:
        """Accept nobody any more: the kernel hands new clients to the other workers."""
        for task in self._accepting:
            task.cancel()
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RD)

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                _log.error("accept_failed", error=error.strerror)
                await asyncio.sleep(_OUT_OF_FILES_SECONDS)
                continue
            if self._handshakes.admit(peer[0]):
                group.create_task(self._shake_hands(connection, peer[0]))
            else:
                connection.close()

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:
            connection.close()  # it speaks something else, went away or took too long
        finally:
            self._handshakes.release(address)


async def _bound(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address that the host has. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with contextlib.ExitStack() as stack:
        sockets = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setblocking(False)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            # Accepted connections inherit it, as those of asyncio's own servers have it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family is socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            sockets.append(listener)
        stack.pop_all()
    return sockets
