"""What the catalogue says of a camera: kept and answered as given, refused with the field's name first."""

import msgspec
import pytest
from support.controls import add_camera, add_user, open_city

from gateway.forms import (
    MAX_GROUPS_OF_A_CAMERA,
    MAX_SHARING_DEPARTMENTS,
    MAX_SHARING_PURPOSES,
    MAX_TAGS_OF_A_CAMERA,
    CameraChange,
    NewCamera,
    SharingChange,
    SharingTerms,
)

ITEM = {
    "code": "44010600001326000001",
    "civil_code": "440106",
    "point_class": 1,
    "network": "government-extranet",
    "place": "体育西路 103 号",
    "longitude": 113.327,
    "latitude": 23.135,
    "direction": "northeast",
    "management_unit": "交通局",
    "retention_days": 30,
    "tags": ["school gate", "夜景"],
    "sharing": {
        "mode": "unconditional",
        "departments": ["urban"],
        "scope": "实时",
        "purpose": "城市管理",
        "frequency": "daily",
        "until": "2027-01-01T00:00:00Z",
        "purposes": ["case", "maintenance"],
    },
}
BARE = {
    "code": None,
    "civil_code": None,
    "point_class": None,
    "network": None,
    "place": "",
    "longitude": None,
    "latitude": None,
    "direction": None,
    "management_unit": "",
    "retention_days": None,
    "tags": [],
    "sharing": {
        "mode": "conditional", "departments": [], "scope": "", "purpose": "", "frequency": "", "until": None,
        "purposes": None,
    },
}  # fmt: skip


async def _entry(city, camera, by="traffic-admin"):
    return (await city.call(by, "GET", f"/cameras/{camera}"))["camera"]


async def test_fields_are_answered_as_given_after_a_restart_too(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await add_camera(city, "full", **ITEM)
        await add_camera(city, "bare")
        for field in ITEM.keys() - {"code", "longitude", "latitude"}:
            changed = await city.call("traffic-admin", "PATCH", "/cameras/bare", {field: ITEM[field]})
            assert changed["camera"][field] == ITEM[field]
    async with open_city(tmp_path, url=database_url) as city:
        entry = await _entry(city, "full")
        assert {name: entry[name] for name in ITEM} == ITEM
        await city.call("traffic-admin", "PATCH", "/cameras/full", BARE)
        entry = await _entry(city, "full")
        assert {name: entry[name] for name in BARE} == BARE


WRONG = [
    ({"code": "4401060000132600000"}, "Expected"),
    ({"code": "99010600001326000001"}, "code: digits 1 to 8"),
    ({"code": "44010600001326000001", "network": "video-private-network"}, "code: digit 14"),
    ({"civil_code": "990000"}, "civil_code: 99"),
    ({"civil_code": "44010"}, "civil_code: "),
    ({"point_class": 4}, "Expected"),
    ({"longitude": 113.0}, "latitude: "),
    ({"latitude": 23.0}, "longitude: "),
    ({"longitude": 181.0, "latitude": 1.0}, "Expected"),
    ({"direction": "up"}, "Invalid"),
    ({"tags": ["a;b"]}, "Expected"),
    ({"tags": [" a"]}, "Expected"),
    ({"tags": ["x" * 33]}, "Expected"),
    ({"tags": [str(n) for n in range(33)]}, "Expected"),
    ({"sharing": {"mode": "unconditional"}}, "sharing.departments: "),
    ({"sharing": {"departments": ["urban"]}}, "sharing.departments: "),
    ({"sharing": {"mode": "unconditional", "departments": ["nowhere"]}}, "sharing.departments: there is"),
    ({"sharing": {"purposes": ["case", "fun"]}}, "sharing.purposes: there is no purpose fun"),
    ({"sharing": {"purposes": "case"}}, "Expected"),
    ({"retention_days": -1}, "Expected"),
]


async def test_what_no_camera_has_is_refused(tmp_path):
    async with open_city(tmp_path) as city:
        for fields, first in WRONG:
            body = {"name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x", **fields}
            created = await city.call("traffic-admin", "POST", "/cameras", body, 422)
            changed = await city.call("traffic-admin", "PATCH", "/cameras/gate", fields, 422)
            for refused in (created, changed):
                assert refused["code"] == "invalid_field"
                assert refused["detail"].startswith(first), refused


async def test_the_most_that_a_camera_may_have(tmp_path):
    async with open_city(tmp_path) as city:
        tags = [f"{n:032}" for n in range(32)]
        await add_camera(city, "c", tags=[*tags], name="名" * 200, place="x" * 200)
        assert (await _entry(city, "c"))["tags"] == tags
        await city.call("traffic-admin", "PATCH", "/cameras/c", {"tags": ["a", "a"]})
        assert (await _entry(city, "c"))["tags"] == ["a"]


async def test_a_code_belongs_to_one_camera(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await add_camera(city, "first", code=ITEM["code"])
        body = {"id": "x", "name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x"}
        taken = await city.call("traffic-admin", "POST", "/cameras", {**body, "code": ITEM["code"]}, 409)
        assert (taken["code"], taken["detail"][:6]) == ("conflict", "code: ")
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"code": ITEM["code"]}, 409)
        await city.call("traffic-admin", "PATCH", "/cameras/first", {"code": ITEM["code"], "name": "n"})
        await city.call("traffic-admin", "DELETE", "/cameras/first")
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"code": ITEM["code"]})


