"""Giving and taking back, on cameras, groups and departments."""

from datetime import timedelta

import pytest
from support.controls import open_city


async def _group(city, *cameras):
    await city.call("traffic-admin", "POST", "/groups", {"id": "g", "name": "g", "department_id": "traffic"})
    for camera in cameras:
        await city.call("traffic-admin", "PATCH", f"/cameras/{camera}", {"groups": ["g"]})


@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "user", "id": "urban-operator"},
        {"kind": "role", "id": "operator"},
        {"kind": "department", "id": "urban"},
    ],
)
@pytest.mark.parametrize(
    "target",
    [{"kind": "camera", "id": "gate"}, {"kind": "group", "id": "g"}, {"kind": "department", "id": "traffic"}],
)
async def test_every_kind_of_grant_opens_and_closes(tmp_path, subject, target):
    async with open_city(tmp_path) as city:
        await _group(city, "gate")
        body = {"subject": subject, "object": target, "actions": ["live:view"], "reason": "联合巡查"}
        grant = (await city.call("traffic-admin", "POST", "/grants", body))["id"]
        listed = [item["id"] for item in (await city.call("traffic-admin", "GET", "/grants"))["items"]]
        assert listed == [grant]
        opened = await city.watch("urban-operator")
        (session,) = city.services.live.all()
        assert (session.id, session.rule) == (opened["id"], grant)
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        await city.until(lambda: not len(city.services.live))
        await city.watch("urban-operator", expect=403)
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}", expect=404)
        (given,), (revoked,) = await city.records(kind="grant"), await city.records(kind="revoke")
        assert "联合巡查" in given.content
        assert {given.actor_name, revoked.actor_name} == {"traffic-admin 姓名"}
        assert {given.unit_name, revoked.unit_name} == {"traffic"}
        assert given.camera_id == revoked.camera_id == ("gate" if target["kind"] == "camera" else None)


async def test_a_group_is_shared_by_who_may_share_all_of_it(tmp_path):
    async with open_city(tmp_path) as city:
        body = {
            "subject": {"kind": "user", "id": "urban-operator"}, "object": {"kind": "group", "id": "g"},
            "actions": ["live:view"],
        }  # fmt: skip
        await city.call("traffic-admin", "POST", "/grants", body, 403)  # there is none
        await _group(city)
        problem = await city.call("traffic-admin", "POST", "/grants", body, 422)  # it is empty
        assert problem["reason"] == "not_shareable"
        await city.call("urban-admin", "POST", "/grants", body, 403)
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"groups": ["g"]})
        foreign = {
            "id": "foreign",
            "name": "f",
            "department_id": "urban",
            "url": "rtsp://127.0.0.1/x",
            "groups": ["g"],
        }
        await city.call("urban-admin", "POST", "/cameras", foreign)
        assert (await city.call("traffic-admin", "POST", "/grants", body, 422))["reason"] == "not_shareable"
        await city.call("urban-admin", "PATCH", "/cameras/foreign", {"groups": []})
        await city.call("traffic-admin", "POST", "/grants", body)


async def test_only_who_may_share_a_denied_group_lifts_the_denial(tmp_path):
    async with open_city(tmp_path) as city:
        await _group(city, "gate")
        body = {
            "subject": {"kind": "user", "id": "urban-operator"}, "object": {"kind": "group", "id": "g"},
            "actions": ["live:view"], "effect": "deny",
        }  # fmt: skip
        denial = (await city.call("traffic-admin", "POST", "/grants", body))["id"]
        foreign = {
            "id": "foreign",
            "name": "f",
            "department_id": "urban",
            "url": "rtsp://127.0.0.1/x",
            "groups": ["g"],
        }
        await city.call("urban-admin", "POST", "/cameras", foreign)
        problem = await city.call("traffic-admin", "DELETE", f"/grants/{denial}", expect=422)
        assert (problem["code"], problem["reason"]) == ("grant_refused", "not_shareable")
        await city.call("urban-admin", "PATCH", "/cameras/foreign", {"groups": []})
        await city.call("traffic-admin", "DELETE", f"/grants/{denial}")


async def test_a_refused_change_of_groups_changes_nothing(tmp_path):
    async with open_city(tmp_path) as city:
        change = {"name": "other", "groups": ["nope"]}
        await city.call("traffic-admin", "PATCH", "/cameras/gate", change, 404)
        camera = (await city.call("traffic-admin", "GET", "/cameras/gate"))["camera"]
        assert camera["name"] == "gate 摄像机"
        assert await city.records(kind="camera_changed") == []


async def test_what_cannot_be_granted_is_refused_with_its_reason(tmp_path):
    async with open_city(tmp_path) as city:
        now = city.clock.now
        body = {
            "subject": {"kind": "user", "id": "urban-operator"}, "object": {"kind": "camera", "id": "gate"},
            "actions": ["live:view"],
        }  # fmt: skip
        for change, reason in (
            ({"actions": ["audit:read"]}, "action_not_grantable"),
            ({"valid_to": now.isoformat()}, "validity_past"),
            (
                {
                    "valid_from": (now + timedelta(2)).isoformat(),
                    "valid_to": (now + timedelta(1)).isoformat(),
                },
                "malformed",
            ),
            ({"purposes": []}, "purposes_empty"),
            ({"purposes": ["nope"]}, "purpose_unknown"),
            ({"obligations": {"max_height": 0}}, "obligation_invalid"),
            ({"subject": {"kind": "user", "id": "nobody"}}, "subject_unknown"),
        ):
            problem = await city.call("traffic-admin", "POST", "/grants", {**body, **change}, 422)
            assert (problem["code"], problem["reason"]) == ("grant_refused", reason)
        for change in (
            {"actions": []},
            {"actions": ["live:*"]},
            {"valid_to": "2026-01-06T00:00:00"},
            {"effect": "maybe"},
            {"object": {"kind": "camera", "id": "gate", "x": 1}},
            {"obligations": {"watermark": "huge"}},
        ):
            problem = await city.call("traffic-admin", "POST", "/grants", {**body, **change}, 422)
            assert problem["code"] == "invalid_field"
        await city.call(
            "traffic-admin", "POST", "/grants", {**body, "object": {"kind": "installation", "id": "i"}}, 403
        )
        assert await city.records(kind="grant") == []
        assert (await city.call("traffic-admin", "GET", "/grants"))["items"] == []


async def test_purposes_bound_a_grant(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(purposes=["maintenance"])
        assert (await city.watch("urban-operator", expect=403))["reason"] == "purpose_not_allowed"
        await city.watch("urban-operator", purpose="maintenance")


async def test_explain_says_which_rules_matched_and_which_nearly(tmp_path):
    async with open_city(tmp_path) as city:
        first = await city.grant()
        second = await city.grant(purposes=["maintenance"])
        path = "/explain?camera=gate&purpose=patrol"
        for username, query in (
            ("urban-operator", ""),
            ("traffic-admin", "&principal=urban-operator"),
            ("auditor", "&principal=urban-operator"),
        ):
            told = await city.call(username, "GET", path + query)
            assert (told["decision"]["effect"], told["decision"]["rule"]) == ("allow", first)
            assert [match["rule"] for match in told["matching"]] == [first]
            assert [(miss["rule"], miss["reason"]) for miss in told["near_misses"]] == [
                (second, "purpose_not_allowed")
            ]
