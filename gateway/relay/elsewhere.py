"""Sessions on other workers of the node: a connection lands anywhere, a session lives where it was opened."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.private_socket import private_socket
from gateway.relay.answering import answered
from gateway.relay.control_link import ControlUnavailableError
from gateway.relay.proxy import REMOTE_HEADER, HttpForwarder
from gateway.relay.refusals import Refusal

_SILENCE_SECONDS = 30.0
"""The longest wait for a part or playlist is three target durations; then the other worker hangs."""


class OtherWorkers:
    """The way to the other workers' sockets, numbered below `len(sockets)`; an async context manager."""

    def __init__(self, sockets: Iterable[Path]) -> None:
        self._forwarders = [HttpForwarder(socket, _SILENCE_SECONDS) for socket in sockets]
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for forwarder in self._forwarders:
            await self._open.enter_async_context(forwarder)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def forward(self, request: web.Request, worker: int) -> web.StreamResponse:
        """Pass the request to a worker, and back its answer. Raises Refusal."""
        if worker >= len(self._forwarders):
            raise Refusal("not_found")
        try:
            return await self._forwarders[worker].forward(request)
        except ControlUnavailableError:
            raise Refusal("worker_gone") from None


@asynccontextmanager
async def serving_others(socket: Path, routes: Iterable[web.RouteDef]) -> AsyncIterator[None]:
    """Serve the routes to the other workers, on a Unix socket that only this user may open."""
    app = web.Application(middlewares=[_from_the_client, answered])
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    async with private_socket(socket) as name:
        await web.UnixSite(runner, name).start()
    try:
        yield
    finally:
        await runner.cleanup()


@web.middleware
async def _from_the_client(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The address is the client's, whose connection the other worker has."""
    return await handler(request.clone(remote=request.headers.get(REMOTE_HEADER, "")))
