"""Separation of duties: every route by every kind of caller comes out as `gateway.web.duties` declares."""

import base64
import contextlib
import itertools
import json
import sqlite3
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import WSMsgType
from support.callers import ACCOUNTS, WHY, open_gateway
from support.controls import PASSWORD, open_city
from support.hls_playlists import parse_playlist

from gateway.audit.records import AuditKind, parse
from gateway.audit.records import Outcome as Recorded
from gateway.relay.hls import HlsRoutes
from gateway.relay.media import MAX_INCOMING_MESSAGE_BYTES, MediaRoutes
from gateway.relay.mjpeg import MjpegRoutes
from gateway.relay.pictures import PictureRoutes
from gateway.store.engines import DATABASE_FILE
from gateway.web import ROUTES, duties
from gateway.web.duties import DUTIES, Caller, Outcome, UndeclaredRouteError, check_declared
from gateway.web.routing import Access
from policies.access import Action

ROUTE = {f"{route.method} {route.path}": route for route in ROUTES}
_fresh = map(str, itertools.count())
_WHY_QUERY = "?purpose=patrol&reference=roster"
_GRANT = {
    "subject": {"kind": "user", "id": "urban-visitor"},
    "object": {"kind": "camera", "id": "bridge"},
    "actions": ["live:view"],
}
_SESSION = {"camera": "gate", "purpose": WHY}
_ANALYSIS = {**_SESSION, "analyser": "motion", "parameters": {}}
_QUESTION = {
    "subject": {"type": "user", "id": "urban-operator"},
    "action": {"name": "live:view"},
    "resource": {"type": "camera", "id": "gate"},
}


def _named(**more):
    return lambda: {"name": f"n{next(_fresh)}", **more}


def _user():
    return {
        "username": f"u{next(_fresh)}",
        "display_name": "n",
        "department_id": "traffic",
        "password": PASSWORD,
    }


def _purpose():
    return {"code": f"p{next(_fresh)}", "text": {"zh": "事", "en": "p"}}


BODIES = {
    "POST /api/v1/login": {"username": "spare", "password": PASSWORD},
    "POST /api/v1/departments": _named(),
    "PATCH /api/v1/departments/{id}": {"name": "n"},
    "POST /api/v1/groups": _named(department_id="traffic"),
    "PATCH /api/v1/groups/{id}": {"name": "n"},
    "POST /api/v1/cameras": _named(department_id="traffic", url="rtsp://127.0.0.1/x"),
    "POST /api/v1/cameras/import": {},  # no file at all: what a file may say is the import's own tests
    "PATCH /api/v1/cameras/{id}": {"description": "d"},
    "POST /api/v1/users": _user,
    "PATCH /api/v1/users/{id}": {"locale": "en"},
    "POST /api/v1/roles": lambda: {"name": f"r{next(_fresh)}"},
    "POST /api/v1/grants": _GRANT,
    "POST /access/v1/evaluation": _QUESTION,
    "POST /access/v1/evaluations": _QUESTION,
    "POST /access/v1/search/subject": _QUESTION,
    "POST /access/v1/search/resource": _QUESTION,
    "POST /access/v1/search/action": _QUESTION,
    "POST /api/v1/purposes": _purpose,
    "PATCH /api/v1/purposes/{code}": {"enabled": True},
    "POST /api/v1/sessions": _SESSION,
    "POST /api/v1/analyses": _ANALYSIS,
    "POST /api/v1/thumbnails": {"cameras": ["gate", "bridge"], "purpose": WHY},
    "POST /api/v1/thumbnails/{id}/sessions": {"camera": "gate"},
}
"""What a request says, of routes that want something said: a value, or what makes a fresh one."""

QUERIES = {
    "GET /api/v1/explain": "?camera=gate",
    "GET /api/v1/audit/consistency": "?old_size=1&tree_size=2",
    "GET /api/v1/cameras/{id}/snapshot": _WHY_QUERY,
    "GET /api/v1/frames/{camera}": _WHY_QUERY,
}


async def _made(city, username, path, body, key="id"):
    return (await city.call(username, "POST", path, body))[key]


async def _camera(city):
    body = {"name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x"}
    return await _made(city, "traffic-admin", "/cameras", body)


async def _department(city):
    return await _made(city, "root", "/departments", {"name": "d", "parent_id": "traffic"})


