"""Setting a second factor up, logging in with it, losing it: over the API."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
import sqlalchemy as sa
from support.controls import NOBODY, PASSWORD, open_city

from gateway.authentication import LoginSettings
from gateway.second_factor import MAX_CODE_LENGTH, RECOVERY_CODES, recovery_code_hash
from gateway.store.schema import recovery_codes, users

PATIENT = LoginSettings(second_factor="nobody", failures_per_user=1000, failures_per_address=1000)
REQUIRED = LoginSettings(failures_per_user=1000, failures_per_address=1000)


async def log_in(city, username, totp=None, expect=200, password=PASSWORD):
    body = {"username": username, "password": password}
    if totp is not None:
        body["totp"] = totp
    answer = await city.call(None, "POST", "/login", body, expect)
    if expect == 200:
        city.tokens[username] = answer["token"]
    return answer


async def enrol(city, username):
    """(what makes its codes, the recovery codes); a step later, so that the next code is a new one."""
    offered = await city.call(username, "POST", "/me/second-factor", {})
    app = pyotp.TOTP(offered["secret"])
    confirmed = await city.call(username, "POST", "/me/second-factor/confirm", {"code": app.at(city.clock())})
    city.clock.advance(30)
    return app, confirmed["recovery_codes"]


async def test_a_recovery_code_that_sql_put_there_opens_nothing(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url, login=PATIENT) as city:
        _, recovery = await enrol(city, "auditor")
        await log_in(city, "auditor", recovery[0])
        (_, used) = await city.records(kind="second_factor_changed", actor_id="auditor")
        assert used.content == "use up a recovery code"
        assert "state" in used.detail
    async with open_city(tmp_path, url=database_url, login=PATIENT) as city:
        assert await city.records(kind="policy_alarm") == []
        await log_in(city, "auditor", recovery[1])
        await city.call("auditor", "GET", "/audit/records?purpose=audit")

        async def unit(work):
            row = {"user_id": "auditor", "code_hash": recovery_code_hash(recovery[0])}
            await work.conn.execute(sa.insert(recovery_codes).values(row))

        await city.services.store.run(unit)
        assert (await log_in(city, "auditor", recovery[0], 401))["code"] == "invalid_credentials"
        (alarm,) = await city.records(kind="policy_alarm")
        assert (alarm.resource, alarm.reason) == ("user:auditor", "not_in_ledger")


async def test_set_up_and_log_in_on_both_databases(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url, login=PATIENT) as city:
        offered = await city.call("auditor", "POST", "/me/second-factor", {})
        query = parse_qs(urlsplit(offered["uri"]).query)
        assert (query["secret"], query["issuer"]) == ([offered["secret"]], ["Custos"])
        assert offered["qr"].startswith("data:image/svg+xml")
        await log_in(city, "auditor")  # offered is not confirmed
        app = pyotp.TOTP(offered["secret"])
        code = app.at(city.clock())
        confirmed = await city.call("auditor", "POST", "/me/second-factor/confirm", {"code": code})
        recovery = confirmed["recovery_codes"]
        assert len(set(recovery)) == RECOVERY_CODES
        me = await city.call("auditor", "GET", "/me")
        assert (me["second_factor"], me["must_enrol"], me["on_duty"]) == (True, False, None)
        assert me["undertaking"].keys() == {"version", "accepted"}

        assert (await log_in(city, "auditor", expect=401))["code"] == "second_factor_required"
        assert (await log_in(city, "auditor", code, 401))["code"] == "invalid_credentials"  # used to confirm
        city.clock.advance(30)
        code = app.at(city.clock())
        body = {"username": "auditor", "password": PASSWORD, "totp": code}
        answers = await asyncio.gather(*(city.request("POST", "/api/v1/login", json=body) for _ in range(5)))
        assert sorted(status for status, _, _ in answers) == [200, 401, 401, 401, 401]
        await log_in(city, "auditor", recovery[0].upper().replace("-", " "))
        assert (await log_in(city, "auditor", recovery[0], 401))["code"] == "invalid_credentials"
        await log_in(city, "auditor", recovery[1])
        factors = [
            login.detail["second_factor"] for login in await city.records(kind="login", actor_id="auditor")
        ]
        assert factors == ["none", "none", "totp", "recovery_code", "recovery_code"]
        changes = await city.records(kind="second_factor_changed")
        assert [change.content for change in changes] == [
            "set up his second factor", "use up a recovery code", "use up a recovery code",
        ]  # fmt: skip
        assert {(change.actor_id, change.resource) for change in changes} == {("auditor", "user:auditor")}


async def test_nobody_learns_from_a_wrong_code_that_the_password_was_right(tmp_path):
    async with open_city(tmp_path, login=PATIENT) as city:
        await enrol(city, "auditor")
        told = set()
        for password, totp in ((PASSWORD, "000000"), ("wrong-password", "000000"), ("wrong-password", None)):
            body = {"username": "auditor", "password": password} | ({"totp": totp} if totp else {})
            status, _, text = await city.request("POST", "/api/v1/login", json=body)
            told.add((status, text.partition('"request_id"')[0]))
        assert len(told) == 1
        await city.services.authentication.failures.flush()
        (failed,) = await city.records(kind="login_failures")
        assert (failed.detail["code"], failed.detail["password"], failed.actor_name) == (1, 2, "auditor")


@pytest.mark.parametrize("totp", [None, "000000", "x"])
async def test_codes_are_throttled_like_passwords(tmp_path, totp):
    settings = LoginSettings(second_factor="nobody", failures_per_user=3)
    async with open_city(tmp_path, login=settings) as city:
        app, _ = await enrol(city, "auditor")
        for _ in range(3):
            await log_in(city, "auditor", totp, 401)
        answer = await log_in(city, "auditor", app.at(city.clock()), 429)
        assert answer["code"] == "login_throttled"
        answer = await city.call("auditor", "DELETE", "/me/second-factor", {"code": "000000"}, 429)
        assert answer["code"] == "login_throttled"


async def test_what_is_confirmed_must_have_been_offered_and_be_right(tmp_path):
    settings = LoginSettings(second_factor="nobody", failures_per_user=3)
    async with open_city(tmp_path, login=settings) as city:
        answer = await city.call("auditor", "POST", "/me/second-factor/confirm", {"code": "000000"}, 422)
        assert (answer["code"], answer.get("reason")) == ("second_factor_refused", None)
        first = await city.call("auditor", "POST", "/me/second-factor", {})
        second = await city.call("auditor", "POST", "/me/second-factor", {})
        assert first["secret"] != second["secret"]
        for code in (pyotp.TOTP(first["secret"]).at(city.clock()), "x"):
            answer = await city.call("auditor", "POST", "/me/second-factor/confirm", {"code": code}, 422)
            assert (answer["code"], answer["reason"]) == ("second_factor_refused", "wrong_code")
        assert (await city.call("auditor", "GET", "/me"))["second_factor"] is False
        code = pyotp.TOTP(second["secret"]).at(city.clock())
        await city.call("auditor", "POST", "/me/second-factor/confirm", {"code": code})
        for path, body in (("", {}), ("/confirm", {"code": code})):
            answer = await city.call("auditor", "POST", f"/me/second-factor{path}", body, 422)
            assert answer["code"] == "second_factor_refused"
        long = "x" * MAX_CODE_LENGTH
        await city.call("auditor", "DELETE", "/me/second-factor", {"code": long}, 422)
        answer = await city.call("auditor", "DELETE", "/me/second-factor", {"code": long + "x"}, 422)
        assert answer["code"] == "invalid_field"


async def test_taking_it_away_needs_a_code_and_leaves_nothing(tmp_path):
    async with open_city(tmp_path, login=PATIENT) as city:
        app, recovery = await enrol(city, "auditor")
        answer = await city.call("auditor", "DELETE", "/me/second-factor", {"code": "000000"}, 422)
        assert answer["reason"] == "wrong_code"
        await city.call("auditor", "DELETE", "/me/second-factor", {"code": app.at(city.clock())}, 204)
        assert (await log_in(city, "auditor"))["user"]["second_factor"] is False
        async with city.services.store.read() as conn:
            assert (await conn.execute(sa.select(recovery_codes))).all() == []
            row = (await conn.execute(sa.select(users).where(users.c.id == "auditor"))).one()
        assert (row.totp_secret, row.totp_last_step, row.totp_enabled_at) == (None, None, None)
        _, again = await enrol(city, "auditor")
        assert not set(again) & set(recovery)
        assert len(await city.records(kind="second_factor_changed", actor_id="auditor")) == 3


async def test_another_who_has_lost_it_is_reset_by_who_administers_his_account(tmp_path):
    async with open_city(tmp_path, login=PATIENT) as city:
        await enrol(city, "urban-operator")
        path = "/users/urban-operator/second-factor"
        for who in ("traffic-admin", "auditor", "urban-operator"):
            assert (await city.call(who, "DELETE", path, expect=403))["code"] == "access_denied"
        own = await city.call("urban-admin", "DELETE", "/users/urban-admin/second-factor", expect=403)
        assert own["code"] == "account_refused"
        await city.call("urban-admin", "DELETE", path, expect=204)
        await city.call("urban-operator", "GET", "/me", expect=401)
        assert (await log_in(city, "urban-operator"))["user"]["second_factor"] is False
        (reset,) = await city.records(kind="second_factor_changed", actor_id="urban-admin")
        assert "urban-operator" in reset.content
        await city.call("root", "DELETE", "/users/no-such-user/second-factor", expect=404)


async def test_an_administrator_without_one_sets_it_up_and_nothing_else(tmp_path):
    async with open_city(tmp_path, login=REQUIRED) as city:
        answer = await log_in(city, "traffic-admin")
        assert answer["must_enrol"] is True
        refused = (("GET", "/cameras"), ("POST", "/groups"), ("DELETE", "/users/job/second-factor"))
        for method, path in refused:
            body = {} if method == "POST" else None
            answer = await city.call("traffic-admin", method, path, body, 403)
            assert answer["code"] == "second_factor_enrolment_required"
        assert (await city.call("traffic-admin", "GET", "/me"))["must_enrol"] is True
        app, _ = await enrol(city, "traffic-admin")
        assert (await city.call("traffic-admin", "GET", "/me"))["must_enrol"] is False
        await city.call("traffic-admin", "GET", "/cameras")
        answer = await log_in(city, "traffic-admin", app.at(city.clock()))
        assert answer["must_enrol"] is False
        city.clock.advance(30)
        await city.call("traffic-admin", "DELETE", "/me/second-factor", {"code": app.at(city.clock())}, 204)
        await city.call("traffic-admin", "GET", "/cameras", expect=403)
        await city.call("traffic-admin", "POST", "/logout", expect=204)


async def test_who_must_have_one(tmp_path):
    async with open_city(tmp_path, login=REQUIRED) as city:
        must = {name: (await city.call(name, "GET", "/me"))["must_enrol"] for name in city.tokens}
    assert {name for name, has_to in must.items() if not has_to} == {
        "traffic-operator",
        "urban-operator",
        "job",
    }
    async with open_city(tmp_path, login=LoginSettings(second_factor="everybody")) as city:
        must = {name: (await city.call(name, "GET", "/me"))["must_enrol"] for name in city.tokens}
    assert {name for name, has_to in must.items() if not has_to} == {"job"}
    async with open_city(tmp_path, login=NOBODY) as city:
        assert not any([(await city.call(name, "GET", "/me"))["must_enrol"] for name in city.tokens])


async def test_a_role_that_was_just_given_counts_at_once(tmp_path):
    async with open_city(tmp_path, login=REQUIRED) as city:
        await enrol(city, "root")
        await city.call("urban-operator", "GET", "/cameras")
        await city.call("root", "PATCH", "/users/urban-operator", {"roles": ["auditor"]})
        answer = await city.call("urban-operator", "GET", "/cameras", expect=403)
        assert answer["code"] == "second_factor_enrolment_required"


async def test_nothing_secret_is_kept_in_clear_or_shown_in_a_repr(tmp_path):
    async with open_city(tmp_path, login=PATIENT) as city:
        who = await city.services.authentication.principal(city.tokens["auditor"])
        offered = await city.services.enrolment.offer(who)
        code = pyotp.TOTP(offered.secret).at(city.clock())
        confirmed = await city.services.enrolment.confirm(who, code, "192.0.2.1", "request-1")
        assert offered.secret not in repr(offered)
        assert confirmed.recovery_codes[0] not in repr(confirmed)
        secrets = (offered.secret, *confirmed.recovery_codes)
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path


async def test_taken_away_by_sql_the_password_alone_opens_nothing_nor_can_it_be_made_good(tmp_path):
    async with open_city(tmp_path, login=PATIENT) as city:
        await enrol(city, "auditor")
        gone = {"totp_secret": None, "totp_enabled_at": None}

        async def unit(work):
            await work.conn.execute(sa.update(users).where(users.c.id == "auditor").values(**gone))

        await city.services.store.run(unit)
        assert (await log_in(city, "auditor", expect=401))["code"] == "invalid_credentials"
        answer = await city.call("root", "DELETE", "/users/auditor/second-factor", expect=409)
        assert (answer["code"], answer["reason"]) == ("conflict", "not_in_ledger")
