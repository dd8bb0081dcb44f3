"""Antialiased shapes on a picture: convex polygons, strokes and pools of light.

Coverage is the distance to the edge, in pixels, clipped to 0..1: one pass, no supersampling, and a `softness`
of several pixels makes a shadow's edge.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streams.simulator.perspective import Array

Colour = tuple[float, float, float]
"""Red, green, blue, 0..1."""
Window = tuple[slice, slice]
"""Rows and columns of a picture."""


_SHORTEST_EDGE_PX = 1e-3


@dataclass
class Canvas:
    """A picture being painted: `pixels` (height, width, 3) 0..255 in place, `depth` (height, width) in metres
    of what stands still, which hides whatever is painted behind it.
    """

    pixels: NDArray[np.uint8]
    depth: Array

    def polygon(
        self, points: Array, colour: Colour, *, depth: float, opacity: float = 1.0, softness: float = 1.0
    ) -> None:
        """Fill the convex polygon `points` (N, 2), in either winding."""
        window = self._window(points.min(axis=0) - softness, points.max(axis=0) + softness)
        if window is None:
            return
        inside = _distance_inside(points, window)
        if inside is not None:
            self._blend(window, inside, colour, depth, opacity, softness)

    def stand(self, points: Array, *, depth: float) -> None:
        """Let what is inside the polygon hide, from now on, what is painted behind `depth`."""
        window = self._window(points.min(axis=0), points.max(axis=0))
        if window is not None:
            inside = _distance_inside(points, window)
            if inside is not None:
                self.depth[window][inside > 0] = depth

    def stroke(
        self,
        start: Array,
        end: Array,
        width: float,
        colour: Colour,
        *,
        depth: float,
        opacity: float = 1.0,
        softness: float = 1.0,
    ) -> None:
        """A line from `start` to `end` (2,) of `width` pixels with round ends; a dot if they are equal."""
        (x, y), (end_x, end_y) = start.tolist(), end.tolist()
        reach = width / 2 + softness
        window = self._box(
            min(x, end_x) - reach, min(y, end_y) - reach, max(x, end_x) + reach, max(y, end_y) + reach
        )
        if window is None:
            return
        along_x, along_y = end_x - x, end_y - y
        squared = along_x * along_x + along_y * along_y
        u, v = _grid(window)
        u, v = u - x, v - y
        if squared > _SHORTEST_EDGE_PX:
            t = np.minimum(np.maximum(u * (along_x / squared) + v * (along_y / squared), 0), 1)
            u, v = u - t * along_x, v - t * along_y
        self._blend(window, width / 2 - np.sqrt(u * u + v * v), colour, depth, opacity, softness)

    def glow(self, centre: Array, radius: float, colour: Colour, *, depth: float) -> None:
        """Light around a lamp: added, falling off with the square of the distance in pixels."""
        window = self._window(centre - radius, centre + radius)
        if window is None:
            return
        u, v = _grid(window)
        distance = np.hypot(u - centre[0], v - centre[1]) / radius
        strength = np.square(np.clip(1 - distance, 0, 1)) * (self.depth[window] > depth)
        self.add(window, strength[..., None] * np.array(colour, np.float32) * 255)

    def add(self, window: Window, light: Array) -> None:
        """Add light, in levels of 0..255, to a window."""
        self.pixels[window] = np.clip(self.pixels[window] + light, 0, 255).astype(np.uint8)

    def _window(self, low: Array, high: Array) -> Window | None:
        (left, top), (right, bottom) = low.tolist(), high.tolist()
        return self._box(left, top, right, bottom)

    def _box(self, left: float, top: float, right: float, bottom: float) -> Window | None:
        height, width = self.depth.shape
        columns = slice(max(int(left), 0), min(int(right) + 2, width))
        rows = slice(max(int(top), 0), min(int(bottom) + 2, height))
        return (rows, columns) if columns.start < columns.stop and rows.start < rows.stop else None

    def _blend(
        self,
        window: Window,
        inside: Array,
        colour: Colour,
        depth: float,
        opacity: float,
        softness: float,
    ) -> None:
        cover = np.minimum(np.maximum(inside * (opacity / softness) + opacity / 2, 0), opacity)
        cover *= self.depth[window] > depth
        below = self.pixels[window].astype(np.float32)
        red, green, blue = colour
        below += (np.array((red * 255, green * 255, blue * 255), np.float32) - below) * cover[..., None]
        self.pixels[window] = below


@cache
def _centres(count: int) -> Array:
    return np.arange(count, dtype=np.float32) + 0.5


def _grid(window: Window) -> tuple[Array, Array]:
    """The centres of the window's pixels: u (1, columns) and v (rows, 1)."""
    rows, columns = window
    return _centres(columns.stop)[None, columns], _centres(rows.stop)[rows, None]


def convex_hull(points: Array) -> Array:
    """The convex hull of (N, 2) points, counter-clockwise (Andrew's monotone chain)."""
    ordered = sorted((float(x), float(y)) for x, y in points)
    if len(ordered) < 3:  # noqa: PLR2004 (a triangle)
        return np.array(ordered, np.float32)

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for point in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]), np.float32)


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _distance_inside(points: Array, window: Window) -> Array | None:
    """Pixels from the nearest edge of the convex polygon, positive inside; None if it has no area.

    Plain floats for the few edges: for windows this small the calls into numpy are what costs.
    """
    corners: list[list[float]] = points.tolist()
    pairs = list(pairwise([*corners, corners[0]]))
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)
    u, v = _grid(window)
    inside: Array | None = None
    for (x0, y0), (x1, y1) in pairs:
        length = math.hypot(x1 - x0, y1 - y0)
        if length > _SHORTEST_EDGE_PX:
            scale = math.copysign(1 / length, area)
            across, down = (y0 - y1) * scale, (x1 - x0) * scale
            distance = across * u + (down * v - (across * x0 + down * y0))
            inside = distance if inside is None else np.minimum(inside, distance, out=inside)
    return inside
