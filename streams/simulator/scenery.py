"""Building blocks of the scenes: trees, lamps, houses, vehicles of all colours, light of day and night."""

import numpy as np

from streams.simulator.actors import Figure, Person, Vehicle
from streams.simulator.paint import Colour
from streams.simulator.perspective import Array, Viewpoint
from streams.simulator.rendering import HEIGHT, WIDTH
from streams.simulator.routes import Pose, Route
from streams.simulator.surfaces import Surface, brick, dashes, tinted, value_noise
from streams.simulator.world import Box, Lighting, Sphere

DAY = Lighting(sun=(0.55, 0.75, -0.4))
AFTERNOON = Lighting(
    sun=(-0.8, 0.5, -0.3), sun_strength=0.8, ambient=(0.46, 0.48, 0.55), sky_top=(0.35, 0.50, 0.78),
    sky_horizon=(0.93, 0.86, 0.76), haze_m=220,
)  # fmt: skip
OVERCAST = Lighting(
    sun=(0.1, 1.0, -0.1), sun_strength=0.22, ambient=(0.72, 0.75, 0.78), sky_top=(0.66, 0.71, 0.77),
    sky_horizon=(0.84, 0.86, 0.87), clouds=0.3, haze_m=180, noise_levels=1.2,
)  # fmt: skip

WHITE: Colour = (0.88, 0.88, 0.86)
YELLOW: Colour = (0.88, 0.70, 0.20)

_PAINTS: tuple[Colour, ...] = (
    (0.85, 0.85, 0.86), (0.15, 0.16, 0.18), (0.55, 0.57, 0.60), (0.62, 0.10, 0.10), (0.12, 0.24, 0.48),
    (0.82, 0.80, 0.74), (0.20, 0.36, 0.30), (0.80, 0.55, 0.15),
)  # fmt: skip
_COATS: tuple[Colour, ...] = (
    (0.75, 0.20, 0.18), (0.16, 0.28, 0.55), (0.85, 0.83, 0.78), (0.20, 0.42, 0.30), (0.88, 0.62, 0.22),
    (0.45, 0.25, 0.50), (0.22, 0.23, 0.26), (0.30, 0.60, 0.70),
)  # fmt: skip


def night(*lamps: tuple[float, float, float]) -> Lighting:
    return Lighting(
        sun=None, ambient=(0.13, 0.15, 0.22), sky_top=(0.02, 0.03, 0.07), sky_horizon=(0.10, 0.10, 0.15),
        clouds=0.0, haze_m=320, lamps=lamps, noise_levels=2.2,
    )  # fmt: skip


def plaster(colour: Colour) -> Surface:
    """A rendered wall with faint courses per storey."""

    def surface(u: Array, v: Array) -> Array:
        course = dashes(v, period=3.2, length=0.18)
        return tinted(colour, 0.92 + 0.1 * value_noise(u * 0.7, v * 0.7, 9) - 0.12 * course)

    return surface


def house(
    left: float, right: float, near: float, far: float, height: float, colour: Colour | None = None
) -> tuple[Box, ...]:
    """A block of flats with a flat roof and a parapet; brick if no colour is given."""
    facade = brick if colour is None else plaster(colour)
    roof = (0.42, 0.41, 0.40)
    return (
        Box(low=(left, 0, near), high=(right, height, far), colour=roof, facade=facade, windows=2.9),
        Box(
            low=(left - 0.3, height, near - 0.3),
            high=(right + 0.3, height + 0.7, far),
            colour=(0.6, 0.58, 0.55),
        ),
    )


def tree(x: float, z: float, height: float = 6.5) -> tuple[Box | Sphere, ...]:
    crown = height * 0.3
    green = (0.24, 0.42, 0.17) if (x + z) % 2 < 1 else (0.30, 0.45, 0.18)
    return (
        Box(low=(x - 0.15, 0, z - 0.15), high=(x + 0.15, height * 0.6, z + 0.15), colour=(0.35, 0.27, 0.2)),
        Sphere(centre=(x, height - crown, z), radius=crown, colour=green),
        Sphere(centre=(x - crown * 0.6, height - crown * 1.4, z - 0.3), radius=crown * 0.75, colour=green),
        Sphere(centre=(x + crown * 0.65, height - crown * 1.3, z + 0.2), radius=crown * 0.7, colour=green),
    )


def lamp_post(x: float, z: float, *, arm: float, height: float = 7.5) -> tuple[Box, ...]:
    """A street lamp whose head is `arm` metres to the right of its pole; its light is at `lamp_head`."""
    grey = (0.45, 0.47, 0.5)
    left, right = min(x, x + arm), max(x, x + arm)
    return (
        Box(low=(x - 0.09, 0, z - 0.09), high=(x + 0.09, height, z + 0.09), colour=grey),
        Box(low=(left, height - 0.1, z - 0.06), high=(right, height, z + 0.06), colour=grey),
        Box(
            low=(x + arm - 0.4, height - 0.3, z - 0.2), high=(x + arm + 0.4, height - 0.1, z + 0.2),
            colour=(1.0, 0.9, 0.7), glows=True,
        ),
    )  # fmt: skip


def lamp_head(x: float, z: float, *, arm: float, height: float = 7.5) -> tuple[float, float, float]:
    return (x + arm, height - 0.4, z)


def car(paint: int) -> Vehicle:
    return Vehicle("car", _PAINTS[paint % len(_PAINTS)], (4.5, 1.8, 1.48))


def van(paint: int) -> Vehicle:
    return Vehicle("van", _PAINTS[paint % len(_PAINTS)], (5.2, 2.0, 2.2))


def bus(paint: int) -> Vehicle:
    return Vehicle("bus", _PAINTS[paint % len(_PAINTS)], (11.0, 2.5, 3.1))


def truck(paint: int) -> Vehicle:
    return Vehicle("truck", _PAINTS[paint % len(_PAINTS)], (9.5, 2.5, 3.4))


def person(coat: int, height: float = 1.72) -> Person:
    trousers = ((0.16, 0.18, 0.26), (0.30, 0.27, 0.24), (0.12, 0.12, 0.13))[coat % 3]
    return Person(_COATS[coat % len(_COATS)], trousers, height)


def straight(*points: tuple[float, float], seconds: float) -> Route:
    """Along the points at constant speed."""
    return Route(points, ((0, 0), (seconds, 1)))


def parked(figure: Figure, x: float, z: float, degrees: float = 0.0) -> tuple[Figure, Pose]:
    """`degrees`: heading, clockwise from away from the camera."""
    heading = (float(np.sin(np.radians(degrees))), float(np.cos(np.radians(degrees))))
    return figure, Pose(x, z, heading, 0.0, 0.0)


def viewpoint(height_m: float, pitch: float, yaw: float = 0.0, field: float = 60.0) -> Viewpoint:
    return Viewpoint(
        width=WIDTH,
        height=HEIGHT,
        height_m=height_m,
        pitch_degrees=pitch,
        yaw_degrees=yaw,
        field_of_view_degrees=field,
    )
