"""The later of the wall clock and the ledger's time: what has expired stays so, and a step back is told."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from support.controls import Clock, open_city

from gateway.clock import STEP_TOLERATED_US, BackwardStep, LedgerClock, from_micros, to_micros

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Hands:
    """A wall clock and a monotonic one: `pass_` moves both, `step` the wall clock only. Microseconds."""

    def __init__(self):
        self.wall_us = to_micros(NOON)
        self.elapsed_us = 5_000_000

    def clock(self):
        return LedgerClock(lambda: from_micros(self.wall_us), lambda: self.elapsed_us * 1000)

    def pass_(self, us):
        self.wall_us += us
        self.elapsed_us += us

    def step(self, us):
        self.wall_us += us


def test_it_is_the_wall_clock_as_long_as_that_goes_on():
    hands = Hands()
    clock = hands.clock()
    assert clock() == NOON
    hands.pass_(1_500_000)
    assert clock() == NOON + timedelta(seconds=1.5)
    hands.step(3_600_000_000)
    assert clock() == NOON + timedelta(hours=1, seconds=1.5)
    assert clock.backward_step() is None


def test_after_a_step_back_time_goes_on():
    hands = Hands()
    clock = hands.clock()
    clock()
    hands.step(-3_600_000_000)
    assert clock() == NOON
    hands.pass_(60_000_000)
    assert clock() == NOON + timedelta(minutes=1)
    hands.step(3_600_000_000)
    assert clock() == NOON + timedelta(minutes=1)


def test_a_step_is_told_once_and_small_ones_add_up():
    hands = Hands()
    clock = hands.clock()
    clock()
    hands.step(-STEP_TOLERATED_US)
    assert clock.backward_step() is None
    hands.step(-1)
    assert clock.backward_step() == BackwardStep(STEP_TOLERATED_US + 1, STEP_TOLERATED_US + 1)
    assert clock.backward_step() is None
    hands.step(-10_000_000)
    assert clock.backward_step() == BackwardStep(10_000_000, STEP_TOLERATED_US + 10_000_001)
    hands.step(60_000_000)
    assert clock.backward_step() is None
    clock()
    hands.step(-5_000_000)
    assert clock.backward_step() == BackwardStep(5_000_000, 5_000_000)


def test_the_ledger_may_be_ahead_of_the_wall_clock_at_the_start():
    hands = Hands()
    clock = hands.clock()
    clock.not_before(to_micros(NOON) + 7_000_000)
    clock.not_before(to_micros(NOON))
    assert clock() == NOON + timedelta(seconds=7)
    assert clock.backward_step() == BackwardStep(7_000_000, 7_000_000)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(-(10**12), 10**12))))
def test_it_never_goes_back_and_is_never_before_the_wall_clock(moves):
    hands = Hands()
    clock = hands.clock()
    before = clock.micros()
    for passed, step in moves:
        hands.pass_(passed)
        hands.step(step)
        now = clock.micros()
        assert now >= max(before + passed, hands.wall_us)
        before = now


async def test_an_expired_grant_does_not_revive(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        until = clock.now + timedelta(seconds=60)
        await city.grant(valid_to=until.isoformat())
        await city.watch("urban-operator")
        clock.advance(61)
        assert (await city.watch("urban-operator", expect=403))["reason"] == "grant_expired"
        clock.advance(-3600)
        assert (await city.watch("urban-operator", expect=403))["reason"] == "grant_expired"
        (alarm,) = await city.recorded(kind="clock_alarm")
        assert alarm.detail == {"step_us": 3_600_000_000, "behind_us": 3_600_000_000}
    async with open_city(tmp_path, clock=clock) as city:  # the ledger's last time is the later one
        assert (await city.watch("urban-operator", expect=403))["reason"] == "grant_expired"
        assert len(await city.recorded(2, kind="clock_alarm")) == 2


async def test_a_window_that_has_closed_stays_closed(tmp_path):
    clock = Clock()  # a Monday, 08:00 UTC
    async with open_city(tmp_path, clock=clock) as city:
        windows = [{"days": [1], "start": "07:00", "end": "08:10"}]
        await city.grant(schedule={"zone": "UTC", "windows": windows})
        clock.advance(600)
        assert (await city.watch("urban-operator", expect=403))["reason"] == "outside_window"
        clock.advance(-600)
        assert (await city.watch("urban-operator", expect=403))["reason"] == "outside_window"


async def test_a_log_in_that_has_expired_stays_so(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        clock.advance(12 * 3600)
        await city.call("urban-operator", "GET", "/me", expect=401)
        clock.advance(-6 * 3600)
        await city.call("urban-operator", "GET", "/me", expect=401)
        await city.login("urban-operator")
        await city.call("urban-operator", "GET", "/me")


async def test_deadlines_pass_while_the_wall_clock_is_behind(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant()
        clock.now -= timedelta(hours=1)
        await city.recorded(kind="clock_alarm")
        opened = await city.watch("urban-operator")
        clock.elapsed += 31  # a ticket lives for 30 s
        clock.advance(31)
        (end,) = await city.recorded(kind="session_end", session_id=opened["id"])
        assert end.reason == "not_started"
