"""Log-ins: throttled, alike for everybody who may not, and over when the account changes."""

import asyncio
import json
import time

import pytest
from support.controls import PASSWORD, City, Clock, open_city

from gateway import authentication
from gateway.authentication import LoginSettings
from gateway.messages import End
from gateway.passwords import Passwords
from gateway.web.middleware import COOKIE


def _settings(**more):
    return LoginSettings(second_factor="nobody", **more)


async def _login(city: City, username, password=PASSWORD, remote="192.0.2.1", **more):
    status, headers, text = await city.request(
        "POST",
        "/api/v1/login",
        json={"username": username, "password": password, **more},
        headers={"X-Custos-Remote": remote},
    )
    return status, headers, text


async def test_a_wrong_name_a_wrong_password_and_a_disabled_account_look_alike(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call("root", "PATCH", "/users/job", {"enabled": False})
        told = set()
        for username, password in (
            ("nobody", PASSWORD),
            ("root", "wrong-password"),
            ("job", PASSWORD),
            ("root", PASSWORD + "x" * 500),
        ):
            status, _, text = await _login(city, username, password)
            told.add((status, text.partition('"request_id"')[0]))
        assert len(told) == 1
        assert next(iter(told))[0] == 401
        await city.services.authentication.failures.flush()
        (failed,) = await city.records(kind="login_failures")
        assert (failed.actor_name, failed.remote) == ("nobody, root, job", "192.0.2.1")
        assert (failed.detail["failures"], failed.detail["password"]) == (4, 4)


async def test_every_failure_costs_one_hash(tmp_path, monkeypatch):
    """Timing tells nothing: one Argon2 computation, of the same parameters, whoever asks."""
    hashes = []
    verify = Passwords._verify
    monkeypatch.setattr(
        Passwords, "_verify", lambda self, *args: hashes.append(args[0]) or verify(self, *args)
    )
    async with open_city(tmp_path) as city:
        await city.call("root", "PATCH", "/users/job", {"enabled": False})
        for username in ("nobody", "root", "job"):
            await _login(city, username, "wrong-password")
    assert len(hashes) == 3
    assert len({text.rpartition("$")[0].rpartition("$")[0] for text in hashes}) == 1


async def test_names_are_folded_before_they_are_compared_and_throttled(tmp_path):
    async with open_city(tmp_path, login=_settings(failures_per_user=2)) as city:
        assert (await _login(city, "  ＲＯＯＴ"))[0] == 200
        await _login(city, "Root", "wrong-password")
        await _login(city, "ｒoot", "wrong-password")
        assert (await _login(city, "root"))[0] == 429


async def test_throttled_per_user_and_per_address(tmp_path):
    settings = _settings(failures_per_user=3, failures_per_address=5)
    async with open_city(tmp_path, login=settings) as city:
        for _ in range(3):
            assert (await _login(city, "root", "wrong-password"))[0] == 401
        status, headers, text = await _login(city, "root")
        assert (status, headers["Retry-After"]) == (429, "60")
        assert '"code":"login_throttled"' in text
        assert (await _login(city, "auditor"))[0] == 200
        for _ in range(2):
            await _login(city, "nobody", "wrong-password")
        assert (await _login(city, "auditor"))[0] == 429
        assert (await _login(city, "auditor", remote="192.0.2.2"))[0] == 200


async def test_the_throttle_lets_go_after_its_window(tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr("limits.aio.storage.memory.time.time", lambda: now)
    settings = _settings(failures_per_user=1, window_seconds=30)
    async with open_city(tmp_path, login=settings) as city:
        await _login(city, "root", "wrong-password")
        assert (await _login(city, "root"))[0] == 429
        now += 31
        assert (await _login(city, "root"))[0] == 200


async def test_guesses_at_once_are_throttled_like_guesses_in_turn(tmp_path, monkeypatch):
    verified = []
    verify = Passwords._verify
    monkeypatch.setattr(Passwords, "_verify", lambda self, *args: verified.append(1) or verify(self, *args))
    async with open_city(tmp_path, login=_settings(failures_per_user=5)) as city:
        answers = await asyncio.gather(*(_login(city, "root", f"wrong-password-{i}") for i in range(40)))
        statuses = [status for status, _, _ in answers]
        assert (statuses.count(401), statuses.count(429)) == (5, 35)
        assert len(verified) == 5
        assert not city.services.authentication.attempts._undecided


async def test_too_many_at_once_are_told_to_come_back(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        monkeypatch.setattr(city.services.authentication._passwords, "_max_waiting", 0)
        status, headers, text = await _login(city, "root")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert '"code":"login_busy"' in text
        change = {"password": "another-long-password"}
        assert (await city.call("root", "PATCH", "/users/job", change, 503))["code"] == "login_busy"


async def test_tokens_end(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock, login=_settings(token_hours=1)) as city:
        answer = await city.login("auditor")
        assert answer["expires_at"] == "2026-01-05T09:00:00Z"
        clock.advance(3599.999)
        await city.call("auditor", "GET", "/me")
        clock.advance(0.001)
        assert (await city.call("auditor", "GET", "/me", expect=401))["code"] == "not_authenticated"
        await city.login("auditor")
        await city.call("auditor", "POST", "/logout")
        await city.call("auditor", "GET", "/me", expect=401)
        (logout,) = await city.records(kind="logout")
        assert logout.actor_id == "auditor"


@pytest.mark.parametrize("change", [{"enabled": False}, {"password": "another-long-password"}])
async def test_a_changed_account_must_log_in_again(tmp_path, change):
    async with open_city(tmp_path) as city:
        await city.login("urban-operator")
        await city.call("root", "PATCH", "/users/urban-operator", change)
        await city.call("urban-operator", "GET", "/me", expect=401)
        assert (await _login(city, "urban-operator"))[0] == 401
        if "password" in change:
            assert (await _login(city, "urban-operator", change["password"]))[0] == 200
        else:
            await city.call("root", "PATCH", "/users/urban-operator", {"enabled": True})
            await city.call("urban-operator", "GET", "/me", expect=401)


async def test_a_password_that_changes_during_a_log_in_opens_nothing(tmp_path, monkeypatch):
    """Verified with the old one, and then changed: the log-in must not outlive the change."""
    async with open_city(tmp_path) as city:
        passwords = city.services.authentication._passwords
        verify = passwords.verify

        async def slow(password_hash, password):
            matches = await verify(password_hash, password)
            await city.call("root", "PATCH", "/users/traffic-operator", {"password": "another-long-password"})
            return matches

        monkeypatch.setattr(passwords, "verify", slow)
        assert (await _login(city, "traffic-operator"))[0] == 401
        assert len(await city.records(kind="login", actor_id="traffic-operator")) == 1  # the one before


async def test_a_cookie_serves_the_portal_and_no_other_site(tmp_path):
    async with open_city(tmp_path) as city:
        status, headers, text = await _login(city, "traffic-admin", cookie=True)
        cookie = headers["Set-Cookie"]
        assert (status, '"token":null' in text) == (200, True)
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
        assert "Secure" not in cookie
        sent = {"Cookie": cookie.partition(";")[0]}
        assert sent["Cookie"].startswith(f"{COOKIE}=")
        status, _, text = await city.request("GET", "/api/v1/me", headers=sent)
        assert (status, '"username":"traffic-admin"' in text) == (200, True)
        for more, expected in (
            ({"Sec-Fetch-Site": "same-origin"}, 201),
            ({"Sec-Fetch-Site": "none"}, 201),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Origin": "http://custos"}, 403),
            ({"Origin": "http://custos"}, 201),
            ({"Origin": "http://custos.example"}, 403),
            ({"Origin": "null"}, 403),
            ({}, 201),
        ):
            body = {"name": "g", "department_id": "traffic"}
            status, _, text = await city.request(
                "POST", "/api/v1/groups", headers={**sent, **more}, json=body
            )
            assert status == expected, (more, text)
            assert ('"code":"cross_origin"' in text) == (expected == 403)
        more = {"Sec-Fetch-Site": "cross-site"}
        status, _, _ = await city.request("GET", "/api/v1/me", headers={**sent, **more})
        assert status == 200
        body = {"username": "root", "password": PASSWORD, "cookie": True}
        status, _, text = await city.request("POST", "/api/v1/login", headers=more, json=body)
        assert (status, "Set-Cookie" in text) == (403, False)
        token = sent["Cookie"].partition("=")[2]
        body = {"name": "g", "department_id": "traffic"}
        status, _, _ = await city.request("POST", "/api/v1/groups", token, headers=more, json=body)
        assert status == 201
        status, headers, _ = await city.request("POST", "/api/v1/logout", headers=sent)
        assert (status, f'{COOKIE}="";' in headers["Set-Cookie"]) == (204, True)
        status, _, _ = await city.request("GET", "/api/v1/me", headers=sent)
        assert status == 401


async def test_stale_and_strange_tokens(tmp_path):
    strange = ("", "x", "x" * 5000, "ÿ", "a b")
    async with open_city(tmp_path) as city:
        for header in ("Bearer", "", "Basic cm9vdDpyb290", *(f"Bearer {token}" for token in strange)):
            status, headers, _ = await city.request("GET", "/api/v1/me", headers={"Authorization": header})
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), header
            status, _, _ = await city.request("GET", "/healthz", headers={"Authorization": header})
            assert status == 200
        for token in strange:
            cookie = {"Cookie": f"{COOKIE}={token}"}
            assert (await city.request("GET", "/api/v1/me", headers=cookie))[0] == 401


async def test_a_second_log_in_ends_the_first_and_its_pictures(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        await city.grant()
        watching = await city.watch("urban-operator", purpose="emergency")
        await worker.start(watching)
        first = city.tokens["urban-operator"]
        await city.login("urban-operator")
        end = await worker.wait_for(End, lambda end: end.session == watching["id"])
        assert end.reason == "logged_in_elsewhere"
        status, headers, text = await city.request("GET", "/api/v1/me", first)
        problem = json.loads(text)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (problem["code"], problem["reason"]) == ("not_authenticated", "logged_in_elsewhere")
        await city.call("urban-operator", "GET", "/me")
        (ended,) = await city.recorded(kind="session_end", session_id=watching["id"])
        assert ended.reason == "logged_in_elsewhere"
        earlier, later = await city.records(kind="login", actor_id="urban-operator")
        assert (earlier.detail["ended_earlier"], later.detail["ended_earlier"]) == (False, True)
        await city.services.authentication.failures.flush()
        assert not await city.records(kind="login_failures")


async def test_what_was_being_opened_does_not_outlive_its_log_in(tmp_path, database_url, monkeypatch):
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant()
        running = await city.watch("urban-operator", purpose="emergency")
        barrier = asyncio.Barrier(3)
        perform = city.services.enforcement.perform

        async def held(*arguments):
            await barrier.wait()
            await barrier.wait()
            return await perform(*arguments)

        monkeypatch.setattr(city.services.enforcement, "perform", held)
        renewal = f"/sessions/{running['id']}/ticket"
        async with asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(city.watch("urban-operator", "gate", 401)),
                tasks.create_task(city.call("urban-operator", "POST", renewal, expect=401)),
            ]
            await barrier.wait()
            await city.login("urban-operator")
            await barrier.wait()
        assert [task.result()["code"] for task in asked] == ["not_authenticated"] * 2
        monkeypatch.undo()
        await city.until(lambda: not len(city.services.live))
        await city.watch("urban-operator")


async def test_a_job_may_be_logged_in_many_times(tmp_path):
    async with open_city(tmp_path) as city:
        first = city.tokens["job"]
        await city.login("job")
        assert (await city.request("GET", "/api/v1/me", first))[0] == 200
        assert not (await city.records(kind="login", actor_id="job"))[-1].detail["ended_earlier"]


async def test_a_log_in_that_was_over_ends_nothing(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        await city.grant()
        watching = await city.watch("urban-operator", purpose="emergency")
        await worker.start(watching)
        await city.call("urban-operator", "POST", "/logout")
        await city.login("urban-operator")
        assert city.services.live.get(watching["id"]).ending is None


async def test_of_tokens_that_ended_elsewhere_the_last_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(authentication, "MAX_ENDED_REMEMBERED", 2)
    async with open_city(tmp_path) as city:
        tokens = [city.tokens["auditor"], *[(await city.login("auditor"))["token"] for _ in range(3)]]
        reasons = []
        for token in tokens[:3]:
            _, _, text = await city.request("GET", "/api/v1/me", token)
            reasons.append(json.loads(text).get("reason"))
        assert reasons == [None, "logged_in_elsewhere", "logged_in_elsewhere"]
        assert len(city.services.authentication._ended_elsewhere) == 2
