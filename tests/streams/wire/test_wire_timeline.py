import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip

from streams.media import Codec
from streams.wire.timeline import (
    MAX_BACKWARD_TICKS,
    MAX_FORWARD_TICKS,
    MAX_UNDECLARED_DEPTH,
    RtpTimeLine,
)

FRAME = 3600


def advance(line, *timestamps, depth=0, entries=()):
    return [
        line.advance(timestamp & 0xFFFFFFFF, is_random_access=timestamp in entries, declared_depth=depth)
        for timestamp in timestamps
    ]


def strictly_grows(values):
    return all(after > before for before, after in itertools.pairwise(values))


def test_without_reordering_dts_is_pts():
    assert advance(RtpTimeLine(), 100, 3700, 7300) == [
        (100, 100, False),
        (3700, 3700, False),
        (7300, 7300, False),
    ]


def test_repeated_timestamps_still_advance_dts():
    assert [dts for _, dts, _ in advance(RtpTimeLine(), 100, 100, 100, 200)] == [100, 101, 102, 200]


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("declared", [None, 3])
def test_real_b_pictures(codec, declared):
    _, units = encode_clip(codec, 50, b_frames=3)
    line = RtpTimeLine()
    times = [
        line.advance(unit.pts, is_random_access=unit.is_random_access, declared_depth=declared)
        for unit in units
    ]
    assert [pts for pts, _, _ in times] == [unit.pts for unit in units]
    assert not any(discontinuity for *_, discontinuity in times)
    assert strictly_grows([dts for _, dts, _ in times])
    settled = times if declared is not None else times[12:]
    assert all(dts <= pts for pts, dts, _ in settled)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_any_reordering_within_the_declared_depth(choices, start):
    """Output order 0, 1, 2 ...; each picture is sent up to four places early."""
    waiting = list(range(5))
    order = [waiting.pop(0)]  # the random access point comes first in both orders
    for number, choice in enumerate(choices, start=5):
        # The picture furthest behind may not be overtaken more than four times.
        overdue = [picture for picture in waiting if sum(sent > picture for sent in order) >= 4]
        order.append(
            waiting.pop(waiting.index(overdue[0])) if overdue else waiting.pop(choice % len(waiting))
        )
        waiting.append(number)
    line = RtpTimeLine()
    times = advance(line, *(start + 3600 * picture for picture in order), depth=4)
    assert strictly_grows([dts for _, dts, _ in times])
    assert all(dts <= pts for pts, dts, _ in times)
    assert [pts - times[0][0] for pts, _, _ in times] == [3600 * picture for picture in order]


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans(), st.none() | st.integers(0, 99)), max_size=30)
)
def test_whatever_a_camera_sends_dts_grows_within_a_time_line(pictures):
    line, previous = RtpTimeLine(), None
    for timestamp, is_random_access, depth in pictures:
        _, dts, discontinuity = line.advance(
            timestamp, is_random_access=is_random_access, declared_depth=depth
        )
        assert discontinuity or previous is None or dts > previous
        previous = dts


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (MAX_FORWARD_TICKS, False),
        (MAX_FORWARD_TICKS + 1, True),
        (-MAX_BACKWARD_TICKS, False),
        (-MAX_BACKWARD_TICKS - 1, True),
    ],
)
def test_jumps(step, expected):
    line = RtpTimeLine()
    advance(line, 10**6)
    assert advance(line, 10**6 + step) == [(10**6 + step, pytest.approx(10**6 + step, abs=10**6), expected)]


@pytest.mark.parametrize("declared", [0, None, 3])
def test_a_clock_that_is_set_back_by_a_second_is_no_reordering(declared):
    line = RtpTimeLine()
    before = advance(line, *(10**6 + number * FRAME for number in range(60)), depth=declared)
    after = advance(line, *(10**6 + (number - 25) * FRAME for number in range(60, 80)), depth=declared)
    assert [discontinuity for *_, discontinuity in before + after].count(True) == 1
    assert after[0][2]
    assert all(pts - dts == (declared or 0) * FRAME for pts, dts, _ in after[4:])


@pytest.mark.parametrize(
    ("places", "breaks"), [(MAX_UNDECLARED_DEPTH, False), (MAX_UNDECLARED_DEPTH + 1, True)]
)
def test_how_far_pictures_are_reordered_that_nobody_declared(places, breaks):
    line = RtpTimeLine()
    advance(line, *(10**6 + number * FRAME for number in range(10)), depth=None)
    ((*_, discontinuity),) = advance(line, 10**6 + (9 - places) * FRAME + 1, depth=None)
    assert discontinuity is (places > MAX_UNDECLARED_DEPTH)


def test_a_random_access_point_does_not_go_back():
    line = RtpTimeLine()
    advance(line, 10**6)
    assert advance(line, 10**6 - 3600, entries=(10**6 - 3600,)) == [(10**6 - 3600, 10**6 - 3600, True)]


def test_another_sender_is_a_discontinuity_however_near_its_timestamps_are():
    line = RtpTimeLine()
    advance(line, 0, 3600, 7200)
    line.restart()
    assert advance(line, 10800, 14400) == [(10800, 10800, True), (14400, 14400, False)]


class GeneralTimeLine(RtpTimeLine):
    """Without the short way."""

    def advance_plainly(self, timestamp, declared_depth):
        return None


STEPS = st.sampled_from(
    [1, 3600, 3600, 3600, 0, -3600, -7200, MAX_FORWARD_TICKS, MAX_FORWARD_TICKS + 1, 2**31]
)


@given(
    start=st.sampled_from([0, 2**32 - 5000, 2**32 - 300_000]),
    pictures=st.lists(
        st.one_of(
            st.tuples(STEPS, st.booleans(), st.booleans()),
            st.tuples(st.just(3600), st.just(False), st.just(False)),
        ),
        max_size=150,
    ),
    depth=st.sampled_from([None, 0, 0, 2]),
)
def test_the_short_way_gives_the_same_times(start, pictures, depth):
    line, general, timestamp = RtpTimeLine(), GeneralTimeLine(), start
    for step, is_random_access, restarts in pictures:
        timestamp = (timestamp + step) & 0xFFFFFFFF
        if restarts:
            line.restart()
            general.restart()
        times = [
            each.advance(timestamp, is_random_access=is_random_access, declared_depth=depth)
            for each in (line, general)
        ]
        assert times[0] == times[1]


def test_a_plain_time_line_is_known_again_after_days():
    """Longer than half of what 32 bits count: what the unwrapper last saw is useless by then."""
    line, general = RtpTimeLine(), GeneralTimeLine()
    timestamps = [number * MAX_FORWARD_TICKS & 0xFFFFFFFF for number in range(10_000)]
    later = [timestamps[-1] + 7200, timestamps[-1] + 3600]
    assert advance(line, *timestamps, *later) == advance(general, *timestamps, *later)
