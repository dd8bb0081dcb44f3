"""Samples of the rendered scenes, and how well an analyser finds what moves in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import cv2
import numpy as np

from analytics.events import Detection
from analytics.scenes import SAMPLE_SIZE, Luma
from streams.simulator.rendering import HEIGHT, PICTURES_PER_SECOND, WIDTH, SceneRenderer, TruthBox
from streams.simulator.scenes import SCENES

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@lru_cache(maxsize=2)
def renderer(name: str) -> SceneRenderer:
    return SceneRenderer(SCENES[name]())


def to_luma(rgb: np.ndarray) -> Luma:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, SAMPLE_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def samples(name: str, count: int, period_seconds: float) -> Iterator[tuple[datetime, Luma, list[TruthBox]]]:
    """`count` samples of a scene's endless loop, with their times and the ground truth."""
    pictures = SCENES[name]().pictures
    for number in range(count):
        seconds = number * period_seconds
        rgb, truth = renderer(name).picture(round(seconds * PICTURES_PER_SECOND) % pictures)
        yield NOON + timedelta(seconds=seconds), to_luma(rgb), truth


@dataclass
class Score:
    """Objects found, objects missed, and detections where nothing moves."""

    found: int = 0
    missed: int = 0
    false: int = 0

    @property
    def f_measure(self) -> float:
        return 2 * self.found / max(2 * self.found + self.missed + self.false, 1)

    def count(self, detections: Sequence[Detection], truth: Sequence[TruthBox], least_share: float) -> None:
        """An object counts from `least_share` of the picture on; smaller or standing ones may be found.

        It is found if a third of its box is covered by detections; a detection is false if not even a tenth
        of it lies in a box with a margin (for the shadow) around an object.
        """
        covered, near = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
        boxes = [_pixels(detection) for detection in detections]
        for box in boxes:
            covered[box] = True
        for actor in truth:
            margin_x, margin_y = 4 + actor.w // 2, 4 + actor.h // 2
            rows = slice(max(actor.y - margin_y, 0), actor.y + actor.h + margin_y)
            near[rows, max(actor.x - margin_x, 0) : actor.x + actor.w + margin_x] = True
            if actor.moving and actor.w * actor.h >= least_share * WIDTH * HEIGHT:
                inside = covered[actor.y : actor.y + actor.h, actor.x : actor.x + actor.w]
                self.found += bool(inside.mean() > 1 / 3)
                self.missed += bool(inside.mean() <= 1 / 3)
        self.false += sum(bool(near[box].mean() < 0.1) for box in boxes)


def _pixels(detection: Detection) -> tuple[slice, slice]:
    xs, ys = zip(*detection.region.points, strict=True)
    return (
        slice(round(min(ys) * HEIGHT), round(max(ys) * HEIGHT)),
        slice(round(min(xs) * WIDTH), round(max(xs) * WIDTH)),
    )
