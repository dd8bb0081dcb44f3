"""How busy a loop must be for its writes to be merged, and for how long then."""

import random

import pytest

from streams.hub import HubSettings, MergeControl
from streams.hub.settings import MAX_MERGE_SECONDS


def ticks(control: MergeControl, count: int, unmerged_load: float, *, fps: int = 25) -> list[float]:
    """Windows after each quarter of a second, if the load is all writes: one per group."""
    windows = []
    for _ in range(count):
        units_per_write = 1 + int(control.window_seconds * fps)
        control.tick(unmerged_load / units_per_write, 0.0)
        windows.append(control.window_seconds)
    return windows


def test_idle_loops_do_not_merge_and_busy_ones_do() -> None:
    control = MergeControl(HubSettings())
    assert control.window_seconds == 0
    assert set(ticks(control, 40, 0.4)) == {0.0}
    assert ticks(control, 8, 0.95)[-1] > 0.03


@pytest.mark.parametrize("unmerged_load", [0.3, 0.51, 0.6, 0.8, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("merge_seconds", [0.1, MAX_MERGE_SECONDS])
@pytest.mark.parametrize("fps", [5, 15, 25, 50])
def test_the_window_does_not_flutter(unmerged_load: float, merge_seconds: float, fps: int) -> None:
    """Merging lowers the load by more than half: that must not be taken for calm."""
    control = MergeControl(HubSettings(merge_seconds=merge_seconds))
    for step in range(1, 7):
        control.tick(1.0, 0.0)
        assert control.window_seconds == pytest.approx(merge_seconds * min(1, 2 ** (step - 5)))
    ticks(control, 200, unmerged_load, fps=fps)
    assert len(set(ticks(control, 200, unmerged_load, fps=fps))) == 1


def test_calm_ends_it_step_by_step() -> None:
    control = MergeControl(HubSettings())
    ticks(control, 20, 3.0)
    assert control.window_seconds > 0
    windows = ticks(control, 60, 0.01)
    assert windows == sorted(windows, reverse=True)
    assert windows[-1] == 0


def test_noise_about_the_threshold_does_not_end_it() -> None:
    control = MergeControl(HubSettings())
    numbers_between = random.Random(1)
    for _ in range(20):
        control.tick(0.9, 0.0)
    for _ in range(1000):
        control.tick(numbers_between.choice([0.15, 0.3]), 0.0)
        # eight quiet quarters in a row come by chance, seldom; a single busy one undoes a step
        control.tick(0.45, 0.0)
    assert control.window_seconds == 0.1


def test_a_late_loop_is_busy_whoever_had_the_processor() -> None:
    control = MergeControl(HubSettings())
    control.tick(0.1, 0.06)
    assert control.window_seconds > 0


def test_merging_can_be_on_always_or_never() -> None:
    assert MergeControl(HubSettings(merge_seconds=0.1, merge_above_load=0)).window_seconds == 0.1
    never = MergeControl(HubSettings(merge_seconds=0))
    never.tick(1.0, 1.0)
    assert never.window_seconds == 0


async def test_the_load_is_the_threads_time_against_the_walls() -> None:
    class DoneError(Exception):
        pass

    wall, busy, slept = [100.0], [7.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise DoneError
        wall[0] += seconds
        busy[0] += 0.2

    control = MergeControl(HubSettings(), clock=lambda: wall[0], thread_time=lambda: busy[0], sleep=sleep)
    with pytest.raises(DoneError):
        await control.run()
    assert slept == [0.25] * 4
    assert control.window_seconds == pytest.approx(0.1 / 4)


@pytest.mark.parametrize(
    ("values", "is_good"),
    [
        ({"merge_seconds": MAX_MERGE_SECONDS, "merge_above_load": 1}, True),
        ({"merge_seconds": MAX_MERGE_SECONDS + 0.001}, False),
        ({"merge_seconds": -0.001}, False),
        ({"merge_above_load": 1.001}, False),
        ({"merge_above_load": -0.001}, False),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, float], is_good: bool) -> None:
    if is_good:
        HubSettings(**values)
    else:
        with pytest.raises(ValueError, match="merge_"):
            HubSettings(**values)
