"""What ends a running session: time, policy, people, workers; and what is recorded of it."""

import asyncio
import contextlib
from datetime import datetime, timedelta

import pytest
from support.controls import Clock, open_city

from gateway.live import REDECIDE_CHUNK
from gateway.messages import End, RunningSession
from gateway.sessions import SessionSettings
from gateway.store.errors import StoreUnavailableError


async def _started(city, worker, user="urban-operator", camera="gate", **more):
    opened = await city.watch(user, camera, **more)
    await worker.start(opened)
    return opened["id"]


async def _end(city, session):
    """The end record of a session, of which there is one."""
    await city.recorded(kind="session_end", session_id=session)
    await city.until(lambda: city.services.live.get(session) is None)
    (end,) = await city.records(kind="session_end", session_id=session)
    return end


async def _disable(city, _):
    await city.call("root", "PATCH", "/users/urban-operator", {"enabled": False})


async def _revoke(city, grant):
    await city.call("traffic-admin", "DELETE", f"/grants/{grant}?reason=over")


async def _deny(city, _):
    await city.grant(effect="deny")


async def _delete(city, _):
    await city.call("traffic-admin", "DELETE", "/cameras/gate")


async def _switch_off(city, _):
    await city.call("traffic-admin", "PATCH", "/cameras/gate", {"enabled": False})


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (_disable, "revoked"),
        (_revoke, "revoked"),
        (_deny, "revoked"),
        (_delete, "camera_gone"),
        (_switch_off, "camera_gone"),
    ],
)
async def test_what_takes_the_permission_away_ends_running_pictures(tmp_path, database_url, act, reason):
    async with open_city(tmp_path, url=database_url) as city:
        grant = await city.grant()
        await city.grant("traffic-operator", "bridge")
        worker = await city.worker()
        session = await _started(city, worker)
        other = await _started(city, worker, "traffic-operator", "bridge")
        worker.sent[session] = 4711
        await act(city, grant)
        pushed = await worker.ended(session)
        assert pushed.reason == reason
        end = await _end(city, session)
        assert (end.reason, end.detail["bytes_sent"]) == (reason, 4711)
        assert (end.actor_name, end.unit_name, end.purpose_code) == ("urban-operator 姓名", "urban", "patrol")
        assert city.services.live.get(other).ending is None


