"""The list of purposes: given once to a new installation, written by few, never declared wrongly."""

import pytest
from support.controls import PATROL, ROSTER, Clock, add_user, open_city

from gateway.purposes import INITIAL, MAX_PURPOSE_SECONDS

FLOOD = {"code": "flood", "text": {"zh": "防汛", "en": "Flood"}}
WHOLE_FLOOD = {
    **FLOOD,
    "needs_reference": False,
    "department_id": None,
    "actions": None,
    "max_seconds": None,
    "enabled": True,
}


def _codes(answer):
    return [item["code"] for item in answer["items"]]


async def test_a_new_installation_has_the_first_ones_and_keeps_its_own(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        listed = await city.call("job", "GET", "/purposes")
        assert _codes(listed) == sorted(entry.code for entry in INITIAL)
        needing = {item["code"] for item in listed["items"] if item["needs_reference"]}
        assert needing == {"case", "emergency", "patrol"}
        patrol = next(item for item in listed["items"] if item["code"] == "patrol")
        assert patrol["max_seconds"] == 8 * 3600
        body = {**FLOOD, "needs_reference": True}
        created = await city.call("security", "POST", "/purposes", body, 201)
        assert created == {**WHOLE_FLOOD, "needs_reference": True}
        assert (await city.call("security", "POST", "/purposes", body, 409))["code"] == "conflict"
    async with open_city(tmp_path, clock=clock) as city:
        assert len(_codes(await city.call("job", "GET", "/purposes"))) == len(INITIAL) + 1
        await city.grant()
        body = {"camera": "gate", "purpose": {"code": "flood"}}
        problem = await city.call("urban-operator", "POST", "/sessions", body, 422)
        assert problem["code"] == "purpose_reference_required"


async def test_only_security_administrators_write_the_list(tmp_path):
    async with open_city(tmp_path) as city:
        for username in ("root", "traffic-admin", "auditor"):
            await city.call(username, "POST", "/purposes", FLOOD, 403)
            await city.call(username, "PATCH", "/purposes/patrol", {"enabled": False}, 403)
        await city.call("security", "PATCH", "/purposes/none", {"enabled": False}, 404)
        changed = await city.call("security", "PATCH", "/purposes/patrol", {"max_seconds": 60})
        assert (changed["max_seconds"], changed["needs_reference"]) == (60, True)
        (record,) = await city.records(kind="purpose_changed")
        assert record.actor_id == "security"
        assert record.content == (
            "patrol: 日常巡查, Routine patrol; needs a reference; "
            "for live:view, live:snapshot, ptz:control, frames:consume; ends after 60 s"
        )


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"actions": ["live:view", "user:manage"]}, "actions"),
        ({"actions": []}, "actions"),
        ({"department_id": "nowhere"}, "department_id"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"max_seconds": MAX_PURPOSE_SECONDS + 1}, "max_seconds"),
    ],
)
async def test_what_no_purpose_can_be(tmp_path, wrong, field):
    async with open_city(tmp_path) as city:
        for method, path, body in (
            ("POST", "/purposes", {**FLOOD, **wrong}),
            ("PATCH", "/purposes/patrol", wrong),
        ):
            problem = await city.call("security", method, path, body, 422)
            assert problem["code"] == "invalid_field"
            assert field in problem["detail"]
        whole = {**FLOOD, "max_seconds": MAX_PURPOSE_SECONDS}
        await city.call("security", "POST", "/purposes", whole, 201)


async def test_a_purpose_serves_its_departments_people_and_its_actions(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.call(
            "root", "POST", "/departments", {"id": "rivers", "name": "rivers", "parent_id": "urban"}
        )
        await add_user(city, "rivers-operator", "rivers", "operator")
        body = {**FLOOD, "department_id": "urban", "actions": ["live:view"]}
        await city.call("security", "POST", "/purposes", body, 201)
        for username, mine in (("urban-operator", True), ("rivers-operator", True), ("root", False)):
            listed = _codes(await city.call(username, "GET", "/purposes"))
            assert ("flood" in listed) is mine, username
            assert "flood" in _codes(await city.call(username, "GET", "/purposes?all=1"))
        for user in ("rivers-operator", "traffic-operator"):
            await city.grant(user, actions=["live:view", "live:snapshot"])
        for username, action, purpose, expected in (
            ("rivers-operator", "live:view", {"code": "flood"}, None),
            ("rivers-operator", "live:snapshot", {"code": "flood"}, "purpose_not_for_this"),
            ("traffic-operator", "live:view", {"code": "flood"}, "purpose_not_yours"),
            ("traffic-operator", "live:view", {"code": "audit"}, "purpose_not_for_this"),
            ("traffic-operator", "live:view", {"code": "none"}, "purpose_unknown"),
            ("traffic-operator", "live:view", {"code": ""}, "purpose_required"),
            ("traffic-operator", "live:view", {"code": "patrol"}, "purpose_reference_required"),
            ("traffic-operator", "live:view", {**PATROL, "reference": " "}, "purpose_reference_required"),
            ("traffic-operator", "live:view", PATROL, None),
        ):
            body = {"camera": "gate", "action": action, "purpose": purpose}
            answer = await city.call(username, "POST", "/sessions", body, 422 if expected else 201)
            assert answer.get("code") == expected, (username, purpose)


async def test_one_out_of_use_is_declared_no_more_and_listed_for_who_manages(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.call("security", "PATCH", "/purposes/patrol", {"enabled": False})
        assert (await city.watch("urban-operator", expect=422))["code"] == "purpose_unknown"
        assert "patrol" not in _codes(await city.call("security", "GET", "/purposes"))
        assert "patrol" not in _codes(await city.call("traffic-admin", "GET", "/purposes?all=1"))
        assert "patrol" in _codes(await city.call("security", "GET", "/purposes?all=1"))
        await city.call("security", "PATCH", "/purposes/patrol", {"enabled": True})
        await city.watch("urban-operator")


async def test_answers_show_a_purpose_as_it_was_stated(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.watch("urban-operator", purpose="patrol")
        (session,) = (await city.call("urban-operator", "GET", "/sessions"))["items"]
        assert session["purpose"] == {"code": "patrol", "reference": ROSTER, "note": None}
        await city.grant("job", actions=["frames:consume"])
        body = {"camera": "gate", "analyser": "motion", "purpose": {"code": "analysis", "note": "n"}}
        created = await city.call("job", "POST", "/analyses", body)
        assert created["purpose"] == {"code": "analysis", "reference": None, "note": "n"}
