"""A picture that nobody confirms ends; its viewer alone confirms; an analysis has nobody to ask."""

from datetime import datetime, timedelta

import pytest
from support.controls import PATROL, open_city

from gateway.sessions import CONFIRM_GRAIN, SessionSettings

EXTENT = timedelta(minutes=30)


async def _started(city, user="urban-operator", **more):
    opened = await city.watch(user, **more)
    await city.workers[0].start(opened)
    return opened


async def _open(city, **grant):
    await city.grant(**grant)
    city.workers = [await city.worker()]


async def _confirm(city, session, user="urban-operator", expect=None):
    return await city.call(user, "POST", f"/sessions/{session}/confirm", expect=expect)


async def test_a_picture_ends_when_nobody_confirms_it(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await _open(city)
        opened = await _started(city)
        assert datetime.fromisoformat(opened["confirm_by"]) == city.clock.now + EXTENT
        city.clock.advance(EXTENT.total_seconds() - 60)
        confirmed = await _confirm(city, opened["id"])
        by = datetime.fromisoformat(confirmed["confirm_by"])
        assert by == city.clock.now + EXTENT
        (item,) = (await city.call("traffic-admin", "GET", "/sessions"))["items"]
        assert datetime.fromisoformat(item["confirm_by"]) == by
        city.clock.advance(EXTENT.total_seconds() - 0.001)
        await city.workers[0].settled()
        assert city.services.live.get(opened["id"]).ending is None
        city.clock.advance(0.001)
        assert (await city.workers[0].ended(opened["id"])).reason == "unconfirmed"
        (end,) = await city.recorded(kind="session_end", session_id=opened["id"])
        assert (end.reason, end.owner_id) == ("unconfirmed", "traffic")
        (record,) = await city.records(kind="session_confirmed")
        assert (record.actor_id, record.session_id) == ("urban-operator", opened["id"])
        assert record.purpose_reference == PATROL["reference"]
        await _confirm(city, opened["id"], expect=404)


async def test_confirming_at_once_again_records_nothing(tmp_path):
    async with open_city(tmp_path) as city:
        await _open(city)
        opened = await _started(city)
        grain = EXTENT / CONFIRM_GRAIN
        for seconds, records in ((0, 0), (grain.total_seconds(), 0), (0.001, 1), (1, 1)):
            city.clock.advance(seconds)
            await _confirm(city, opened["id"])
            assert len(await city.records(kind="session_confirmed")) == records


async def test_only_its_viewer_confirms(tmp_path):
    async with open_city(tmp_path) as city:
        await _open(city)
        opened = await _started(city)
        for other in ("traffic-admin", "root", "traffic-operator"):
            await _confirm(city, opened["id"], other, 404)


async def test_a_session_that_is_ending_is_confirmed_no_more(tmp_path):
    async with open_city(tmp_path) as city:
        await _open(city)
        opened = await _started(city)
        city.workers[0].obedient = False
        await city.call("traffic-admin", "DELETE", f"/sessions/{opened['id']}")
        assert (await _confirm(city, opened["id"], expect=409))["code"] == "session_over"


async def test_jobs_and_analyses_are_not_asked(tmp_path):
    async with open_city(tmp_path) as city:
        await _open(city, user="job", actions=["frames:consume"])
        purpose = {"code": "analysis"}
        body = {"camera": "gate", "action": "frames:consume", "purpose": purpose}
        opened = await city.call("job", "POST", "/sessions", body)
        assert opened["confirm_by"] is None
        assert await _confirm(city, opened["id"], "job") == {"confirm_by": None}
        body = {"camera": "gate", "analyser": "motion", "purpose": purpose}
        analysis = await city.call("job", "POST", "/analyses", body)
        assert city.services.live.get(analysis["session"]).confirm_by is None


async def test_an_installation_may_do_without(tmp_path):
    async with open_city(tmp_path, sessions=SessionSettings(confirm_seconds=0)) as city:
        await _open(city)
        assert (await city.watch("urban-operator"))["confirm_by"] is None


async def test_a_restart_keeps_the_time(tmp_path):
    async with open_city(tmp_path) as city:
        await _open(city)
        opened = await _started(city)
        clock = city.clock
        city.services.live._sessions.clear()  # as if killed: nothing is drained
    clock.advance(10)
    async with open_city(tmp_path, clock=clock) as city:
        restored = city.services.live.get(opened["id"])
        assert restored.confirm_by == datetime.fromisoformat(opened["confirm_by"])
        assert restored.owner_id == "traffic"


@pytest.mark.parametrize(("purpose", "setting", "seconds"), [(60, 120, 60), (300, 120, 120)])
async def test_a_purpose_may_end_a_picture_earlier(tmp_path, purpose, setting, seconds):
    async with open_city(tmp_path, sessions=SessionSettings(max_duration_seconds=setting)) as city:
        await _open(city)
        await city.call("security", "PATCH", "/purposes/patrol", {"max_seconds": purpose})
        opened = await city.watch("urban-operator")
        expected = city.clock.now + timedelta(seconds=seconds)
        assert datetime.fromisoformat(opened["expires_at"]) == expected


async def test_a_purpose_that_ends_ends_an_analysis_for_it(tmp_path):
    async with open_city(tmp_path) as city:
        await _open(city, user="job", actions=["frames:consume"])
        found = []
        for purpose in (PATROL, {"code": "analysis"}):
            body = {"camera": "gate", "analyser": "motion", "purpose": purpose}
            analysis = await city.call("job", "POST", "/analyses", body)
            found.append(city.services.live.get(analysis["session"]).expires_at)
        assert found == [city.clock.now + timedelta(hours=8), None]
