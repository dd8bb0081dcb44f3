"""Every request's frame: its id, its answer when it fails, its line in the log."""

import secrets
import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.problems import Problem
from gateway.relay.refusals import answer, refusal_document

REQUEST_ID_HEADER = "X-Request-Id"
REQUEST_ID = web.RequestKey("request_id", str)
SESSION_ID = web.RequestKey("session_id", str)
"""Set by a handler for the log."""
CLIENT_ADDRESS = web.RequestKey("client_address", str)
"""Set, for the log, where a trusted proxy stands between."""

_log = structlog.get_logger(__name__)


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, turn refusals into problem documents, log one line without the query."""
    request_id = request[REQUEST_ID] = secrets.token_hex(8)
    started = time.monotonic()
    status = 499
    try:
        response = await _answer_of(request, handler, request_id)
        status = response.status
        return response
    finally:
        _log.info(
            "request",
            request_id=request_id,
            method=request.method,
            path=_loggable_path(request),
            session=request.get(SESSION_ID),
            remote=request.get(CLIENT_ADDRESS, request.remote),
            status=status,
            duration_ms=round(1000 * (time.monotonic() - started)),
        )


def _loggable_path(request: web.Request) -> str:
    """Addresses of media may hold a capability: only the shape of them is logged."""
    resource = request.match_info.route.resource
    if request.path.startswith("/media/"):
        return "/media/" if resource is None else resource.canonical
    return request.path


async def _answer_of(request: web.Request, handler: Handler, request_id: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response()  # the client is gone; aiohttp finds that out when it writes
    # Whatever else a handler raises must become an answer, and a bug's traceback must stay in the log.
    except Exception as error:
        if request.writer.output_size:
            raise  # half an answer is sent: aiohttp logs the error and cuts the connection
        document = refusal_document(error, request_id)
        if document is None:
            _log.exception("request_failed", request_id=request_id, path=_loggable_path(request))
            document = Problem("internal_error").document(request_id)
        response = answer(document)
        response.headers[REQUEST_ID_HEADER] = request_id
        return response