async def test_a_session_that_was_not_started_is_revoked_too(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        opened = await city.watch("urban-operator")
        await _revoke(city, grant)
        assert (await _end(city, opened["id"])).reason == "revoked"


async def test_another_grant_keeps_the_picture(tmp_path):
    async with open_city(tmp_path) as city:
        first = await city.grant()
        worker = await city.worker()
        session = await _started(city, worker)
        second = await city.grant()
        await _revoke(city, first)
        await city.until(lambda: city.services.live.get(session).rule == second)
        assert city.services.live.get(session).ending is None
        await _revoke(city, second)
        assert (await _end(city, session)).rule == second


@pytest.mark.parametrize("order", ["opening first", "revocation first"])
async def test_a_revocation_in_the_same_commit_as_an_opening_leaves_nothing(tmp_path, database_url, order):
    async with open_city(tmp_path, url=database_url) as city:
        grant = await city.grant()
        gathered = [city.watch("urban-operator"), _revoke(city, grant)]
        if order == "revocation first":
            gathered.reverse()
        city.services.store._writer._wake, wake = asyncio.Event(), city.services.store._writer._wake
        waiting = asyncio.gather(*gathered, return_exceptions=True)
        queue = city.services.store._writer._queue
        await city.until(lambda: queue.qsize() == 2)
        city.services.store._writer._wake = wake
        wake.set()
        await waiting
        await city.until(lambda: not len(city.services.live))
        ends = await city.records(kind="session_end")
        assert [end.reason for end in ends] in ([], ["revoked"])
        await city.watch("urban-operator", expect=403)


async def test_a_session_that_opens_while_many_are_decided_again_is_decided_too(tmp_path):
    """The round pauses between chunks; what comes in a pause was decided under the old policy."""
    async with open_city(tmp_path) as city:
        live = city.services.live
        grant = await city.grant("traffic-operator")
        await city.watch("traffic-operator")
        (template,) = live.all()
        for number in range(2 * REDECIDE_CHUNK):
            live._sessions[f"filler-{number}"] = _copy(template, id=f"filler-{number}")
        late = _copy(template, id="late", revision=template.revision)
        await asyncio.gather(_revoke(city, grant), _add_when_pausing(live, late))
        await city.until(lambda: live.get("late") is None or late.ending is not None)
        assert late.ending == "revoked"


def _copy(session, **changes):
    fields = {name: getattr(session, name) for name in type(session).__slots__}
    return type(session)(**{**fields, **changes})


async def _add_when_pausing(live, session):
    sessions = list(live.all())
    while sessions[0].ending is None:
        await asyncio.sleep(0)
    live.add(session)


async def test_a_grant_ends_at_its_edge(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        valid_to = (clock.now + timedelta(seconds=60)).isoformat()
        await city.grant(valid_to=valid_to)
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        assert opened["expires_at"] == "2026-01-05T08:01:00Z"
        await worker.start(opened)
        clock.advance(59.999999)
        await _a_round(city)
        assert city.services.live.get(opened["id"]).ending is None
        clock.advance(0.000001)
        assert (await worker.ended(opened["id"])).reason == "expired"
        assert (await _end(city, opened["id"])).reason == "expired"


async def test_another_grant_takes_over_at_expiry(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        first = await city.grant(valid_to=(clock.now + timedelta(seconds=60)).isoformat())
        second = await city.grant(valid_from=(clock.now + timedelta(seconds=60)).isoformat())
        worker = await city.worker()
        session = await _started(city, worker)
        assert city.services.live.get(session).rule == first
        clock.advance(60)
        await city.until(lambda: city.services.live.get(session).rule == second)
        assert city.services.live.get(session).ending is None


async def test_a_denial_that_begins_later_ends_it_then(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant()
        await city.grant(effect="deny", valid_from=(clock.now + timedelta(seconds=60)).isoformat())
        worker = await city.worker()
        session = await _started(city, worker)
        clock.advance(60)
        assert (await worker.ended(session)).reason == "revoked"


async def test_a_clock_that_is_set_back_before_the_grant_begins_changes_nothing(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant(valid_from=clock.now.isoformat())
        worker = await city.worker()
        session = await _started(city, worker)
        clock.advance(-1)
        await _a_round(city)
        assert city.services.live.get(session).ending is None
        await city.watch("urban-operator")


async def test_a_clock_that_jumps_over_a_denial_keeps_the_picture(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant()
        begin, end = (clock.now + timedelta(seconds=seconds) for seconds in (60, 120))
        await city.grant(effect="deny", valid_from=begin.isoformat(), valid_to=end.isoformat())
        worker = await city.worker()
        session = await _started(city, worker)
        live = city.services.live.get(session)
        assert live.decided_until == begin
        clock.advance(120)
        await city.until(lambda: live.decided_until is None)
        assert live.ending is None
        clock.advance(-90)
        await _a_round(city)
        assert (live.decided_until, live.ending) == (None, None)


@pytest.mark.parametrize(
    ("schedule", "now", "edge"),
    [
        # daylight saving time begins while the window is open: it lasts an hour less
        (("Europe/London", [7], "00:30", "09:00"), "2026-03-29T00:59:59Z", "2026-03-29T08:00:00Z"),
        # daylight saving time ends in the night: the window lasts an hour more
        (("Europe/London", [6], "22:00", "06:00"), "2026-10-25T00:30:00Z", "2026-10-25T06:00:00Z"),
        (
            ("Asia/Shanghai", [1, 2, 3, 4, 5], "09:00", "17:00"),
            "2026-01-05T08:59:00Z",
            "2026-01-05T09:00:00Z",
        ),
    ],
)
async def test_a_weekly_window_ends_at_its_edge(tmp_path, schedule, now, edge):
    zone, days, start, end = schedule
    clock = Clock()
    async with open_city(tmp_path, clock=clock, sessions=SessionSettings(confirm_seconds=0)) as city:
        windows = [{"days": days, "start": start, "end": end}]
        await city.grant(schedule={"zone": zone, "windows": windows})
        worker = await city.worker()
        clock.now = datetime.fromisoformat(now)
        await city.login("urban-operator")
        opened = await city.watch("urban-operator")
        assert opened["expires_at"] == edge
        await worker.start(opened)
        clock.now = datetime.fromisoformat(edge) - timedelta(microseconds=1)
        await _a_round(city)
        assert city.services.live.get(opened["id"]).ending is None
        clock.advance(0.000001)
        await worker.ended(opened["id"])


async def test_a_database_that_does_not_answer_delays_the_record_and_no_end(tmp_path, monkeypatch):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant(valid_to=(clock.now + timedelta(seconds=60)).isoformat())
        worker = await city.worker()
        early, late = [await _started(city, worker) for _ in range(2)]
        answers, asked = asyncio.Event(), asyncio.Event()
        run = city.services.store.run

        async def slow(unit):
            asked.set()
            await answers.wait()
            return await run(unit)

        with monkeypatch.context() as patch:
            patch.setattr(city.services.store, "run", slow)
            await worker.over(early)
            await asked.wait()
            clock.advance(60)
            assert (await worker.ended(late)).reason == "expired"
            answers.set()
            assert (await _end(city, early)).reason == "completed"
        assert (await _end(city, late)).reason == "expired"


@pytest.mark.parametrize(
    ("obligation", "setting", "seconds"), [(None, 120, 120), (60, 120, 60), (300, 120, 120)]
)
async def test_the_longest_duration(tmp_path, obligation, setting, seconds):
    settings = SessionSettings(max_duration_seconds=setting)
    async with open_city(tmp_path, sessions=settings) as city:
        await city.grant(obligations={"max_duration_seconds": obligation})
        worker = await city.worker()
        session = await _started(city, worker)
        city.clock.advance(seconds - 0.001)
        await _a_round(city)
        assert city.services.live.get(session).ending is None
        city.clock.advance(0.001)
        assert (await _end(city, session)).reason == "expired"


async def test_a_lost_viewer_keeps_his_slot_for_a_while(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        session = await _started(city, worker)
        await worker.over(session, "lost", lost=True, sent=77, dropped=2)
        live = city.services.live.get(session)
        assert (live.state, len(city.services.live)) == ("lost", 1)
        city.clock.advance(14.999)
        renewed = await city.call("urban-operator", "POST", f"/sessions/{session}/ticket")
        await worker.start(renewed)
        await worker.over(session, "lost", lost=True, sent=23)
        city.clock.advance(14.999)
        await _a_round(city)
        assert live.ending is None
        city.clock.advance(0.001)
        end = await _end(city, session)
        assert (end.reason, end.detail["bytes_sent"], end.detail["dropped_access_units"]) == ("lost", 100, 2)


@pytest.mark.parametrize(
    ("said", "recorded"), [("completed", "completed"), ("slow", "slow"), ("夜曲\n", "failed"), ("", "failed")]
)
async def test_the_worker_says_why(tmp_path, said, recorded):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        session = await _started(city, worker)
        await worker.over(session, said, sent=5)
        assert (await _end(city, session)).reason == recorded


async def test_a_worker_ends_its_own_sessions_only(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker, other = await city.worker(0), await city.worker(1)
        session = await _started(city, worker)
        await other.over(session)
        await other.over("no-such-session")
        await _a_round(city)
        assert city.services.live.get(session).ending is None


async def test_figures_that_no_record_can_hold_are_cut(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        one, two = [await _started(city, worker) for _ in range(2)]
        await worker.usage(one, 2**63)
        await worker.over(one, sent=2**64 - 1, dropped=2**60)
        await worker.over(two, sent=-5, dropped=-1)
        assert (await _end(city, one)).detail["bytes_sent"] == 2**53 - 1
        assert (await _end(city, two)).detail["bytes_sent"] == 0


async def test_a_dead_workers_sessions_end_with_the_last_count(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker(pid=1)
        session = await _started(city, worker)
        opened = await city.watch("urban-operator")
        await worker.usage(session, 9000)
        worker.channel.abort()
        await city.until(lambda: not city.services.workers.connected)
        city.clock.advance(9.9)
        await _a_round(city)
        assert city.services.live.get(session).ending is None
        city.clock.advance(0.1)
        end = await _end(city, session)
        assert (end.reason, end.detail["bytes_sent"]) == ("worker_lost", 9000)
        assert city.services.live.get(opened["id"]).ending is None


@pytest.mark.parametrize(("number", "pid"), [(1, 2), (0, 2)])
async def test_a_dead_workers_bytes_count_beside_those_of_the_next(tmp_path, number, pid):
    """Another worker takes the session over, or a new process of the same number does."""
    async with open_city(tmp_path) as city:
        await city.grant()
        first = await city.worker(0, pid=1)
        session = await _started(city, first)
        await first.usage(session, 100)
        first.channel.abort()
        await city.until(lambda: not city.services.workers.connected)
        renewed = await city.call("urban-operator", "POST", f"/sessions/{session}/ticket")
        second = await city.worker(number, pid=pid)
        await second.start(renewed)
        await second.usage(session, 60)
        assert city.services.live.get(session).bytes_sent == 160
        await second.over(session, sent=70, dropped=1)
        end = await _end(city, session)
        assert (end.detail["bytes_sent"], end.detail["dropped_access_units"]) == (170, 1)


async def test_a_reader_that_ended_while_its_worker_had_no_link_counts_once(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        first = await city.worker(pid=1)
        session = await _started(city, first)
        await first.usage(session, 100)
        first.channel.abort()
        await city.until(lambda: not city.services.workers.connected)
        renewed = await city.call("urban-operator", "POST", f"/sessions/{session}/ticket")
        again = await city.worker(pid=1)
        await again.over(session, "lost", lost=True, sent=110)
        await again.start(renewed)
        await again.over(session, sent=60)
        assert (await _end(city, session)).detail["bytes_sent"] == 170


async def test_a_worker_that_comes_back_takes_nothing_from_who_has_it_now(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        first, second = await city.worker(0), await city.worker(1)
        session = await _started(city, first)
        await first.usage(session, 100)
        first.channel.abort()
        await city.until(lambda: city.services.workers.connected == 1)
        await second.start(await city.call("urban-operator", "POST", f"/sessions/{session}/ticket"))
        running = [RunningSession(session=session, camera="gate", bytes_sent=105)]
        again = await city.worker(0, sessions=running)
        assert (await again.ended(session)).reason == "worker_lost"
        await second.over(session, sent=60)
        assert (await _end(city, session)).detail["bytes_sent"] == 160


async def test_a_worker_with_another_pid_has_lost_its_sessions_but_not_the_tickets(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        first = await city.worker(pid=1)
        session = await _started(city, first)
        await first.usage(session, 100)
        reopened = await _started(city, first)
        renewed = await city.call("urban-operator", "POST", f"/sessions/{reopened}/ticket")
        second = await city.worker(pid=2)
        end = await _end(city, session)
        assert (end.reason, end.detail["bytes_sent"]) == ("worker_lost", 100)
        await first.closed()
        assert city.services.workers.connected == 1
        await second.start(renewed)


async def test_a_worker_that_reconnects_goes_on(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        first = await city.worker(pid=1)
        session = await _started(city, first)
        first.channel.abort()
        await city.until(lambda: not city.services.workers.connected)
        running = [RunningSession(session=session, camera="gate", bytes_sent=50)]
        second = await city.worker(pid=1, sessions=running)
        city.clock.advance(60)
        await _a_round(city)
        live = city.services.live.get(session)
        assert (live.state, live.ending, live.bytes_sent) == ("active", None, 50)
        await second.over(session, sent=60)
        assert (await _end(city, session)).detail["bytes_sent"] == 60


async def test_an_end_that_was_lost_is_told_again(tmp_path):
    """As long as the worker says that it shows a picture that it should not."""
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        worker, other = await city.worker(0), await city.worker(1)
        worker.obedient = False
        session, moved = [await _started(city, worker) for _ in range(2)]
        await other.start(await city.call("urban-operator", "POST", f"/sessions/{moved}/ticket"))
        worker.received.clear()
        await worker.usage(moved, 10)
        assert (await worker.ended(moved)).reason == "replaced"
        await _revoke(city, grant)
        await worker.ended(session)
        worker.received.clear()
        await worker.usage(session, 10)
        assert (await worker.ended(session)).reason == "revoked"
        city.clock.advance(1)
        assert (await _end(city, session)).detail["bytes_sent"] == 10
        worker.received.clear()
        await worker.usage(session, 20)
        assert (await worker.ended(session)).reason == "worker_lost"


async def test_a_worker_must_end_what_is_not_ours(tmp_path):
    async with open_city(tmp_path) as city:
        running = [RunningSession(session="0" * 32, camera="gate", bytes_sent=50)]
        worker = await city.worker(sessions=running)
        assert (await worker.ended("0" * 32)).reason == "worker_lost"


async def test_a_restarted_control_takes_over_what_runs(tmp_path, database_url):
    clock = Clock()
    async with _killed(tmp_path, clock, database_url) as city:
        grant = await city.grant()
        worker = await city.worker()
        running, gone, waiting = [await city.watch("urban-operator") for _ in range(3)]
        await worker.start(running)
        await worker.start(gone)
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        assert len(city.services.live) == 3
        sessions = [RunningSession(session=running["id"], camera="gate", bytes_sent=70)]
        worker = await city.worker(sessions=sessions)
        await worker.start(waiting)
        clock.advance(15)
        end = await _end(city, gone["id"])
        assert (end.reason, end.actor_name, end.unit_name) == ("worker_lost", "urban-operator 姓名", "urban")
        assert not [message for message in worker.received if isinstance(message, End)]
        await _revoke(city, grant)
        assert (await worker.ended(running["id"])).reason == "revoked"
        assert (await _end(city, running["id"])).detail["bytes_sent"] == 70


async def test_a_restarted_control_knows_what_earlier_readers_sent(tmp_path, database_url):
    clock = Clock()
    async with _killed(tmp_path, clock, database_url) as city:
        await city.grant()
        first, second = await city.worker(0), await city.worker(1)
        lost, moved = [await _started(city, first) for _ in range(2)]
        await first.over(lost, "lost", lost=True, sent=30)
        await first.usage(moved, 100)
        first.channel.abort()
        await city.until(lambda: city.services.workers.connected == 1)
        for session in (lost, moved):
            await second.start(await city.call("urban-operator", "POST", f"/sessions/{session}/ticket"))
            await second.usage(session, 50)
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        running = [RunningSession(session=each, camera="gate", bytes_sent=60) for each in (lost, moved)]
        second = await city.worker(1, sessions=running)
        for session, sent in ((lost, 100), (moved, 170)):
            await second.over(session, sent=70)
            assert (await _end(city, session)).detail["bytes_sent"] == sent


async def test_a_grant_that_ran_out_while_control_was_away_ends_its_session(tmp_path):
    """Nothing wrote a revision: the decision must be taken again because control is new."""
    clock = Clock()
    async with _killed(tmp_path, clock) as city:
        await city.grant(valid_to=(clock.now + timedelta(seconds=60)).isoformat())
        worker = await city.worker()
        ended, later = [await city.watch("urban-operator") for _ in range(2)]
        await worker.start(ended)
        await worker.start(later)
    clock.advance(60)
    async with open_city(tmp_path, clock=clock) as city:
        sessions = [RunningSession(session=ended["id"], camera="gate", bytes_sent=70)]
        worker = await city.worker(sessions=sessions)
        await worker.ended(ended["id"])
        end = await _end(city, ended["id"])
        assert (end.reason, end.detail["bytes_sent"]) == ("expired", 70)
        clock.advance(1)
        assert (await _end(city, later["id"])).reason == "expired"


async def test_a_grant_that_runs_out_after_a_restart_ends_its_session(tmp_path):
    clock = Clock()
    async with _killed(tmp_path, clock) as city:
        await city.grant(valid_to=(clock.now + timedelta(seconds=60)).isoformat())
        worker = await city.worker()
        session = await _started(city, worker)
    async with open_city(tmp_path, clock=clock) as city:
        running = [RunningSession(session=session, camera="gate", bytes_sent=70)]
        worker = await city.worker(sessions=running)
        clock.advance(60)
        assert (await worker.ended(session)).reason == "expired"


async def test_an_end_that_cannot_be_written_is_kept_and_holds_its_slot(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        session = await _started(city, worker)
        store = city.services.store
        attempts = []

        async def failing(unit):
            attempts.append(unit)
            raise [StoreUnavailableError("gone"), RuntimeError("a bug")][len(attempts) % 2]

        with monkeypatch.context() as patched:
            patched.setattr(store, "run", failing)
            await worker.over(session, sent=5)
            await city.until(lambda: len(attempts) > 2)
            assert len(city.services.live) == 1
        end = await _end(city, session)
        assert (end.reason, end.detail["bytes_sent"]) == ("completed", 5)


async def test_a_worker_that_does_not_answer_an_end_is_not_waited_for(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        worker = await city.worker()
        worker.obedient = False
        session = await _started(city, worker)
        await worker.usage(session, 300)
        await _revoke(city, grant)
        await worker.ended(session)
        await _a_round(city)
        assert city.services.live.get(session) is not None
        city.clock.advance(1)
        end = await _end(city, session)
        assert (end.reason, end.detail["bytes_sent"]) == ("revoked", 300)


async def test_draining_records_every_end_once(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant()
        worker = await city.worker()
        for _ in range(5):
            await _started(city, worker)
            await city.watch("urban-operator")
    async with open_city(tmp_path, clock=clock) as city:
        ends = await city.records(kind="session_end")
        assert [end.reason for end in ends] == ["draining"] * 10
        assert len({end.session_id for end in ends}) == 10
        assert len(city.services.live) == 0


async def _a_round(city):
    """Wait for one whole round of `LiveSessions.run`."""
    live = city.services.live
    rounds = []
    sweep = live._sweep

    def counted(now):
        sweep(now)
        rounds.append(None)

    live._sweep = counted
    try:
        live.policy_changed()
        await city.until(lambda: len(rounds) > 1 or (live.policy_changed() and False))
    finally:
        del live._sweep


@contextlib.asynccontextmanager
async def _killed(folder, clock, url=None):
    """A control that records no end: its drain finds nothing, as if the process had been killed."""
    async with open_city(folder, clock=clock, url=url) as city:
        yield city
        city.services.live._sessions.clear()
