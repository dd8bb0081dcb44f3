"""The time line: strictly monotonic whatever a camera's clock does."""

from hypothesis import given
from hypothesis import strategies as st
from support.units import FRAME_NS, FRAME_TICKS, synthetic_unit

from streams.hub.timeline import MAX_REORDER_TICKS, MAX_STEP_TICKS, MIN_JUMP_TICKS, TimeLine
from streams.media import AccessUnit

SECOND = 90_000
HOUR = 3600 * SECOND


def unit(dts: int, received: int, pts: int | None = None, **fields) -> AccessUnit:
    return synthetic_unit(
        0, dts=dts, pts=dts if pts is None else pts, received_ns=received * FRAME_NS, **fields
    )


def test_a_good_time_line_is_left_alone() -> None:
    line = TimeLine()
    for number in range(3):
        original = unit(HOUR + number * FRAME_TICKS, number)
        assert line.place(original) is original
    assert line.epoch == 0


def test_it_never_begins_below_zero() -> None:
    line = TimeLine()
    placed = [line.place(unit(n * FRAME_TICKS, n, pts=(n + 2) * FRAME_TICKS)) for n in range(-2, 2)]
    assert [u.dts // FRAME_TICKS for u in placed] == [0, 1, 2, 3]
    assert [u.pts // FRAME_TICKS for u in placed] == [2, 3, 4, 5]
    assert line.epoch == 0


def test_a_jump_goes_on_by_as_much_as_the_wall_clock() -> None:
    for dts, fields in ((50 * HOUR, {}), (0, {}), (HOUR + 1, {"discontinuity": True})):
        line = TimeLine()
        line.place(unit(HOUR, 0))
        jumped = line.place(unit(dts, 50, pts=dts + FRAME_TICKS, **fields))
        assert (jumped.dts, jumped.pts) == (HOUR + 50 * FRAME_TICKS, HOUR + 51 * FRAME_TICKS)
        assert line.place(unit(dts + FRAME_TICKS, 51)).dts == HOUR + 51 * FRAME_TICKS
        assert line.epoch == 1


def test_an_interruption_is_a_discontinuity() -> None:
    line = TimeLine()
    line.interrupt()
    assert line.place(unit(HOUR, 0)).dts == HOUR
    line.interrupt()
    assert line.place(unit(HOUR + 1, 25)).dts == HOUR + 25 * FRAME_TICKS
    assert line.place(unit(HOUR + 1 + FRAME_TICKS, 25)).dts == HOUR + 26 * FRAME_TICKS


def test_a_clock_that_is_set_forward_by_seconds_is_no_pause() -> None:
    line = TimeLine()
    line.place(unit(HOUR, 0, random_access=True))
    assert line.place(unit(HOUR + 5 * SECOND + FRAME_TICKS, 1)).dts == HOUR + FRAME_TICKS
    assert line.place(unit(HOUR + 5 * SECOND + 2 * FRAME_TICKS, 2)).dts == HOUR + 2 * FRAME_TICKS
    assert line.epoch == 1


def test_what_comes_late_and_with_a_gap_is_a_full_connection() -> None:
    """Five seconds nothing, then two of them at once, and on from now: nobody's clock was set."""
    line = TimeLine()
    line.place(unit(HOUR, 0, random_access=True))
    for frame in range(1, 50):
        line.place(unit(HOUR + frame * FRAME_TICKS, 125))
    original = unit(HOUR + 125 * FRAME_TICKS, 125)
    assert line.place(original) is original
    assert line.epoch == 0


def test_a_camera_of_a_picture_in_five_seconds_is_slow() -> None:
    line = TimeLine()
    for number in range(5):
        line.place(unit(HOUR + number * 5 * SECOND, number * 125, random_access=True))
    assert line.epoch == 0


def test_limits() -> None:
    for step, epoch in ((MAX_STEP_TICKS, 0), (MAX_STEP_TICKS + 1, 1), (1, 0), (0, 1)):
        line = TimeLine()
        line.place(unit(HOUR, 0, random_access=True))
        line.place(unit(HOUR + step, MAX_STEP_TICKS // FRAME_TICKS))
        assert line.epoch == epoch
    for step, epoch in ((MIN_JUMP_TICKS, 0), (MIN_JUMP_TICKS + 2 * FRAME_TICKS, 1)):
        line = TimeLine()
        line.place(unit(HOUR, 0, random_access=True))
        line.place(unit(HOUR + step, 1))
        assert line.epoch == epoch
    for offset, pts in ((MAX_REORDER_TICKS, HOUR + MAX_REORDER_TICKS), (MAX_REORDER_TICKS + 1, HOUR)):
        assert TimeLine().place(unit(HOUR, 0, pts=HOUR + offset)).pts == pts


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**62), 2**62) | st.integers(0, 10 * FRAME_TICKS),
            st.integers(-(2**62), 2**62) | st.integers(0, 10 * FRAME_TICKS),
            st.integers(0, 2**62),
            st.booleans(),
            st.booleans(),
        )
    )
)
def test_strictly_monotonic_whatever_comes(steps: list[tuple[int, int, int, bool, bool]]) -> None:
    line = TimeLine()
    last = -1
    for dts, pts, received_ns, discontinuity, interrupted in steps:
        if interrupted:
            line.interrupt()
        original = synthetic_unit(0, dts=dts, pts=pts, received_ns=received_ns, discontinuity=discontinuity)
        placed = line.place(original)
        assert placed.dts > last
        assert abs(placed.pts - placed.dts) <= MAX_REORDER_TICKS
        assert placed.nal_units is original.nal_units
        last = placed.dts
