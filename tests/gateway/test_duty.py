"""Walls: pictures only while a named person is on duty, who owns every look."""

from datetime import timedelta

import pytest
from support.controls import PASSWORD, Clock, add_user, open_city


async def _furnish(city):
    """A wall of `urban` with a grant, two operators of `urban`, one of a department below it."""
    await city.call(
        "root", "POST", "/departments", {"id": "rivers", "name": "河道管理处", "parent_id": "urban"}
    )
    await add_user(city, "wall", "urban", kind="wall")
    await add_user(city, "rivers-operator", "rivers", "operator")
    await city.grant("wall", actions=["live:view"])


async def _sign_on(city, username, expect=None, *, hours=8.0, password=PASSWORD, by="wall", **more):
    ends_at = (city.clock() + timedelta(hours=hours)).isoformat()
    body = {"username": username, "password": password, "ends_at": ends_at, **more}
    return await city.call(by, "POST", "/duty", body, expect)


async def _look(city, worker):
    opened = await city.watch("wall")
    on_duty = (await city.call("wall", "GET", "/me"))["on_duty"]["person_name"]
    assert opened["viewer"]["display_name"] == on_duty  # drawn over the picture
    assert (await city.call("wall", "GET", "/sessions"))["items"][-1]["on_duty"]["name"] == on_duty
    await worker.redeem(opened["id"], opened["media"]["ticket"])
    return opened["id"]


