"""The scenes of the simulated city, by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from streams.simulator.places import car_park, highway, riverside
from streams.simulator.rendering import Scene
from streams.simulator.streets import crossroads_day, crossroads_night, market, school_gate

SCENES: Mapping[str, Callable[[], Scene]] = MappingProxyType(
    {
        "crossroads-day": crossroads_day,
        "crossroads-night": crossroads_night,
        "car-park": car_park,
        "riverside": riverside,
        "market": market,
        "school-gate": school_gate,
        "highway": highway,
    }
)
"""Every scene by its name; a scene is built when it is called for."""