async def test_a_change_is_checked_with_what_is_there(tmp_path):
    async with open_city(tmp_path) as city:
        await add_camera(city, "c", **ITEM)
        refused = await city.call(
            "traffic-admin", "PATCH", "/cameras/c", {"network": "internet-private-line"}, 422
        )
        assert refused["detail"].startswith("code: digit 14")
        refused = await city.call("traffic-admin", "PATCH", "/cameras/c", {"longitude": None}, 422)
        assert refused["detail"].startswith("longitude: ")
        await city.call("traffic-admin", "PATCH", "/cameras/c", {"longitude": None, "latitude": None})


async def test_a_camera_is_given_to_another_owner_by_who_manages_both(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        body = {"id": "sub", "name": "sub", "parent_id": "traffic"}
        await city.call("root", "POST", "/departments", body)
        await add_user(city, "sub-admin", "sub", "department-administrator")
        await city.call("sub-admin", "GET", "/cameras/gate", expect=404)
        refused = await city.call("traffic-admin", "PATCH", "/cameras/gate", {"department_id": "urban"}, 403)
        assert refused["code"] == "access_denied"
        await city.call("urban-admin", "PATCH", "/cameras/gate", {"department_id": "urban"}, 403)
        changed = await city.call("traffic-admin", "PATCH", "/cameras/gate", {"department_id": "sub"})
        assert changed["camera"]["department"] == {"id": "sub", "name": "sub"}
        assert (await _entry(city, "gate", "sub-admin"))["department"]["id"] == "sub"
        assert (await city.call("sub-admin", "GET", "/cameras"))["total"] == 1
        records = await city.records(kind="camera_changed")
        assert records[-1].content == "department_id; from traffic to sub"
        assert (records[-1].owner_id, records[-1].owner_ids) == (None, ("sub", "traffic"))
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"department_id": "no-such"}, 403)


