"""Scenes of the inner city: a crossing by day and by night, the market, the school gate.

Traffic keeps to the right. Times are seconds in the loop; every scene is a pure function of them.
"""

# ruff: noqa: PLR2004 (a description of places in metres is made of numbers)

from collections.abc import Mapping

import numpy as np

from streams.simulator.actors import Cyclist
from streams.simulator.perspective import Array
from streams.simulator.rendering import Actor, Scene
from streams.simulator.routes import Route
from streams.simulator.scenery import (
    DAY,
    OVERCAST,
    WHITE,
    YELLOW,
    bus,
    car,
    house,
    lamp_head,
    lamp_post,
    night,
    person,
    straight,
    tree,
    van,
    viewpoint,
)
from streams.simulator.surfaces import (
    asphalt,
    band,
    cycle_lane,
    dashes,
    paint_over,
    paving,
    within,
)
from streams.simulator.world import Box, Lighting, World


def _crossroads_ground(x: Array, z: Array) -> Array:
    surface = paving(x, z)
    is_main, is_side = band(z, 28, 14), band(x, 3, 13)
    road = asphalt(x, z)
    surface[:, is_main | is_side] = road[:, is_main | is_side]
    kerb = (band(z, 21, 0.3) | band(z, 35, 0.3)) & ~is_side | (
        band(x, -3.5, 0.3) | band(x, 9.5, 0.3)
    ) & ~is_main
    paint_over(surface, kerb, (0.75, 0.74, 0.72))
    outside = ~(is_main & is_side)
    free = outside & ~within(x, z, -12.5, 18.5, 16, 40)
    paint_over(surface, free & (band(z, 27.88, 0.12) | band(z, 28.12, 0.12)) & is_main, YELLOW)
    paint_over(surface, free & (band(x, 2.88, 0.12) | band(x, 3.12, 0.12)) & is_side, YELLOW)
    lanes = (band(z, 24.5, 0.13) | band(z, 31.5, 0.13)) & is_main & dashes(x, period=4, length=2)
    paint_over(surface, free & lanes, WHITE)
    stripes_x, stripes_z = dashes(x, period=1.2, length=0.6), dashes(z, period=1.2, length=0.6)
    paint_over(surface, within(x, z, -3, 9, 16.8, 20) & stripes_x, WHITE)
    paint_over(surface, within(x, z, -3, 9, 36, 39.2) & stripes_x, WHITE)
    paint_over(surface, within(x, z, -8.2, -5, 21.5, 34.5) & stripes_z, WHITE)
    paint_over(surface, within(x, z, 11, 14.2, 21.5, 34.5) & stripes_z, WHITE)
    stop = within(x, z, -10, -9.5, 21.3, 27.8) | within(x, z, 15.7, 16.2, 28.2, 34.7)
    stop |= within(x, z, 3.2, 9.3, 15.3, 15.8) | within(x, z, -3.3, 2.8, 40.2, 40.7)
    paint_over(surface, stop, WHITE)
    return surface


