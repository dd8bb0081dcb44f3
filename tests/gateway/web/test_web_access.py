"""Separation of duties: every route by every kind of caller comes out as `gateway.web.duties` declares."""

import base64
import contextlib
import inspect
import itertools
import json
import re
import sqlite3
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import WSMsgType
from support.asked import BODIES, QUERIES, SESSION, TARGETS
from support.callers import ACCOUNTS, open_gateway, undertaking
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
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
_RECORDED_OF_REFUSALS = {
    AuditKind.DECISION,
    AuditKind.LEDGER_READ,
    AuditKind.SESSION_START,
    AuditKind.SESSION_END,
    AuditKind.ANALYSIS_END,
}
"""The decision itself, and that an auditor asked; what was opened before may come to its end now."""


_CHANGING_TABLES = ("audit_", "sqlite_", "counters", "viewer_sessions", "analyses")
"""The ledger's own, the sign of life, and uses, whose ends are written a moment later."""


class Matrix:
    """Asks cells and says what came out, the ledger and the database included."""

    def __init__(self, gateway, database):
        self.gateway = gateway
        self.city = gateway.city
        self._database = database
        self._playlist = None

    async def cell(self, route, caller):
        """What came out, in a word; a contradiction in the ledger or the database is one as well."""
        try:
            return await self.ask(route, caller)
        except (AssertionError, KeyError, aiohttp.ClientError) as error:
            return f"{type(error).__name__}({error})"

    async def settle(self, route):
        """Undo what a route does to those who ask the next one."""
        if route.endswith("/logout"):
            for caller in Caller:
                if DUTIES[route][caller] is Outcome.ANSWERED:
                    undertakes = caller is not Caller.MUST_ENROL
                    await self.city.login(ACCOUNTS[caller], undertakes=undertakes)
        elif route.endswith("/undertakings"):
            await undertaking(self.city)
        await self.gateway.settle()

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
            strange = [r for r in records if r.kind not in _RECORDED_OF_REFUSALS]
            assert not strange, f"{route} by {caller} was refused, and is recorded as {strange}"
        elif isinstance(ROUTE[route].access, Action) and (route, caller) not in _HIS_OWN:
            assert self._decided(records, caller, Recorded.ALLOW), f"{route} by {caller} left no decision"
        return self._outcome(status, code, self._decided(records, caller, Recorded.DENY))

    def _outcome(self, status, code, is_recorded):  # noqa: PLR0911 - a flat table
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
            case (401, "invalid_credentials") | (410, "thumbnails_over") | (409 | 415 | 422, _):
                return Outcome.REFUSED
        return f"{status}:{code}"

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
            if inspect.iscoroutinefunction(body):
                body = await body(self.city)
            options["json"] = body() if callable(body) else body
        return path + QUERIES.get(route, ""), options

    async def _media(self, path, caller):
        """The address of the caller's own session; of another's, with a guessed secret, if he has none."""
        own = await self.gateway.watch(caller)
        form = path.removeprefix("/media/{session}/")
        if own is None:
            session = (await self.city.watch("urban-operator", purpose="patrol"))["id"]
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
        return (
            base
            + {
                "live.m3u8": "live.m3u8",
                "init-{number}.mp4": segment.map,
                "segment-{number}.mp4": segment.uri,
                "segment-{number}.{part}.mp4": segment.parts[0].uri,
            }[form.rpartition("/")[2]]
        )

    def _size(self):
        return self._database.execute("SELECT size FROM audit_state").fetchone()[0]

    def _records(self, since):
        rows = self._database.execute("SELECT leaf, disclosures FROM audit_records WHERE seq >= ?", (since,))
        return [parse(*row).event for row in rows]

    def _contents(self):
        """All that a refusal must leave as it was."""
        names = [
            name
            for (name,) in self._database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if not name.startswith(_CHANGING_TABLES)
        ]
        return {name: self._database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}  # noqa: S608


_HIS_OWN = {("DELETE /api/v1/sessions/{id}", Caller.GRANTED), ("DELETE /api/v1/analyses/{id}", Caller.JOB)}
"""Ending one's own use needs nobody's permission; the session's end is the record."""


