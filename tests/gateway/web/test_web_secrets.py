"""Canaries: every kind of secret goes in, and comes out nowhere but where it must."""

import io
import json
import logging
import re

import pytest
import structlog
from support.controls import open_city

from gateway.logs import configure_logs
from gateway.messages import Claimed

CAMERA = "canary-camera-5e1f"
USER = "canary-user-password-9ab2"
WRONG = "canary-wrong-password-77c0"
SECRETS = (CAMERA, USER, WRONG)


@pytest.fixture
def logged(monkeypatch):
    """Everything that control logs, at the most talkative level."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_logs("json", "debug", "control")
    yield stream
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_no_secret_leaves(tmp_path, logged, capfd):
    answers = []
    async with open_city(tmp_path) as city:

        async def ask(username, method, path, body=None, *, raw=None):
            token = city.tokens[username] if username else None
            data = raw if raw is not None else (None if body is None else json.dumps(body))
            status, headers, text = await city.request(method, f"/api/v1{path}", token, data=data)
            answers.append((method, path, status, str(headers), text))
            return status, text

        camera = {
            "id": "canary", "name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x",
            "username": "u", "password": CAMERA,
        }  # fmt: skip
        user = {
            "id": "canary", "username": "canary", "display_name": "c", "department_id": "traffic",
            "password": USER, "roles": ["operator"],
        }  # fmt: skip
        assert (await ask("traffic-admin", "POST", "/cameras", camera))[0] == 201
        assert (await ask("traffic-admin", "POST", "/cameras", camera))[0] == 409
        assert (await ask("traffic-operator", "POST", "/cameras", camera))[0] == 403
        for url in (
            f"rtsp://u:{CAMERA}@127.0.0.1/x", f"rtsp://u:{CAMERA}@host.example/x", f"rtsp://{CAMERA}@[::1/x",
            f"ftp://u:{CAMERA}@127.0.0.1/x", f"rtsp://u:{CAMERA}@127.0.0.1:99999/x",
        ):  # fmt: skip
            status, text = await ask(
                "traffic-admin", "POST", "/cameras", {**camera, "id": "other", "url": url}
            )
            assert status == 422, text
        assert (await ask("traffic-admin", "PATCH", "/cameras/canary", {"password": CAMERA}))[0] == 200
        assert (await ask("traffic-admin", "PATCH", "/cameras/canary", {"password": [CAMERA]}))[0] == 422
        assert (await ask("traffic-admin", "GET", "/cameras/canary"))[0] == 200
        assert (await ask("traffic-admin", "POST", "/users", user))[0] == 201
        assert (await ask("traffic-admin", "POST", "/users", user))[0] == 409
        assert (await ask("traffic-admin", "PATCH", "/users/canary", {"password": USER}))[0] == 200
        assert (await ask("traffic-admin", "PATCH", "/users/canary", {"password": {"x": USER}}))[0] == 422
        assert (await ask(None, "POST", "/login", {"username": "canary", "password": WRONG}))[0] == 401
        await ask(None, "POST", "/login", {"username": "canary", "password": [WRONG]})
        await ask(None, "POST", "/login", raw=b'{"username": "canary", "password": "' + WRONG.encode())
        token = (await city.login("canary", USER))["token"]
        await city.grant("canary", "canary")
        opened = await city.watch("canary", "canary")
        ticket = opened["media"]["ticket"]
        worker = await city.worker()
        await worker.redeem("0" * 32, ticket)
        await worker.start(opened)
        claimed = await worker.claim("canary")
        assert isinstance(claimed, Claimed)
        assert claimed.address.password == CAMERA
        assert CAMERA not in repr(claimed.address)
        await city.request("GET", f"/media/{opened['id']}/live.flv?ticket={ticket}")
        # every page that lists something, as everybody
        for username in tuple(city.tokens):
            for path in (
                "/me",
                "/cameras",
                "/cameras/canary",
                "/users",
                "/grants",
                "/sessions",
                "/purposes",
                "/groups",
                "/departments",
                "/roles",
                "/explain?camera=canary&principal=canary",
                "/audit/records?purpose=audit&page_size=500",
                "/audit/heads",
                "/audit/export?purpose=audit",
                "/analyses",
                "/events",
            ):
                await ask(username, "GET", path)
        status, _, text = await city.request("GET", "/metrics")
        answers.append(("GET", "/metrics", status, "", text))
        ledger = "".join(map(repr, await city.records()))
        tokens = [token, *city.tokens.values()]
    secrets = (*SECRETS, *tokens, ticket)
    output = logged.getvalue() + "".join(capfd.readouterr())
    assert "request_failed" not in output
    for secret in secrets:
        assert secret not in ledger
        assert secret not in output
        for answer in answers:
            assert secret not in "".join(map(str, answer[2:])), answer[:3]
    database = b"".join(path.read_bytes() for path in tmp_path.glob("data/custos.db*"))
    for secret in secrets:
        assert secret.encode() not in database


async def test_a_generated_password_is_answered_once(tmp_path):
    async with open_city(tmp_path) as city:
        body = {"username": "new", "display_name": "n", "department_id": "traffic", "id": "new"}
        created = await city.call("traffic-admin", "POST", "/users", body)
        password = created["password"]
        assert re.fullmatch(r"([a-z2-9]{7}-){2}[a-z2-9]{7}", password)
        await city.login("new", password)
        ledger = "".join(map(repr, await city.records()))
        users = json.dumps(await city.call("traffic-admin", "GET", "/users"))
        assert password not in ledger + users
        given = await city.call(
            "traffic-admin", "POST", "/users", {**body, "username": "x", "id": "x", "password": USER}
        )
        assert given["password"] is None
