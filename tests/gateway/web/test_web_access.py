"""Every route by every role: what each may do is written here, and a route that is not fails the test."""

import itertools
import re

from support.controls import PASSWORD, open_city

from gateway.authentication import LoginSettings
from gateway.web import ROUTES

WHO = ("root", "traffic-admin", "traffic-operator", "auditor", "job")
"""System administrator, department administrator, operator, auditor, job."""

_fresh = map(str, itertools.count())
_GRANT = {
    "subject": {"kind": "user", "id": "urban-operator"},
    "object": {"kind": "camera", "id": "gate"},
    "actions": ["live:view"],
}
_SESSION = {"camera": "gate", "purpose": {"code": "patrol"}}
_ANALYSIS = {**_SESSION, "analyser": "motion", "parameters": {}}
_QUESTION = {
    "subject": {"type": "user", "id": "urban-operator"},
    "action": {"name": "live:view"},
    "resource": {"type": "camera", "id": "gate"},
}
_STREAM = -200
"""Opened and left at once: it would not end."""


async def _camera(city):
    body = {"name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x"}
    return (await city.call("traffic-admin", "POST", "/cameras", body))["id"]


async def _department(city):
    return (await city.call("root", "POST", "/departments", {"name": "d", "parent_id": "traffic"}))["id"]


async def _group(city):
    body = {"name": "g", "department_id": "traffic"}
    return (await city.call("traffic-admin", "POST", "/groups", body))["id"]


async def _granted(city):
    return await city.grant()


async def _role(city):
    return (await city.call("root", "POST", "/roles", {"name": f"r{next(_fresh)}"}))["name"]


async def _session(city):
    return (await city.watch("urban-operator"))["id"]


async def _analysis(city):
    return (await city.call("urban-operator", "POST", "/analyses", _ANALYSIS))["id"]


def _user():
    return {
        "username": f"u{next(_fresh)}",
        "display_name": "n",
        "department_id": "traffic",
        "password": PASSWORD,
    }


def _named(**more):
    return lambda: {"name": f"n{next(_fresh)}", **more}


EVERYBODY, NOBODY = (200,) * 5, (403,) * 5
SYSTEM_ONLY = {201: (201, 403, 403, 403, 403)}
DEPARTMENT = {status: (403, status, 403, 403, 403) for status in (200, 201, 204)}

