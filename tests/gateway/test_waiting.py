"""Waiting for a place: in order, one at a time, past a limit that is full for others, and never for long."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.controls import PATIENCE_SECONDS, open_city

from gateway.admission import AdmissionSettings, Limit, LimitKind, LimitProblem, PrioritySettings
from gateway.enforcement import Purpose
from gateway.live_session import LiveSession, SessionState
from gateway.problems import Problem
from gateway.waiting import MAX_WAIT_SECONDS, WaitingRoom
from policies.access import Action

GATE, BRIDGE = Limit(LimitKind.CAMERA, "gate"), Limit(LimitKind.CAMERA, "bridge")
TOTAL = Limit(LimitKind.TOTAL)


def _ended(camera="gate"):
    return LiveSession(
        id="0" * 32, user_id="ann", user_name="", unit_id="police", unit_name="", camera_id=camera,
        action=Action.LIVE_VIEW, purpose=Purpose(code="patrol"), rule=None, revision=1,
        opened_at=datetime(2026, 1, 5, tzinfo=UTC), state=SessionState.ENDED, deadline=None, expires_at=None,
    )  # fmt: skip


class Places:
    """So many places of each limit, and who asked for them, in order."""

    def __init__(self, room):
        self.room = room
        self.free = {GATE: 0, BRIDGE: 0, TOTAL: 0}
        self.asked = []
        self.asking = 0

    async def _take(self, name, limit):
        self.asking += 1
        assert self.asking == 1, "one at a time"
        self.asked.append(name)
        await asyncio.sleep(0)
        self.asking -= 1
        if not self.free[limit]:
            raise LimitProblem(limit, 1, 1)
        self.free[limit] -= 1
        return name

    async def ask(self, name, limit, priority=50, seconds=PATIENCE_SECONDS, user="ann"):
        async def attempt(is_first):
            if is_first:
                raise LimitProblem(limit, 1, 1)
            return await self._take(name, limit)

        return await self.room.ask(attempt, user, priority, seconds)

    def give(self, limit):
        self.free[limit] += 1
        self.room.session_over(_ended(limit.name))


async def _quiet():
    """Everybody who may ask has asked: each needs a few turns of the loop."""
    for _ in range(100):
        await asyncio.sleep(0)


async def _settled(room, count):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(room) != count:
            await asyncio.sleep(0)


async def test_the_highest_priority_is_first_and_among_equals_who_came_first():
    room = WaitingRoom(10, 1000)
    places = Places(room)
    async with asyncio.TaskGroup() as tasks:
        for name, priority in (("a", 50), ("b", 90), ("c", 50), ("d", 90)):
            tasks.create_task(places.ask(name, GATE, priority))
            await _settled(room, len(room) + 1)
        for left in (3, 2, 1, 0):
            places.give(GATE)
            await _settled(room, left)
            await _quiet()
    # who took a place lets the next one ask, who finds none
    assert places.asked == ["b", "d", "d", "a", "a", "c", "c"]


async def test_a_full_camera_holds_up_nobody_who_waits_for_another_limit():
    room = WaitingRoom(10, 1000)
    places = Places(room)
    async with asyncio.TaskGroup() as tasks:
        stuck = tasks.create_task(places.ask("head", BRIDGE, 100))
        await _settled(room, 1)
        rest = [tasks.create_task(places.ask(name, TOTAL)) for name in ("x", "y")]
        await _settled(room, 3)
        places.free[TOTAL] = 1
        room.session_over(_ended("bridge"))
        await _quiet()
        assert places.asked == ["head", "x", "y"]
        assert [task.done() for task in (stuck, *rest)] == [False, True, False]
        places.free[TOTAL] = 1
        room.session_over(_ended("gate"))  # the head waits for another camera and is not asked
        await _quiet()
        assert places.asked == ["head", "x", "y", "y"]
        places.give(BRIDGE)


async def test_an_end_costs_one_attempt_per_limit_and_not_one_per_waiter():
    room = WaitingRoom(100, 1000)
    places = Places(room)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(places.ask(n, (GATE, TOTAL)[n % 2])) for n in range(100)]
        await _settled(room, 100)
        room.session_over(_ended("gate"))
        await _quiet()
        assert places.asked == [0, 1]
        for task in waiting:
            task.cancel()
    assert len(room) == 0


async def test_a_place_given_back_while_the_refusal_was_on_its_way_is_not_missed():
    room = WaitingRoom(10, 1000)

    async def attempt(is_first):
        if is_first:
            room.session_over(_ended())
            raise LimitProblem(GATE, 1, 1)
        return "taken"

    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await room.ask(attempt, "ann", 50, MAX_WAIT_SECONDS) == "taken"


async def test_a_place_given_back_while_a_later_refusal_was_on_its_way_is_not_missed():
    room = WaitingRoom(10, 1000)
    attempts = []

    async def attempt(is_first):
        attempts.append(is_first)
        if len(attempts) == 3:
            return "taken"
        if len(attempts) == 2:
            room.session_over(_ended("gate"))
            raise LimitProblem(GATE, 1, 1)
        raise LimitProblem(BRIDGE, 1, 1)

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(room.ask(attempt, "ann", 50, MAX_WAIT_SECONDS))
        await _settled(room, 1)
        room.session_over(_ended("bridge"))
        assert await waiting == "taken"
    assert attempts == [True, False, False]


async def test_who_leaves_with_the_turn_passes_it_on():
    room = WaitingRoom(10, 1000)
    places = Places(room)
    reached = asyncio.Event()

    async def hanging(is_first):
        if is_first:
            raise LimitProblem(GATE, 1, 1)
        reached.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(room.ask(hanging, "ann", 90, PATIENCE_SECONDS))
        await _settled(room, 1)
        second = tasks.create_task(places.ask("second", GATE))
        await _settled(room, 2)
        places.give(GATE)
        await reached.wait()
        assert places.asked == []
        first.cancel()
        assert await second == "second"
    assert len(room) == 0


async def test_what_else_an_attempt_raises_ends_the_waiting_and_passes_the_turn_on():
    room = WaitingRoom(10, 1000)
    places = Places(room)

    async def revoked(is_first):
        raise LimitProblem(GATE, 1, 1) if is_first else Problem("access_denied")

    async def refused():
        with pytest.raises(Problem) as caught:
            await room.ask(revoked, "ann", 90, PATIENCE_SECONDS)
        assert caught.value.code == "access_denied"

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(refused())
        await _settled(room, 1)
        second = tasks.create_task(places.ask("second", GATE))
        await _settled(room, 2)
        places.give(GATE)
        assert await second == "second"


async def test_the_time_is_over_with_the_limit_that_was_full():
    room = WaitingRoom(10, 1000)
    for seconds in (0, 0.01):
        with pytest.raises(LimitProblem) as caught:
            await Places(room).ask("a", GATE, seconds=seconds)
        assert caught.value.limit == GATE
    assert len(room) == 0


async def test_who_is_more_urgent_takes_the_last_one_s_place_in_a_full_room():
    room = WaitingRoom(2, 1000)
    places = Places(room)

    async def code_of(coroutine):
        with pytest.raises(Problem) as caught:
            await coroutine
        return caught.value.code

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(places.ask("first", GATE))
        await _settled(room, 1)
        last = tasks.create_task(code_of(places.ask("last", GATE)))
        await _settled(room, 2)
        assert await code_of(places.ask("equal", GATE)) == "limit_waiting"
        urgent = tasks.create_task(places.ask("urgent", GATE, 100))
        assert await last == "limit_waiting"
        await _settled(room, 2)
        for _ in range(2):
            places.give(GATE)
        assert (await urgent, await first) == ("urgent", "first")
    assert places.asked == ["urgent", "first"]
    assert len(room) == 0


async def test_nobody_fills_the_room_alone():
    room = WaitingRoom(10, 2)
    places = Places(room)
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(places.ask(name, GATE)) for name in "ab"]
        await _settled(room, 2)
        with pytest.raises(Problem) as caught:
            await places.ask("c", GATE)
        assert (caught.value.code, caught.value.bound) == ("limit_waiting", 2)
        other = tasks.create_task(places.ask("other", GATE, user="ben"))
        await _settled(room, 3)
        for _ in range(3):
            places.give(GATE)
        assert [await task for task in (*own, other)] == ["a", "b", "other"]


async def test_the_room_is_bounded_and_closes():
    room = WaitingRoom(2, 1000)
    places = Places(room)

    async def turned_away(name):
        with pytest.raises(Problem) as caught:
            await places.ask(name, GATE)
        return caught.value

    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(turned_away(name)) for name in "ab"]
        await _settled(room, 2)
        full = await turned_away("c")
        assert (full.code, full.status, full.running, full.bound) == ("limit_waiting", 503, 2, 2)
        assert full.headers == {"Retry-After": "5"}
        room.close()
    assert {task.result().code for task in waiting} == {"draining"}
    assert (await turned_away("d")).code == "draining"
    assert places.asked == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from([GATE, BRIDGE, TOTAL]), st.integers(0, 3)),
            st.tuples(st.just("give"), st.sampled_from([GATE, BRIDGE, TOTAL]), st.just(0)),
            st.tuples(st.just("leave"), st.just(None), st.integers(0, 10)),
        ),
        max_size=25,
    )
)
def test_no_place_stays_empty_while_somebody_waits_for_it(steps):
    asyncio.run(_play(steps))


async def _play(steps):
    room = WaitingRoom(100, 1000)
    places = Places(room)
    async with asyncio.TaskGroup() as tasks:
        waiting = {}
        for number, (step, limit, argument) in enumerate(steps):
            if step == "ask" and not places.free[limit]:
                waiting[tasks.create_task(places.ask(number, limit, argument))] = limit
            elif step == "give":
                places.give(limit)
            elif step == "leave" and len(waiting) > argument:
                list(waiting)[argument].cancel()
            await _quiet()
            waiting = {task: wanted for task, wanted in waiting.items() if not task.done()}
            assert len(room) == len(waiting)
            assert all(not places.free[wanted] for wanted in waiting.values())
        for task in waiting:
            task.cancel()


# ---- with a whole control ----------------------------------------------------------------------------------


async def test_a_place_that_is_given_back_goes_to_who_waits(tmp_path):
    async with open_city(tmp_path, admission=AdmissionSettings(sessions_per_camera=1)) as city:
        await city.grant("urban-operator")
        await city.grant("traffic-operator")
        held = await city.watch("urban-operator")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(city.watch("traffic-operator", expect=201, wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            assert b"custos_waiting 1.0" in city.services.metrics.text()
            await city.call("urban-operator", "DELETE", f"/sessions/{held['id']}")
            opened = await waiting
        worker = await city.worker()
        await worker.start(opened)
        assert len(city.services.waiting) == 0


async def test_the_higher_priority_is_served_first_whoever_came_first(tmp_path):
    priorities = PrioritySettings(roles={"job": 60, "department-administrator": 90})
    settings = AdmissionSettings(sessions_per_camera=1, priorities=priorities)
    async with open_city(tmp_path, admission=settings) as city:
        for user in ("urban-admin", "urban-operator", "job"):
            await city.grant(user)
        held = await city.watch("urban-admin")
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(city.watch("urban-operator", wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            second = tasks.create_task(city.watch("job", expect=201, wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 2)
            await city.call("urban-admin", "DELETE", f"/sessions/{held['id']}")
            opened = await second
            assert not first.done()
            await city.call("job", "DELETE", f"/sessions/{opened['id']}")
            await first


async def test_waiting_leaves_two_decisions_in_the_ledger_however_often_it_is_decided(tmp_path):
    settings = AdmissionSettings(sessions_per_camera=1, cameras={"bridge": 9}, sessions_total=3)
    async with open_city(tmp_path, admission=settings) as city:
        for camera in ("gate", "bridge"):
            await city.grant("urban-operator", camera)
        await city.grant("traffic-operator")
        held = [await city.watch("urban-operator", camera) for camera in ("bridge", "bridge", "gate")]
        ends = len(await city.records(kind="session_end"))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(city.watch("traffic-operator", expect=201, wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            for session in held[:2]:  # frees nothing that counts for him
                await city.call("urban-operator", "DELETE", f"/sessions/{session['id']}")
            await city.recorded(ends + 2, kind="session_end")
            city.services.waiting.session_over(_ended("gate"))
            await city.call("urban-operator", "DELETE", f"/sessions/{held[2]['id']}")
            await waiting
        decisions = await city.records(kind="decision", actor_id="traffic-operator")
        assert [decision.outcome for decision in decisions] == ["allow", "allow"]


async def test_a_grant_revoked_meanwhile_is_a_recorded_denial(tmp_path):
    async with open_city(tmp_path, admission=AdmissionSettings(sessions_per_camera=1)) as city:
        await city.grant("urban-operator")
        grant = await city.grant("traffic-operator")
        held = await city.watch("urban-operator")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(city.watch("traffic-operator", expect=403, wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
            await city.call("urban-operator", "DELETE", f"/sessions/{held['id']}")
            assert (await waiting)["code"] == "access_denied"
        decisions = await city.records(kind="decision", actor_id="traffic-operator")
        assert [decision.outcome for decision in decisions] == ["allow", "deny"]


async def test_who_disconnects_leaves_the_queue_and_who_stays_gets_the_limit(tmp_path):
    settings = AdmissionSettings(sessions_per_camera=1, waiting=1)
    async with open_city(tmp_path, admission=settings) as city:
        await city.grant("urban-operator")
        await city.watch("urban-operator")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(city.watch("urban-operator", wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            assert (await city.watch("urban-operator", expect=503, wait_s=1))["code"] == "limit_waiting"
            waiting.cancel()
        await city.until(lambda: len(city.services.waiting) == 0)
        problem = await city.watch("urban-operator", expect=503, wait_s=0.01)
        assert (problem["code"], problem["running"], problem["bound"]) == ("limit_sessions_camera", 1, 1)


@pytest.mark.parametrize("wait_s", [-1, MAX_WAIT_SECONDS + 0.001, "5", None])
async def test_how_long_one_may_wait(tmp_path, wait_s):
    async with open_city(tmp_path) as city:
        assert (await city.watch("urban-operator", expect=422, wait_s=wait_s))["code"] == "invalid_field"


async def test_the_longest_wait_is_allowed(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("urban-operator")
        await city.watch("urban-operator", wait_s=MAX_WAIT_SECONDS)


async def test_a_gateway_that_stops_keeps_nobody_waiting(tmp_path):
    async with asyncio.TaskGroup() as tasks:
        async with open_city(tmp_path, admission=AdmissionSettings(sessions_per_camera=1)) as city:
            await city.grant("urban-operator")
            await city.watch("urban-operator")
            waiting = tasks.create_task(city.watch("urban-operator", expect=503, wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            city.services.waiting.close()
            assert (await waiting)["code"] == "draining"
