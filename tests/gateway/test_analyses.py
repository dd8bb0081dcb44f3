"""Analyses: decided, started, taken up after a restart, ended with their session; and their events."""

import asyncio
import json
from datetime import timedelta

import sqlalchemy as sa
from support.controls import PATIENCE_SECONDS, Clock, add_user, open_city

from gateway.admission import AdmissionSettings
from gateway.analyses import AnalysisSettings
from gateway.clock import to_micros
from gateway.events import MAX_REGION_POINTS, EventSettings
from gateway.messages import AnalysisEvent, AnalysisState, StartAnalysis, StopAnalysis
from gateway.store.errors import StoreBusyError
from gateway.store.schema import viewer_sessions

BODY = {"camera": "gate", "analyser": "motion", "purpose": {"code": "analysis"}}
AT = 1_770_000_000_000_000


def _report(analysis, event="e1", camera="gate", **more):
    fields = {
        "kind": "motion", "started_at": AT, "ended_at": None,
        "region": [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5)], "score": 0.5,
    }  # fmt: skip
    return AnalysisEvent(analysis=analysis, camera=camera, event=event, **(fields | more))


async def _start(city, user="job", **more):
    return await city.call(user, "POST", "/analyses", {**BODY, **more})


async def _events(city, user="job", query=""):
    return (await city.call(user, "GET", f"/events{query}"))["items"]


