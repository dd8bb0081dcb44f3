"""What analysers find: detections in one sample, and events that last.

Places are normalised: x to the right and y down, 0..1 of the picture's width and height. No identity of a
person or vehicle is ever part of it.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

Point = tuple[float, float]

MAX_REGION_POINTS = 32


class Region(msgspec.Struct, frozen=True, array_like=True):
    """A polygon of 3 to MAX_REGION_POINTS points within the picture."""

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        """Raises ValueError (for msgspec: ValidationError) if it is no polygon within the picture."""
        if not 3 <= len(self.points) <= MAX_REGION_POINTS:  # noqa: PLR2004 (a triangle is the least)
            raise ValueError(f"a region has 3 to {MAX_REGION_POINTS} points")
        if not all(0 <= coordinate <= 1 for point in self.points for coordinate in point):
            raise ValueError("a region's coordinates are within 0..1")

    @classmethod
    def bounding(cls, regions: Iterable["Region"]) -> "Region":
        """The least upright rectangle around all of them. Raises ValueError if there is none."""
        points = [point for region in regions for point in region.points]
        (left, right), (top, bottom) = (
            (min(values), max(values)) for values in ([x for x, _ in points], [y for _, y in points])
        )
        return cls(((left, top), (right, top), (right, bottom), (left, bottom)))


class Detection(msgspec.Struct, frozen=True):
    """Something found in one sample. `score`: 0..1, as the analyser defines it."""

    region: Region
    score: float


class Phase(StrEnum):
    START = "start"
    UPDATE = "update"
    END = "end"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went on in front of a camera for a while.

    `id` is the same in all phases, and the same again when the same pictures are analysed again. Times are
    when the pictures were captured, aware UTC; `ended_at` is None until the event is over. `score` is the
    highest so far.
    """

    id: str
    kind: str
    phase: Phase
    started_at: datetime
    ended_at: datetime | None
    region: Region
    score: float
