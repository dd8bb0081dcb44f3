"""Separation of duties, declared: what comes of every route for every kind of caller.

One letter for each caller, in the order of `Caller`, grouped as here:

    nobody | operator, granted, elsewhere | owner, other owner | system, security | auditor, other auditor |
    job, wall | expired, disabled, must enrol

The address, or the body, names something of the owner's department. A route that is not declared here, or
is declared and not there, fails the start. The tests ask every cell of a real gateway.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from gateway.web.routing import Access, Route


class Caller(StrEnum):
    """Who asks. The owner's department is the one whose camera, account or session it is."""

    NOBODY = "without a log-in"
    OPERATOR = "operator of the owner's department, without a grant"
    GRANTED = "operator of another department, with a grant to watch and to take snapshots"
    ELSEWHERE = "operator of another department, without a grant"
    OWNER = "administrator of the owner's department"
    OTHER_OWNER = "administrator of another department"
    SYSTEM = "system administrator"
    SECURITY = "security administrator"
    AUDITOR = "auditor of the whole city"
    OTHER_AUDITOR = "auditor of another department"
    JOB = "analysis job with a grant for sampled frames"
    WALL = "video wall with a grant to watch, nobody on duty"
    EXPIRED = "operator of another department, whose grant has expired"
    DISABLED = "granted operator whose account was disabled"
    MUST_ENROL = "administrator of the owner's department without his second factor"


class Outcome(StrEnum):
    ANSWERED = "a"
    NOT_LOGGED_IN = "n"
    DENIED = "d"
    """403: the decision point said no, and the ledger has who, what and why."""
    NOT_TOLD = "f"
    """403 to a mere question, which is no decision and leaves no record."""
    ABSENT = "m"
    """404, as if it did not exist."""
    REFUSED = "r"
    """Neither forbidden nor done: what was sent would be refused from anybody."""
    NO_TICKET = "t"
    """403: only who was given a session's ticket gets its media."""
    MUST_ENROL = "e"
    """403 until a second factor is set up."""


_EVERYBODY = "a aaa aa aa aa aa aaa"
_LOGGED_IN = "n aaa aa aa aa aa ane"
_OWN_ACCOUNT = "n aaa aa aa aa aa ana"
"""What somebody who must still enrol may do as well."""
_WRONG_CODE = "n rrr rr rr rr rr rnr"
"""Likewise, and whoever it is, a code that he has not is refused."""
_OWNER = "n ddd ad dd dd dd dne"
_SYSTEM = "n ddd dd ad dd dd dne"
_SECURITY = "n ddd dd da dd dd dne"
_OWNER_OR_SYSTEM = "n ddd ad ad dd dd dne"
_WATCHER = "n dad dd dd dd dd dne"
_SAMPLER = "n ddd dd dd dd ad dne"
_TICKET = "t tat tt tt tt tt ttt"
_ABOUT_ANOTHER = "n faf af ff af ff fne"

