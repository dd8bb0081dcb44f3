"""The control API over HTTP: one table of routes, and the application made from it."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.web import (
    accounts,
    analysis,
    authzen,
    catalogue,
    catalogue_files,
    disputes,
    duty,
    grants,
    heads,
    identity,
    ledger,
    media,
    operations,
    pictures,
    policy,
    portal,
    purposes,
    review,
    roles,
    sessions,
    standing,
    undertaking,
)
from gateway.web.duties import check_declared
from gateway.web.middleware import bind, errors
from gateway.web.openapi import document
from gateway.web.routing import MAX_BODY_BYTES, REVISION_HEADER, Access, Call, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.services import Services

VERSION = "0.1.0"
_WRITING_METHODS = frozenset({"POST", "PATCH", "DELETE"})


async def _openapi(call: Call, _: None) -> web.Response:
    del call
    return web.json_response(document(ROUTES, VERSION))


ROUTES: tuple[Route, ...] = (
    *identity.ROUTES,
    *catalogue_files.ROUTES,
    *catalogue.ROUTES,
    *accounts.ROUTES,
    *duty.ROUTES,
    *roles.ROUTES,
    *policy.ROUTES,
    *grants.ROUTES,
    *disputes.ROUTES,
    *review.ROUTES,
    *authzen.ROUTES,
    *purposes.ROUTES,
    *undertaking.ROUTES,
    *sessions.ROUTES,
    *standing.ROUTES,
    *media.ROUTES,
    *pictures.ROUTES,
    *analysis.ROUTES,
    *ledger.ROUTES,
    *heads.ROUTES,
    *operations.ROUTES,
    Route(
        method="GET",
        path="/openapi.json",
        handler=_openapi,
        access=Access.PUBLIC,
        summary="This document",
        stream="application/json",
    ),
)


def application(services: "Services", portal_folder: Path | None) -> web.Application:
    """The aiohttp application of control. Serve it on a Unix socket only: it trusts X-Custos-Remote.

    Raises UndeclaredRouteError if it is not declared of every route who may do what there.
    """
    check_declared(ROUTES)

    @web.middleware
    async def measured(
        request: web.Request, handler: "Callable[[web.Request], Awaitable[web.StreamResponse]]"
    ) -> web.StreamResponse:
        started = perf_counter()
        response = await handler(request)
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        if request.method in _WRITING_METHODS and not response.prepared:
            response.headers[REVISION_HEADER] = str(services.enforcement.revision)
        services.metrics.answered(f"{request.method} {route}", response.status, perf_counter() - started)
        return response

    app = web.Application(middlewares=[measured, errors], client_max_size=MAX_BODY_BYTES)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, bind(route, services))
    app.add_routes(portal.routes(portal_folder))
    return app
