"""Accounts: names that are one, changes that cross, a first administrator once."""

import asyncio

import pytest
from support.controls import CHEAP, PASSWORD, open_city
from typer.testing import CliRunner

from gateway.accounts import BootstrapRefusedError, bootstrap
from gateway.cli import app
from gateway.passwords import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH


async def test_changes_at_once_do_not_undo_each_other(tmp_path):
    """Each was made of what its author saw before: a disabled account must not come back with a new name."""
    async with open_city(tmp_path) as city:
        changes = [{"display_name": "n"}, {"enabled": False}, {"locale": "en"}, {"roles": ["operator"]}]
        await asyncio.gather(*(city.call("root", "PATCH", "/users/job", change) for change in changes))
        users = {user["id"]: user for user in (await city.call("root", "GET", "/users"))["items"]}
        job = users["job"]
        assert (job["display_name"], job["enabled"], job["locale"], job["roles"]) == (
            "n",
            False,
            "en",
            ["operator"],
        )
        assert city.services.enforcement.decide("job", "live:view", _gate()).reason == "principal_disabled"


def _gate():
    from policies.access import Object, ObjectKind

    return Object(ObjectKind.CAMERA, "gate")


async def test_names_that_look_alike_are_one(tmp_path):
    async with open_city(tmp_path) as city:
        body = {"display_name": "n", "department_id": "traffic", "password": PASSWORD}
        await city.call("traffic-admin", "POST", "/users", {**body, "username": "Straße"})
        for username in ("straße", "STRASSE", "ｓｔｒａｓｓｅ", "ROOT", "ｒoot"):
            problem = await city.call("traffic-admin", "POST", "/users", {**body, "username": username}, 409)
            assert problem["code"] == "conflict"
        taken = {**body, "username": "x", "id": "urban-operator"}
        await city.call("traffic-admin", "POST", "/users", taken, 409)


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (MIN_PASSWORD_LENGTH - 1, 422),
        (MIN_PASSWORD_LENGTH, 201),
        (MAX_PASSWORD_LENGTH, 201),
        (MAX_PASSWORD_LENGTH + 1, 422),
    ],
)
async def test_the_length_of_a_password(tmp_path, length, status):
    async with open_city(tmp_path) as city:
        body = {"username": "n", "display_name": "n", "department_id": "traffic", "password": "密" * length}
        await city.call("traffic-admin", "POST", "/users", body, status)
        if status == 201:
            await city.login("n", "密" * length)


async def test_roles_reach_the_next_decision(tmp_path):
    async with open_city(tmp_path) as city:
        path = "/users/traffic-operator"
        await city.call("traffic-admin", "PATCH", path, {"roles": ["department-administrator"]})
        await city.call("traffic-operator", "PATCH", "/cameras/gate", {"description": "d"})
        await city.call("traffic-admin", "PATCH", path, {"roles": []})
        await city.call("traffic-operator", "PATCH", "/cameras/gate", {"description": "d"}, 403)
        changed = await city.records(kind="user_changed")
        assert [record.actor_id for record in changed] == ["traffic-admin"] * 2
        assert changed[0].unit_name == "traffic"


async def test_an_installation_has_one_first_administrator(tmp_path, database_url):
    from gateway.passwords import Passwords

    async with open_city(tmp_path, url=database_url) as city:
        with pytest.raises(BootstrapRefusedError):
            await bootstrap(city.services.store, await Passwords(CHEAP).hash(PASSWORD), "second", "X")
        (record,) = await city.records(kind="installation")
        assert record.actor_name == "root"


async def test_trees_refuse_what_cannot_be(tmp_path):
    async with open_city(tmp_path) as city:
        parent = "traffic"
        problem = None
        for depth in range(40):
            body = {"id": f"d{depth}", "name": "d", "parent_id": parent}
            status, _, text = await city.request(
                "POST", "/api/v1/departments", city.tokens["root"], json=body
            )
            if status != 201:
                problem = text
                break
            parent = f"d{depth}"
        assert depth < 39
        assert '"too_deep"' in problem
        body = {"id": "traffic", "name": "again", "parent_id": None}
        assert (await city.call("root", "POST", "/departments", body, 409))["code"] == "conflict"
        body = {"id": "x", "name": "x", "parent_id": "nowhere"}
        await city.call("root", "POST", "/departments", body, 403)
        group = {"id": "g", "name": "g", "department_id": "traffic", "parent_id": "g"}
        assert (await city.call("traffic-admin", "POST", "/groups", group, 404))["code"] == "not_found"


async def test_facts_that_two_writes_at_once_made_contradictory_end_nothing(tmp_path):
    """Each passed its check; together they are too deep: what hangs on them is denied, control goes on."""
    async with open_city(tmp_path) as city:
        parent = None
        for depth in range(31):
            body = {"id": f"g{depth}", "name": "g", "department_id": "traffic", "parent_id": parent}
            await city.call("traffic-admin", "POST", "/groups", body)
            parent = f"g{depth}"
        bodies = [
            {
                "id": f"x{n}",
                "name": "g",
                "department_id": "traffic",
                "parent_id": f"x{n - 1}" if n else parent,
            }
            for n in range(3)
        ]
        token = city.tokens["traffic-admin"]
        await asyncio.gather(*(city.request("POST", "/api/v1/groups", token, json=body) for body in bodies))
        await city.call("traffic-admin", "GET", "/groups")
        names = {item["id"] for item in (await city.call("root", "GET", "/groups"))["items"]}
    async with open_city(tmp_path) as city:
        again = {item["id"] for item in (await city.call("root", "GET", "/groups"))["items"]}
        assert again == names


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/users/urban-operator", {"password": "another-long-password"}),
        ("DELETE", "/users/urban-operator/second-factor", None),
    ],
    ids=["password", "second factor"],
)
async def test_what_an_old_log_in_shows_ends_when_another_is_needed(tmp_path, method, path, body):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        await city.call("root", method, path, body)
        told = await worker.ended(opened["id"])
        assert (told.reason, told.by) == ("ended_by_administrator", "City 市")
        (end,) = await city.recorded(kind="session_end", session_id=opened["id"])
        root = (await city.call("root", "GET", "/me"))["id"]
        assert (end.detail["ended_by"], end.detail["ended_by_unit"]) == (root, "City 市")
        await city.call("urban-operator", "GET", "/me", expect=401)


@pytest.mark.parametrize(
    ("length", "code"),
    [
        (MIN_PASSWORD_LENGTH - 1, "password_too_short"),
        (MIN_PASSWORD_LENGTH, "configuration_invalid"),
        (MAX_PASSWORD_LENGTH, "configuration_invalid"),
        (MAX_PASSWORD_LENGTH + 1, "password_too_long"),
    ],
)
def test_the_first_administrator_gets_no_password_that_would_not_let_him_in(tmp_path, length, code):
    """There is no second one. What is right fails later, at a configuration that is not there."""
    given = ["user", "bootstrap", "root", "--department", "X", "--password-stdin"]
    run = CliRunner().invoke(app, [*given, "--config", str(tmp_path / "none.yaml")], input="x" * length)
    assert run.exit_code == 2
    assert code in run.output
