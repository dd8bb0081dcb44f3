"""What analysers find: detections in one sample, and events that last.

Places are normalised: x to the right and y down, 0..1 of the picture's width and height. No identity of a
person or vehicle is ever part of it.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_REGION_POINTS = 32

Coordinate = Annotated[float, Meta(ge=0, le=1)]
Polygon = Annotated[
    tuple[tuple[Coordinate, Coordinate], ...], Meta(min_length=3, max_length=MAX_REGION_POINTS)
]
"""What msgspec checks when it decodes; what is made here is right by construction."""


class Region(msgspec.Struct, frozen=True):
    """A part of the picture."""

    points: Polygon

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

    `id` is the same in all phases, unique within the analysis, and the same again when the same pictures are
    analysed again. Times are
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
