"""Priorities: when a limit is full, the lowest give way to the higher, are told why, and are recorded."""

import asyncio
from collections import Counter

import pytest
import sqlalchemy as sa
from support.controls import open_city

from gateway.admission import Admission, AdmissionSettings, PrioritySettings
from gateway.enforcement import Circumstances, Purpose
from gateway.live_session import EndReason
from gateway.messages import End, Refused
from gateway.problems import Problem
from gateway.store.schema import viewer_sessions
from policies.access import Action

PRIORITIES = PrioritySettings(roles={"department-administrator": 60}, purposes={"emergency": 90, "drill": 10})


async def _principal(city, username):
    return await city.services.authentication.principal(city.tokens[username])


async def _open(city, principal, camera="gate", purpose="patrol"):
    """As the API opens a session, but for the list of purposes; the code of the problem if there is one."""
    circumstances = Circumstances(remote="192.0.2.1", request_id="r", purpose=Purpose(code=purpose))
    try:
        opened = await city.services.sessions.open(principal, camera, Action.LIVE_VIEW, circumstances)
    except Problem as problem:
        return problem.code
    return opened.id


@pytest.mark.parametrize(
    ("roles", "purpose", "priority"),
    [
        ((), "patrol", 50),
        (("operator",), "patrol", 50),
        (("department-administrator", "operator"), "patrol", 60),
        (("operator",), "drill", 10),
        (("department-administrator",), "drill", 60),
        (("department-administrator",), "emergency", 90),
    ],
)
def test_the_highest_that_a_role_or_the_purpose_gives(roles, purpose, priority):
    admission = Admission(AdmissionSettings(priorities=PRIORITIES))
    assert admission.priority_of(roles, purpose) == priority


async def test_as_many_give_way_as_are_lower_under_a_race(tmp_path, database_url):
    settings = AdmissionSettings(sessions_total=8, sessions_per_user=1000, priorities=PRIORITIES)
    async with open_city(tmp_path, url=database_url, admission=settings) as city:
        for user in ("urban-operator", "traffic-operator"):
            await city.grant(user)
        low, high = [await _principal(city, name) for name in ("urban-operator", "traffic-operator")]
        above = [await _open(city, low, purpose="emergency") for _ in range(3)]
        below = [await _open(city, low) for _ in range(5)]
        found = await asyncio.gather(*(_open(city, high, purpose="emergency") for _ in range(200)))
        refused = Counter(code for code in found if code.startswith("limit_"))
        assert refused == {"limit_sessions_total": 195}
        ends = await city.recorded(5, kind="session_end")
        assert {end.session_id for end in ends} == set(below)
        assert {(end.reason, end.detail["end_detail"]) for end in ends} == {
            ("preempted", "limit_sessions_total")
        }
        opened = {session for session in found if not session.startswith("limit_")}
        assert {end.detail["ended_by"] for end in ends} == opened
        await city.until(lambda: len(city.services.live) == 8)
        assert {session.id for session in city.services.live.all()} == opened | set(above)
        assert b'custos_sessions_ended_total{reason="preempted"} 5.0' in city.services.metrics.text()


async def test_the_viewer_is_told_and_the_newest_of_the_lowest_goes_first(tmp_path):
    settings = AdmissionSettings(sessions_per_camera=3, priorities=PRIORITIES)
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        await city.grant("urban-operator", "bridge")
        drill = {"code": "drill", "text": {"zh": "演练", "en": "Drill"}}
        await city.call("security", "POST", "/purposes", drill)
        worker = await city.worker()
        elsewhere = await city.watch("urban-operator", "bridge", purpose="drill")
        held = []
        for purpose in ("drill", "patrol", "drill"):
            city.clock.advance(0.001)
            held.append(await city.watch("urban-operator", purpose=purpose))
            await worker.start(held[-1])
        listed = (await city.call("urban-operator", "GET", "/sessions"))["items"]
        assert sorted(entry["priority"] for entry in listed) == [10, 10, 10, 50]
        assert (await city.watch("urban-operator", expect=503, purpose="drill"))[
            "code"
        ] == "limit_sessions_camera"
        for victim in (held[2], held[0]):
            await city.watch("urban-operator")
            end = await worker.ended(victim["id"])
            detail = "limit_sessions_camera"
            assert end == End(session=victim["id"], reason="preempted", detail=detail, by="urban")
        assert (await city.watch("urban-operator", expect=503))["code"] == "limit_sessions_camera"
        left = {session.id for session in city.services.live.all() if session.ending is None}
        assert {elsewhere["id"], held[1]["id"]} < left
        assert len(left) == 4