async def test_nobody_on_duty_no_picture(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        assert (await city.watch("wall", expect=403))["code"] == "nobody_on_duty"
        (denied,) = await city.records(kind="decision", actor_id="wall", reason="nobody_on_duty")
        assert (denied.outcome, denied.camera_id) == ("deny", "gate")
        assert (await city.call("wall", "GET", "/duty"))["items"] == []
        assert (await city.call("wall", "GET", "/me"))["on_duty"] is None


async def test_every_look_is_the_person_s_who_is_on_duty(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        worker = await city.worker()
        duty = await _sign_on(city, "rivers-operator")
        assert duty["person"] == {"id": "rivers-operator", "name": "rivers-operator 姓名"}
        assert duty["ends_at"] == "2026-01-05T16:00:00Z"
        me = await city.call("wall", "GET", "/me")
        assert me["on_duty"] == {
            "id": duty["id"],
            "person_name": "rivers-operator 姓名",
            "ends_at": duty["ends_at"],
        }
        session = await _look(city, worker)
        await worker.over(session, "completed", sent=5)
        (start,) = await city.recorded(kind="session_start", session_id=session)
        (end,) = await city.recorded(kind="session_end", session_id=session)
        (allowed,) = await city.records(kind="decision", outcome="allow", action="live:view")
        for record in (start, end, allowed):
            assert (record.actor_id, record.actor_name) == ("rivers-operator", "rivers-operator 姓名")
            assert (record.unit_id, record.unit_name) == ("rivers", "河道管理处")
            assert (record.detail["wall"], record.detail["duty"]) == ("wall", duty["id"])
        (begun,) = await city.records(kind="duty_start")
        assert (begun.actor_id, begun.resource, begun.detail["duty"]) == (
            "rivers-operator",
            "wall:wall",
            duty["id"],
        )
        assert PASSWORD not in repr(begun)


async def test_signing_on_is_no_log_in_of_the_person_and_ends_none(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        logins = len(await city.records(kind="login"))
        await _sign_on(city, "urban-operator")
        await city.call("urban-operator", "GET", "/me")
        assert len(await city.records(kind="login")) == logins


async def test_a_handover_ends_the_pictures_and_the_next_are_the_next_person_s(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        worker = await city.worker()
        first = await _sign_on(city, "urban-operator")
        session = await _look(city, worker)
        second = await _sign_on(city, "rivers-operator")
        told = await worker.ended(session)
        assert (told.reason, told.detail, told.by) == ("duty_over", "handover", "urban")
        (end,) = await city.recorded(kind="session_end", session_id=session)
        assert (end.actor_id, end.reason, end.detail["duty"]) == ("urban-operator", "duty_over", first["id"])
        again = await _look(city, worker)
        assert city.services.live.get(again).duty.person_id == "rivers-operator"
        (over,) = await city.records(kind="duty_end")
        assert (over.actor_id, over.reason, over.detail["duty"]) == (
            "urban-operator",
            "handover",
            first["id"],
        )
        (listed,) = (await city.call("wall", "GET", "/duty"))["items"]
        assert listed["id"] == second["id"]


async def test_signing_off_ends_the_pictures(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        worker = await city.worker()
        await _sign_on(city, "urban-operator")
        session = await _look(city, worker)
        await city.call("wall", "DELETE", "/duty", expect=204)
        told = await worker.ended(session)
        assert (told.reason, told.detail) == ("duty_over", "signed_off")
        assert (await city.watch("wall", expect=403))["code"] == "nobody_on_duty"
        assert (await city.call("wall", "DELETE", "/duty", expect=404))["code"] == "not_found"


async def test_the_shift_s_end_ends_the_pictures(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await _furnish(city)
        worker = await city.worker()
        await _sign_on(city, "urban-operator", hours=1)
        session = await _look(city, worker)
        clock.advance(3600)
        told = await worker.ended(session)
        assert (told.reason, told.detail, told.by) == ("duty_over", "shift_over", "")
        (over,) = await city.recorded(kind="duty_end")
        assert (over.reason, over.detail["ended_by"]) == ("shift_over", "")
        assert (await city.watch("wall", expect=403))["code"] == "nobody_on_duty"


async def test_duty_outlives_a_restart_and_its_end_is_not_forgotten(tmp_path, database_url):
    clock = Clock()
    async with open_city(tmp_path, url=database_url, clock=clock) as city:
        await _furnish(city)
        await _sign_on(city, "urban-operator", hours=1)
        await _look(city, await city.worker())
        tokens = dict(city.tokens)
    async with open_city(tmp_path, url=database_url, clock=clock) as city:
        city.tokens.update(tokens)
        assert (await city.call("wall", "GET", "/me"))["on_duty"]["person_name"] == "urban-operator 姓名"
        await city.watch("wall")
        clock.advance(3600)
        (over,) = await city.recorded(kind="duty_end")
        assert over.actor_id == "urban-operator"


async def test_a_restart_in_between_knows_who_looked(tmp_path):
    """Killed between the handover's commit and the end of the pictures: they end as the former person's."""
    import sqlalchemy as sa

    from gateway.store.schema import viewer_sessions

    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await _furnish(city)
        await _sign_on(city, "urban-operator")
        session = (await city.watch("wall"))["id"]
        await city.call("wall", "DELETE", "/duty")
        await city.recorded(kind="session_end", session_id=session)

        async def revive(work):
            await work.conn.execute(
                sa.update(viewer_sessions)
                .where(viewer_sessions.c.id == session)
                .values(state="opened", ended_at=None, end_reason=None)
            )

        await city.services.store.run(revive)
    async with open_city(tmp_path, clock=clock) as city:
        ends = await city.recorded(2, kind="session_end", session_id=session)
        assert (ends[1].actor_id, ends[1].reason) == ("urban-operator", "duty_over")
        assert ends[1].detail["end_detail"] == "signed_off"


@pytest.mark.parametrize("who", ["urban-operator", "wall"])
async def test_a_disabled_account_is_on_duty_nowhere(tmp_path, who):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        worker = await city.worker()
        await _sign_on(city, "urban-operator")
        session = await _look(city, worker)
        await city.call("root", "PATCH", f"/users/{who}", {"enabled": False})
        told = await worker.ended(session)
        assert (told.reason, told.detail, told.by) == ("duty_over", "account_disabled", "City 市")
        (over,) = await city.records(kind="duty_end")
        assert over.reason == "account_disabled"
        assert over.detail["ended_by"] != "urban-operator"


@pytest.mark.parametrize("leave", ["login", "logout"])
async def test_the_wall_s_own_log_in_and_log_out_end_the_duty(tmp_path, leave):
    """Else whoever knows the wall's password would look under the name of who is on duty."""
    async with open_city(tmp_path) as city:
        await _furnish(city)
        worker = await city.worker()
        await _sign_on(city, "urban-operator")
        session = await _look(city, worker)
        if leave == "login":
            await city.login("wall")
        else:
            await city.call("wall", "POST", "/logout")
        told = await worker.ended(session)
        assert told.reason in {"duty_over", "logged_in_elsewhere"}
        (over,) = await city.records(kind="duty_end")
        assert over.reason == "logged_out"
        if leave == "login":
            assert (await city.watch("wall", expect=403))["code"] == "nobody_on_duty"


async def test_who_cannot_sign_on(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        await add_user(city, "urban-new", "urban", "operator", undertakes=False)
        for username, reason in (
            ("traffic-operator", "other_department"),
            ("root", "other_department"),
            ("wall", "not_a_person"),
            ("urban-new", "undertaking_required"),
        ):
            refused = await _sign_on(city, username, 422)
            assert (refused["code"], refused["reason"]) == ("duty_refused", reason)
        denied = await city.records(kind="decision", outcome="deny", resource="wall:wall")
        assert denied[0].actor_name == "traffic-operator 姓名"
        assert len(denied) == 4
        assert (await _sign_on(city, "urban-operator", 401, password="wrong"))[
            "code"
        ] == "invalid_credentials"
        assert (await _sign_on(city, "nobody", 401))["code"] == "invalid_credentials"
        await city.call("root", "PATCH", "/users/urban-operator", {"enabled": False})
        assert (await _sign_on(city, "urban-operator", 401))["code"] == "invalid_credentials"
        assert (await _sign_on(city, "rivers-operator", 403, by="traffic-operator"))[
            "code"
        ] == "access_denied"
        await city.call("traffic-operator", "DELETE", "/duty", expect=403)
        assert (await city.call("wall", "GET", "/duty"))["items"] == []


async def _furnish_with_a_giver(city):
    """Whoever administers `urban` may give on what `traffic` gave him, to the wall of `urban` too."""
    await _furnish(city)
    await city.grant("urban-admin", actions=["live:view", "camera:share"])


TO_THE_WALL = [
    {"kind": "user", "id": "wall"},
    {"kind": "department", "id": "urban"},
]


@pytest.mark.parametrize("subject", TO_THE_WALL, ids=lambda subject: subject["kind"])
async def test_who_is_on_duty_gives_the_wall_nothing(tmp_path, database_url, subject):
    async with open_city(tmp_path, url=database_url) as city:
        await _furnish_with_a_giver(city)
        body = {"subject": subject, "object": {"kind": "camera", "id": "gate"}, "actions": ["live:view"]}
        await _sign_on(city, "urban-admin")
        for address in ("/grants", "/grants?dry_run=true"):
            refused = await city.call("urban-admin", "POST", address, body, 422)
            assert (refused["code"], refused["reason"]) == ("grant_refused", "self_grant")
        elsewhere = body | {"subject": {"kind": "department", "id": "rivers"}}
        await city.call("urban-admin", "POST", "/grants", elsewhere)
        await _sign_on(city, "rivers-operator")
        await city.call("urban-admin", "POST", "/grants", body)


@pytest.mark.parametrize("subject", TO_THE_WALL, ids=lambda subject: subject["kind"])
async def test_who_gave_the_wall_access_is_not_on_duty_there(tmp_path, database_url, subject):
    clock = Clock()
    async with open_city(tmp_path, url=database_url, clock=clock) as city:
        await _furnish_with_a_giver(city)
        body = {"subject": subject, "object": {"kind": "camera", "id": "gate"}, "actions": ["live:view"]}
        until = (clock() + timedelta(hours=1)).isoformat()
        revoked = await city.call("urban-admin", "POST", "/grants", body)
        await city.call("urban-admin", "POST", "/grants", body | {"valid_to": until})
        refused = await _sign_on(city, "urban-admin", 422)
        assert (refused["code"], refused["reason"]) == ("duty_refused", "own_grant")
        (denied,) = await city.records(kind="decision", reason="own_grant")
        assert (denied.actor_id, denied.resource) == ("urban-admin", "wall:wall")
        await city.call("urban-admin", "DELETE", f"/grants/{revoked['id']}")
        await _sign_on(city, "urban-admin", 422)
        clock.advance(3600)
        await _sign_on(city, "urban-admin")


async def test_guessing_at_a_wall_is_throttled_as_at_the_door(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        for _ in range(5):
            await _sign_on(city, "urban-operator", 401, password="a-wrong-password")
        assert (await _sign_on(city, "urban-operator", 429))["code"] == "login_throttled"
        body = {"username": "urban-operator", "password": PASSWORD}
        assert (await city.call(None, "POST", "/login", body, 429))["code"] == "login_throttled"


async def test_how_long_a_shift_may_be(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        for hours, status in ((-1, 422), (0, 422), (0.001, 201), (12, 201), (12.001, 422)):
            await _sign_on(city, "urban-operator", status, hours=hours)
        naive = {"username": "urban-operator", "password": PASSWORD, "ends_at": "2026-01-05T09:00:00"}
        await city.call("wall", "POST", "/duty", naive, 422)


async def test_who_sees_who_is_on_duty(tmp_path):
    async with open_city(tmp_path) as city:
        await _furnish(city)
        await _sign_on(city, "urban-operator")
        for username, count in (
            ("urban-admin", 1),
            ("root", 1),
            ("traffic-admin", 0),
            ("urban-operator", 0),
            ("rivers-operator", 0),
        ):
            assert len((await city.call(username, "GET", "/duty"))["items"]) == count, username


async def test_a_duty_that_ended_a_moment_ago_opens_nothing(tmp_path):
    """The request was let in before the handover, and opens after it."""
    async with open_city(tmp_path) as city:
        await _furnish(city)
        await _sign_on(city, "urban-operator")
        before = await city.services.authentication.principal(city.tokens["wall"])
        await _sign_on(city, "rivers-operator")
        from gateway.enforcement import Circumstances, Purpose
        from gateway.problems import Problem
        from policies.access import Action

        circumstances = Circumstances(remote="", request_id="", purpose=Purpose(code="patrol", reference="r"))
        with pytest.raises(Problem) as refused:
            await city.services.sessions.open(before, "gate", Action.LIVE_VIEW, circumstances)
        assert refused.value.code == "nobody_on_duty"
        assert len(city.services.live) == 0
