"""Roles over the API: made and removed, never changed; the policies file's are read only."""

import pytest
from support.controls import add_user, open_city
from support.seals import seal

from policies.roles import MAX_ROLES


def _role(name="duty-officer", **scopes):
    return {"name": name, "department": ["session:read", "session:end"], "installation": []} | scopes


async def test_a_role_works_where_it_is_assigned_until_it_is_removed(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        made = await city.call("root", "POST", "/roles", _role(), 201)
        assert made == {**_role(), "department": ["session:end", "session:read"], "source": "api"}
        listed = {role["name"]: role for role in (await city.call("job", "GET", "/roles"))["items"]}
        assert listed["duty-officer"] == made
        assert listed["operator"]["source"] == "file"
        await city.grant()
        opened = (await city.watch("urban-operator"))["id"]
        await add_user(city, "traffic-duty", "traffic", "duty-officer")
        sessions = (await city.call("traffic-duty", "GET", "/sessions"))["items"]
        assert [session["id"] for session in sessions] == [opened]
        problem = await city.call("root", "DELETE", "/roles/duty-officer", expect=409)
        assert (problem["code"], problem["reason"]) == ("conflict", "in_use")
        user = next(
            user
            for user in (await city.call("root", "GET", "/users"))["items"]
            if user["username"] == "traffic-duty"
        )
        await city.call("root", "PATCH", f"/users/{user['id']}", {"roles": []})
        await city.call("root", "DELETE", "/roles/duty-officer", expect=204)
        await city.call("root", "DELETE", "/roles/duty-officer", expect=404)
        assert (await city.call("traffic-duty", "GET", "/sessions"))["items"] == []
        assert "duty-officer" not in {
            role["name"] for role in (await city.call("job", "GET", "/roles"))["items"]
        }
        told = [event.content for event in await city.records(kind="policy_changed")]
        assert told == [
            "role duty-officer made: department: session:end, session:read",
            "role duty-officer removed",
        ]


async def test_a_restart_knows_them(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.call("root", "POST", "/roles", _role())
        await add_user(city, "traffic-duty", "traffic", "duty-officer")
        await city.grant("urban-operator", subject={"kind": "role", "id": "duty-officer"})
    async with open_city(tmp_path, url=database_url) as city:
        listed = {
            role["name"]: role["source"] for role in (await city.call("root", "GET", "/roles"))["items"]
        }
        assert listed["duty-officer"] == "api"
        await city.login("traffic-duty")
        await city.watch("traffic-duty")
        # what a grant names stays, too
        await city.call("root", "PATCH", "/users/traffic-duty", {"roles": []})
        problem = await city.call("root", "DELETE", "/roles/duty-officer", expect=409)
        assert problem["reason"] == "in_use"


@pytest.mark.parametrize(
    ("scopes", "reason"),
    [
        ({"department": ["live:view"]}, "media_action"),
        ({"installation": ["ptz:control"]}, "media_action"),
        ({"installation": ["audit:read", "user:manage"]}, "duties_not_separate"),
        ({"department": ["camera:share"], "installation": ["audit:read"]}, "duties_not_separate"),
        ({"installation": ["camera:share", "department:manage"]}, "duties_not_separate"),
        ({"installation": ["camera:share", "security:manage"]}, "duties_not_separate"),
    ],
)
async def test_no_role_joins_what_must_be_apart(tmp_path, scopes, reason):
    async with open_city(tmp_path) as city:
        problem = await city.call("root", "POST", "/roles", _role(**scopes), 422)
        assert (problem["code"], problem["reason"]) == ("role_refused", reason)
        assert await city.records(kind="policy_changed") == []


async def test_the_files_roles_are_read_only(tmp_path):
    async with open_city(tmp_path) as city:
        for method, path, body in (
            ("POST", "/roles", _role("operator")),
            ("DELETE", "/roles/operator", None),
        ):
            assert (await city.call("root", method, path, body, 409))["code"] == "role_read_only"


async def test_only_who_manages_everybodys_accounts_makes_roles(tmp_path):
    async with open_city(tmp_path) as city:
        for user in ("traffic-admin", "auditor", "urban-operator", "job"):
            await city.call(user, "POST", "/roles", _role(), 403)
            await city.call(user, "DELETE", "/roles/operator", expect=403)


async def test_names_that_are_none_and_names_that_are_taken(tmp_path):
    async with open_city(tmp_path) as city:
        for name in ("", "A", "1a", "a b", "a\n", "a" * 65, "角色"):
            assert (await city.call("root", "POST", "/roles", _role(name), 422))["code"] == "invalid_field"
        problem = await city.call("root", "POST", "/roles", _role(department=["fly"]), 422)
        assert problem["code"] == "invalid_field"
        await city.call("root", "POST", "/roles", _role("a" * 64, department=[]))
        assert (await city.call("root", "POST", "/roles", _role("a" * 64), 409))["code"] == "conflict"


async def test_nobody_gets_rights_by_a_name_that_he_still_holds(tmp_path):
    """A role that the file had once and that somebody is assigned cannot be made anew over the API."""
    import sqlalchemy as sa

    from gateway.store.schema import user_roles

    async with open_city(tmp_path) as city:

        async def assign(work):
            row = {"user_id": "traffic-operator", "role": "former", "department_id": "traffic"}
            await work.conn.execute(sa.insert(user_roles).values(**row))

        await city.services.store.run(assign)
        problem = await city.call("root", "POST", "/roles", _role("former"), 409)
        assert (problem["code"], problem["reason"]) == ("conflict", "in_use")


async def test_limits_of_roles(tmp_path):
    async with open_city(tmp_path) as city:
        there = len((await city.call("root", "GET", "/roles"))["items"])
        for number in range(MAX_ROLES - there):
            await city.call("root", "POST", "/roles", _role(f"r{number}"))
        problem = await city.call("root", "POST", "/roles", _role("one-more"), 422)
        assert (problem["code"], problem["reason"]) == ("role_refused", "too_many_roles")


async def test_a_row_that_nobody_understands_is_left_out(tmp_path):
    import sqlalchemy as sa

    from gateway.store.schema import roles
    from gateway.store.sealed_rows import Sealed

    async with open_city(tmp_path) as city:

        async def spoil(work):
            for name, actions in (("bad", ["live:view"]), ("worse", ["fly"]), ("auditor", ["user:manage"])):
                row = {
                    "name": name,
                    "department": actions,
                    "installation": [],
                    "created_by": "x",
                    "created_at": 1,
                }
                await work.conn.execute(sa.insert(roles).values(**row))
                await seal(work, (Sealed.ROLE, name))

        await city.services.store.run(spoil)
    async with open_city(tmp_path) as city:
        listed = {role["name"]: role for role in (await city.call("root", "GET", "/roles"))["items"]}
        assert not {"bad", "worse"} & listed.keys()
        assert listed["auditor"]["source"] == "file"
        assert "user:manage" not in listed["auditor"]["department"]
