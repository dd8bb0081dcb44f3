"""Limits under a race: the writer runs one unit at a time, so exactly as many open as may."""

import asyncio
import json
from collections import Counter

import pytest
from support.controls import add_camera, add_user, open_city

from gateway.admission import DEFAULT_CAMERA_BPS, AdmissionSettings, PrioritySettings
from gateway.enforcement import Circumstances, Purpose
from gateway.messages import CameraReport, Usage
from gateway.problems import Problem
from gateway.settings import SettingsError, parse_settings
from policies.access import Action


async def _race(city, openings):
    """Open all at once; return how many came out how."""

    async def open_one(username, camera):
        token = city.tokens[username]
        body = {"camera": camera, "purpose": {"code": "patrol", "reference": "roster"}}
        _, _, text = await city.request("POST", "/api/v1/sessions", token, json=body)
        return "opened" if '"ticket"' in text else text.partition('"code":"')[2].partition('"')[0]

    return Counter(await asyncio.gather(*(open_one(*opening) for opening in openings)))


@pytest.mark.parametrize("limit", [1, 20])
async def test_the_global_limit_holds_under_a_race(tmp_path, database_url, limit):
    settings = AdmissionSettings(sessions_total=limit, sessions_per_user=1000)
    async with open_city(tmp_path, url=database_url, admission=settings) as city:
        for user in ("urban-operator", "traffic-operator", "job"):
            await city.grant(user)
        users = ("urban-operator", "traffic-operator", "job")
        outcomes = await _race(city, [(user, "gate") for user in users for _ in range(limit)])
        assert outcomes == {"opened": limit, "limit_sessions_total": 2 * limit}
        assert len(city.services.live) == limit
        # a slot that is free again is taken again
        worker = await city.worker()
        session = next(iter(city.services.live.all())).id
        await city.call("traffic-admin", "DELETE", f"/sessions/{session}")
        await city.until(lambda: len(city.services.live) == limit - 1)
        assert await _race(city, [("job", "gate")] * 3) == {"opened": 1, "limit_sessions_total": 2}
        assert worker.received


async def test_the_limit_per_user_holds_under_a_race_and_harms_nobody_else(tmp_path, database_url):
    async with open_city(
        tmp_path, url=database_url, admission=AdmissionSettings(sessions_per_user=4)
    ) as city:
        await city.grant("urban-operator")
        await city.grant("traffic-operator")
        users = ("urban-operator", "traffic-operator")
        outcomes = await _race(city, [(user, "gate") for _ in range(12) for user in users])
        assert outcomes == {"opened": 8, "limit_sessions_user": 16}
        held = Counter(session.user_id for session in city.services.live.all())
        assert held == {"urban-operator": 4, "traffic-operator": 4}


async def test_bandwidth_is_reserved_by_measure_else_declaration_else_default(tmp_path):
    settings = AdmissionSettings(bandwidth_bps=10_000_000)
    async with open_city(tmp_path, admission=settings) as city:
        await add_camera(city, "declared", declared_bandwidth_bps=6_000_000)
        for camera in ("gate", "declared", "bridge"):
            await city.grant(camera=camera)
        await city.watch("urban-operator", "gate")  # 4 Mbit/s
        await city.watch("urban-operator", "declared")  # to the limit exactly
        assert (await city.watch("urban-operator", "bridge", 503))["code"] == "limit_bandwidth"
        worker = await city.worker()
        worker.send(Usage(sessions=[], cameras=[_report("bridge", 1)]))
        await worker.settled()
        assert (await city.watch("urban-operator", "bridge", 503))["code"] == "limit_bandwidth"
        for session in list(city.services.live.all()):
            await city.call("urban-operator", "DELETE", f"/sessions/{session.id}")
        await city.until(lambda: not len(city.services.live))
        worker.send(Usage(sessions=[], cameras=[_report("bridge", 10_000_000)]))
        await worker.settled()
        await city.watch("urban-operator", "bridge")
        assert (await city.watch("urban-operator", "gate", 503))["code"] == "limit_bandwidth"


async def test_growth_of_bandwidth_ends_nothing(tmp_path):
    async with open_city(tmp_path, admission=AdmissionSettings(bandwidth_bps=10_000_000)) as city:
        await city.grant()
        worker = await city.worker()
        await worker.start(await city.watch("urban-operator"))
        worker.send(Usage(sessions=[], cameras=[_report("gate", 900_000_000)]))
        await worker.settled()
        assert (await city.watch("urban-operator", "gate", 503))["code"] == "limit_bandwidth"
        assert len(city.services.live) == 1


LIMITS = {
    "limit_sessions_total": AdmissionSettings(sessions_total=20, sessions_per_user=1000),
    "limit_sessions_user": AdmissionSettings(sessions_per_user=20),
    "limit_sessions_department": AdmissionSettings(
        sessions_per_user=1000, sessions_per_department=500, departments={"urban": 20}
    ),
    "limit_sessions_role": AdmissionSettings(sessions_per_user=1000, roles={"operator": 20}),
    "limit_sessions_camera": AdmissionSettings(
        sessions_per_user=1000, sessions_per_camera=500, cameras={"gate": 20}
    ),
    "limit_bandwidth": AdmissionSettings(sessions_per_user=1000, bandwidth_bps=20 * DEFAULT_CAMERA_BPS),
}


