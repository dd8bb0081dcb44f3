"""Every route of the table that carries pixels: none without log-in or ticket, purpose and grant."""

import base64
import json

from support.asked import WHY
from support.callers import open_gateway

from gateway.web import ROUTES
from gateway.web.duties import Caller
from policies.access import MEDIA_ACTIONS

_PICTURES = ("image/", "video/", "multipart/x-mixed-replace", "application/vnd.apple.mpegurl")
PIXELS = {
    f"{route.method} {route.path}"
    for route in ROUTES
    if route.path.startswith("/media/")
    or (route.stream or "").startswith(_PICTURES)
    or route.access in MEDIA_ACTIONS
    or "thumbnail" in route.path
}
OPENED = {path for path in PIXELS if "/media/" in path}
ASKED = {
    "GET /api/v1/cameras/{id}/snapshot": ("/api/v1/cameras/gate/snapshot", None),
    "GET /api/v1/frames/{camera}": ("/api/v1/frames/gate", None),
    "POST /api/v1/sessions": ("/api/v1/sessions", {"camera": "gate"}),
    "POST /api/v1/thumbnails": ("/api/v1/thumbnails", {"cameras": ["gate"]}),
    "POST /api/v1/analyses": (
        "/api/v1/analyses",
        {"camera": "gate", "analyser": "motion", "parameters": {}},
    ),
}
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}
CONTINUED = {"POST /api/v1/sessions/{id}/ticket", "POST /api/v1/thumbnails/{id}/sessions"}
"""Of a use that was decided and recorded before; for its own user alone."""


def test_every_one_of_them_is_known_here():
    assert ASKED.keys() | CONTINUED == PIXELS - OPENED
    assert len(OPENED) >= 10


async def _ask(gateway, caller, method, path, body):
    options = {} if body is None else {"json": body}
    if "/ws" in path:
        options["headers"] = _UPGRADE
    async with gateway.ask(caller, method, path, **options) as answer:
        text = await answer.read()
        assert not answer.content_type.startswith(_PICTURES), path
        return answer.status, json.loads(text)


async def test_without_a_log_in_a_purpose_or_a_grant_there_is_no_picture(tmp_path):
    async with open_gateway(tmp_path) as gateway:
        for route, (path, body) in ASKED.items():
            method = route.partition(" ")[0]
            why = f"?purpose={WHY['code']}&reference={WHY['reference']}" if body is None else ""
            stated = None if body is None else {**body, "purpose": WHY}
            status, _ = await _ask(gateway, Caller.NOBODY, method, path + why, stated)
            assert status == 401, route
            status, problem = await _ask(gateway, Caller.GRANTED, method, path, body)
            assert (status, problem["code"]) == (422, "purpose_required"), route
            status, answer = await _ask(gateway, Caller.ELSEWHERE, method, path + why, stated)
            if route == "POST /api/v1/thumbnails":
                status, (answer,) = 403, answer["items"]
                assert (answer["jpeg"], answer["problem"]) == (None, "access_denied")
            assert (status, answer["reason"]) == (403, "no_matching_grant"), route


async def test_without_its_ticket_no_address_of_media_opens(tmp_path):
    async with open_gateway(tmp_path) as gateway:
        session, ticket = await gateway.watch(Caller.GRANTED)
        for route in sorted(OPENED):
            path = route.partition(" ")[2].replace("{session}", session).replace("{capability}", "x" * 32)
            path = path.replace("{number}", "1").replace("{part}", "1")
            # the log-in that opened the session is no ticket either
            for query in ("", "?ticket=", f"?ticket={ticket[:-1]}", f"?capability={ticket}"):
                for caller in (Caller.NOBODY, Caller.GRANTED):
                    status, _ = await _ask(gateway, caller, "GET", path + query, None)
                    assert status in {401, 403, 404, 410}, (path, query, status)
        await gateway.settle()


async def test_what_continues_a_use_is_for_its_user_alone(tmp_path):
    async with open_gateway(tmp_path) as gateway:
        session, _ = await gateway.watch(Caller.GRANTED)
        body = {"cameras": ["gate"], "purpose": WHY}
        headers = {"X-Custos-Remote": "127.0.0.1"}
        token = gateway.city.tokens["urban-operator"]
        _, _, text = await gateway.city.request(
            "POST", "/api/v1/thumbnails", token, data=json.dumps(body), headers=headers
        )
        batch = json.loads(text)["batch"]
        for caller in (Caller.NOBODY, Caller.OPERATOR, Caller.OWNER, Caller.SYSTEM):
            for path, body, gone in (
                (f"/api/v1/sessions/{session}/ticket", None, 404),
                (f"/api/v1/thumbnails/{batch}/sessions", {"camera": "gate"}, 410),
            ):
                status, _ = await _ask(gateway, caller, "POST", path, body)
                assert status == (401 if caller is Caller.NOBODY else gone)
        await gateway.settle()