async def _group(city):
    return await _made(city, "traffic-admin", "/groups", {"name": "g", "department_id": "traffic"})


async def _granted(city):
    return await _made(city, "traffic-admin", "/grants", _GRANT)


async def _role(city):
    return await _made(city, "root", "/roles", {"name": f"r{next(_fresh)}"}, "name")


async def _session(city):
    return await _made(city, "urban-operator", "/sessions", _SESSION)


async def _analysis(city):
    return await _made(city, "job", "/analyses", _ANALYSIS)


TARGETS = {
    "PATCH /api/v1/departments/{id}": _department,
    "DELETE /api/v1/departments/{id}": _department,
    "PATCH /api/v1/groups/{id}": _group,
    "DELETE /api/v1/groups/{id}": _group,
    "GET /api/v1/cameras/{id}": "gate",
    "PATCH /api/v1/cameras/{id}": _camera,
    "DELETE /api/v1/cameras/{id}": _camera,
    "GET /api/v1/cameras/{id}/viewers": "gate",
    "GET /api/v1/cameras/{id}/snapshot": "gate",
    "GET /api/v1/frames/{camera}": "gate",
    "POST /api/v1/cameras/{id}/test": "gate",
    "POST /api/v1/thumbnails/{id}/sessions": "0" * 32,
    "PATCH /api/v1/users/{id}": "traffic-operator",
    "GET /api/v1/users/{id}/cameras": "traffic-operator",
    "DELETE /api/v1/roles/{name}": _role,
    "DELETE /api/v1/grants/{id}": _granted,
    "PATCH /api/v1/purposes/{code}": "patrol",
    "POST /api/v1/sessions/{id}/ticket": _session,
    "GET /api/v1/sessions/{id}": _session,
    "DELETE /api/v1/sessions/{id}": _session,
    "DELETE /api/v1/analyses/{id}": _analysis,
    "GET /api/v1/audit/proofs/{seq}": "0",
}
"""What an address names: an id, or what makes a thing to be named."""

_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
_RECORDED_EVERYWHERE = {AuditKind.LOGIN, AuditKind.LOGOUT, AuditKind.SESSION_END, AuditKind.SESSION_START}