@pytest.mark.parametrize("code", LIMITS)
async def test_one_of_two_hundred_passes_at_limit_minus_one(tmp_path, database_url, code):
    async with open_city(tmp_path, url=database_url, admission=LIMITS[code]) as city:
        await city.grant("urban-operator")
        await city.grant("urban-operator", "bridge")
        await city.grant("job")
        services = city.services
        principal = await services.authentication.principal(city.tokens["urban-operator"])
        other = await services.authentication.principal(city.tokens["job"])
        declared = Circumstances(remote="192.0.2.1", request_id="r", purpose=Purpose(code="patrol"))

        async def open_one(who=principal, camera="gate"):
            try:
                await services.sessions.open(who, camera, Action.LIVE_VIEW, declared)
            except Problem as problem:
                return problem.code, problem.status, problem.running, problem.headers.get("Retry-After")
            return "opened"

        assert set(await asyncio.gather(*(open_one() for _ in range(19)))) == {"opened"}
        outcomes = Counter(await asyncio.gather(*(open_one() for _ in range(200))))
        unit = DEFAULT_CAMERA_BPS if code == "limit_bandwidth" else 1
        assert outcomes == {"opened": 1, (code, 503, 20 * unit, "5"): 199}
        assert len(services.live) == 20
        # whom the limit is not about, it does not stop
        is_stopped = await open_one(other) != "opened"
        assert is_stopped == (code in {"limit_sessions_total", "limit_bandwidth", "limit_sessions_camera"})
        is_stopped = await open_one(camera="bridge") != "opened"
        assert is_stopped == (code != "limit_sessions_camera")


@pytest.mark.parametrize(
    "admission",
    [
        {"roles": {"operator": -1}}, {"departments": {"urban": 1.5}}, {"cameras": {"gate": None}},
        {"waiting": -1}, {"sessions_per_role": -1}, {"priorities": {"roles": {"operator": 101}}},
        {"priorities": {"purposes": {"patrol": -1}}}, {"priorities": {"users": {}}}, {"roles": []},
    ],
)  # fmt: skip
def test_bounds_and_priorities_that_cannot_be(admission):
    with pytest.raises(SettingsError):
        parse_settings({"admission": admission})


def test_bounds_and_priorities_at_their_limits():
    settings = parse_settings(
        {"admission": {"roles": {"operator": 0}, "priorities": {"roles": {"a": 0}, "purposes": {"b": 100}}}}
    ).admission
    assert settings.priorities == PrioritySettings(roles={"a": 0}, purposes={"b": 100})


@pytest.mark.parametrize(
    "settings",
    [
        AdmissionSettings(roles={"oprator": 5}),
        AdmissionSettings(priorities=PrioritySettings(roles={"oprator": 5})),
    ],
)
async def test_a_role_that_does_not_exist_stops_the_start(tmp_path, settings):
    with pytest.raises(ExceptionGroup) as caught:
        async with open_city(tmp_path, furnish=False, admission=settings):
            pass
    assert caught.group_contains(SettingsError, match="oprator")


async def test_zero_means_no_bound_of_departments_roles_and_cameras(tmp_path):
    settings = AdmissionSettings(sessions_per_department=1, departments={"urban": 0}, roles={"operator": 0})
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        for _ in range(3):
            await city.watch("urban-operator")


async def test_a_problem_says_how_full_the_limit_is_and_not_who_watches(tmp_path):
    async with open_city(tmp_path, admission=AdmissionSettings(roles={"operator": 1})) as city:
        await city.grant("urban-operator")
        await city.grant("traffic-operator")
        await city.watch("urban-operator")
        status, headers, text = await city.request(
            "POST",
            "/api/v1/sessions",
            city.tokens["traffic-operator"],
            json={"camera": "gate", "purpose": {"code": "patrol", "reference": "roster"}},
        )
        problem = json.loads(text)
        assert (status, headers["Retry-After"], problem["running"], problem["bound"]) == (503, "5", 1, 1)
        assert (problem["code"], problem["detail"]) == (
            "limit_sessions_role",
            "1 of 1 sessions running of operator",
        )
        assert "urban" not in text
        metrics = city.services.metrics.text().decode()
        for line in (
            'custos_limit_running{limit="limit_sessions_role",name="operator"} 1.0',
            'custos_limit_bound{limit="limit_sessions_role",name="operator"} 1.0',
            'custos_limit_running{limit="limit_sessions_total",name=""} 1.0',
            'custos_limit_running{limit="limit_bandwidth",name=""} 4e+06',
            'custos_limit_running{limit="limit_sessions_user",name=""} 1.0',
            'custos_sessions_ended_total{reason="preempted"} 0.0',
            "custos_waiting 0.0",
        ):
            assert line in metrics, metrics
        assert "urban-operator" not in metrics


async def test_a_refused_opening_leaves_its_decision_and_nothing_else(tmp_path):
    async with open_city(tmp_path, admission=AdmissionSettings(sessions_total=0)) as city:
        await add_user(city, "another", "urban", "operator")
        await city.grant("another")
        await city.watch("another", "gate", 503)
        decisions = await city.records(kind="decision", actor_id="another")
        assert [decision.outcome for decision in decisions] == ["allow"]
        assert await city.records(kind="session_start") == []
        assert len(city.services.live) == 0


def _report(camera, bit_rate):
    return CameraReport(stream=camera, state="live", bit_rate_bps=bit_rate)
