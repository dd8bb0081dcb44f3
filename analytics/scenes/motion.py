"""Motion in a region, from samples that may be seconds apart.

The background is an approximate median (sigma-delta: every sample moves it a small step towards itself;
McFarlane and Schofield 1995, Manzanera and Richefeu 2007), begun with a true median of the first samples. At
keyframe rate this beats the mixtures of Gaussians that win at full rate, at a thirtieth of their cost.
"""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from analytics.events import Detection, Event, Phase, Polygon, Region
from analytics.scenes import SAMPLE_SIZE, Luma, MotionParameters

_STEP_LEVELS = 2
"""Per sample: at one sample in 2 s, what differs by 50 levels becomes background after 50 s."""
_DENOISE_KERNEL_PX = 5
_JUMP_SHARE = 0.35
"""A larger moving share of the picture is a change of light, or of the view, rather than motion."""
_JUMP_LEVELS = 12
"""A larger median difference is a change of light, too."""
_BRIGHT_LEVEL, _DARK_SHARE = 100, 0.4
"""Contrast is a share of the light (Weber): the threshold falls to this share where it is dark."""
_MEDIAN_GRID_PX = 4
"""The median of every fourth row and column is the median enough."""
_MAX_DETECTIONS = 64
_MAX_STILL_SAMPLES = 255

Mask = NDArray[np.uint8]


