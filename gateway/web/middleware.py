"""From the socket to the handler and back: identity, body, errors. One function per step."""

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import hdrs, web

from gateway.authentication import Authentication
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.errors import StoreError
from gateway.web.routing import Access, Call, Route

log = structlog.get_logger(__name__)

COOKIE = "custos_login"
REMOTE_HEADER = "X-Custos-Remote"
REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = web.RequestKey("request_id", str)
_GIVEN_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; object-src 'none'; "
        "base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal becomes a problem document; a bug becomes `internal_error` and a logged traceback."""
    request_id = request.headers.get(REQUEST_ID_HEADER, "")
    if not _GIVEN_REQUEST_ID.fullmatch(request_id):
        request_id = secrets.token_hex(8)
    request[_REQUEST_ID] = request_id
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        try:
            response = await handler(request)
        except Problem as problem:
            response = _problem_answer(problem, request_id)
        except StoreError as error:
            log.error("store_failed", code=error.code)
            response = _problem_answer(Problem(error.code), request_id)
        except web.HTTPException as error:
            response = _problem_answer(_from_aiohttp(error), request_id)
        # The last line of defence: whatever a handler's bug raises must not leave as a traceback.
        except Exception:
            log.exception("request_failed", method=request.method, path=request.path)
            response = _problem_answer(Problem("internal_error"), request_id)
    if not response.prepared:
        response.headers[REQUEST_ID_HEADER] = request_id
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
    return response


def _problem_answer(problem: Problem, request_id: str) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(problem.document(request_id)),
        status=problem.status,
        content_type="application/problem+json",
        headers={hdrs.CACHE_CONTROL: "no-store", **problem.headers},
    )


def _from_aiohttp(error: web.HTTPException) -> Problem:
    code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status)
    if code is None:
        code = "bad_request" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    allow = error.headers.get(hdrs.ALLOW)
    return Problem(code, headers=None if allow is None else {hdrs.ALLOW: allow})


def refuse_cross_site(request: web.Request) -> None:
    """A cookie travels with requests that other sites start; a bearer token does not.

    Fetch metadata first, the Origin header for browsers without it (OWASP CSRF cheat sheet).
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise Problem("cross_origin", f"Sec-Fetch-Site: {site}")
        return
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Problem("cross_origin", "Origin is not this host")


def token_of(request: web.Request) -> str:
    """The bearer token, or that of the portal's cookie; empty without one."""
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is not None:
        scheme, _, token = header.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    token = request.cookies.get(COOKIE, "")
    if token and request.method not in _SAFE_METHODS:
        refuse_cross_site(request)
    return token


async def identify(request: web.Request, route: Route, authentication: Authentication) -> Principal | None:
    """Who calls; on a public route nobody asks, and it is None.

    Raises Problem `not_authenticated`, `network_not_allowed` or `second_factor_enrolment_required`.
    """
    token = token_of(request)
    if route.access is Access.PUBLIC:
        return None
    principal = await authentication.principal(token) if token else None
    if principal is None:
        reason = authentication.refuse(token, remote_of(request)) if token else None
        raise Problem("not_authenticated", headers={"WWW-Authenticate": "Bearer"}, reason=reason)
    authentication.check_network(principal, remote_of(request))
    if principal.must_enrol and not route.is_before_enrolment:
        raise Problem("second_factor_enrolment_required")
    return principal


def remote_of(request: web.Request) -> str:
    """The client's address, as the relay worker saw it; control itself listens on a Unix socket only."""
    return request.headers.get(REMOTE_HEADER, "")


def bind(route: Route, services: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An aiohttp handler for a route: identify, read the body, call, answer."""
    decoder = None if route.body is None else msgspec.json.Decoder(route.body)

    async def handle(request: web.Request) -> web.StreamResponse:
        if route.access is not Access.PUBLIC:
            services.start_up.require_over()
        principal = await identify(request, route, services.authentication)
        if route.upload and request.content_type not in route.upload:
            raise Problem("media_type_unknown", f"one of {', '.join(route.upload)}")
        call = Call(
            services=services,
            request=request,
            principal=principal,
            remote=remote_of(request),
            request_id=request[_REQUEST_ID],
        )
        body = None if decoder is None else _decode(decoder, await request.read(), route.misshapen)
        answer = await route.handler(call, body)
        if isinstance(answer, web.StreamResponse):
            return answer
        if route.answer is None:
            return web.Response(status=204)
        return json_answer(answer, route.status, {hdrs.CACHE_CONTROL: "no-store"})

    return handle


def _decode(decoder: msgspec.json.Decoder[Any], raw: bytes, misshapen: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise Problem(misshapen, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem("bad_request", str(error)[:200]) from None


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