@contextlib.asynccontextmanager
async def _open_matrix(folder):
    async with open_gateway(folder) as gateway:
        path = folder / "data" / DATABASE_FILE
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield Matrix(gateway, database)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_cell_of_the_matrix(tmp_path, record_property, capsys):
    differing = []
    async with _open_matrix(tmp_path) as matrix:
        for route in DUTIES:
            found = [await matrix.cell(route, caller) for caller in Caller]
            declared = list(DUTIES[route].values())
            if found != declared:
                differing.append(f"{route}\n  declared {' '.join(declared)}\n  found    {' '.join(found)}")
            await matrix.settle(route)
    cells = len(DUTIES) * len(Caller)
    record_property("cells", cells)
    with capsys.disabled():
        print(f"\n{len(DUTIES)} routes x {len(Caller)} callers: {cells} cells", end=" ")  # noqa: T201
    assert not differing, "\n".join(differing)


def test_a_route_without_a_declaration_fails_the_start(monkeypatch):
    check_declared(ROUTES)
    strange = replace(ROUTES[0], path="/api/v1/strange")
    with pytest.raises(UndeclaredRouteError, match="/api/v1/strange"):
        check_declared([*ROUTES, strange])
    with pytest.raises(UndeclaredRouteError, match=re.escape(ROUTES[0].path)):
        check_declared(ROUTES[1:])
    closed = [replace(route, access=Access.AUTHENTICATED) for route in ROUTES if route.path == "/healthz"]
    with pytest.raises(UndeclaredRouteError, match="GET /healthz: its access is authenticated"):
        check_declared([route for route in ROUTES if route.path != "/healthz"] + closed)
    with pytest.raises(ValueError, match="14 outcomes for 15"):
        duties._parse("GET /x", "a aaa aa aa aa aa aa")


def test_what_a_worker_serves_itself_is_declared():
    served = [
        *HlsRoutes(None, None, None).routes(),
        *MediaRoutes(None, None, None).routes(),
        *MjpegRoutes(None, None, None, None, None).routes(),
        *PictureRoutes(None, None, None, None, None).routes(),
    ]
    declared = {re.sub(r"\{\w+\}", "{}", route) for route in DUTIES}
    hls = {route for route in declared if "/hls/" in route}
    for route in served:
        name = f"{route.method} {re.sub(r'{[^}]+}', '{}', route.path)}"
        if name == "GET /media/{}/hls/{}/{}":  # one route for four kinds of names
            assert len(hls) == 4
        elif route.method != "*":  # refuses whatever else is asked under /media/
            assert name in declared


async def test_nobody_raises_himself(tmp_path):
    async with open_city(tmp_path) as city:
        new = {"username": "n", "display_name": "n", "department_id": "traffic", "password": PASSWORD}
        for username, method, path, body, reason in (
            ("traffic-admin", "PATCH", "/users/traffic-admin", {"roles": ["auditor"]}, "own_account"),
            ("traffic-admin", "PATCH", "/users/traffic-operator", {"roles": ["auditor"]}, "not_manageable"),
            ("traffic-admin", "PATCH", "/users/traffic-operator", {"roles": ["emperor"]}, "role_unknown"),
            ("traffic-admin", "POST", "/users", new | {"roles": ["system-administrator"]}, "not_manageable"),
            ("traffic-admin", "POST", "/users", new | {"roles": ["auditor"]}, "not_manageable"),
            ("traffic-admin", "PATCH", "/users/auditor", {"password": PASSWORD}, None),
        ):
            problem = await city.call(username, method, path, body, 403)
            code = "access_denied" if reason is None else "account_refused"
            assert problem["code"] == code
            assert reason is None or problem["reason"] == reason
        grant = {
            "subject": {"kind": "user", "id": "traffic-admin"},
            "object": {"kind": "camera", "id": "gate"},
            "actions": ["live:view"],
        }
        problem = await city.call("traffic-admin", "POST", "/grants", grant, 422)
        assert (problem["code"], problem["reason"]) == ("grant_refused", "self_grant")
        whole_department = {"kind": "department", "id": "traffic"}
        await city.call("traffic-admin", "POST", "/grants", grant | {"subject": whole_department})
        assert (await city.watch("traffic-admin", expect=403))["reason"] == "own_grant"
        await city.watch("traffic-operator")