class Background:
    """What a scene looks like when nothing moves; learns from every sample it is shown.

    All in 8-bit saturating arithmetic: a sample costs half a millisecond.
    """

    def __init__(self, *, threshold: int, warm_up_samples: int) -> None:
        self._threshold = threshold
        self._warm_up_samples = warm_up_samples
        light = np.clip(np.arange(256) / _BRIGHT_LEVEL, 0, 1)
        self._thresholds = np.rint(threshold * (_DARK_SHARE + (1 - _DARK_SHARE) * light)).astype(np.uint8)
        self._first: list[Luma] = []
        self._model: Luma | None = None
        self._previous: Luma | None = None
        self._still_samples: NDArray[np.uint8] = np.zeros(1, np.uint8)

    def moving(self, luma: Luma, *, absorb_after: int = 6) -> Mask | None:
        """255 where the sample differs, else 0; None while it learns or the light has just changed.

        What differs but has not changed for `absorb_after` samples (at most 255) becomes background: a
        parked car, and the place that another has left.
        """
        model = self._model
        if model is None:
            self._warm_up(luma)
            return None
        brighter, darker = cv2.subtract(luma, model), cv2.subtract(model, luma)
        differs = cv2.compare(cv2.bitwise_or(brighter, darker), cv2.LUT(model, self._thresholds), cv2.CMP_GT)
        mask = np.asarray(cv2.medianBlur(differs, _DENOISE_KERNEL_PX), np.uint8)
        if _has_light_changed(luma, model, mask):
            self._adapt(luma, model)
            return None
        up, down = np.minimum(brighter, _STEP_LEVELS), np.minimum(darker, _STEP_LEVELS)
        self._model = self._absorb(luma, np.asarray(differs, np.uint8), model + up - down, absorb_after)
        return mask

    def _absorb(self, luma: Luma, differs: Mask, model: Luma, absorb_after: int) -> Luma:
        """The model with what stands still in it."""
        previous, self._previous = self._previous, luma
        if previous is None:
            self._still_samples = np.zeros_like(luma)
            return model
        is_still = (differs > 0) & (cv2.absdiff(luma, previous) <= self._threshold // 2)
        counts = np.minimum(self._still_samples, _MAX_STILL_SAMPLES - 1) + is_still
        self._still_samples = counts * is_still
        return np.where(self._still_samples >= absorb_after, luma, model)

    def _warm_up(self, luma: Luma) -> None:
        self._first.append(luma.copy())
        if len(self._first) >= self._warm_up_samples:
            self._model = np.median(self._first, axis=0).astype(np.uint8)
            self._first.clear()

    def _adapt(self, luma: Luma, model: Luma) -> None:
        """Give the background the sample's distribution of light; learn anew if it is another view."""
        seen, known = (np.cumsum(np.bincount(image.ravel(), minlength=256)) for image in (luma, model))
        adapted = cv2.LUT(model, np.interp(known, seen, np.arange(256)).astype(np.uint8))
        differs = np.count_nonzero(cv2.absdiff(luma, adapted) > self._threshold)
        if differs > _JUMP_SHARE * luma.size:
            self._model = None
            self._warm_up(luma)
        else:
            self._model = np.asarray(adapted, np.uint8)


class MotionAnalyser:
    """Turns moving areas into events: one at a time, around everything that moves."""

    def __init__(self, parameters: MotionParameters) -> None:
        self._parameters = parameters
        self._background = Background(
            threshold=parameters.threshold, warm_up_samples=parameters.warm_up_samples
        )
        self._where = _region_mask(parameters)
        self._least_px = parameters.min_area * self._where.size
        self._recent: deque[tuple[datetime, list[Detection]]] = deque(maxlen=parameters.window)
        self._sampled_at: datetime | None = None
        self._event: Event | None = None
        self._report_every = timedelta(seconds=parameters.update_seconds)
        self._reported_at = self._moved_at = datetime.min.replace(tzinfo=UTC)

    def detect(self, luma: Luma, at: datetime) -> list[Detection] | None:
        """What moves in this sample, the largest first; None if the sample cannot tell.

        The score of a detection is the share of the picture that it covers.
        """
        mask = self._background.moving(luma, absorb_after=self._absorb_after(at))
        if mask is None:
            return None
        moving = cv2.bitwise_and(mask, self._where)
        if np.count_nonzero(moving) < self._least_px:
            return []
        _, _, statistics, _ = cv2.connectedComponentsWithStats(moving)
        areas = statistics[1:, cv2.CC_STAT_AREA]
        largest = np.argsort(-areas)[:_MAX_DETECTIONS]
        return [
            Detection(_rectangle(statistics[1 + index]), float(areas[index]) / mask.size)
            for index in largest
            if areas[index] >= self._least_px
        ]

    def _absorb_after(self, at: datetime) -> int:
        """How many samples, as they come now, `absorb_seconds` are."""
        previous, self._sampled_at = self._sampled_at, at
        period = (at - previous).total_seconds() if previous is not None else 0.0
        if period <= 0:
            return _MAX_STILL_SAMPLES
        return int(np.clip(self._parameters.absorb_seconds / period, 2, _MAX_STILL_SAMPLES))

    def analyse(self, luma: Luma, at: datetime) -> list[Event]:
        """See `Analyser.analyse`. A sample that cannot tell neither starts nor ends anything."""
        detections = self.detect(luma, at)
        if detections is None:
            return []
        self._recent.append((at, detections))
        if detections:
            self._moved_at = at
        moving = [entry for entry in self._recent if entry[1]]
        if self._event is None:
            return self._start(moving) if len(moving) >= self._parameters.needed else []
        if not moving:
            return self._end(self._event)
        return self._update(self._event, at, detections) if detections else []

    def _start(self, moving: list[tuple[datetime, list[Detection]]]) -> list[Event]:
        started_at = moving[0][0]
        found = [detection for _, detections in moving for detection in detections]
        event = Event(
            id=f"motion-{started_at:%Y%m%dT%H%M%S.%f}",
            kind="motion",
            phase=Phase.START,
            started_at=started_at,
            ended_at=None,
            region=Region.bounding(detection.region for detection in found),
            score=max(_total_score(detections) for _, detections in moving),
        )
        self._event, self._reported_at = event, self._recent[-1][0]
        return [event]

    def _update(self, event: Event, at: datetime, detections: list[Detection]) -> list[Event]:
        event = structs.replace(
            event,
            phase=Phase.UPDATE,
            region=Region.bounding(detection.region for detection in detections),
            score=max(event.score, _total_score(detections)),
        )
        self._event = event
        if at - self._reported_at < self._report_every:
            return []
        self._reported_at = at
        return [event]

    def _end(self, event: Event) -> list[Event]:
        self._event = None
        return [structs.replace(event, phase=Phase.END, ended_at=self._moved_at)]


def _has_light_changed(luma: Luma, model: Luma, mask: Mask) -> bool:
    grid = slice(None, None, _MEDIAN_GRID_PX)
    shift = float(np.median(luma[grid, grid].astype(np.int16) - model[grid, grid]))
    return abs(shift) > _JUMP_LEVELS or int(np.count_nonzero(mask)) > _JUMP_SHARE * mask.size


def _total_score(detections: Iterable[Detection]) -> float:
    return min(sum(detection.score for detection in detections), 1.0)


def _rectangle(statistics: NDArray[np.int32]) -> Region:
    width, height = SAMPLE_SIZE
    x, y, w, h = (int(value) for value in statistics[:4])
    left, right, top, bottom = x / width, (x + w) / width, y / height, (y + h) / height
    return Region(((left, top), (right, top), (right, bottom), (left, bottom)))


def _region_mask(parameters: MotionParameters) -> Mask:
    """255 where the analyser looks."""
    width, height = SAMPLE_SIZE
    mask = (
        np.zeros((height, width), np.uint8) if parameters.region else np.full((height, width), 255, np.uint8)
    )
    if parameters.region:
        cv2.fillPoly(mask, [_pixels(parameters.region)], (255,))
    for polygon in parameters.excluded:
        cv2.fillPoly(mask, [_pixels(polygon)], (0,))
    return mask


def _pixels(polygon: Polygon) -> NDArray[np.int32]:
    return np.rint(np.array(polygon) * SAMPLE_SIZE).astype(np.int32)