def _crossroads_actors() -> tuple[Actor, ...]:
    """Main road green from 0 to 10 s, side road from 12 to 21 s."""
    cross = ((0.0, 0.0), (2.5, 0.37), (4.5, 0.42), (12.0, 0.42), (14.5, 0.55), (17.5, 1.0))
    return (
        Actor(car(0), straight((-60, 26), (70, 26), seconds=11), 22.5),
        Actor(bus(4), straight((-75, 22.9), (80, 22.9), seconds=13.5), 22.5),
        Actor(car(3), straight((70, 30), (-60, 30), seconds=11.5), 22.0),
        Actor(van(2), straight((80, 33), (-60, 33), seconds=13), 23.5),
        Actor(car(5), straight((-60, 26), (70, 26), seconds=11), 1.5),
        Actor(
            car(1),
            Route(((4.6, -12), (4.6, 80)), ((0.0, 0.0), (3, 0.22), (4.4, 0.26), (8.2, 0.26), (15, 1.0))),
            4.5,
        ),
        Actor(car(7), Route(((-0.2, 95), (-0.2, 0)), cross), 0.0),
        Actor(car(4), Route(((-0.2, 105), (-0.2, 8)), cross), 0.9),
        Actor(Cyclist(person(4)), Route(((-50, 22), (-1, 22), (7.8, 25), (7.8, 80)), ((0, 0), (20, 1))), 2.0),
        Actor(person(0), straight((-9, 19.2), (1, 18.6), (22, 18.4), seconds=20), 22.0),
        Actor(person(1), straight((20, 17.8), (4, 18.0), (-20, 18.6), seconds=22), 23.0),
        Actor(person(2), straight((-6.3, 44), (-6.3, 30), (-6.6, 12), seconds=19), 8.5),
        Actor(person(5), straight((12.2, 10), (12.4, 30), (12.8, 48), seconds=21), 9.5),
        Actor(person(6), straight((-40, 37), (-8, 36.6), (-5, 42), seconds=23), 3.0),
        Actor(person(3), straight((34, 36.8), (10, 37), (-6, 37.4), seconds=22), 20.0),
    )


_CROSSROADS_LAMPS = (
    (-4.8, 20.2, 2.2),
    (10.8, 36.2, -2.2),
    (-24.0, 36.2, 2.0),
    (30.0, 20.0, -2.0),
    (-4.6, 60.0, 2.0),
)


def _crossroads(name: str, title: Mapping[str, str], lighting: Lighting) -> Scene:
    lamps = tuple(solid for x, z, arm in _CROSSROADS_LAMPS for solid in lamp_post(x, z, arm=arm))
    trees = tuple(solid for x in (-34, -27, -19, -12, 17, 24, 32) for solid in tree(x, 38.6))
    return Scene(
        name=name,
        title=title,
        viewpoint=viewpoint(8.2, 15, 2.0),
        lighting=lighting,
        world=World(
            ground=_crossroads_ground,
            solids=(
                *house(-62, -34, 45, 60, 17, (0.78, 0.70, 0.58)),
                *house(-31, -6.5, 44, 58, 24, (0.72, 0.74, 0.76)),
                *house(12.5, 30, 44, 60, 13),
                *house(32, 58, 46, 62, 28, (0.80, 0.76, 0.70)),
                *house(-8, 16, 105, 120, 36, (0.66, 0.70, 0.76)),
                *house(-40, -12, 70, 90, 34, (0.74, 0.68, 0.64)),
                *house(14, 40, 75, 95, 42, (0.70, 0.72, 0.72)),
                *lamps,
                *trees,
            ),
        ),
        actors=_crossroads_actors(),
    )


def crossroads_day() -> Scene:
    return _crossroads("crossroads-day", {"zh": "人民路与建设街路口", "en": "Renmin Road crossing"}, DAY)


def crossroads_night() -> Scene:
    light = night(*(lamp_head(x, z, arm=arm) for x, z, arm in _CROSSROADS_LAMPS))
    return _crossroads(
        "crossroads-night", {"zh": "人民路与建设街路口（夜间）", "en": "Renmin Road crossing, night"}, light
    )


def _market_ground(x: Array, z: Array) -> Array:
    surface = paving(x, z, tile_m=0.8, colour=(0.62, 0.56, 0.50))
    paint_over(surface, band(x, 0, 0.5), (0.42, 0.40, 0.38))
    paint_over(surface, band(x, -5.2, 0.3) | band(x, 5.2, 0.3), (0.5, 0.48, 0.45))
    return surface