class Matrix:
    """Asks cells and says what came out, the ledger and the database included."""

    def __init__(self, gateway, database):
        self.gateway = gateway
        self.city = gateway.city
        self._database = database
        self._playlist = None

    async def ask(self, route, caller):
        path, options = await self._request(route, caller)
        seen, before = self._size(), self._contents()
        method = route.partition(" ")[0]
        async with self.gateway.ask(caller, method, path, **options) as answer:
            body = b""
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json", (route, caller, answer.status)
                body = await answer.read()
            status = answer.status
        code = json.loads(body)["code"] if body else ""
        records = self._records(seen)
        if status >= 400:
            assert self._contents() == before, f"{route} by {caller} was refused, and something changed"
            strange = [r for r in records if (r.kind, r.outcome) != (AuditKind.DECISION, Recorded.DENY)]
            assert all(r.kind in _RECORDED_EVERYWHERE for r in strange), (route, caller, strange)
        elif isinstance(ROUTE[route].access, Action) and (route, caller) not in _HIS_OWN:
            assert self._decided(records, caller, Recorded.ALLOW), f"{route} by {caller} left no decision"
        return self._outcome(status, code, self._decided(records, caller, Recorded.DENY))

    def _outcome(self, status, code, is_recorded):
        if status < 400:
            return Outcome.ANSWERED
        match status, code:
            case 401, "not_authenticated":
                return Outcome.NOT_LOGGED_IN
            case 403, "second_factor_enrolment_required":
                return Outcome.MUST_ENROL
            case (403, "ticket_required" | "ticket_invalid") | (410, "address_gone"):
                return Outcome.NO_TICKET
            case 403, _:
                return Outcome.DENIED if is_recorded else Outcome.NOT_TOLD
            case 404, "not_found":
                return Outcome.ABSENT
            case 415, "media_type_unknown":
                return Outcome.REFUSED
        return f"{status} {code}"

    def _decided(self, records, caller, outcome):
        """Whether the ledger says who was allowed or not, what, and why (Order 799, article 16)."""
        return any(
            r.kind is AuditKind.DECISION
            and (r.outcome, r.actor_id) == (outcome, self._id_of(caller))
            and r.actor_name
            and r.unit_name
            and r.content
            and r.reason
            for r in records
        )

    def _id_of(self, caller):
        return self._ids.get(ACCOUNTS.get(caller))

    @property
    def _ids(self):
        return dict(self._database.execute("SELECT username, id FROM users").fetchall())

    async def _request(self, route, caller):
        path = route.partition(" ")[2]
        if path.startswith("/media/"):
            return await self._media(path, caller), {"headers": _UPGRADE if "/ws" in path else {}}
        if (target := TARGETS.get(route)) is not None:
            start, _, rest = path.partition("{")
            path = start + (target if isinstance(target, str) else await target(self.city))
            path += rest.partition("}")[2]
        options = {}
        if (body := BODIES.get(route)) is not None:
            options["json"] = body() if callable(body) else body
        return path + QUERIES.get(route, ""), options

    async def _media(self, path, caller):
        """The address of the caller's own session; of another's, with a guessed secret, if he has none."""
        own = await self.gateway.watch(caller)
        form = path.removeprefix("/media/{session}/")
        if own is None:
            session = (await self.city.watch("urban-operator", **{"purpose": "patrol"}))["id"]
            path = path.replace("{session}", session).replace("{capability}", f"0-{'x' * 32}")
            return f"{path.replace('{number}', '0').replace('{part}', '0')}?ticket={'x' * 43}"
        session, ticket = own
        if not form.startswith("hls/"):
            return f"/media/{session}/{form}?ticket={ticket}"
        base = f"/media/{session}/"
        async with self.gateway.ask(caller, "GET", f"{base}index.m3u8?ticket={ticket}") as answer:
            listed = (await answer.text()).splitlines()[3]
        base += listed.rpartition("/")[0] + "/"
        async with self.gateway.ask(caller, "GET", f"{base}live.m3u8") as answer:
            playlist = parse_playlist(await answer.text())
        segment = playlist.segments[-1]
        return base + {
            "live.m3u8": "live.m3u8",
            "init-{number}.mp4": segment.map,
            "segment-{number}.mp4": segment.uri,
            "segment-{number}.{part}.mp4": segment.parts[0].uri,
        }[form.rpartition("/")[2]]

    def _size(self):
        return self._database.execute("SELECT size FROM audit_state").fetchone()[0]

    def _records(self, since):
        rows = self._database.execute("SELECT leaf FROM audit_records WHERE seq >= ?", (since,))
        return [parse(leaf).event for (leaf,) in rows]

    def _contents(self):
        """All that a refusal must leave as it was: every table but the ledger's own."""
        names = [
            name
            for (name,) in self._database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if not name.startswith(("audit_", "sqlite_", "counters", "viewer_sessions"))
        ]
        return {name: self._database.execute(f"SELECT * FROM {name}").fetchall() for name in names}


_HIS_OWN = {("DELETE /api/v1/sessions/{id}", Caller.GRANTED), ("DELETE /api/v1/analyses/{id}", Caller.JOB)}
"""Ending one's own use needs nobody's permission; the session's end is the record."""


@contextlib.asynccontextmanager
async def _open_matrix(folder):
    async with open_gateway(folder) as gateway:
        path = folder / "data" / DATABASE_FILE
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield Matrix(gateway, database)


async def test_every_cell_of_the_matrix(tmp_path, record_property, capsys):
    async with _open_matrix(tmp_path) as matrix:
        found = {}
        for route in ROUTE:
            for caller in Caller:
                try:
                    found[route, caller] = await matrix.ask(route, caller)
                except (AssertionError, aiohttp.ClientError) as error:  # the others are of interest as well
                    found[route, caller] = repr(error)
                if route.endswith("/logout") and found[route, caller] is Outcome.ANSWERED:
                    await matrix.city.login(ACCOUNTS[caller])
            await matrix.gateway.settle()
    declared = {(route, caller): DUTIES[route][caller] for route in ROUTE for caller in Caller}
    record_property("cells", len(declared))
    with capsys.disabled():
        print(f"\n{len(DUTIES)} routes x {len(Caller)} callers: {len(declared)} cells", end=" ")  # noqa: T201
    differing = {cell: (found[cell], declared[cell]) for cell in declared if found[cell] != declared[cell]}
    assert not differing, "\n".join(f"{cell}: {pair}" for cell, pair in differing.items())
