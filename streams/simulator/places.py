"""Scenes with a wide view: the car park, the riverside, the expressway.

Traffic keeps to the right. Times are seconds in the loop; every scene is a pure function of them.
"""

# ruff: noqa: PLR2004 (a description of places in metres is made of numbers)

import numpy as np

from streams.simulator.actors import Boat, Cyclist
from streams.simulator.perspective import Array
from streams.simulator.rendering import Actor, Scene
from streams.simulator.routes import Route
from streams.simulator.scenery import (
    AFTERNOON,
    DAY,
    WHITE,
    bus,
    car,
    house,
    lamp_post,
    parked,
    person,
    straight,
    tree,
    truck,
    van,
    viewpoint,
)
from streams.simulator.surfaces import (
    asphalt,
    band,
    cycle_lane,
    dashes,
    grass,
    paint_over,
    paving,
    water,
    within,
)
from streams.simulator.world import Box, World


def _car_park_ground(x: Array, z: Array) -> Array:
    surface = asphalt(x, z)
    surface[:, z > 44] = grass(x[z > 44], z[z > 44])
    is_path = band(z, 45.5, 3)
    surface[:, is_path] = paving(x[is_path], z[is_path])
    rows = (
        within(x, z, -21, 21, 12.5, 17.7)
        | within(x, z, -21, 21, 25.3, 30.5)
        | within(x, z, -21, 21, 37.5, 42.7)
    )
    paint_over(surface, rows & (((x + 21) % 2.8 < 0.12) | (x > 20.9)), WHITE)
    paint_over(
        surface, (band(z, 17.7, 0.12) | band(z, 25.3, 0.12) | band(z, 37.5, 0.12)) & (np.abs(x) < 21), WHITE
    )
    arrows = within(x, z, -10, -7.5, 21.3, 21.6) | within(x, z, 6, 8.5, 21.3, 21.6)
    paint_over(surface, arrows, WHITE)
    return surface


def car_park() -> Scene:
    """One car comes and parks, one leaves, one drives through; people walk to and from their cars."""
    rows = (
        (15.1, 0.0, (0, 1, 3, 6, 9, 10, 13)),
        (27.9, 180.0, (1, 2, 5, 6, 8, 11, 12, 14)),
        (40.1, 180.0, range(0, 15, 2)),
    )
    standing = tuple(
        parked(van(bay) if bay % 5 == 2 else car(bay * 3 + row), -19.6 + 2.8 * bay, z, degrees)
        for row, (z, degrees, bays) in enumerate(rows)
        for bay in bays
    )
    return Scene(
        name="car-park",
        title={"zh": "市民中心停车场", "en": "Civic centre car park"},
        viewpoint=viewpoint(10.5, 22, 0, 58),
        lighting=AFTERNOON,
        world=World(
            ground=_car_park_ground,
            solids=(
                *house(-45, -14, 52, 66, 14, (0.80, 0.77, 0.72)),
                *house(-10, 30, 54, 68, 20, (0.70, 0.73, 0.77)),
                *(part for x in (-26, -17, -8, 1, 10, 19, 28) for part in tree(x, 48.5, 6)),
                *lamp_post(-22.5, 22, arm=2.5),
                *lamp_post(22.5, 33, arm=-2.5),
            ),
        ),
        actors=(
            Actor(
                car(3),
                Route(
                    ((40, 21.5), (12, 21.5), (6.5, 21.8), (5.6, 25), (5.6, 28)),
                    ((0, 0), (6, 0.78), (9, 1.0), (20, 1.0)),
                ),
            ),
            Actor(person(0), Route(((4.4, 27), (4.2, 22), (-6, 20.8), (-30, 21)), ((0, 0), (14, 1))), 9.5),
            Actor(car(5), Route(((-25, 33.5), (0, 33.5), (40, 33.5)), ((0, 0), (11, 1))), 5.0),
            Actor(van(4), straight((-36, 22.6), (36, 22.6), seconds=12), 12.0),
            Actor(person(1), straight((-32, 45.5), (32, 45.5), seconds=23.5), 2.0),
            Actor(person(2), straight((30, 19.6), (2, 19.4), (-30, 19.6), seconds=23), 0.5),
            Actor(Cyclist(person(3)), straight((30, 34.8), (-34, 35.2), seconds=14), 15.0),
        ),
        parked=standing,
    )


def _riverside_ground(x: Array, z: Array) -> Array:
    surface = paving(x, z, tile_m=1.2, colour=(0.64, 0.60, 0.55))
    is_lawn = z < 13
    surface[:, is_lawn] = grass(x[is_lawn], z[is_lawn])
    is_lane = band(z, 15.2, 3.0)
    surface[:, is_lane] = cycle_lane(x[is_lane], z[is_lane])
    paint_over(surface, band(z, 15.2, 0.1) & dashes(x, period=3, length=1.5), WHITE)
    is_river = (z > 24.4) & (z < 78)
    surface[:, is_river] = water(x[is_river], z[is_river])
    is_bank = z >= 78
    surface[:, is_bank] = grass(x[is_bank], z[is_bank])
    return surface


def _is_river(_x: Array, z: Array) -> Array:
    return np.asarray(((z > 24.4) & (z < 78)).astype(np.float32)[None])