def _stall(x: float, z: float, number: int) -> tuple[Box, ...]:
    awnings = (
        (0.75, 0.18, 0.16),
        (0.90, 0.88, 0.82),
        (0.16, 0.40, 0.55),
        (0.85, 0.60, 0.18),
        (0.22, 0.48, 0.28),
    )
    goods = ((0.85, 0.45, 0.12), (0.55, 0.68, 0.22), (0.78, 0.20, 0.20), (0.86, 0.78, 0.35))
    post = (0.4, 0.38, 0.35)
    return (
        Box(low=(x - 1.1, 0, z - 1.6), high=(x + 1.1, 0.8, z + 1.6), colour=(0.50, 0.38, 0.27)),
        Box(low=(x - 1.0, 0.8, z - 1.5), high=(x + 1.0, 1.0, z + 0.1), colour=goods[number % 4]),
        Box(low=(x - 1.0, 0.8, z + 0.2), high=(x + 1.0, 1.0, z + 1.5), colour=goods[(number + 1) % 4]),
        *(
            Box(
                low=(x + side * 1.2 - 0.05, 0, z + end * 1.7 - 0.05),
                high=(x + side * 1.2 + 0.05, 2.4, z + end * 1.7 + 0.05),
                colour=post,
            )
            for side in (-1, 1)
            for end in (-1, 1)
        ),
        Box(low=(x - 1.5, 2.4, z - 1.9), high=(x + 1.5, 2.6, z + 1.9), colour=awnings[number % 5]),
    )


def market() -> Scene:
    stalls = tuple(
        part
        for number, z in enumerate(range(16, 62, 5))
        for side in (-1, 1)
        for part in _stall(side * 7.2, z + side, number * 2 + (side > 0))
    )
    walks = tuple(
        Actor(
            person(number, 1.2 if number % 7 == 3 else 1.6 + 0.04 * (number % 5)),
            Route(
                (
                    (-4.4 + number * 2.3 % 8.8, 3 if number % 2 else 64),
                    (-3.8 + number * 1.7 % 7.6, 32),
                    (-4.4 + number * 3.1 % 8.8, 64 if number % 2 else 3),
                ),
                ((0, 0), (9 + number % 3, 0.30), (12 + number % 5, 0.34), (23.9, 0.78)),
            ),
            number * 24 / 16,
        )
        for number in range(16)
    )
    shoppers = (
        Actor(
            person(5),
            Route(
                ((-4, 40), (-5.4, 31), (-5.4, 27.5), (3, 10), (4, 2)),
                ((0, 0), (7, 0.33), (14, 0.36), (23.5, 1)),
            ),
        ),
        Actor(
            person(2),
            Route(((5, 60), (5.4, 37), (5.4, 34), (-3, 8)), ((0, 0), (9, 0.42), (15, 0.44), (23.5, 1))),
            12,
        ),
    )
    return Scene(
        name="market",
        title={"zh": "老城集市步行街", "en": "Old town market"},
        viewpoint=viewpoint(6.2, 15, 0, 58),
        lighting=DAY,
        world=World(
            ground=_market_ground,
            solids=(
                *house(-22, -9.6, 8, 30, 11),
                *house(-22, -9.6, 30, 52, 14, (0.82, 0.74, 0.60)),
                *house(-24, -9.6, 52, 80, 10, (0.70, 0.62, 0.55)),
                *house(9.6, 22, 8, 34, 12, (0.76, 0.70, 0.62)),
                *house(9.6, 22, 34, 58, 9),
                *house(9.6, 24, 58, 80, 15, (0.72, 0.72, 0.70)),
                *house(-14, 14, 92, 104, 18, (0.74, 0.66, 0.56)),
                *stalls,
            ),
        ),
        actors=(*walks, *shoppers),
    )


def _school_ground(x: Array, z: Array) -> Array:
    surface = paving(x, z)
    is_road = band(z, 20, 9)
    surface[:, is_road] = asphalt(x[is_road], z[is_road])
    paint_over(surface, band(z, 15.4, 0.25) | band(z, 24.6, 0.25), (0.78, 0.77, 0.75))
    crossing = within(x, z, -2.5, 2.5, 15.6, 24.4)
    paint_over(surface, crossing & dashes(z, period=1.3, length=0.65), WHITE)
    paint_over(surface, band(z, 20, 0.14) & dashes(x, period=4, length=2) & ~crossing, WHITE)
    zigzag = (band(z, 16, 0.12) | band(z, 24, 0.12)) & ~within(x, z, -3, 3, 0, 40)
    paint_over(surface, zigzag, YELLOW)
    is_yard = z > 30.5
    surface[:, is_yard] = cycle_lane(x[is_yard], z[is_yard])
    return surface