async def test_the_three_administrators_exclude_one_another(tmp_path):
    async with open_city(tmp_path) as city:
        three = ("system-administrator", "security-administrator", "auditor")
        for roles in itertools.combinations(three, 2):
            body = {"username": "both", "display_name": "n", "department_id": "traffic"}
            problem = await city.call("root", "POST", "/users", body | {"roles": list(roles)}, 403)
            assert (problem["code"], problem["reason"]) == ("account_refused", "separate_duties")
        problem = await city.call("root", "PATCH", "/users/auditor", {"roles": ["auditor", three[1]]}, 403)
        assert problem["reason"] == "separate_duties"
        # a role by another name joins them as well
        await city.call("root", "POST", "/roles", {"name": "clerk", "department": ["user:manage"]})
        problem = await city.call("root", "PATCH", "/users/auditor", {"roles": ["auditor", "clerk"]}, 403)
        assert problem["reason"] == "separate_duties"
        assert await city.records(kind="user_changed", actor_id="root") == []


async def test_no_administrator_sees_a_picture_without_a_grant(tmp_path):
    async with open_city(tmp_path) as city:
        for username in ("root", "security", "auditor", "traffic-admin"):
            problem = await city.watch(username, expect=403)
            assert problem["code"] == "access_denied"
            grant = {
                "subject": {"kind": "user", "id": (await city.call(username, "GET", "/me"))["id"]},
                "object": {"kind": "camera", "id": "gate"},
                "actions": ["live:view"],
            }
            status = 422 if username == "traffic-admin" else 403
            await city.call(username, "POST", "/grants", grant, status)
            await city.watch(username, expect=403)


_ABSENT = "n" * 32
_IDENTIFIED = (
    ("GET", "/cameras/{}", None),
    ("PATCH", "/cameras/{}", {"name": "n"}),
    ("DELETE", "/cameras/{}", None),
    ("GET", "/cameras/{}/viewers", None),
    ("POST", "/cameras/{}/test", None),
    ("GET", "/explain?camera={}", None),
    ("GET", "/explain?camera={}&principal=urban-operator", None),
    ("POST", "/sessions", lambda camera: {**SESSION, "camera": camera}),
    ("POST", "/analyses", lambda camera: {**SESSION, "camera": camera, "analyser": "motion"}),
    (
        "POST",
        "/grants",
        lambda camera: {
            "subject": {"kind": "user", "id": "urban-operator"},
            "object": {"kind": "camera", "id": camera},
            "actions": ["live:view"],
        },
    ),
)


async def test_another_department_s_camera_is_told_as_one_that_is_not_there(tmp_path):
    """By address, query and body: the same status and the same words, but for the id itself."""
    async with open_city(tmp_path) as city:
        for method, path, body in _IDENTIFIED:
            told = []
            for camera in ("bridge", _ABSENT):
                sent = body(camera) if callable(body) else body
                options = {} if sent is None else {"data": json.dumps(sent)}
                address = f"/api/v1{path.format(camera)}"
                status, _, text = await city.request(method, address, city.tokens["urban-admin"], **options)
                answer = json.loads(text)
                answer.pop("request_id", None)
                told.append((status, json.dumps(answer).replace(camera, "ID")))
            assert told[0] == told[1], (method, path)


async def test_what_a_viewer_says_over_a_websocket_is_ignored(tmp_path):
    async with open_gateway(tmp_path) as gateway:
        for form in ("ws", "ws.flv"):
            session, ticket = await gateway.watch(Caller.GRANTED)
            async with gateway.websocket(f"/media/{session}/{form}?ticket={ticket}") as socket:
                await _talk(socket)
            (end,) = await gateway.city.recorded(kind="session_end", session_id=session)
            assert end.reason == "lost"
        token = gateway.city.tokens[ACCOUNTS[Caller.JOB]]
        path = "/api/v1/frames/gate?purpose=patrol&reference=roster"
        async with gateway.websocket(path, {"Authorization": f"Bearer {token}"}) as socket:
            await _talk(socket)


async def _talk(socket):
    """MESSAGES, one after the other: whatever is said, pictures go on; too much ends the connection."""
    for said in duties.MESSAGES:
        match said:
            case "text":
                await socket.send_str('{"action": "camera:manage"}' + "x" * 1000)
            case "binary":
                await socket.send_bytes(bytes(MAX_INCOMING_MESSAGE_BYTES - 1))
            case "ping":
                await socket.ping(b"there?")
            case "too long":
                await socket.send_bytes(bytes(MAX_INCOMING_MESSAGE_BYTES))  # what aiohttp's limit excludes
                async for message in socket:
                    assert message.type in {WSMsgType.BINARY, WSMsgType.TEXT}
                assert socket.closed
                return
        for _ in range(3):
            assert (await socket.receive()).type in {WSMsgType.BINARY, WSMsgType.TEXT}
