"""The scene analysers: what each looks for, and what can be set.

This table is plain data and imports no implementation, so that whoever only lists analysers or checks
parameters needs neither OpenCV nor its memory. No analyser recognises faces, plates, gaits or persons.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Protocol, cast

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from analytics.events import Event, Polygon

SAMPLE_SIZE = (320, 180)
"""Width and height of the luma that all analysers of a camera share."""

Luma = NDArray[np.uint8]


class Analyser(Protocol):
    """One analysis of one camera: keeps what it has learned about the scene. Used by one thread."""

    def analyse(self, luma: Luma, at: datetime) -> list[Event]:
        """Look at one sample, (height, width) of SAMPLE_SIZE, captured `at` (aware UTC, ascending)."""


class MotionParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`region`: where to look, None for everywhere; `excluded`: where not, such as a clock in the picture;
    polygons of normalised (x, y) points.

    `threshold`: levels of 0..255 by which a pixel must differ from the background. `min_area`: the least
    connected area, as a share of the picture. What stands still for `absorb_seconds` belongs to the
    background. An event starts when `needed` of the last `window` samples
    move and ends after `window` without motion; meanwhile it is reported every `update_seconds`.
    """

    region: Polygon | None = None
    excluded: Annotated[tuple[Polygon, ...], Meta(max_length=16)] = ()
    threshold: Annotated[int, Meta(ge=5, le=120)] = 20
    min_area: Annotated[float, Meta(gt=0, le=0.5)] = 0.0008
    needed: Annotated[int, Meta(ge=1, le=30)] = 2
    window: Annotated[int, Meta(ge=1, le=30)] = 3
    warm_up_samples: Annotated[int, Meta(ge=1, le=25)] = 5
    absorb_seconds: Annotated[float, Meta(ge=1, le=3600)] = 12.0
    update_seconds: Annotated[float, Meta(ge=0, le=3600)] = 5.0

    def __post_init__(self) -> None:
        if self.needed > self.window:
            raise ValueError("needed: at most as many as window")


@dataclass(frozen=True, kw_only=True)
class AnalyserDescription:
    """`implementation` is "module:class", an `Analyser` that is called with its parameters."""

    name: str
    title_zh: str
    title_en: str
    description_zh: str
    description_en: str
    parameters: type[MotionParameters]
    implementation: str


ANALYSERS: Mapping[str, AnalyserDescription] = MappingProxyType(
    {
        "motion": AnalyserDescription(
            name="motion",
            title_zh="区域移动侦测",
            title_en="Motion in a region",
            description_zh="设定区域内有物体移动时报告事件。按关键帧抽样：比采样间隔更短的移动可能漏报。",
            description_en=(
                "Reports an event while something moves in the region. It looks at sampled keyframes: "
                "motion that is shorter than the period may be missed."
            ),
            parameters=MotionParameters,
            implementation="analytics.scenes.motion:MotionAnalyser",
        ),
    }
)


class UnknownAnalyserError(ValueError):
    """There is no analyser of this name."""


def load_analysers() -> None:
    """Import every implementation now: a process that is about to be confined cannot later."""
    for description in ANALYSERS.values():
        pkgutil.resolve_name(description.implementation)


def open_analyser(name: str, parameters: Mapping[str, object]) -> Analyser:
    """A new analyser. Raises UnknownAnalyserError, or msgspec.ValidationError for its parameters."""
    description = ANALYSERS.get(name)
    if description is None:
        raise UnknownAnalyserError(name)
    checked = msgspec.convert(dict(parameters), description.parameters)
    return cast("Analyser", pkgutil.resolve_name(description.implementation)(checked))