TABLE = {
    # route: (body, what must exist for {id}, status for each of WHO)
    "POST /api/v1/login": ({"username": "root", "password": PASSWORD}, None, EVERYBODY),
    "POST /api/v1/logout": (None, None, (204,) * 5),
    "GET /api/v1/me": (None, None, EVERYBODY),
    "GET /api/v1/departments": (None, None, EVERYBODY),
    "POST /api/v1/departments": (_named(), None, SYSTEM_ONLY[201]),
    "PATCH /api/v1/departments/{id}": ({"name": "n"}, _department, (200, 403, 403, 403, 403)),
    "DELETE /api/v1/departments/{id}": (None, _department, (204, 403, 403, 403, 403)),
    "GET /api/v1/groups": (None, None, EVERYBODY),
    "POST /api/v1/groups": (_named(department_id="traffic"), None, DEPARTMENT[201]),
    "PATCH /api/v1/groups/{id}": ({"name": "n"}, _group, DEPARTMENT[200]),
    "DELETE /api/v1/groups/{id}": (None, _group, DEPARTMENT[204]),
    "GET /api/v1/cameras": (None, None, EVERYBODY),
    "POST /api/v1/cameras": (
        _named(department_id="traffic", url="rtsp://127.0.0.1/x"),
        None,
        DEPARTMENT[201],
    ),
    # a body that is no file at all, for every caller: what a file may say is the import's own tests
    "POST /api/v1/cameras/import": ({}, None, (415,) * 5),
    "GET /api/v1/cameras/export": (None, None, EVERYBODY),
    "GET /api/v1/cameras/{id}": (None, _camera, (200, 200, 404, 404, 404)),
    "GET /api/v1/cameras/{id}/viewers": (None, "gate", (403, 200, 403, 200, 403)),
    "PATCH /api/v1/cameras/{id}": ({"description": "d"}, _camera, DEPARTMENT[200]),
    "DELETE /api/v1/cameras/{id}": (None, _camera, DEPARTMENT[204]),
    "GET /api/v1/users": (None, None, EVERYBODY),
    "POST /api/v1/users": (_user, None, (201, 201, 403, 403, 403)),
    "PATCH /api/v1/users/{id}": ({"locale": "en"}, "traffic-operator", (200, 200, 403, 403, 403)),
    "GET /api/v1/users/{id}/cameras": (None, "traffic-operator", (200, 200, 200, 200, 403)),
    "GET /api/v1/roles": (None, None, EVERYBODY),
    "POST /api/v1/roles": (lambda: {"name": f"r{next(_fresh)}"}, None, SYSTEM_ONLY[201]),
    "DELETE /api/v1/roles/{name}": (None, _role, (204, 403, 403, 403, 403)),
    "GET /api/v1/grants": (None, None, EVERYBODY),
    "POST /api/v1/grants": (_GRANT, None, DEPARTMENT[201]),
    "DELETE /api/v1/grants/{id}": (None, _granted, DEPARTMENT[204]),
    "GET /api/v1/explain": ("?camera=gate", None, EVERYBODY),
    "GET /.well-known/authzen-configuration": (None, None, EVERYBODY),
    "POST /access/v1/evaluation": (_QUESTION, None, (403, 200, 403, 200, 403)),
    "POST /access/v1/evaluations": (_QUESTION, None, (403, 200, 403, 200, 403)),
    "POST /access/v1/search/subject": (_QUESTION, None, EVERYBODY),
    "POST /access/v1/search/resource": (_QUESTION, None, EVERYBODY),
    "POST /access/v1/search/action": (_QUESTION, None, (403, 200, 403, 200, 403)),
    "GET /api/v1/purposes": (None, None, EVERYBODY),
    "POST /api/v1/purposes": (
        lambda: {"code": f"p{next(_fresh)}", "text": {"zh": "事", "en": "p"}},
        None,
        SYSTEM_ONLY[201],
    ),
    # nobody watches by office: only a grant shows a picture, and none of these five has one
    "POST /api/v1/sessions": (_SESSION, None, NOBODY),
    "POST /api/v1/analyses": (_ANALYSIS, None, NOBODY),
    "POST /api/v1/sessions/{id}/ticket": (None, _session, (404,) * 5),
    "GET /api/v1/sessions": (None, None, EVERYBODY),
    "DELETE /api/v1/sessions/{id}": (None, _session, (204, 204, 403, 403, 403)),
    "GET /api/v1/analysers": (None, None, EVERYBODY),
    "GET /api/v1/analyses": (None, None, EVERYBODY),
    "DELETE /api/v1/analyses/{id}": (None, _analysis, (204, 204, 403, 403, 403)),
    "GET /api/v1/events": (None, None, EVERYBODY),
    "GET /api/v1/events/stream": (None, None, (_STREAM,) * 5),
    "GET /api/v1/audit/records": (None, None, (403, 403, 403, 200, 403)),
    "GET /api/v1/audit/heads": (None, None, EVERYBODY),
    "GET /api/v1/audit/proofs/{seq}": (None, "0", (403, 403, 403, 200, 403)),
    "GET /api/v1/audit/consistency": ("?old_size=1&tree_size=2", None, EVERYBODY),
    "GET /api/v1/audit/export": (None, None, (403, 403, 403, 200, 403)),
    # served by relay workers, which ask control in the caller's name; control itself has no picture
    "GET /api/v1/cameras/{id}/snapshot": ("?purpose=patrol", "gate", (503,) * 5),
    "GET /api/v1/frames/{camera}": ("?purpose=patrol", "gate", (503,) * 5),
    "GET /media/{session}/live.flv": ("?ticket=x", "s", (503,) * 5),
    "GET /media/{session}/live.mp4": ("?ticket=x", "s", (503,) * 5),
    "GET /media/{session}/ws": ("?ticket=x", "s", (503,) * 5),
    "GET /media/{session}/ws.flv": ("?ticket=x", "s", (503,) * 5),
    "GET /media/{session}/index.m3u8": ("?ticket=x", "s", (503,) * 5),
    "GET /media/{session}/live.mjpeg": ("?ticket=x", "s", (503,) * 5),
    "GET /media/{session}/hls/{capability}/live.m3u8": (None, "s", (503,) * 5),
    "GET /media/{session}/hls/{capability}/init-{number}.mp4": (None, "s", (503,) * 5),
    "GET /media/{session}/hls/{capability}/segment-{number}.mp4": (None, "s", (503,) * 5),
    "GET /media/{session}/hls/{capability}/segment-{number}.{part}.mp4": (None, "s", (503,) * 5),
    "GET /healthz": (None, None, EVERYBODY),
    "GET /readyz": (None, None, EVERYBODY),
    "GET /metrics": (None, None, EVERYBODY),
    "GET /openapi.json": (None, None, EVERYBODY),
}

PUBLIC = {
    "POST /api/v1/login",
    "GET /.well-known/authzen-configuration",
    "GET /media/{session}/live.flv",
    "GET /media/{session}/live.mp4",
    "GET /media/{session}/ws",
    "GET /media/{session}/ws.flv",
    "GET /media/{session}/index.m3u8",
    "GET /media/{session}/live.mjpeg",
    "GET /media/{session}/hls/{capability}/live.m3u8",
    "GET /media/{session}/hls/{capability}/init-{number}.mp4",
    "GET /media/{session}/hls/{capability}/segment-{number}.mp4",
    "GET /media/{session}/hls/{capability}/segment-{number}.{part}.mp4",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
}
"""All that answers without a log-in."""


