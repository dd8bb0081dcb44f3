"""How the worker says no: RFC 9457 problem documents, its own and those that control answers with."""

import msgspec
from aiohttp import web

from gateway.problems import Problem, ProblemDocument, codes
from gateway.relay.control_link import ControlUnavailableError, RefusedError

PROBLEMS: dict[str, tuple[int, str]] = {
    "camera_unavailable": (504, "The camera sends no picture"),
    "control_unavailable": (503, "The gateway's control does not answer"),
    "obligation_unmet": (503, "The gateway cannot do what the permission obliges it to"),
    "connection_limit": (503, "Too many connections"),
    "upgrade_required": (426, "This address speaks WebSocket"),
    "analysis_unavailable": (503, "No analysis process is running"),
    "address_gone": (410, "The address is not, or no longer, one of a running session"),
    "worker_gone": (410, "The worker that had the session is gone; ask for another ticket"),
    "limit_mjpeg": (503, "Too many pictures are shown as MJPEG"),
}
"""Codes that only relay workers answer with, beside those of `gateway.problems`."""

_AIOHTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """Raise to answer with a problem document; `code` is one of `PROBLEMS` or of `gateway.problems`."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail

    def document(self, request_id: str) -> ProblemDocument:
        if self.code not in PROBLEMS:
            return Problem(self.code, self.detail).document(request_id)
        status, title = PROBLEMS[self.code]
        return _document(status, self.code, title, self.detail, request_id)


def refusal_document(error: Exception, request_id: str) -> ProblemDocument | None:
    """The answer that an error of the relay stands for; None if it is a bug."""
    if isinstance(error, RefusedError):
        return _answer_of_control(error, request_id)
    if isinstance(error, ControlUnavailableError):
        error = Refusal("control_unavailable", str(error))
    elif isinstance(error, web.HTTPException):
        error = Refusal(_AIOHTTP_CODES.get(error.status, "bad_request"))
    return error.document(request_id) if isinstance(error, Refusal) else None


def _answer_of_control(error: RefusedError, request_id: str) -> ProblemDocument:
    if codes().get(error.code) == error.status:
        return Problem(error.code, error.detail).document(request_id)
    return _document(error.status, error.code, error.code, error.detail, request_id)


def answer(document: ProblemDocument) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document),
        status=document.status,
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def _document(status: int, code: str, title: str, detail: str, request_id: str) -> ProblemDocument:
    return ProblemDocument(
        type=f"urn:custos:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        request_id=request_id,
    )
