"""Who ended it and why: told to the viewer, to whoever asks, and kept in the ledger, in the same words."""

import json

import pytest
from support.controls import Clock, add_user, open_city

from gateway.causes import MAX_CAUSES, Causes

TRAFFIC, URBAN, CITY = "traffic", "urban", "City 市"


async def _revoke(city):
    (grant,) = (await city.call("traffic-admin", "GET", "/grants"))["items"]
    await city.call("traffic-admin", "DELETE", f"/grants/{grant['id']}")


async def _deny(city):
    await city.grant(effect="deny")


async def _disable_user(city):
    await city.call("urban-admin", "PATCH", "/users/urban-operator", {"enabled": False})


async def _switch_off(city):
    await city.call("traffic-admin", "PATCH", "/cameras/gate", {"enabled": False})


async def _delete_camera(city):
    await city.call("traffic-admin", "DELETE", "/cameras/gate")


async def _unshare(city):
    await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"mode": "not-shared"}})


async def _dispute(city):
    (grant,) = (await city.call("traffic-admin", "GET", "/grants"))["items"]
    await city.call("auditor", "POST", "/disputes", {"grant": grant["id"], "reason": "r"})


async def _end(city):
    (session,) = (await city.call("root", "GET", "/sessions"))["items"]
    await city.call("root", "DELETE", f"/sessions/{session['id']}")


async def _log_in_elsewhere(city):
    await city.login("urban-operator")


async def _too_long(city):
    city.clock.advance(8 * 3600)


ENDINGS = [
    (_revoke, "revoked", "no_matching_grant", TRAFFIC),
    (_deny, "revoked", "denied_by_rule", TRAFFIC),
    (_disable_user, "revoked", "principal_disabled", URBAN),
    (_unshare, "revoked", "not_shared", TRAFFIC),
    (_switch_off, "camera_gone", "switched_off", TRAFFIC),
    (_delete_camera, "camera_gone", "unknown_resource", TRAFFIC),
    (_dispute, "disputed", "disputed", CITY),
    (_end, "ended_by_administrator", "", CITY),
    (_log_in_elsewhere, "logged_in_elsewhere", "", URBAN),
    (_too_long, "expired", "max_duration", None),
]


@pytest.mark.parametrize(("act", "reason", "detail", "unit"), ENDINGS)
async def test_the_worker_the_api_and_the_ledger_say_the_same(tmp_path, act, reason, detail, unit):
    async with open_city(tmp_path, sessions=_unconfirmed()) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        path = f"/sessions/{opened['id']}"
        await worker.redeem(opened["id"], opened["media"]["ticket"])
        running = await city.call("urban-operator", "GET", path)
        assert (running["state"], running["end_reason"], running["ended_by"]) == ("active", None, None)
        await act(city)
        told = await worker.ended(opened["id"])
        assert (told.reason, told.detail, told.by) == (reason, detail, unit or "")
        (record,) = await city.recorded(kind="session_end", session_id=opened["id"])
        assert record.reason == reason
        assert (record.detail["end_detail"], record.detail["ended_by_unit"]) == (detail, unit or "")
        if act in {_disable_user, _too_long}:  # who asks then is the camera's owner
            await city.login("traffic-admin")
        asker = "traffic-admin" if act in {_disable_user, _too_long} else "urban-operator"
        answer = await city.call(asker, "GET", path)
        assert (answer["state"], answer["end_reason"], answer["detail"], answer["ended_by"]) == (
            "ended",
            reason,
            detail,
            unit,
        )
        assert answer["ended_at"] is not None
        assert "姓名" not in json.dumps(answer, ensure_ascii=False)  # a unit answers; no private name


def _unconfirmed():
    from gateway.sessions import SessionSettings

    return SessionSettings(confirm_seconds=0)


async def test_who_is_pre_empted_is_told_for_whose_unit(tmp_path):
    from gateway.admission import AdmissionSettings, PrioritySettings

    settings = AdmissionSettings(
        sessions_total=1, priorities=PrioritySettings(roles={"department-administrator": 90})
    )
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant()
        await city.grant("urban-admin")
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.redeem(opened["id"], opened["media"]["ticket"])
        await city.watch("urban-admin")
        told = await worker.ended(opened["id"])
        assert (told.reason, told.detail, told.by) == ("preempted", "limit_sessions_total", URBAN)


async def test_what_a_worker_ends_is_told_too(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.redeem(opened["id"], opened["media"]["ticket"])
        await worker.over(opened["id"], "slow", sent=7)
        await city.recorded(kind="session_end", session_id=opened["id"])
        answer = await city.call("urban-operator", "GET", f"/sessions/{opened['id']}")
        assert (answer["end_reason"], answer["ended_by"]) == ("slow", None)


async def test_it_is_told_for_ten_minutes_to_whom_it_concerns(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await add_user(city, "other", "urban", "operator")
        await city.grant()
        session = (await city.watch("urban-operator"))["id"]
        path = f"/sessions/{session}"
        await city.call("urban-operator", "DELETE", path)
        await city.recorded(kind="session_end", session_id=session)
        for username, status in (
            ("urban-operator", 200),
            ("traffic-admin", 200),
            ("root", 200),
            ("urban-admin", 404),
            ("other", 404),
            ("job", 404),
        ):
            await city.call(username, "GET", path, expect=status)
        absent = await city.call("other", "GET", "/sessions/" + "0" * 32, expect=404)
        hidden = await city.call("other", "GET", path, expect=404)
        assert absent["code"] == hidden["code"] == "not_found"
        clock.advance(599)
        await city.call("urban-operator", "GET", path)
        clock.advance(2)
        await city.call("urban-operator", "GET", path, expect=404)


def test_the_latest_change_of_a_thing_is_to_blame_if_it_came_after():
    causes = Causes()
    causes.note(5, "a", ["grant:1", "user:1"])
    causes.note(7, "b", ["user:1"])
    assert causes.since(4, ["grant:1", "user:1"]) == "a"
    assert causes.since(5, ["grant:1", "user:1"]) == "b"
    assert causes.since(7, ["grant:1", "user:1", "camera:1"]) == ""


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_remembered_is_bounded(more):
    causes = Causes()
    causes.note(1, "first", ["grant:first"])
    causes.note(1, "later", (f"grant:{n}" for n in range(MAX_CAUSES - 1 + more)))
    assert causes.since(0, ["grant:first"]) == ("" if more else "first")
