"""The bit rate of the last minute, by an injected clock."""

from hypothesis import given
from hypothesis import strategies as st

from streams.hub.bit_rate import WINDOW_SECONDS, BitRate

SECOND = 1_000_000_000


def test_percentile_of_whole_seconds() -> None:
    rate = BitRate()
    assert rate.p95_bps(0) == 0
    for second in range(WINDOW_SECONDS):
        rate.count(second, second * SECOND)
    # Seconds 1 to 58 are whole and known: ceil(0.95 * 58) = 56.
    assert rate.p95_bps(59 * SECOND) == 8 * 56


def test_the_running_and_the_first_second_do_not_count() -> None:
    rate = BitRate()
    rate.count(1_000_000, 5 * SECOND)
    assert rate.p95_bps(5 * SECOND) == 0
    assert rate.p95_bps(6 * SECOND) == 0
    rate.count(1000, 6 * SECOND)
    assert rate.p95_bps(7 * SECOND - 1) == 0
    assert rate.p95_bps(7 * SECOND) == 8000


def test_silence_is_forgotten_after_a_minute() -> None:
    rate = BitRate()
    for second in range(70):
        rate.count(1000, second * SECOND)
    assert rate.p95_bps(70 * SECOND) == 8000
    assert rate.p95_bps(75 * SECOND) == 8000
    assert rate.p95_bps(127 * SECOND) == 0
    assert rate.p95_bps(1000 * SECOND) == 0


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40 * SECOND)), min_size=1))
def test_agrees_with_a_plain_sum(steps: list[tuple[int, int]]) -> None:
    rate, now, sums = BitRate(), 0, {}
    for size, pause in steps:
        now += pause
        rate.count(size, now)
        sums[now // SECOND] = sums.get(now // SECOND, 0) + size
    last = now // SECOND
    whole = sorted(sums.get(s, 0) for s in range(max(min(sums) + 1, last - WINDOW_SECONDS + 1), last))
    expected = whole[-(-len(whole) * 95 // 100) - 1] * 8 if whole else 0
    assert rate.p95_bps(now) == expected