async def test_as_many_as_the_bandwidth_needs_and_none_if_they_do_not_suffice(tmp_path):
    settings = AdmissionSettings(bandwidth_bps=20_000_000, priorities=PRIORITIES)
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        principal = await _principal(city, "urban-operator")
        urgent = [await _open(city, principal, purpose="emergency") for _ in range(2)]
        routine = [await _open(city, principal, purpose="patrol") for _ in range(3)]  # 20 Mbit/s: full
        rates = iter([13_000_000, 9_000_000])
        city.services.sessions._bit_rate = lambda _: next(rates)
        assert await _open(city, principal, purpose="emergency") == "limit_bandwidth"
        assert len(city.services.live) == 5
        opened = await _open(city, principal, purpose="emergency")
        ends = await city.recorded(3, kind="session_end")
        assert {end.session_id for end in ends} == set(routine)
        await city.until(lambda: len(city.services.live) == 3)
        assert {session.id for session in city.services.live.all()} == {*urgent, opened}


async def test_a_unit_that_is_rolled_back_ends_nobody(tmp_path, monkeypatch):
    settings = AdmissionSettings(sessions_total=1, priorities=PRIORITIES)
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        principal = await _principal(city, "urban-operator")
        low = await _open(city, principal)
        insert = city.services.sessions.insert

        async def failing(work, grant, **options):
            await insert(work, grant, **options)
            raise Problem("conflict")

        monkeypatch.setattr(city.services.sessions, "insert", failing)
        assert await _open(city, principal, purpose="emergency") == "conflict"
        assert [session.ending for session in city.services.live.all()] == [None]
        async with city.services.store.read() as conn:
            rows = await conn.execute(sa.select(viewer_sessions.c.id, viewer_sessions.c.preempted_at))
            assert rows.all() == [(low, None)]


async def test_an_analysis_gives_way_to_nobody_and_nobody_to_it(tmp_path):
    settings = AdmissionSettings(sessions_total=2, priorities=PrioritySettings(purposes={"patrol": 90}))
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("job", actions=["frames:consume"])
        await city.grant("urban-operator")
        analysis = {
            "camera": "gate",
            "analyser": "motion",
            "purpose": {"code": "patrol", "reference": "roster"},
        }
        await city.call("job", "POST", "/analyses", analysis, 201)
        low = await _open(city, await _principal(city, "urban-operator"), purpose="other")
        refused = await city.call("job", "POST", "/analyses", analysis, 503)
        assert (refused["code"], refused["running"]) == ("limit_sessions_total", 2)
        high = await city.watch("urban-operator")
        await city.recorded(kind="session_end", session_id=low)
        assert (await city.watch("urban-operator", expect=503))["code"] == "limit_sessions_total"
        assert {session.unattended for session in city.services.live.all()} == {True, False}
        assert city.services.live.get(high["id"]) is not None


async def test_who_gave_way_before_a_restart_is_ended_after_it(tmp_path, monkeypatch):
    settings = AdmissionSettings(sessions_total=1, priorities=PRIORITIES)
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        principal = await _principal(city, "urban-operator")
        low = await _open(city, principal)
        # control dies between the commit and the end
        monkeypatch.setattr(city.services.live, "end", lambda *_, **__: None)
        high = await _open(city, principal, purpose="emergency")
        city.services.live._sessions.clear()
    async with open_city(tmp_path, admission=settings) as city:
        (end,) = await city.recorded(kind="session_end", session_id=low)
        assert (end.reason, end.detail["ended_by"]) == ("preempted", high)
        assert city.services.live.get(high).ending is None


async def test_a_place_that_was_given_away_gets_no_new_ticket(tmp_path, monkeypatch):
    settings = AdmissionSettings(sessions_total=1, priorities=PRIORITIES)
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        principal = await _principal(city, "urban-operator")
        low = await _open(city, principal)
        monkeypatch.setattr(city.services.live, "end", lambda *_, **__: None)
        await _open(city, principal, purpose="emergency")
        problem = await city.call("urban-operator", "POST", f"/sessions/{low}/ticket", expect=409)
        assert problem["code"] == "session_over"
        monkeypatch.undo()


async def test_a_redemption_under_way_does_not_keep_a_session_from_its_end(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        await city.grant()
        first, second = await city.worker(0), await city.worker(1)
        opened = await city.watch("urban-operator")
        await first.start(opened)
        renewed = await city.call("urban-operator", "POST", f"/sessions/{opened['id']}/ticket")
        # as a real worker: it has no such session any more, and says nothing
        first.obedient = False
        live, tickets = city.services.live, city.services.tickets
        activate = tickets._activate

        def ended_meanwhile(session, worker, *, keeps_ticket):
            live.end(session.id, EndReason.ENDED)
            activate(session, worker, keeps_ticket=keeps_ticket)

        monkeypatch.setattr(tickets, "_activate", ended_meanwhile)
        assert isinstance(await second.redeem(opened["id"], renewed["media"]["ticket"]), Refused)
        city.clock.advance(10)
        await city.until(lambda: live.get(opened["id"]) is None)
