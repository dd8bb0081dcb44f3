"""Weekly windows: read off the clock on the wall, minute by minute, whatever was done to that clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_city import NOW, asks, city, grant
from support.policy_world import is_inside

from policies.access import Effect, Reason, Schedule, WeeklyWindow
from policies.schedules import UnknownZoneError, compile_schedule

TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def window(start, end, days=(1, 2, 3, 4, 5, 6, 7)):
    return WeeklyWindow(days=tuple(days), start=start, end=end)


def schedule(*windows, zone="UTC"):
    return Schedule(zone=zone, windows=windows)


def is_open(some_schedule, moment):
    return compile_schedule(some_schedule).is_open(moment)


def utc(*fields):
    return datetime(*fields, tzinfo=UTC)


def test_a_window_is_half_open():
    hours = schedule(window("08:00", "18:00"))
    day = utc(2026, 3, 2)
    for moment, expected in (
        (day + timedelta(hours=8) - TICK, False),
        (day + timedelta(hours=8), True),
        (day + timedelta(hours=18) - TICK, True),
        (day + timedelta(hours=18), False),
    ):
        assert is_open(hours, moment) is expected


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts():
    friday_night = schedule(window("22:00", "06:00", days=[5]))
    friday = utc(2026, 3, 6)
    assert not is_open(friday_night, friday + timedelta(hours=5))
    assert is_open(friday_night, friday + timedelta(hours=23))
    assert is_open(friday_night, friday + timedelta(hours=29))
    assert not is_open(friday_night, friday + timedelta(hours=30))
    sunday_night = schedule(window("22:00", "06:00", days=[7]))
    monday = utc(2026, 3, 9)
    assert is_open(sunday_night, monday + timedelta(hours=5))
    assert compile_schedule(sunday_night).next_change(monday) == monday + timedelta(hours=6)


def test_until_midnight_and_the_whole_day():
    evening = schedule(window("20:00", "24:00", days=[7]))
    sunday = utc(2026, 3, 8, 21)
    assert is_open(evening, sunday)
    assert compile_schedule(evening).next_change(sunday) == utc(2026, 3, 9)
    day_long = schedule(window("09:00", "09:00", days=[1]))
    assert is_open(day_long, utc(2026, 3, 10, 8, 59))
    assert not is_open(day_long, utc(2026, 3, 10, 9))


def test_a_week_without_an_edge_never_changes():
    always = schedule(window("00:00", "24:00"))
    assert is_open(always, NOW)
    assert compile_schedule(always).next_change(NOW) is None


def test_the_zone_decides():
    hours = schedule(window("08:00", "18:00", days=[1]), zone="Asia/Shanghai")
    assert is_open(hours, utc(2026, 3, 2, 0))
    assert not is_open(hours, utc(2026, 3, 2, 10))


def test_a_time_that_comes_twice_is_inside_both_times():
    """Berlin, 25 October 2026: 02:00 to 03:00 comes at 00:00 and at 01:00 UTC."""
    hour = compile_schedule(schedule(window("02:00", "03:00"), zone="Europe/Berlin"))
    first = utc(2026, 10, 25, 0)
    assert [hour.is_open(first + timedelta(minutes=m)) for m in (-1, 0, 59, 60, 119, 120)] == [
        False, True, True, True, True, False,
    ]  # fmt: skip
    half = compile_schedule(schedule(window("02:00", "02:30"), zone="Europe/Berlin"))
    assert [half.next_change(first + timedelta(minutes=m)) for m in (0, 30, 60)] == [
        first + timedelta(minutes=m) for m in (30, 60, 90)
    ]


def test_a_time_that_is_skipped_never_comes():
    """Berlin, 29 March 2026: at 01:00 UTC clocks go from 02:00 to 03:00."""
    hour = compile_schedule(schedule(window("02:00", "03:00"), zone="Europe/Berlin"))
    change = utc(2026, 3, 29, 1)
    assert not any(hour.is_open(change + timedelta(minutes=m)) for m in range(-60, 60))
    assert hour.next_change(change - MINUTE) == utc(2026, 3, 30)
    across = compile_schedule(schedule(window("01:30", "02:30"), zone="Europe/Berlin"))
    assert across.next_change(change - MINUTE) == change


WINDOWS = st.builds(
    lambda days, start, end: window(
        f"{start // 60:02}:{start % 60:02}", f"{end // 60:02}:{end % 60:02}", days
    ),
    st.sets(st.integers(1, 7), min_size=1).map(sorted),
    st.integers(0, 1439),
    st.integers(0, 1440),
)
ZONES = st.sampled_from(
    ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]
)


@settings(max_examples=120, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=3), ZONES, st.integers(0, 2 * 366 * 1440), st.data())
def test_it_is_what_looking_at_the_clock_each_minute_says(windows, zone, minute, data):
    """Also for the next change, when time jumps back and forward between the questions."""
    some = schedule(*windows, zone=zone)
    clock = compile_schedule(some)
    start = utc(2011, 6, 1) + minute * MINUTE
    change = clock.next_change(start)
    answer = is_inside(some, start)
    assert clock.is_open(start) is answer
    end = start + timedelta(days=8) if change is None else change
    for moment in data.draw(
        st.lists(st.datetimes(start.replace(tzinfo=None), end.replace(tzinfo=None) - TICK), max_size=20)
    ):
        assert is_inside(some, moment.replace(tzinfo=UTC)) is answer
        assert clock.is_open(moment.replace(tzinfo=UTC)) is answer
    if change is not None:
        assert is_inside(some, change - TICK) is answer
        assert is_inside(some, change) is not answer
        assert clock.is_open(change) is not answer
    assert clock.is_open(start) is answer


@pytest.mark.parametrize("zone", ["Asia/Peking", "../etc/passwd", "Asia", "UTC+8", "\0", "x" * 65])
def test_an_unknown_zone_is_a_malformed_rule(zone):
    with pytest.raises(UnknownZoneError):
        compile_schedule(schedule(window("08:00", "18:00"), zone=zone))
    engine = city()
    engine.set_grant(grant(schedule=schedule(window("00:00", "24:00"), zone=zone)))
    assert engine.decide(asks()).reason is Reason.MALFORMED_RULE
    engine.set_grant(
        grant("deny", effect=Effect.DENY, schedule=schedule(window("00:00", "24:00"), zone=zone))
    )
    assert engine.decide(asks()).rule == "deny"


@pytest.mark.parametrize(
    ("start", "end"), [("8:00", "18:00"), ("24:00", "24:00"), ("08:00", "24:01"), ("08:00\n", "9:00")]
)
def test_a_window_that_is_none_is_a_malformed_rule(start, end):
    engine = city()
    engine.set_grant(grant(schedule=schedule(window(start, end))))
    assert engine.decide(asks()).reason is Reason.MALFORMED_RULE


OFFICE = schedule(window("08:00", "18:00"))


def test_a_decision_ends_with_its_window_and_says_so_outside():
    engine = city()
    engine.set_grant(grant(schedule=OFFICE))
    assert engine.decide(asks()).expires_at == NOW.replace(hour=18)
    late = engine.decide(asks(at=NOW.replace(hour=18)))
    assert late.reason is Reason.OUTSIDE_WINDOW
    assert [m.reason for m in engine.explain(asks(at=NOW.replace(hour=18))).near_misses] == [
        Reason.OUTSIDE_WINDOW
    ]
    engine.set_grant(grant(schedule=OFFICE, valid_to=NOW.replace(hour=15)))
    assert engine.decide(asks()).expires_at == NOW.replace(hour=15)


def test_a_decision_ends_when_the_window_of_a_denial_opens():
    engine = city()
    engine.set_grant(grant())
    night = schedule(window("22:00", "06:00"))
    engine.set_grant(grant("deny", effect=Effect.DENY, schedule=night))
    assert engine.decide(asks()).expires_at == NOW.replace(hour=22)
    assert engine.decide(asks(at=NOW.replace(hour=22))).reason is Reason.DENIED_BY_RULE
    engine.set_grant(grant("deny", effect=Effect.DENY, schedule=night, valid_to=NOW.replace(hour=22)))
    assert engine.decide(asks()).expires_at is None
    tomorrow = NOW.replace(hour=23)
    engine.set_grant(grant("deny", effect=Effect.DENY, schedule=night, valid_from=tomorrow))
    assert engine.decide(asks()).expires_at == tomorrow