_API = {
    "POST /login": _EVERYBODY,
    "POST /logout": _OWN_ACCOUNT,
    "GET /me": _OWN_ACCOUNT,
    "POST /me/second-factor": _OWN_ACCOUNT,
    "POST /me/second-factor/confirm": _WRONG_CODE,
    "DELETE /me/second-factor": _WRONG_CODE,
    "GET /duty": _LOGGED_IN,
    "POST /duty": "n fff ff ff ff fr fne",
    "DELETE /duty": "n fff ff ff ff fm fne",
    "GET /departments": _LOGGED_IN,
    "POST /departments": _SYSTEM,
    "PATCH /departments/{id}": _SYSTEM,
    "DELETE /departments/{id}": _SYSTEM,
    "GET /groups": _LOGGED_IN,
    "POST /groups": _OWNER,
    "PATCH /groups/{id}": _OWNER,
    "DELETE /groups/{id}": _OWNER,
    "GET /cameras": _LOGGED_IN,
    "POST /cameras": _OWNER,
    "POST /cameras/import": "n rrr rr rr rr rr rne",
    "GET /cameras/export": _LOGGED_IN,
    "GET /cameras/{id}": "n mam am aa mm aa mne",
    "PATCH /cameras/{id}": _OWNER,
    "DELETE /cameras/{id}": _OWNER,
    "GET /cameras/{id}/viewers": "n fff af ff af ff fne",
    "GET /cameras/{id}/snapshot": _WATCHER,
    "POST /cameras/{id}/test": _OWNER,
    "GET /frames/{camera}": _SAMPLER,
    "POST /thumbnails": _LOGGED_IN,
    "POST /thumbnails/{id}/sessions": "n rrr rr rr rr rr rne",
    "GET /users": _LOGGED_IN,
    "POST /users": _OWNER_OR_SYSTEM,
    "GET /users/{id}": "n amm aa am mm mm mne",
    "PATCH /users/{id}": _OWNER_OR_SYSTEM,
    "DELETE /users/{id}/second-factor": _OWNER_OR_SYSTEM,
    "GET /users/{id}/cameras": "n aff af af af ff fne",
    "POST /users/{id}/key": _OWNER_OR_SYSTEM,
    "GET /roles": _LOGGED_IN,
    "POST /roles": _SYSTEM,
    "DELETE /roles/{name}": _SYSTEM,
    "GET /grants": _LOGGED_IN,
    "POST /grants": _OWNER,
    "DELETE /grants/{id}": _OWNER,
    "GET /disputes": _LOGGED_IN,
    "POST /disputes": "n ddd ad dd ad dd dne",
    # of a dispute that this auditor has raised: he takes it back
    "POST /disputes/{id}/close": "n ddd ad dd ad dd dne",
    "GET /policy": _LOGGED_IN,
    "POST /policy/confirm": _OWNER,
    "POST /policy/file/accept": _SECURITY,
    "GET /explain": _LOGGED_IN,
    "GET /purposes": _LOGGED_IN,
    "POST /purposes": _SECURITY,
    "PATCH /purposes/{code}": _SECURITY,
    "GET /undertaking": _LOGGED_IN,
    "POST /undertaking/accept": "n aaa aa aa aa ff ane",
    "POST /undertakings": _SECURITY,
    "POST /sessions": _WATCHER,
    "POST /sessions/{id}/ticket": "n mam mm mm mm mm mne",
    "POST /sessions/{id}/confirm": "n mam mm mm mm mm mne",
    "GET /sessions": _LOGGED_IN,
    "GET /sessions/{id}": "n mam am aa am mm mne",
    "DELETE /sessions/{id}": "n dad ad aa dd dd dne",
    "GET /analysers": _LOGGED_IN,
    "GET /analyses": _LOGGED_IN,
    "POST /analyses": _SAMPLER,
    "DELETE /analyses/{id}": "n ddd ad aa dd ad dne",
    "GET /events": _LOGGED_IN,
    "GET /events/stream": _LOGGED_IN,
    "GET /audit/records": "n ddd dd dd aa dd dne",
    "POST /audit/records/{seq}/erasure": _SECURITY,
    "GET /audit/heads": _EVERYBODY,
    "GET /audit/proofs/{seq}": "n ddd dd dd am dd dne",
    "GET /audit/consistency": _EVERYBODY,
    "GET /audit/keys": _EVERYBODY,
    "POST /audit/keys": _SECURITY,
    "GET /audit/export": "n ddd dd dd ad dd dne",
}
_AUTHZEN = {
    "GET /.well-known/authzen-configuration": _EVERYBODY,
    "POST /access/v1/evaluation": _ABOUT_ANOTHER,
    "POST /access/v1/evaluations": _ABOUT_ANOTHER,
    "POST /access/v1/search/subject": _LOGGED_IN,
    "POST /access/v1/search/resource": _LOGGED_IN,
    "POST /access/v1/search/action": _ABOUT_ANOTHER,
}
_MEDIA = {
    "live.flv": _TICKET,
    "live.mp4": _TICKET,
    "ws": _TICKET,
    "ws.flv": _TICKET,
    "live.mjpeg": _TICKET,
    "index.m3u8": _TICKET,
    "hls/{capability}/live.m3u8": _TICKET,
    "hls/{capability}/init-{number}.mp4": _TICKET,
    "hls/{capability}/segment-{number}.mp4": _TICKET,
    "hls/{capability}/segment-{number}.{part}.mp4": _TICKET,
}
_OPERATIONS = {
    "GET /healthz": _EVERYBODY,
    "GET /readyz": _EVERYBODY,
    "GET /metrics": _EVERYBODY,
    "GET /openapi.json": _EVERYBODY,
}


MESSAGES: Mapping[str, str] = {
    "text": "ignored",
    "binary": "ignored",
    "ping": "answered with a pong",
    "too long": "the connection is closed (RFC 6455, 1009), the session's place kept for a return",
}
"""What comes of what a client says over a WebSocket (ws, ws.flv, frames), whoever it is: it has no say."""


def _parse(route: str, letters: str) -> Mapping[Caller, Outcome]:
    outcomes = [Outcome(letter) for letter in letters.replace(" ", "")]
    if len(outcomes) != len(Caller):
        raise ValueError(f"{route}: {len(outcomes)} outcomes for {len(Caller)} callers")
    return dict(zip(Caller, outcomes, strict=True))


DUTIES: Mapping[str, Mapping[Caller, Outcome]] = {
    route: _parse(route, letters)
    for route, letters in {
        **{route.replace(" ", " /api/v1", 1): letters for route, letters in _API.items()},
        **_AUTHZEN,
        **{f"GET /media/{{session}}/{form}": letters for form, letters in _MEDIA.items()},
        **_OPERATIONS,
    }.items()
}
"""By `METHOD /path`. Relay workers serve /media/, snapshots and frames themselves, all else is control's."""


class UndeclaredRouteError(Exception):
    """The table and the routes differ: nothing is served."""

    code = "route_undeclared"


def check_declared(routes: Iterable[Route]) -> None:
    """Refuse routes without a declaration, declarations without a route, and ones that contradict `access`.

    Raises UndeclaredRouteError.
    """
    access = {f"{route.method} {route.path}": route.access for route in routes}
    if differing := sorted(access.keys() ^ DUTIES.keys()):
        raise UndeclaredRouteError(f"in gateway.web.duties or among the routes only: {', '.join(differing)}")
    for route, declared in DUTIES.items():
        is_closed = {declared[Caller.NOBODY], declared[Caller.DISABLED]} == {Outcome.NOT_LOGGED_IN}
        if is_closed is (access[route] is Access.PUBLIC):
            raise UndeclaredRouteError(f"{route}: its access is {access[route]}, declared is something else")
