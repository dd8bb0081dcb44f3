"""For whoever runs the gateway: health, readiness, metrics, and the API's own description."""

import msgspec
from aiohttp import web

from gateway.problems import Problem
from gateway.store.errors import StoreError
from gateway.web.routing import Access, Call, Route


class Health(msgspec.Struct, frozen=True):
    status: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    workers: int
    revision: int


async def healthz(call: Call, _: None) -> Health:
    """Control's event loop answers."""
    del call
    return Health("ok")


async def readyz(call: Call, _: None) -> Readiness:
    """The policy is loaded, the ledger can be read and written, a worker relays. Raises Problem otherwise."""
    services = call.services
    services.start_up.require_over()
    services.ledger_watch.require_available()
    try:
        await services.store.head()
    except StoreError as error:
        raise Problem(error.code) from None
    if not services.workers.connected:
        raise Problem("worker_unavailable")
    return Readiness(
        status="ready", workers=services.workers.connected, revision=services.enforcement.revision
    )


async def metrics(call: Call, _: None) -> web.Response:
    return web.Response(
        body=call.services.metrics.text(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


ROUTES = (
    Route(
        method="GET",
        path="/healthz",
        handler=healthz,
        access=Access.PUBLIC,
        summary="Control is alive",
        answer=Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=readyz,
        access=Access.PUBLIC,
        summary="The gateway can open sessions",
        answer=Readiness,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        access=Access.PUBLIC,
        summary="Prometheus metrics: counts, no names",
        stream="text/plain",
    ),
)
