"""What streets are made of: reflectances as functions of the place, for the ray caster.

Every surface takes coordinates in metres, arrays of one shape, and returns red, green, blue in 0..1 as an
array (3, *shape).
"""

# ruff: noqa: PLR2004 (a description of things in metres is made of numbers)

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streams.simulator.paint import Colour
from streams.simulator.perspective import Array

Surface = Callable[[Array, Array], Array]
Mask = NDArray[np.bool_]


def value_noise(x: Array, y: Array, seed: int) -> Array:
    """Smooth noise in 0..1 with one independent value per integer lattice point; no state, no generator."""
    column, row = np.floor(x), np.floor(y)
    u, v = _smooth(x - column), _smooth(y - row)
    i, j = column.astype(np.int64), row.astype(np.int64)
    upper = _lattice(i, j, seed) * (1 - u) + _lattice(i + 1, j, seed) * u
    lower = _lattice(i, j + 1, seed) * (1 - u) + _lattice(i + 1, j + 1, seed) * u
    return np.asarray(upper * (1 - v) + lower * v, np.float32)


def _smooth(t: Array) -> Array:
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _lattice(i: NDArray[np.int64], j: NDArray[np.int64], seed: int) -> Array:
    mixed = (i * 374_761_393 + j * 668_265_263 + seed * 974_634_777) & 0xFFFF_FFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1_274_126_177) & 0xFFFF_FFFF
    return np.asarray(((mixed ^ (mixed >> 16)) & 0xFFFF) / 0xFFFF, np.float32)


def tinted(colour: Colour, shade: NDArray[np.floating]) -> Array:
    """A colour times a shade per place."""
    channels = np.array(colour, np.float32).reshape(3, *[1] * shade.ndim)
    return channels * shade.astype(np.float32)


def paint_over(surface: Array, where: Mask, colour: Colour) -> None:
    """Colour the places of a reflectance in place, a little worn."""
    surface[:, where] = surface[:, where] * 0.15 + np.array(colour, np.float32)[:, None] * 0.85


def asphalt(x: Array, z: Array) -> Array:
    patches = value_noise(x * 0.35, z * 0.35, 1)
    grain = value_noise(x * 9, z * 9, 2)
    return tinted((0.33, 0.335, 0.35), 0.88 + 0.16 * patches + 0.10 * grain)


def cycle_lane(x: Array, z: Array) -> Array:
    """The red asphalt of a cycle lane."""
    return np.asarray(asphalt(x, z) * np.array([1.55, 0.85, 0.72], np.float32)[:, None], np.float32)


def paving(x: Array, z: Array, *, tile_m: float = 0.9, colour: Colour = (0.60, 0.57, 0.53)) -> Array:
    tone = _lattice(np.floor(x / tile_m).astype(np.int64), np.floor(z / tile_m).astype(np.int64), 3)
    joint = np.minimum(x / tile_m % 1, z / tile_m % 1) < 0.06
    return tinted(colour, 0.90 + 0.14 * tone - 0.16 * joint)


def grass(x: Array, z: Array) -> Array:
    shade = 0.72 + 0.3 * value_noise(x * 0.5, z * 0.5, 4) + 0.25 * value_noise(x * 6, z * 6, 5)
    return tinted((0.30, 0.44, 0.20), shade)


def water(x: Array, z: Array) -> Array:
    ripples = value_noise(x * 0.5, z * 2.0, 6) * 0.6 + value_noise(x * 2.5, z * 7, 7) * 0.4
    return tinted((0.25, 0.36, 0.42), 0.75 + 0.5 * ripples)


def brick(u: Array, v: Array) -> Array:
    course = np.floor(v / 0.3)
    joint = ((v / 0.3 % 1) < 0.12) | (((u / 0.7 + 0.5 * (course % 2)) % 1) < 0.06)
    return tinted((0.58, 0.36, 0.29), 0.85 + 0.25 * value_noise(u, v, 8) + 0.15 * joint)


def band(coordinate: Array, centre: float, width: float) -> Mask:
    return np.asarray(np.abs(coordinate - centre) < width / 2)


def dashes(coordinate: Array, *, period: float, length: float) -> Mask:
    return np.asarray(coordinate % period < length)


def within(x: Array, z: Array, left: float, right: float, near: float, far: float) -> Mask:
    return np.asarray((x > left) & (x < right) & (z > near) & (z < far))