async def test_an_analysis_is_a_use_like_any_other(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        assert (await city.call("job", "POST", "/analyses", BODY, 403))["reason"] == "no_matching_grant"
        await city.grant("job", actions=["frames:consume"])
        for change, code in (
            ({"purpose": None}, "purpose_required"),
            ({"purpose": {"code": "nope"}}, "purpose_unknown"),
            ({"purpose": {"code": "analysis", "x": 1}}, "invalid_field"),
            ({"analyser": "faces"}, "analyser_unknown"),
            ({"parameters": {"threshold": "high"}}, "invalid_field"),
            ({"parameters": {"x": 1}}, "invalid_field"),
            ({"period_seconds": 0.1}, "invalid_field"),
            ({"period_seconds": 3601}, "invalid_field"),
        ):
            assert (await city.call("job", "POST", "/analyses", {**BODY, **change}, 422))["code"] == code
        analysis = await _start(city, parameters={"threshold": 30}, period_seconds=0.5)
        started = await worker.wait_for(StartAnalysis)
        assert (started.analysis, started.session) == (analysis["id"], analysis["session"])
        assert (started.camera, started.analyser, started.period_seconds) == ("gate", "motion", 0.5)
        assert started.parameters == {"threshold": 30}
        assert len(city.services.live) == 1
        (start,) = await city.records(kind="session_start")
        (record,) = await city.records(kind="analysis_start")
        assert start.session_id == record.session_id == analysis["session"]
        assert (record.purpose_code, record.unit_name, record.actor_id) == ("analysis", "City 市", "job")


async def test_the_limit_of_analyses_holds_under_a_race(tmp_path):
    async with open_city(tmp_path, analyses=AnalysisSettings(total=3)) as city:
        await city.grant("job", actions=["frames:consume"])
        token = city.tokens["job"]
        answers = await asyncio.gather(
            *(city.request("POST", "/api/v1/analyses", token, json=BODY) for _ in range(9))
        )
        assert sorted(status for status, _, _ in answers) == [201] * 3 + [503] * 6
        assert len(city.services.live) == len(city.services.analyses.all()) == 3


async def test_analyses_are_not_what_a_person_watches(tmp_path):
    async with open_city(tmp_path, admission=AdmissionSettings(sessions_per_user=2)) as city:
        await city.grant("job", actions=["frames:consume"])
        for _ in range(4):
            await _start(city)
        body = {"camera": "gate", "purpose": {"code": "analysis"}, "action": "frames:consume"}
        for _ in range(2):
            await city.call("job", "POST", "/sessions", body)
        assert (await city.call("job", "POST", "/sessions", body, 503))["code"] == "limit_sessions_user"


async def test_it_ends_with_its_grant_at_once_and_is_recorded(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        grant = await city.grant("job", actions=["frames:consume"])
        analysis = await _start(city)
        await worker.wait_for(StartAnalysis)
        store, run = city.services.store, city.services.store.run

        async def failing(unit):
            raise StoreBusyError("full")

        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        # even while nothing can be written
        monkeypatch.setattr(store, "run", failing)
        stopped = await worker.wait_for(StopAnalysis)
        assert stopped.analysis == analysis["id"]
        monkeypatch.setattr(store, "run", run)
        (end,) = await city.recorded(kind="analysis_end")
        assert (end.reason, end.actor_name, end.purpose_code) == ("revoked", "job 姓名", "analysis")
        assert (end.camera_id, end.session_id) == ("gate", analysis["session"])
        await city.recorded(kind="session_end")
        assert (await city.call("job", "GET", "/analyses"))["items"] == []


DAY = 24 * 3600


async def _decided_until(city, analysis, moment):
    """Wait until the database has it, for a control that starts anew."""
    query = sa.select(viewer_sessions.c.decided_until).where(viewer_sessions.c.id == analysis["session"])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with city.services.store.read() as conn:
                if (await conn.execute(query)).scalar_one() == to_micros(moment):
                    return
            await asyncio.sleep(0.02)


async def test_it_ends_with_the_key_of_its_job_and_goes_on_with_a_new_one(tmp_path, database_url):
    clock = Clock()
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        await city.grant("job", actions=["frames:consume"])
        ended = await _start(city)
        clock.advance(89 * DAY)
        await city.login("root")
        await _decided_until(city, ended, clock() + timedelta(days=1))
        await city.call("root", "POST", "/users/job/key")
        await _decided_until(city, ended, clock() + timedelta(days=90))
        clock.advance(2 * DAY)
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        worker = await city.worker()
        await worker.wait_for(StartAnalysis)
        clock.advance(88 * DAY)
        assert (await worker.wait_for(StopAnalysis)).analysis == ended["id"]
        (end,) = await city.recorded(kind="session_end")
        assert (end.reason, end.detail["end_detail"], end.detail["ended_by"]) == (
            "expired",
            "principal_expired",
            "",
        )
        (record,) = await city.recorded(kind="analysis_end")
        assert (record.session_id, record.reason) == (ended["session"], "expired")
        assert city.services.analyses.all() == []


async def test_it_ends_with_the_account_of_its_job_or_of_who_answers_for_it(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        await add_user(city, "counter", "traffic", "job", job={"responsible_id": "traffic-operator"})
        for job, disabled in (("job", "job"), ("counter", "traffic-operator")):
            await city.grant(job, actions=["frames:consume"])
            analysis = await _start(city, job)
            await city.call("root", "PATCH", f"/users/{disabled}", {"enabled": False})
            await worker.wait_for(StopAnalysis, lambda stop, ended=analysis: stop.analysis == ended["id"])
            (end,) = await city.recorded(kind="session_end", session_id=analysis["session"])
            assert (end.reason, end.detail["end_detail"]) == ("revoked", "principal_disabled")


async def test_who_may_see_and_end_it(tmp_path):
    async with open_city(tmp_path) as city:
        await city.worker()
        await city.grant("job", actions=["frames:consume"])
        analysis = await _start(city)
        path = f"/analyses/{analysis['id']}"
        for username, seen in (("job", 1), ("traffic-admin", 1), ("urban-admin", 0), ("urban-operator", 0)):
            assert len((await city.call(username, "GET", "/analyses"))["items"]) == seen
        await city.call("urban-operator", "DELETE", path, expect=403)
        await city.call("job", "DELETE", path)
        await city.call("job", "DELETE", path, expect=404)
        (end,) = await city.recorded(kind="analysis_end")
        assert end.reason == "ended"


async def test_it_survives_a_restart_of_control(tmp_path, database_url):
    clock = Clock()
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        await city.worker()
        await city.grant("job", actions=["frames:consume"])
        analysis = await _start(city, parameters={"threshold": 30})
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        worker = await city.worker()
        started = await worker.wait_for(StartAnalysis)
        assert (started.analysis, started.parameters) == (analysis["id"], {"threshold": 30})
        clock.advance(3600)
        assert [item["id"] for item in (await city.call("job", "GET", "/analyses"))["items"]] == [
            analysis["id"]
        ]
        await city.call("job", "DELETE", f"/analyses/{analysis['id']}")
        await worker.wait_for(StopAnalysis)
        await city.recorded(kind="analysis_end")
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        assert city.services.analyses.all() == []
        assert len(await city.records(kind="analysis_end")) == 1


async def test_one_without_a_session_is_ended_at_the_start(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant("job", actions=["frames:consume"])
        await _start(city)
        (session,) = city.services.live.all()
        await city.call("job", "DELETE", f"/sessions/{session.id}")
        await city.recorded(kind="session_end")
        await city.recorded(kind="analysis_end")
        await city.services.store.run(_reactivate)
    async with open_city(tmp_path, clock=clock) as city:
        ends = await city.records(kind="analysis_end")
        assert [end.reason for end in ends] == ["ended", "failed"]
        assert city.services.analyses.all() == []


async def _reactivate(work):
    from gateway.store.schema import analyses

    await work.conn.execute(analyses.update().values(state="active", ended_at=None))


async def test_it_moves_when_its_worker_goes_and_starts_again_when_it_returns(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        first, second = await city.worker(0, pid=1), await city.worker(1, pid=2)
        await _start(city)
        await first.wait_for(StartAnalysis)
        first.channel.abort()
        await second.wait_for(StartAnalysis)
        second = await city.worker(1, pid=3)
        await second.wait_for(StartAnalysis)
        first = await city.worker(0, pid=4)
        await first.settled()
        assert not [message for message in first.received if isinstance(message, StartAnalysis)]


async def test_it_waits_for_a_worker(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        await _start(city)
        city.clock.advance(3600)
        worker = await city.worker()
        await worker.wait_for(StartAnalysis)


async def test_what_it_achieves_is_told(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        analysis = await _start(city)
        worker.send(AnalysisState(analysis=analysis["id"], achieved_period_seconds=3.5, error="overloaded"))
        await worker.settled()
        (listed,) = (await city.call("job", "GET", "/analyses"))["items"]
        assert (listed["achieved_period_seconds"], listed["error"]) == (3.5, "overloaded")
        worker.send(AnalysisState(analysis="gone", achieved_period_seconds=1, error=None))
        assert (await worker.wait_for(StopAnalysis)).analysis == "gone"


async def test_events_are_kept_and_shown_to_who_may_watch(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        analysis = (await _start(city))["id"]
        for index in range(5):
            worker.send(_report(analysis, f"e{index}", score=index / 10))
        worker.send(_report(analysis, "e0", ended_at=AT + 2_500_000, score=0.9))
        await worker.settled()
        events = await _events(city)
        assert [event["score"] for event in events] == [0.4, 0.3, 0.2, 0.1, 0.9]
        assert events[-1]["ended_at"] == "2026-02-02T02:40:02.500000Z"
        assert events[-1]["region"] == [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]]
        page = await city.call("job", "GET", "/events?page_size=3")
        rest = await city.call("job", "GET", f"/events?page_size=3&before={page['next_before']}")
        assert [event["id"] for event in page["items"] + rest["items"]] == [event["id"] for event in events]
        assert rest["next_before"] is None
        assert await _events(city, query="?camera=bridge") == []
        assert await _events(city, "traffic-admin") == []  # manages the camera, and may not watch it
        await city.grant("urban-operator")
        assert len(await _events(city, "urban-operator")) == 5


async def test_who_may_watch_very_many_cameras_sees_the_same_events(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.events.FEW_CAMERAS", 1)
    async with open_city(tmp_path) as city:
        await city.grant("job", "gate", actions=["frames:consume"])
        await city.grant("job", "bridge", actions=["frames:consume"])
        await city.grant("urban-operator", "gate")
        worker = await city.worker()
        for camera in ("gate", "bridge"):
            analysis = (await _start(city, camera=camera))["id"]
            for index in range(4):
                worker.send(_report(analysis, f"e{index}", camera))
        await worker.settled()
        paged, before = [], ""
        while before is not None:
            page = await city.call("job", "GET", f"/events?page_size=3{before}")
            paged += [event["id"] for event in page["items"]]
            before = f"&before={page['next_before']}" if page["next_before"] else None
        assert len(paged) == len(set(paged)) == 8
        assert paged == sorted(paged, reverse=True)
        assert {event["camera"] for event in await _events(city, "urban-operator")} == {"gate"}


_WRONG_REPORTS = [
    {"analysis": "unknown"},
    {"camera": "bridge"},
    {"score": float("nan")},
    {"score": float("inf")},
    {"region": [(float("nan"), 0.0)]},
    {"region": [(0.0, 0.0)] * (MAX_REGION_POINTS + 1)},
    {"started_at": 2**62},
    {"ended_at": -(2**62)},
]


async def test_a_report_that_cannot_be_kept_costs_nothing_else(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        await city.grant("job", "bridge", actions=["frames:consume"])
        worker = await city.worker()
        analysis = (await _start(city))["id"]
        for wrong in _WRONG_REPORTS:
            worker.send(_report(**{"analysis": analysis, **wrong}))
        worker.send(_report(analysis, region=[(0.0, 0.0)] * MAX_REGION_POINTS))
        await worker.settled()
        assert len(await _events(city)) == 1


async def test_a_store_that_is_full_loses_the_event_and_not_the_worker(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        analysis = (await _start(city))["id"]

        async def failing(unit):
            raise StoreBusyError("full")

        with monkeypatch.context() as patched:
            patched.setattr(city.services.store, "run", failing)
            worker.send(_report(analysis, "lost"))
            await worker.settled()
        worker.send(_report(analysis, "kept"))
        await worker.settled()
        assert len(await _events(city)) == 1


async def test_open_events_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.events.MAX_OPEN_EVENTS", 3)
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        analysis = (await _start(city))["id"]
        for index in range(6):
            worker.send(_report(analysis, f"e{index}"))
        await worker.settled()
        assert len(city.services.events._open) == 3
        await city.call("job", "DELETE", f"/analyses/{analysis}")
        assert city.services.events._open == {}


async def test_old_events_are_forgotten(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        worker = await city.worker()
        analysis = (await _start(city))["id"]
        worker.send(_report(analysis, "old", ended_at=AT))
        await worker.settled()
        city.clock.advance(30 * 86400 - 1)
        worker.send(_report(analysis, "new", ended_at=AT))
        await worker.settled()
        city.clock.advance(1)
        await city.services.events.forget_old()
        await city.login("job")
        assert len(await _events(city)) == 2
        city.clock.advance(1)
        await city.services.events.forget_old()
        assert len(await _events(city)) == 1


async def test_events_stream_to_who_may_watch_until_he_may_not(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        grant = await city.grant("urban-operator")
        await city.grant("urban-operator", "bridge")
        worker = await city.worker()
        analysis = (await _start(city))["id"]
        async with (
            _stream(city, "urban-operator") as next_event,
            _stream(city, "traffic-operator") as nothing,
        ):
            worker.send(_report(analysis, "e1", score=0.25))
            event = await next_event()
            assert (event["camera"], event["score"]) == ("gate", 0.25)
            await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
            worker.send(_report(analysis, "e2"))
            await worker.settled()
            await city.grant("urban-operator")
            worker.send(_report(analysis, "e3", score=0.75))
            assert (await next_event())["score"] == 0.75
            await city.grant("traffic-operator")
            worker.send(_report(analysis, "e4", score=0.125))
            assert (await nothing())["score"] == 0.125


async def test_an_event_that_waits_is_dropped_when_its_reader_may_not_see_it_any_more(tmp_path):
    async with open_city(tmp_path) as city:
        allowed = {"gate", "bridge"}
        with city.services.events.listen(allowed.__contains__) as listener:
            for camera in ("gate", "bridge"):
                listener.offer(_event(camera))
            allowed.discard("gate")
            assert (await listener.next(5)).camera == "bridge"
            assert await listener.next(0.01) is None


async def test_a_stream_ends_with_its_log_in(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("job", actions=["frames:consume"])
        await city.grant("urban-operator")
        worker = await city.worker()
        analysis = (await _start(city))["id"]
        async with _stream(city, "urban-operator") as next_event:
            await city.call("urban-operator", "POST", "/logout")
            worker.send(_report(analysis))
            assert await next_event() is None


async def test_listeners_and_what_waits_for_them_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.events.MAX_QUEUED_EVENTS", 3)
    async with open_city(tmp_path, events=EventSettings(listeners=1)) as city:
        events = city.services.events
        with events.listen(lambda _: True) as listener:
            for number in range(5):
                listener.offer(_event("gate", number))
            assert [(await listener.next(5)).id for _ in range(3)] == [2, 3, 4]
        with events.listen(lambda _: True):
            problem = await city.call("root", "GET", "/events/stream", expect=503)
            assert problem["code"] == "limit_listeners"
        assert not events._listeners


def _event(camera, number=1):
    from gateway.clock import from_micros
    from gateway.events import Event

    return Event(
        id=number, analysis="a", camera=camera, kind="motion", started_at=from_micros(AT), ended_at=None,
        region=[], score=0.0,
    )  # fmt: skip


class _stream:  # noqa: N801 - used like a function
    """Listen to the event stream; calling what is entered gives the next event, None at its end."""

    def __init__(self, city, username):
        headers = {"Authorization": f"Bearer {city.tokens[username]}"}
        self._request = city.http.get("http://custos/api/v1/events/stream", headers=headers)

    async def __aenter__(self):
        self._answer = await self._request.__aenter__()
        assert self._answer.content_type == "text/event-stream"
        assert await self._answer.content.readline() == b": listening\n"
        return self._next

    async def __aexit__(self, *exc):
        self._answer.close()

    async def _next(self):
        async for line in self._answer.content:
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))
        return None


async def test_analysers_are_described(tmp_path):
    async with open_city(tmp_path) as city:
        analysers = {item["name"]: item for item in (await city.call("job", "GET", "/analysers"))["items"]}
        assert analysers["motion"]["description"]["zh"]
        assert json.dumps(analysers["motion"]["parameters"]).count("threshold")
