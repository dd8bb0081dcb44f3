import os
from datetime import timedelta
from pathlib import Path

import av
import cv2
import msgspec
import numpy as np
import pytest
from support.scenes import NOON, Score, samples

from analytics.events import Phase
from analytics.scenes import ANALYSERS, SAMPLE_SIZE, MotionParameters, UnknownAnalyserError, open_analyser
from analytics.scenes.motion import Background, MotionAnalyser

WIDTH, HEIGHT = SAMPLE_SIZE
DATA = Path(os.environ.get("CUSTOS_DATA", Path(__file__).parents[4] / "shared" / "data"))


def street(*, noise: int = 2, seed: int = 0) -> np.ndarray:
    """An empty road: a gradient with texture and a little noise of its own."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    texture = np.random.default_rng(99).integers(0, 30, (HEIGHT, WIDTH))
    grain = np.random.default_rng(seed).integers(-noise, noise + 1, (HEIGHT, WIDTH))
    return (60 + rows // 3 + columns // 8 + texture + grain).astype(np.uint8)


def with_square(luma: np.ndarray, x: int, *, size: int = 24, y: int = 80) -> np.ndarray:
    luma[y : y + size, x : x + size] = 230
    return luma


def run(analyser: MotionAnalyser, pictures, *, start: int = 0, period: float = 2.0) -> list:
    events = []
    for number, luma in enumerate(pictures, start):
        events += analyser.analyse(luma, NOON + timedelta(seconds=number * period))
    return events


def warm(parameters: MotionParameters | None = None) -> tuple[MotionAnalyser, int]:
    analyser = MotionAnalyser(parameters or MotionParameters())
    assert run(analyser, (street(seed=n) for n in range(8))) == []
    return analyser, 8


def test_an_empty_scene_gives_no_event():
    analyser, _ = warm()
    assert run(analyser, (street(seed=n) for n in range(100)), start=8) == []


@pytest.mark.parametrize(("gain", "offset"), [(1.25, 10), (0.7, 0), (1.0, 45), (0.35, 0)])
def test_a_jump_of_the_light_gives_no_event(gain, offset):
    analyser, start = warm()
    changed = (np.clip(street(seed=n) * gain + offset, 0, 255).astype(np.uint8) for n in range(30))
    assert run(analyser, changed, start=start) == []


def test_motion_is_still_found_after_a_jump_of_the_light():
    analyser, start = warm()
    brighter = [np.clip(street(seed=n) * 1.2 + 10, 0, 255).astype(np.uint8) for n in range(10)]
    assert run(analyser, brighter, start=start) == []
    moving = [with_square(brighter[n].copy(), 40 + 60 * n) for n in range(3)]
    assert [event.phase for event in run(analyser, moving, start=start + 10)] == [Phase.START]


def test_another_view_is_learned_anew_without_an_event():
    analyser, start = warm()
    other = [255 - street(seed=n)[::-1] for n in range(30)]
    assert run(analyser, other, start=start) == []


def test_an_event_starts_goes_on_and_ends():
    analyser, start = warm(MotionParameters(update_seconds=4))
    moving = [with_square(street(seed=n), 20 + 40 * n) for n in range(6)]
    empty = [street(seed=n) for n in range(5)]
    events = run(analyser, moving + empty, start=start)
    assert [event.phase for event in events] == [Phase.START, Phase.UPDATE, Phase.UPDATE, Phase.END]
    assert len({event.id for event in events}) == 1
    assert events[0].started_at == NOON + timedelta(seconds=2 * start)
    assert events[-1].ended_at == NOON + timedelta(seconds=2 * (start + 5))
    assert all(event.ended_at is None for event in events[:-1])
    assert all(event.kind == "motion" and 0 < event.score <= 1 for event in events)


def test_the_region_of_an_event_is_where_it_moved():
    analyser, start = warm(MotionParameters(needed=1))
    (event,) = run(analyser, [with_square(street(), 100)], start=start)
    (left, top), _, (right, bottom), _ = event.region.points
    assert (left * WIDTH, top * HEIGHT) == pytest.approx((100, 80), abs=3)
    assert (right * WIDTH, bottom * HEIGHT) == pytest.approx((124, 104), abs=3)


def test_a_single_sample_is_not_enough_for_two_of_three():
    analyser, start = warm(MotionParameters(needed=2, window=3))
    pictures = [
        with_square(street(), 100),
        street(),
        street(),
        with_square(street(), 100),
        street(),
        street(),
    ]
    assert run(analyser, pictures, start=start) == []


def test_only_the_region_counts():
    left_half = ((0, 0), (0.45, 0), (0.45, 1), (0, 1))
    moving = [with_square(street(seed=n), 200 + 5 * n) for n in range(6)]
    analyser, start = warm(MotionParameters(region=left_half))
    assert run(analyser, moving, start=start) == []
    right_half = ((0.5, 0), (1, 0), (1, 1), (0.5, 1))
    analyser, start = warm(MotionParameters(region=right_half))
    assert run(analyser, moving, start=start) != []
    analyser, start = warm(MotionParameters(excluded=(right_half,)))
    assert run(analyser, moving, start=start) == []


def test_what_is_smaller_than_the_least_area_does_not_count():
    moving = [with_square(street(seed=n), 20 + 40 * n, size=12) for n in range(6)]
    for least, expected in ((100 / (WIDTH * HEIGHT), True), (200 / (WIDTH * HEIGHT), False)):
        analyser, start = warm(MotionParameters(min_area=least))
        assert bool(run(analyser, moving, start=start)) is expected


def test_what_stands_still_becomes_background_and_so_does_the_place_that_it_left():
    analyser, start = warm(MotionParameters(absorb_seconds=12))
    parked = [with_square(street(seed=n), 100) for n in range(20)]
    events = run(analyser, parked, start=start)
    assert [events[0].phase, events[-1].phase] == [Phase.START, Phase.END]
    assert events[-1].ended_at - events[0].started_at <= timedelta(seconds=20)
    left = run(analyser, (street(seed=n) for n in range(20)), start=start + 20)
    assert [left[0].phase, left[-1].phase] == [Phase.START, Phase.END]


def test_the_same_pictures_give_the_same_events():
    pictures = [with_square(street(seed=n), 20 + 40 * n) for n in range(6)]
    first, second = (run(warm()[0], pictures, start=8) for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scene", "least"),
    [
        ("crossroads-day", 0.8),
        ("crossroads-night", 0.6),
        ("car-park", 0.7),
        ("riverside", 0.8),
        ("highway", 0.9),
    ],
)
def test_what_moves_in_rendered_scenes_is_found(scene, least):
    analyser, score = MotionAnalyser(MotionParameters()), Score()
    for number, (at, luma, truth) in enumerate(samples(scene, 36, 2.08)):
        detections = analyser.detect(luma, at)
        if detections is not None and number >= 10:
            score.count(detections, truth, least_share=0.0025)
    assert score.found > 20
    assert score.f_measure >= least, score


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "highway").is_dir(), reason="needs the CDnet highway clip (CUSTOS_DATA)")
def test_a_real_highway_at_one_sample_in_two_seconds():
    """CDnet 2014 baseline/highway, pixel masks; picture index = number of the mask - 2."""
    with av.open(str(DATA / "highway" / "highway.avi")) as clip:
        pictures = [
            cv2.resize(frame.to_ndarray(format="gray"), SAMPLE_SIZE, interpolation=cv2.INTER_AREA)
            for number, frame in enumerate(clip.decode(video=0))
            if number % 25 == 0
        ]
    right = false = missed = 0
    for phase in (0, 1):
        background = Background(threshold=20, warm_up_samples=5)
        for number in range(phase, len(pictures), 2):
            mask = background.moving(pictures[number])
            path = DATA / "highway" / "masks" / f"gt{number * 25 + 2:06}.png"
            if mask is None or not path.exists():
                continue
            truth = cv2.resize(cv2.imread(str(path), 0), SAMPLE_SIZE, interpolation=cv2.INTER_NEAREST)
            judged, moves = (truth != 85) & (truth != 170), truth == 255
            right += np.count_nonzero((mask > 0) & moves & judged)
            false += np.count_nonzero((mask > 0) & ~moves & judged)
            missed += np.count_nonzero((mask == 0) & moves & judged)
    assert right > 1000
    assert 2 * right / (2 * right + false + missed) >= 0.85


@pytest.mark.parametrize(
    "parameters",
    [
        {"threshold": 4},
        {"threshold": 121},
        {"min_area": 0},
        {"needed": 4, "window": 3},
        {"region": [[0, 0], [1, 1]]},
        {"region": [[0, 0], [1, 1], [1.1, 0]]},
        {"region": [[0, 0], [1, 1], [0, -0.1]]},
        {"region": [[0, 0]] * 33},
        {"excluded": [[[0, 0], [1, 0], [1, 1]]] * 17},
        {"treshold": 20},
    ],
)
def test_bad_parameters_are_refused(parameters):
    with pytest.raises(msgspec.ValidationError):
        open_analyser("motion", parameters)


def test_parameters_at_their_limits_are_taken():
    triangle = [[0, 0], [1, 0], [1, 1]]
    open_analyser(
        "motion", {"threshold": 5, "min_area": 0.5, "region": triangle, "excluded": [triangle] * 16}
    )
    with pytest.raises(UnknownAnalyserError):
        open_analyser("faces", {})


def test_every_analyser_is_described_in_both_languages():
    for name, analyser in ANALYSERS.items():
        assert analyser.name == name
        assert all((analyser.title_zh, analyser.title_en, analyser.description_zh, analyser.description_en))
        assert any("一" <= character <= "鿿" for character in analyser.description_zh)
        assert msgspec.json.schema(analyser.parameters)
