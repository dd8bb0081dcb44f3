"""What a route is, and what a handler gets: nothing is reachable that is not declared in a table of these."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.enforcement import Circumstances, Purpose
from gateway.principals import Principal
from gateway.problems import Problem
from policies.access import Action

if TYPE_CHECKING:
    from gateway.services import Services

API = "/api/v1"
MAX_BODY_BYTES = 1024 * 1024
MAX_PATH_PART = 64
"""Ids are not longer."""
MAX_PAGE_SIZE = 500
MAX_SEQ = 2**53 - 1
REVISION_HEADER = "X-Custos-Revision"
"""Of the answer to a request that may have written: the policy's revision, that write included."""
MIN_REVISION_HEADER = "X-Custos-Min-Revision"
"""Of a request: decided with this revision or a later one, or denied as `stale_revision`."""
DEFAULT_PAGE_SIZE = 50

Sequence = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
"""A number or count of records, or the id of an event."""

_REVISION = re.compile(r"[0-9]{1,15}")

Q = TypeVar("Q", bound=msgspec.Struct)


class Access(StrEnum):
    """Who may call a route at all; what he may do there is the PEP's to say."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as a handler sees it."""

    services: "Services"
    request: web.Request
    principal: Principal | None
    remote: str
    request_id: str

    @property
    def who(self) -> Principal:
        """The caller. On routes that are not public there always is one, on others none."""
        if self.principal is None:
            raise Problem("not_authenticated")
        return self.principal

    def circumstances(self, purpose: Purpose | None = None) -> Circumstances:
        """Raises Problem `invalid_field` for a header MIN_REVISION_HEADER that is no revision."""
        minimum = self.request.headers.get(MIN_REVISION_HEADER, "0")
        if not _REVISION.fullmatch(minimum):
            raise Problem("invalid_field", MIN_REVISION_HEADER)
        return Circumstances(
            remote=self.remote, request_id=self.request_id, purpose=purpose, min_revision=int(minimum)
        )

    def path(self, name: str) -> str:
        """A part of the address. Raises Problem `not_found` for what no id can be."""
        value = self.request.match_info[name]
        if "\0" in value or len(value) > MAX_PATH_PART:
            raise Problem("not_found")
        return value

    def query(self, shape: type[Q]) -> Q:
        """The query string as a struct. Raises Problem `invalid_field`."""
        if any("\0" in value for value in self.request.query.values()):
            raise Problem("invalid_field", "a NUL character")
        try:
            return msgspec.convert(dict(self.request.query), shape, strict=False)
        except msgspec.ValidationError as error:
            raise Problem("invalid_field", str(error)) from None


Handler = Callable[[Call, Any], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """`access`: public, authenticated, or the action that the handler asks the PEP for.

    `body` and `answer` are msgspec types; `answer` None means 204, `stream` names another media type.
    `rehearsal`: the answer of `?dry_run=1`, with status 200, where it is another one.
    `misshapen`: the problem of a body that is JSON but not a `body`. `upload`: the media types of a body
    that the handler reads itself, piece by piece, with a limit of its own; no other type reaches it.
    `is_before_enrolment`: also for whoever must set up a second factor first.
    """

    method: str
    path: str
    handler: Handler
    access: Access | Action
    summary: str
    body: Any = None
    query: type[msgspec.Struct] | None = None
    answer: Any = None
    status: int = 200
    stream: str | None = None
    misshapen: str = "invalid_field"
    rehearsal: Any = None
    upload: tuple[str, ...] = ()
    is_before_enrolment: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stable paging: the token is the last item's sort key, opaque to callers."""

    page_token: str | None = None
    page_size: int = DEFAULT_PAGE_SIZE

    def size(self) -> int:
        if not 1 <= self.page_size <= MAX_PAGE_SIZE:
            raise Problem("invalid_field", f"page_size: 1 to {MAX_PAGE_SIZE}")
        return self.page_size
