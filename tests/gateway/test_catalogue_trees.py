"""Departments and groups: renamed, moved and deleted by whom it concerns, never into a circle or in use."""

from support.controls import add_camera, add_user, open_city


async def _department(city, identifier, parent, by="root", **more):
    body = {"id": identifier, "name": identifier, "parent_id": parent, **more}
    return await city.call(by, "POST", "/departments", body)


async def _group(city, identifier, parent=None, department="traffic", by="traffic-admin"):
    body = {"id": identifier, "name": identifier, "department_id": department, "parent_id": parent}
    return await city.call(by, "POST", "/groups", body)


async def _named(city, path, identifier):
    listed = (await city.call("root", "GET", path))["items"]
    return next((item for item in listed if item["id"] == identifier), None)


async def test_departments_are_renamed_moved_and_deleted(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await _department(city, "district", "traffic", civil_code="440106")
        await _department(city, "street", "district", civil_code="440106001")
        changed = await city.call("root", "PATCH", "/departments/district", {"name": "天河区"})
        assert changed == {
            "id": "district",
            "name": "天河区",
            "parent_id": "traffic",
            "civil_code": "440106",
        }
        await add_camera(city, "c", department_id="street")
        assert (await city.call("traffic-admin", "GET", "/cameras/c"))["camera"]["department"][
            "id"
        ] == "street"
        await city.call("root", "PATCH", "/departments/district", {"parent_id": "urban", "civil_code": None})
        await city.call("traffic-admin", "GET", "/cameras/c", expect=404)
        await city.call("urban-admin", "GET", "/cameras/c")
        assert (await _named(city, "/departments", "district"))["civil_code"] is None
        for identifier in ("street", "district"):
            refused = await city.call("root", "DELETE", f"/departments/{identifier}", expect=409)
            assert (refused["code"], refused["reason"]) == ("conflict", "in_use")
        await city.call("urban-admin", "DELETE", "/cameras/c")
        for identifier in ("street", "district"):
            await city.call("root", "DELETE", f"/departments/{identifier}")
            assert await _named(city, "/departments", identifier) is None
            await city.call("root", "DELETE", f"/departments/{identifier}", expect=403)
        assert [r.content for r in await city.records(kind="department_deleted")] == ["street", "district"]
        assert len(await city.records(kind="department_changed")) == 2
    async with open_city(tmp_path, url=database_url) as city:
        await _department(city, "street", "urban")


async def test_a_circle_of_departments_is_refused(tmp_path):
    async with open_city(tmp_path) as city:
        await _department(city, "a", "traffic")
        await _department(city, "b", "a")
        for parent in ("a", "b"):
            refused = await city.call("root", "PATCH", "/departments/a", {"parent_id": parent}, 409)
            assert (refused["code"], refused["reason"]) == ("conflict", "cycle")
        await city.call("root", "PATCH", "/departments/b", {"parent_id": "no-such"}, 403)
        bad = await city.call("root", "PATCH", "/departments/b", {"civil_code": "99"}, 422)
        assert bad["detail"].startswith("civil_code: ")
        assert (await _named(city, "/departments", "b"))["parent_id"] == "a"


async def test_who_does_not_manage_departments_changes_none(tmp_path):
    async with open_city(tmp_path) as city:
        for username in ("traffic-admin", "urban-operator", "auditor"):
            await city.call(username, "PATCH", "/departments/traffic", {"name": "x"}, 403)
            await city.call(username, "DELETE", "/departments/urban", expect=403)


async def test_whatever_uses_a_department_keeps_it(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:

        async def refused(identifier, by):
            answer = await city.call("root", "DELETE", f"/departments/{identifier}", expect=409)
            assert answer["detail"].endswith(by), answer

        for identifier in ("users", "groups", "granted", "shared"):
            await _department(city, identifier, "traffic")
        await add_user(city, "someone", "users", login=False)
        await refused("users", "still has users")
        await _group(city, "g", department="groups")
        await refused("groups", "still has groups")
        await city.call("traffic-admin", "DELETE", "/groups/g")
        await city.call("root", "DELETE", "/departments/groups")
        grant = await city.call(
            "traffic-admin",
            "POST",
            "/grants",
            {
                "subject": {"kind": "department", "id": "granted"},
                "object": {"kind": "camera", "id": "gate"},
                "actions": ["live:view"],
            },
        )
        await refused("granted", "still has grants")
        await city.call("traffic-admin", "DELETE", f"/grants/{grant['id']}")
        await city.call("root", "DELETE", "/departments/granted")
        shared = {"sharing": {"mode": "unconditional", "departments": ["urban", "shared"]}}
        await city.call("traffic-admin", "PATCH", "/cameras/gate", shared)
        await refused("shared", "shared with it")
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {}})
        await city.call("root", "DELETE", "/departments/shared")


async def test_groups_are_renamed_moved_and_deleted(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await _group(city, "top")
        await _group(city, "below")
        await add_camera(city, "c", groups=["below"])
        changed = await city.call("traffic-admin", "PATCH", "/groups/below", {"name": "学校"})
        assert changed == {"id": "below", "name": "学校", "parent_id": None, "department_id": "traffic"}
        total = "/cameras?group=top"
        assert (await city.call("traffic-admin", "GET", total))["total"] == 0
        await city.call("traffic-admin", "PATCH", "/groups/below", {"parent_id": "top"})
        assert (await city.call("traffic-admin", "GET", total))["total"] == 1
        for parent in ("top", "below"):
            refused = await city.call("traffic-admin", "PATCH", "/groups/top", {"parent_id": parent}, 409)
            assert (refused["code"], refused["reason"]) == ("conflict", "cycle")
        await city.call("traffic-admin", "PATCH", "/groups/top", {"parent_id": "no-such"}, 404)
        await city.call("traffic-admin", "PATCH", "/groups/no-such", {"name": "x"}, 404)
        await city.call("urban-admin", "PATCH", "/groups/top", {"name": "x"}, 403)
        await city.call("urban-admin", "DELETE", "/groups/top", expect=403)
        for identifier in ("top", "below"):
            refused = await city.call("traffic-admin", "DELETE", f"/groups/{identifier}", expect=409)
            assert (refused["code"], refused["reason"]) == ("conflict", "in_use")
        await city.call("traffic-admin", "PATCH", "/cameras/c", {"groups": []})
        for identifier in ("below", "top"):
            await city.call("traffic-admin", "DELETE", f"/groups/{identifier}")
            assert await _named(city, "/groups", identifier) is None
        assert [r.content for r in await city.records(kind="group_deleted")] == ["below", "top"]


async def test_a_group_with_other_peoples_cameras_is_not_moved_under_ones_own(tmp_path, database_url):
    """Grants on the group above would reach them."""
    async with open_city(tmp_path, url=database_url) as city:
        await _group(city, "shared")
        await _group(city, "inner", "shared")
        await _group(city, "mine")
        await add_camera(city, "c", groups=["inner"])
        await _department(city, "elsewhere", None)
        await add_user(city, "elsewhere-admin", "elsewhere", "department-administrator")
        body = {"id": "theirs", "name": "n", "department_id": "elsewhere", "url": "rtsp://127.0.0.1/t"}
        await city.call("elsewhere-admin", "POST", "/cameras", {**body, "groups": ["inner"]})
        refused = await city.call("traffic-admin", "PATCH", "/groups/shared", {"parent_id": "mine"}, 422)
        assert refused["code"] == "grant_refused"
        await city.call("elsewhere-admin", "PATCH", "/cameras/theirs", {"groups": []})
        await city.call("traffic-admin", "PATCH", "/groups/shared", {"parent_id": "mine"})