def test_every_route_is_in_the_table():
    routes = {f"{route.method} {route.path}" for route in ROUTES}
    assert routes == set(TABLE)
    assert {f"{route.method} {route.path}" for route in ROUTES if route.access == "public"} == PUBLIC


async def _ask(city, route, token):
    body, target, _ = TABLE[route]
    method, _, path = route.partition(" ")
    if target is not None:
        identifier = target if isinstance(target, str) else await target(city)
        start, _, rest = path.partition("{")
        path = start + identifier + re.sub(r"\{\w+\}", "1", rest.partition("}")[2])
    options = {}
    if isinstance(body, str):
        path += body
    elif body is not None:
        options["json"] = body() if callable(body) else body
    headers = {"X-Custos-Remote": "192.0.2.1"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with city.http.request(method, f"http://custos{path}", headers=headers, **options) as answer:
        if answer.status == 200 and answer.content_type == "text/event-stream":
            return _STREAM
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
        await answer.read()
        return answer.status


async def test_every_route_by_every_role(tmp_path):
    async with open_city(tmp_path, login=LoginSettings(failures_per_user=10_000)) as city:
        await city.grant(actions=["live:view", "frames:consume"])
        await city.worker()
        found = {}
        for route in TABLE:
            statuses = []
            for username in WHO:
                statuses.append(await _ask(city, route, city.tokens[username]))
                if route.endswith("/logout"):
                    await city.login(username)
            found[route] = tuple(statuses)
            for session in [each for each in city.services.live.all() if each.ending is None]:
                await city.call("urban-operator", "DELETE", f"/sessions/{session.id}")
        assert found == {route: statuses for route, (_, _, statuses) in TABLE.items()}


async def test_nothing_but_the_public_routes_answers_without_a_log_in(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(actions=["live:view", "frames:consume"])
        await city.worker()
        stale = (await city.login("auditor"))["token"]
        await city.call("root", "PATCH", "/users/auditor", {"password": "another-long-password"})
        for token in (None, stale):
            for route in TABLE:
                expected = TABLE[route][2][0] if route in PUBLIC else 401
                assert await _ask(city, route, token) == expected, (route, token)


async def test_an_administrator_of_one_department_is_nobody_in_another(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        session = (await city.watch("urban-operator"))["id"]
        for method, path, body, expected in (
            ("POST", "/groups", {"name": "g", "department_id": "traffic"}, 403),
            ("POST", "/cameras", {"name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x"}, 403),
            ("GET", "/cameras/bridge", None, 404),
            ("PATCH", "/cameras/gate", {"enabled": False}, 403),
            ("DELETE", "/cameras/gate", None, 403),
            ("POST", "/grants", _GRANT, 403),
            ("DELETE", f"/grants/{grant}", None, 403),
            ("DELETE", f"/sessions/{session}", None, 403),
            ("POST", "/users", _user(), 403),
            ("PATCH", "/users/traffic-operator", {"enabled": False}, 403),
            ("PATCH", "/users/traffic-admin", {"password": PASSWORD}, 403),
            ("PATCH", "/users/auditor", {"password": PASSWORD}, 403),
            ("GET", "/explain?camera=gate&principal=urban-operator", None, 403),
        ):
            await city.call("urban-admin", method, path, body, expected)
        assert len(city.services.live) == 1


async def test_nobody_raises_himself(tmp_path):
    async with open_city(tmp_path) as city:
        for username, method, path, body, reason in (
            ("traffic-admin", "PATCH", "/users/traffic-admin", {"roles": ["auditor"]}, "own_account"),
            ("traffic-admin", "PATCH", "/users/traffic-operator", {"roles": ["auditor"]}, "not_manageable"),
            ("traffic-admin", "PATCH", "/users/traffic-operator", {"roles": ["emperor"]}, "role_unknown"),
            (
                "traffic-admin",
                "POST",
                "/users",
                {**_user(), "roles": ["system-administrator"]},
                "not_manageable",
            ),
        ):
            problem = await city.call(username, method, path, body, 403)
            assert (problem["code"], problem["reason"]) == ("account_refused", reason)
        me = {"kind": "user", "id": "traffic-admin"}
        problem = await city.call("traffic-admin", "POST", "/grants", {**_GRANT, "subject": me}, 422)
        assert (problem["code"], problem["reason"]) == ("grant_refused", "self_grant")
        whole_department = {"kind": "department", "id": "traffic"}
        await city.call("traffic-admin", "POST", "/grants", {**_GRANT, "subject": whole_department})
        assert (await city.watch("traffic-admin", expect=403))["reason"] == "own_grant"
        await city.watch("traffic-operator")
