import pytest
from support.units import encode_clip, synthetic_unit

from analytics.messages import AnalysisOrder, JpegOrder
from analytics.sampling import AnalysisDemand, Demands, FrameDemand, Keyframe, Schedule, Snapshot
from streams.media import Codec

SECOND = 1_000_000_000


def keyframe(number: int, seconds: float) -> Keyframe:
    track, _ = encode_clip(Codec.H264)
    return Keyframe(
        number, track, synthetic_unit(number, random_access=True, received_ns=int(seconds * SECOND))
    )


def taken(schedule: Schedule, times) -> list[float]:
    result = []
    for number, seconds in enumerate(times, 1):
        frame = keyframe(number, seconds)
        if schedule.wants(frame):
            schedule.take(frame)
            result.append(seconds)
    return result


def test_every_second_keyframe_for_twice_the_interval_though_the_camera_is_not_exact():
    times = [100 + n + (0.03 if n % 2 else -0.03) for n in range(21)]
    assert taken(Schedule(2 * SECOND), times) == times[::2]


def test_a_camera_with_rare_keyframes_stretches_the_period():
    schedule = Schedule(2 * SECOND)
    times = [100 + 5 * n for n in range(6)]
    assert taken(schedule, times) == times
    assert schedule.achieved_period_seconds == pytest.approx(5)


def test_the_period_holds_on_average():
    schedule = Schedule(3 * SECOND)
    assert len(taken(schedule, [100 + n * 0.96 for n in range(100)])) == pytest.approx(32, abs=2)
    assert schedule.achieved_period_seconds == pytest.approx(3, rel=0.2)


def test_a_period_is_unknown_before_the_second_sample():
    schedule = Schedule(SECOND)
    taken(schedule, [1])
    assert schedule.achieved_period_seconds is None


def analysis(name: str, period: float) -> AnalysisDemand:
    order = AnalysisOrder(name, "motion", {})
    return AnalysisDemand(order, Schedule(int(period * SECOND)), lambda _: None, lambda _: None)


def frames(width: int) -> FrameDemand:
    return FrameDemand(JpegOrder(width, 80), Schedule(SECOND), lambda *_: None, lambda: None)


def test_the_earliest_deadline_counts_and_a_snapshot_comes_first():
    demands = Demands({"a": analysis("a", 2), "b": analysis("b", 5)})
    for demand in demands.analyses.values():
        demand.schedule.take(keyframe(1, 100))
    assert demands.deadline_ns(keyframe(2, 101)) is None
    assert demands.deadline_ns(keyframe(2, 102)) == 102 * SECOND
    demands.snapshots.append(Snapshot(JpegOrder(640, 80), lambda _: None, lambda _: None))
    assert demands.deadline_ns(keyframe(2, 101)) == 0


def test_a_lost_keyframe_is_counted_for_those_who_wanted_it():
    demands = Demands({"a": analysis("a", 2), "b": analysis("b", 50)})
    for demand in demands.analyses.values():
        demand.schedule.take(keyframe(1, 100))
    assert demands.replace(keyframe(2, 102)) == 1
    assert [demand.schedule.dropped for demand in demands.analyses.values()] == [1, 0]


def test_equal_pictures_are_made_once_and_too_many_wait_for_the_next_job():
    demands = Demands(frames={n: frames(100 + n // 2) for n in range(10)})
    batch = demands.batch(keyframe(1, 1), max_analyses=10, max_jpegs=3)
    assert len(batch.jpegs) == 3
    assert len(batch.frames) == 6
    for demand in batch.frames:
        demand.schedule.take(batch.keyframe)
    rest = demands.batch(keyframe(1, 1), max_analyses=10, max_jpegs=3)
    assert [demand.order.width for demand in rest.frames] == [103, 103, 104, 104]


def test_nobody_wants_what_was_taken():
    demands = Demands({"a": analysis("a", 2)})
    demands.analyses["a"].schedule.take(keyframe(1, 100))
    assert demands.batch(keyframe(1, 100), max_analyses=1, max_jpegs=1) is None