async def test_who_manages_and_may_not_share_writes_no_tags_groups_or_terms(tmp_path):
    """Each of them reaches people: grants on a tag or a group, departments that the terms name."""
    async with open_city(tmp_path) as city:
        await city.call(
            "traffic-admin", "POST", "/groups", {"id": "g", "name": "g", "department_id": "traffic"}
        )
        await city.grant("traffic-operator", "gate", ["camera:manage", "camera:read"])
        await city.call(
            "traffic-operator", "PATCH", "/cameras/gate", {"place": "here", "tags": [], "groups": []}
        )
        for change in (
            {"tags": ["t"]},
            {"groups": ["g"]},
            {"sharing": {"mode": "unconditional", "departments": ["urban"]}},
            {"sharing": {"mode": "not-shared"}},
            {"sharing": {"purposes": ["case"]}},
        ):
            refused = await city.call("traffic-operator", "PATCH", "/cameras/gate", change, 422)
            assert refused["code"] == "grant_refused"
        await city.call("traffic-operator", "PATCH", "/cameras/gate", {"sharing": {}})
        assert (await _entry(city, "gate"))["tags"] == []


async def test_terms_reach_the_decision(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.watch("urban-operator", expect=403)
        shared = {"sharing": {"mode": "unconditional", "departments": ["urban"]}}
        await city.call("traffic-admin", "PATCH", "/cameras/gate", shared)
        assert (await city.call("urban-operator", "GET", "/cameras"))["total"] == 1
        await city.watch("urban-operator")
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"place": "elsewhere"})
        await city.watch("urban-operator")
        await city.grant()
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"mode": "not-shared"}})
        refused = await city.watch("urban-operator", expect=403)
        assert refused["reason"] == "not_shared"
    async with open_city(tmp_path, url=database_url) as city:
        await city.watch("urban-operator", expect=403)


async def test_the_owners_purposes_reach_the_decision_and_what_runs(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant()
        case = {"code": "case", "reference": "2026-17"}
        worker = await city.worker()
        running = await city.watch("urban-operator", purpose="maintenance")
        await worker.start(running)
        only_cases = {"sharing": {"purposes": ["case"]}}
        await city.call("traffic-admin", "PATCH", "/cameras/gate", only_cases)
        assert (await worker.ended(running["id"])).reason == "revoked"
        refused = await city.watch("urban-operator", purpose="maintenance", expect=403)
        assert refused["reason"] == "purpose_not_allowed"
        await city.call("urban-operator", "POST", "/sessions", {"camera": "gate", "purpose": case})
        assert (await city.call("urban-operator", "GET", "/cameras"))["total"] == 1
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"purposes": []}})
        assert (await city.call("urban-operator", "GET", "/cameras"))["total"] == 0
    async with open_city(tmp_path, url=database_url) as city:
        refused = await city.call(
            "urban-operator", "POST", "/sessions", {"camera": "gate", "purpose": case}, 403
        )
        assert refused["reason"] == "purpose_not_allowed"
        await city.call("traffic-admin", "PATCH", "/cameras/gate", only_cases)
        # whoever changes a word does not lift the list without saying so
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"scope": "北门"}})
        detail = await city.call("traffic-admin", "GET", "/cameras/gate")
        sharing = detail["camera"]["sharing"]
        assert (sharing["scope"], sharing["purposes"]) == ("北门", ["case"])
        await city.watch("urban-operator", purpose="maintenance", expect=403)
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"purposes": None}})
        await city.watch("urban-operator", purpose="maintenance")


def test_lists_are_bounded():
    for shape, field, item, most in (
        (NewCamera, "groups", "g{}", MAX_GROUPS_OF_A_CAMERA),
        (CameraChange, "tags", "t{}", MAX_TAGS_OF_A_CAMERA),
        (SharingTerms, "departments", "d{}", MAX_SHARING_DEPARTMENTS),
        (SharingTerms, "purposes", "p{}", MAX_SHARING_PURPOSES),
        (SharingChange, "purposes", "p{}", MAX_SHARING_PURPOSES),
    ):
        needed = {"name": "n", "department_id": "d", "url": "u"} if shape is NewCamera else {}
        full = [item.format(number) for number in range(most)]
        assert getattr(msgspec.convert({**needed, field: full}, shape), field) == full
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**needed, field: [*full, "x"]}, shape)