def school_gate() -> Scene:
    """The school bus stops before the gate; pupils cross while the cars wait."""
    fence = tuple(
        Box(low=(x - 0.04, 0, 30), high=(x + 0.04, 2.0, 30.08), colour=(0.25, 0.33, 0.30))
        for x in np.arange(-30, 30.1, 0.8)
        if abs(x) > 3.6
    )
    rails = tuple(
        Box(low=(low, up, 30), high=(high, up + 0.08, 30.08), colour=(0.25, 0.33, 0.30))
        for up in (0.3, 1.85)
        for low, high in ((-60, -3.6), (3.6, 60))
    )
    stone = (0.72, 0.66, 0.58)
    gate = (
        Box(low=(-4.6, 0, 29.6), high=(-3.6, 3.6, 30.6), colour=stone, facade=None),
        Box(low=(3.6, 0, 29.6), high=(4.6, 3.6, 30.6), colour=stone),
        Box(low=(-4.8, 3.6, 29.5), high=(4.8, 4.5, 30.7), colour=(0.58, 0.20, 0.18)),
    )
    waits = ((0, 0), (4, 0.36), (6, 0.41), (13, 0.41), (15.5, 0.5), (19, 1))
    pupils = tuple(
        Actor(
            person(number, 1.25 + 0.05 * (number % 4)),
            Route(
                (
                    (-14 + number * 4.2 % 28, 13.2),
                    (-1.6 + number * 1.3 % 3.2, 14.4),
                    (1.5 - number * 0.9 % 3, 25),
                    (-2 + number * 1.1 % 4, 30),
                    (-9 + number * 3.7 % 18, 40),
                ),
                ((0, 0), (14, 0.75), (20, 1)),
            ),
            (number * 0.8 + 22.5) % 24,
        )
        for number in range(8)
    )
    return Scene(
        name="school-gate",
        title={"zh": "实验小学门口", "en": "Primary school gate"},
        viewpoint=viewpoint(6.5, 16, 0, 62),
        lighting=OVERCAST,
        world=World(
            ground=_school_ground,
            solids=(
                *fence,
                *rails,
                *gate,
                *house(-34, -8, 52, 66, 13, (0.82, 0.62, 0.50)),
                *house(-8, 8, 54, 66, 16, (0.86, 0.82, 0.76)),
                *house(8, 34, 52, 66, 13, (0.82, 0.62, 0.50)),
                *(part for x in (-24, -17, -10, 10, 17, 24) for part in tree(x, 34, 6)),
                *lamp_post(-8, 14.6, arm=1.0, height=6),
                *lamp_post(8.5, 27, arm=-1.0, height=6),
            ),
        ),
        actors=(
            Actor(bus(7), Route(((-60, 17.7), (60, 17.7)), waits), 21.0),
            Actor(
                car(0),
                Route(
                    ((-60, 17.7), (60, 17.7)),
                    ((0, 0), (5, 0.29), (6.5, 0.31), (10, 0.31), (13, 0.45), (17, 1)),
                ),
                0.5,
            ),
            Actor(car(4), Route(((60, 22.3), (-60, 22.3)), waits), 22.5),
            Actor(van(1), straight((60, 22.3), (-60, 22.3), seconds=10), 13.5),
            *pupils,
            Actor(person(6, 1.7), straight((26, 27.5), (2.5, 27.0), (-26, 27.6), seconds=23.5), 4.0),
            Actor(person(3, 1.68), straight((-26, 12.8), (26, 13.2), seconds=23), 9.0),
            Actor(Cyclist(person(1)), straight((-30, 16.3), (30, 16.3), seconds=11), 8.5),
        ),
    )
