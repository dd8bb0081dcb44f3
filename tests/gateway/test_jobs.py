"""Jobs: somebody answers for each, its key expires, it comes from its own networks only."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from support.controls import PASSWORD, Clock, add_user, open_city, particulars

from gateway.account_entries import AccountSettings
from gateway.jobs import MAX_NETWORKS, MAX_RECIPIENTS, MAX_RESULT_DAYS, may_come_from
from gateway.store.schema import users
from policies.access import Action, Object, ObjectKind, Reason

DAY = 24 * 3600
FRAMES = {"camera": "gate", "purpose": {"code": "analysis"}, "action": "frames:consume"}
ANALYSIS = {"camera": "gate", "purpose": {"code": "analysis"}, "analyser": "motion"}


async def _body(city, **more):
    return {
        "username": "counter", "display_name": "计数程序", "id": "counter", "department_id": "traffic",
        "kind": "job", "roles": ["job"], "job": await particulars(city), **more,
    }  # fmt: skip


async def _login(city, password, remote="192.0.2.1"):
    body = {"username": "counter", "password": password}
    return await city.call(
        None,
        "POST",
        "/login",
        body,
        401 if remote == "192.0.2.1" else 403,
        headers={"X-Custos-Remote": remote},
    )


MISFITTING_PARTICULARS = [
    {"processing": ""},
    {"processing": "x" * 201},
    {"recipients": []},
    {"recipients": ["x"] * (MAX_RECIPIENTS + 1)},
    {"result_days": -1},
    {"result_days": MAX_RESULT_DAYS + 1},
    {"networks": []},
    {"networks": ["192.0.2.0/24"] * (MAX_NETWORKS + 1)},
    {"networks": ["192.0.2.1/24"]},
    {"networks": ["anywhere"]},
    {"networks": ["::/129"]},
    {"responsible_id": "nobody"},
    {"responsible_id": "urban-operator"},
    {"responsible_id": "job"},
    {"responsible_id": "traffic-disabled"},
    {"more": 1},
]
MISFITTING_KINDS = [
    {"job": None},
    {"password": PASSWORD},
    {"kind": "person"},
    {"kind": "wall", "roles": []},
    {"kind": "wall", "job": None},
    {"roles": ["auditor"]},
]


async def test_accounts_that_will_not_do(tmp_path):
    async with open_city(tmp_path) as city:
        await add_user(city, "traffic-disabled", "traffic", "operator", login=False)
        await city.call("root", "PATCH", "/users/traffic-disabled", {"enabled": False})
        usual = await particulars(city)
        for change in [{"job": {**usual, **change}} for change in MISFITTING_PARTICULARS] + MISFITTING_KINDS:
            body = await _body(city, **change)
            refused = await city.call("root", "POST", "/users", body, 422)
            assert refused["code"] == "invalid_field", change
        assert "counter" not in [user["id"] for user in (await city.call("root", "GET", "/users"))["items"]]


async def test_as_many_particulars_as_may_be(tmp_path):
    async with open_city(tmp_path) as city:
        most = {
            "responsible_id": "traffic-operator",
            "recipients": [f"r{n}" for n in range(MAX_RECIPIENTS)],
            "networks": [f"192.0.{n}.0/24" for n in range(MAX_NETWORKS)],
            "result_days": MAX_RESULT_DAYS,
            "processing": "统" * 200,
        }
        await city.call("traffic-admin", "POST", "/users", await _body(city, job=most))
        told = await city.call("traffic-admin", "GET", "/users/counter")
        assert told["job"] == most
        assert told["kind"] == "job"
        await city.call("urban-operator", "GET", "/users/counter", expect=404)
        most["recipients"] = ["somebody else"]
        await city.call("traffic-admin", "PATCH", "/users/counter", {"job": most})
        assert (await city.call("traffic-admin", "GET", "/users/counter"))["job"] == most


async def test_a_key_expires_and_a_new_one_ends_the_old_one(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        created = await city.call("traffic-admin", "POST", "/users", await _body(city))
        key = created["password"]
        assert created["user"]["key_expires_at"] == "2026-04-05T08:00:00Z"
        await city.login("counter", key)
        issued = await city.call("traffic-admin", "POST", "/users/counter/key")
        assert issued["password"] != key
        await city.call("counter", "GET", "/me", expect=401)
        assert (await _login(city, key))["code"] == "invalid_credentials"
        clock.advance(90 * DAY - 60)
        answer = await city.login("counter", issued["password"])
        assert answer["expires_at"] == issued["expires_at"] == "2026-04-05T08:00:00Z"
        clock.advance(60)
        await city.call("counter", "GET", "/me", expect=401)
        assert (await _login(city, issued["password"]))["code"] == "key_expired"
        assert (await _login(city, "a-wrong-key-of-twelve"))["code"] == "invalid_credentials"
        (record,) = await city.records(kind="key_issued")
        assert (record.actor_id, record.unit_name) == ("traffic-admin", "traffic")
        assert issued["password"] not in record.content
        for text in (repr(record), (tmp_path / "data" / "custos.db").read_bytes().decode("latin-1")):
            assert issued["password"] not in text


async def test_a_new_key_ends_what_the_old_one_shows_but_for_analyses(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        opened = await city.call("job", "POST", "/sessions", FRAMES)
        await worker.redeem(opened["id"], opened["media"]["ticket"], "frames")
        analysis = await city.call("job", "POST", "/analyses", ANALYSIS)
        await city.call("root", "POST", "/users/job/key")
        told = await worker.ended(opened["id"])
        assert (told.reason, told.by) == ("ended_by_administrator", "City 市")
        await city.recorded(kind="session_end")
        (running,) = city.services.live.all()
        assert (running.id, running.ending) == (analysis["session"], None)


async def test_how_long_a_key_lives_can_be_less(tmp_path):
    async with open_city(tmp_path, accounts=AccountSettings(key_days=1)) as city:
        created = await city.call("traffic-admin", "POST", "/users", await _body(city))
        assert created["user"]["key_expires_at"] == "2026-01-06T08:00:00Z"


async def test_a_key_is_never_chosen_and_only_jobs_have_one(tmp_path):
    async with open_city(tmp_path) as city:
        refused = await city.call("root", "PATCH", "/users/job", {"password": "another-long-password"}, 422)
        assert refused["code"] == "invalid_field"
        assert (await city.call("root", "POST", "/users/urban-operator/key", expect=422))["code"] == (
            "invalid_field"
        )
        await city.call("urban-admin", "POST", "/users/job/key", expect=403)
        assert await city.records(kind="key_issued") == []


async def test_a_job_comes_from_its_networks_only(tmp_path):
    async with open_city(tmp_path) as city:
        created = await city.call("traffic-admin", "POST", "/users", await _body(city))
        key = created["password"]
        assert (await _login(city, key, "198.51.100.7"))["code"] == "network_not_allowed"
        wrong = await city.call(
            None, "POST", "/login", {"username": "counter", "password": "wrong"}, 401,
            headers={"X-Custos-Remote": "198.51.100.7"},
        )  # fmt: skip
        assert wrong["code"] == "invalid_credentials"  # who has not the key learns nothing of the networks
        await city.login("counter", key)
        for remote, status in (
            ("198.51.100.7", 403),
            ("", 403),
            ("::ffff:192.0.2.9", 200),
            ("192.0.2.9", 200),
        ):
            status_, _, _ = await city.request(
                "GET", "/api/v1/me", city.tokens["counter"], headers={"X-Custos-Remote": remote}
            )
            assert status_ == status, remote
        narrowed = await particulars(city, networks=["203.0.113.0/24"])
        await city.call("traffic-admin", "PATCH", "/users/counter", {"job": narrowed})
        assert (await city.call("counter", "GET", "/me", expect=403))["code"] == "network_not_allowed"
        await city.services.authentication.failures.flush()
        counted = {record.remote: record.detail for record in await city.records(kind="login_failures")}
        assert counted["198.51.100.7"]["network"] == 2


async def test_its_pictures_go_to_its_networks_only(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        narrowed = await particulars(city, networks=["192.0.2.0/30"])
        await city.call("root", "PATCH", "/users/job", {"job": narrowed})
        opened = await city.call("job", "POST", "/sessions", FRAMES)
        refused = await worker.redeem(opened["id"], opened["media"]["ticket"], "frames")  # from 192.0.2.7
        assert (refused.status, refused.code) == (403, "network_not_allowed")


async def test_a_job_may_do_nothing_while_its_person_may_not(tmp_path):
    async with open_city(tmp_path) as city:
        job = await particulars(city, responsible_id="traffic-operator")
        created = await city.call("traffic-admin", "POST", "/users", await _body(city, job=job))
        await city.login("counter", created["password"])
        await city.grant("counter", actions=["frames:consume"])
        worker = await city.worker()
        opened = await city.call("counter", "POST", "/sessions", FRAMES)
        await worker.redeem(opened["id"], opened["media"]["ticket"], "frames")
        await city.call("traffic-admin", "PATCH", "/users/traffic-operator", {"enabled": False})
        told = await worker.ended(opened["id"])
        assert (told.reason, told.detail, told.by) == ("revoked", "principal_disabled", "traffic")
        await city.call("counter", "GET", "/me", expect=401)
        assert (await _login(city, created["password"]))["code"] == "invalid_credentials"
    async with open_city(tmp_path) as city:  # a restart forgets nothing of it
        assert (await _login(city, created["password"]))["code"] == "invalid_credentials"
        await city.call("traffic-admin", "PATCH", "/users/counter", {"job": await particulars(city)})
        await city.login("counter", created["password"])
        await city.call("counter", "POST", "/sessions", FRAMES)


async def test_a_job_that_sql_has_changed_is_not_left_as_it_was(tmp_path):
    async with open_city(tmp_path) as city:
        await add_user(city, "counter", "traffic", "job", job={"responsible_id": "traffic-operator"})
        await city.grant("counter", actions=["frames:consume"])
        await city.call("counter", "POST", "/sessions", FRAMES)

        async def widen(work):
            theirs = sa.update(users).where(users.c.id == "counter")
            await work.conn.execute(theirs.values(networks=["0.0.0.0/0"]))

        await city.services.store.run(widen)
        for change in ({"enabled": False}, {"enabled": True}):
            await city.call("root", "PATCH", "/users/traffic-operator", change)
            camera = Object(ObjectKind.CAMERA, "gate")
            decision = city.services.enforcement.decide("counter", Action.FRAMES_CONSUME, camera, "analysis")
            assert decision.reason is Reason.PRINCIPAL_DISABLED


async def test_nobody_answers_for_a_program_that_he_gave_access_to(tmp_path, database_url):
    clock = Clock()
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        await city.login("root")
        mine = await particulars(city, responsible_id="traffic-admin")
        body = {"subject": {"kind": "user", "id": "counter"}, "actions": ["frames:consume"]}

        await city.call("root", "POST", "/users", await _body(city, job=mine))
        for address in ("/grants", "/grants?dry_run=true"):
            asked = body | {"object": {"kind": "camera", "id": "gate"}}
            refused = await city.call("traffic-admin", "POST", address, asked, expect=422)
            assert (refused["code"], refused["reason"]) == ("grant_refused", "self_grant")

        others = await particulars(city, responsible_id="traffic-operator")
        await city.call("root", "PATCH", "/users/counter", {"job": others})
        until = clock() + timedelta(days=1)
        grant = await city.grant("counter", actions=["frames:consume"], valid_to=until.isoformat())
        refused = await city.call("root", "PATCH", "/users/counter", {"job": mine}, expect=403)
        assert (refused["code"], refused["reason"]) == ("account_refused", "self_grant")
        assert grant in refused["detail"]
        await city.call("root", "PATCH", "/users/counter", {"job": others | {"result_days": 7}})
        clock.advance(DAY)
        await city.login("root")
        await city.call("root", "PATCH", "/users/counter", {"job": mine})


@pytest.mark.parametrize("subject", [{"kind": "department"}, {"kind": "role"}], ids=lambda s: s["kind"])
async def test_nor_for_one_in_a_department_or_of_a_role_that_he_gave_access_to(tmp_path, subject):
    async with open_city(tmp_path) as city:
        mine = await particulars(city, responsible_id="traffic-admin")
        others = await particulars(city, responsible_id="traffic-operator")
        named = subject | {"id": "traffic" if subject["kind"] == "department" else "job"}
        body = {
            "subject": named, "object": {"kind": "camera", "id": "gate"}, "actions": ["frames:consume"],
        }  # fmt: skip
        await city.call("root", "POST", "/users", await _body(city, job=mine))
        refused = await city.call("traffic-admin", "POST", "/grants", body, 422)
        assert (refused["code"], refused["reason"]) == ("grant_refused", "self_grant")
        if subject["kind"] == "department":  # to deny them all is no gift
            await city.call("traffic-admin", "POST", "/grants", body | {"effect": "deny"})
        await city.call("root", "PATCH", "/users/counter", {"job": others})
        await city.call("traffic-admin", "POST", "/grants", body)
        refused = await city.call("root", "PATCH", "/users/counter", {"job": mine}, 403)
        assert (refused["code"], refused["reason"]) == ("account_refused", "self_grant")
        another = await _body(city, username="other", id="other", job=mine)
        assert (await city.call("root", "POST", "/users", another, 403))["reason"] == "self_grant"


@given(st.binary(min_size=4, max_size=4), st.integers(0, 32))
@example(b"\xc0\0\2\7", 24)
def test_an_address_lies_in_a_network_as_its_bits_say(address, length):
    import ipaddress

    there = ipaddress.IPv4Address(address)
    network = ipaddress.ip_network((there, length), strict=False)
    assert may_come_from([str(network)], str(there))
    assert may_come_from([str(network)], f"::ffff:{there}")
    other = ipaddress.IPv4Address(int(there) ^ (1 << 31))
    assert may_come_from([str(network)], str(other)) is (length == 0)


@given(st.text())
@example("")
@example("192.0.2.7%eth0")
@example("192.0.2.7 ")
def test_what_is_no_address_comes_from_nowhere(text):
    assert not may_come_from(["2001:db8::/32"], text)


async def test_a_job_of_before_does_nothing_until_somebody_answers_for_it(tmp_path):
    """One that was created before particulars were asked for: its row has none."""
    from gateway.store.sealed_rows import Sealed

    async with open_city(tmp_path) as city:

        async def forget(work):
            await work.conn.execute(
                sa.update(users)
                .where(users.c.id == "job")
                .values(responsible_id=None, networks=None, password_expires_at=None)
            )
            (event,) = [r for r in await city.records(kind="user_created") if "job" in r.content][:1]
            await work.seal(event, (Sealed.USER, "job"))

        await city.services.store.run(forget)
        await city.call("job", "GET", "/me", expect=401)
        body = {"username": "job", "password": city.keys["job"]}
        assert (await city.call(None, "POST", "/login", body, 401))["code"] == "invalid_credentials"
        assert (await city.call("root", "GET", "/users/job"))["job"] is None
        await city.call("root", "PATCH", "/users/job", {"job": await particulars(city)})
        assert (await city.call(None, "POST", "/login", body, 401))["code"] == "key_expired"
        issued = await city.call("root", "POST", "/users/job/key")
        await city.login("job", issued["password"])


async def test_two_keys_asked_for_at_once_leave_one(tmp_path):
    async with open_city(tmp_path) as city:
        answers = await asyncio.gather(*(city.call("root", "POST", "/users/job/key") for _ in range(4)))
        works = []
        for answer in answers:
            body = json_of("job", answer["password"])
            status, _, _ = await city.request("POST", "/api/v1/login", data=body)
            works.append(status == 200)
        assert works.count(True) == 1


def json_of(username, password):
    import json

    return json.dumps({"username": username, "password": password})