def riverside() -> Scene:
    rail = tuple(
        Box(low=(x - 0.05, 0, 24.0), high=(x + 0.05, 1.1, 24.1), colour=(0.85, 0.86, 0.86))
        for x in range(-26, 28, 2)
    )
    bars = tuple(
        Box(low=(-60, up, 24.0), high=(60, up + 0.07, 24.08), colour=(0.85, 0.86, 0.86)) for up in (0.5, 1.05)
    )
    return Scene(
        name="riverside",
        title={"zh": "滨江步道", "en": "Riverside walk"},
        viewpoint=viewpoint(6.8, 12, 0, 62),
        lighting=AFTERNOON,
        world=World(
            ground=_riverside_ground,
            water=_is_river,
            solids=(
                *rail,
                *bars,
                *(part for x in (-19, -9.5, 9, 18.5) for part in tree(x, 11.8, 5.5)),
                *(part for x in range(-90, 95, 12) for part in tree(x + x % 5, 82, 8)),
                *house(-110, -70, 95, 115, 30, (0.74, 0.72, 0.70)),
                *house(-62, -38, 92, 112, 44, (0.66, 0.70, 0.76)),
                *house(-30, 2, 96, 116, 26),
                *house(10, 34, 94, 112, 52, (0.78, 0.74, 0.68)),
                *house(42, 78, 96, 116, 34, (0.70, 0.70, 0.72)),
                *lamp_post(-13, 18, arm=1.2, height=5),
                *lamp_post(13, 18, arm=1.2, height=5),
            ),
        ),
        actors=(
            Actor(Boat((0.30, 0.20, 0.18)), straight((-85, 52), (85, 54), seconds=24)),
            Actor(Boat((0.15, 0.25, 0.35), (11, 3.4, 2.6)), straight((70, 38), (-70, 37), seconds=22), 9.0),
            Actor(person(0), straight((-26, 20.5), (26, 21.2), seconds=23.5)),
            Actor(person(4), straight((-26, 21.5), (26, 22.0), seconds=23.5), 0.4),
            Actor(person(1), straight((26, 22.6), (-26, 22.2), seconds=23), 11.0),
            Actor(
                person(6),
                Route(((-24, 23), (-4, 23), (24, 22.6)), ((0, 0), (8, 0.4), (15, 0.42), (23.5, 1))),
                5.0,
            ),
            Actor(person(2, 1.2), straight((24, 19.5), (-24, 19.0), seconds=17), 3.0),
            Actor(Cyclist(person(7)), straight((-24, 15.9), (24, 15.9), seconds=8), 1.0),
            Actor(Cyclist(person(3)), straight((24, 14.5), (-24, 14.5), seconds=9), 12.0),
        ),
    )


def _highway_ground(x: Array, z: Array) -> Array:
    surface = grass(x, z)
    is_road = (np.abs(x) < 14.5) & (np.abs(x) > 0.9)
    surface[:, is_road] = asphalt(x[is_road] * 0.7, z[is_road] * 0.25)
    side = np.abs(x)
    paint_over(surface, band(side, 1.5, 0.18) | band(side, 12.2, 0.18), WHITE)
    paint_over(
        surface, (band(side, 5.0, 0.16) | band(side, 8.6, 0.16)) & dashes(z, period=9, length=4), WHITE
    )
    return surface


def highway() -> Scene:
    barrier = tuple(
        Box(low=(x - 0.12, low, -20), high=(x + 0.12, high, 600), colour=(0.72, 0.74, 0.75))
        for x, low, high in ((0, 0, 0.8), (-14.8, 0.45, 0.8), (14.8, 0.45, 0.8))
    )
    gantry = (
        Box(low=(14.9, 0, 69.8), high=(15.3, 7, 70.2), colour=(0.6, 0.62, 0.64)),
        Box(low=(0.2, 6.4, 69.8), high=(15.3, 6.8, 70.2), colour=(0.6, 0.62, 0.64)),
        Box(low=(4, 5.4, 69.6), high=(12.5, 8.2, 69.8), colour=(0.06, 0.34, 0.22)),
        Box(low=(5, 6.9, 69.5), high=(11.5, 7.2, 69.6), colour=(0.9, 0.92, 0.9)),
        Box(low=(5, 6.2, 69.5), high=(9.5, 6.5, 69.6), colour=(0.9, 0.92, 0.9)),
    )
    away = (
        (3.2, car, 9.0, 0.0),
        (6.8, car, 10.5, 3.5),
        (10.4, truck, 13.5, 5.0),
        (3.2, car, 8.6, 7.8),
        (6.8, van, 11, 11.5),
        (10.4, bus, 13, 15.0),
        (3.2, car, 9.2, 17.5),
        (6.8, car, 10.2, 20.0),
    )
    back = (
        (-3.2, car, 8.8, 1.5),
        (-6.8, van, 11, 4.5),
        (-10.4, truck, 14, 0.5),
        (-3.2, car, 9.4, 9.0),
        (-10.4, car, 12.5, 13.0),
        (-6.8, car, 10, 15.5),
        (-3.2, car, 9, 19.0),
        (-10.4, truck, 13.5, 20.5),
    )
    traffic = (
        *(
            Actor(make(n), straight((x, -14), (x, 300), seconds=seconds), at)
            for n, (x, make, seconds, at) in enumerate(away)
        ),
        *(
            Actor(make(n + 3), straight((x, 300), (x, -14), seconds=seconds), at)
            for n, (x, make, seconds, at) in enumerate(back)
        ),
    )
    return Scene(
        name="highway",
        title={"zh": "绕城高速 K12", "en": "Ring expressway, km 12"},
        viewpoint=viewpoint(9.5, 13, 3, 56),
        lighting=DAY,
        world=World(
            ground=_highway_ground,
            solids=(
                *barrier,
                *gantry,
                *(part for z in range(40, 260, 16) for part in tree(19 + z % 7, z, 7)),
                *(part for z in range(34, 260, 14) for part in tree(-20 - z % 6, z, 7.5)),
                *house(-120, -80, 240, 270, 40, (0.7, 0.72, 0.74)),
                *house(70, 110, 260, 290, 50, (0.74, 0.70, 0.66)),
            ),
        ),
        actors=traffic,
    )
