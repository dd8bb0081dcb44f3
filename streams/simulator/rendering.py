"""A scene, and its pictures with their ground truth."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.simulator.actors import Figure, Stage
from streams.simulator.paint import Canvas, convex_hull
from streams.simulator.perspective import NEAR_M, Array, Viewpoint
from streams.simulator.routes import Pose, Route
from streams.simulator.world import Lighting, World, render_backdrop

WIDTH, HEIGHT = 640, 360
PICTURES_PER_SECOND = 12.5

_NOISE_FIELDS = 16
_MOST_NOISE_LEVELS = 10
_LEAST_BOX_PX = 3
_LEAST_VISIBLE_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class Actor:
    """`starts_seconds`: when in the loop its route begins; it may run on past the loop's end."""

    figure: Figure
    route: Route
    starts_seconds: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """Everything that is in front of one simulated camera; time runs in a circle of `loop_seconds`.

    `title`: by language (zh, en). `parked`: figures that never move; they are not in the ground truth.
    """

    name: str
    title: Mapping[str, str]
    viewpoint: Viewpoint
    lighting: Lighting
    world: World
    actors: tuple[Actor, ...]
    parked: tuple[tuple[Figure, Pose], ...] = ()
    loop_seconds: float = 24.0

    @property
    def pictures(self) -> int:
        return round(self.loop_seconds * PICTURES_PER_SECOND)


class TruthBox(msgspec.Struct, frozen=True):
    """One visible actor in one picture, in pixels from the upper left; `id` is the same in all pictures."""

    x: int
    y: int
    w: int
    h: int
    kind: str
    id: int
    moving: bool


class SceneRenderer:
    """Renders the pictures of one scene; the backdrop is cast once, when it is opened."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        backdrop = render_backdrop(scene.world, scene.viewpoint, scene.lighting)
        self._pixels, self._depth, water = backdrop.pixels.copy(), backdrop.depth.copy(), backdrop.water
        self._water = water if water.any() else None
        stage = self._stage(Canvas(self._pixels, self._depth))
        for figure, pose in sorted(scene.parked, key=lambda item: -np.hypot(item[1].x, item[1].z)):
            pixels, depth = scene.viewpoint.project(figure.outline(stage, pose))
            figure.paint(stage, pose, float(depth.min()))
            stage.canvas.stand(convex_hull(pixels), depth=float(depth.min()))
        random = np.random.default_rng(len(scene.actors))
        levels = random.normal(0, scene.lighting.noise_levels, (_NOISE_FIELDS, HEIGHT, WIDTH, 1))
        levels = np.clip(np.rint(levels), -_MOST_NOISE_LEVELS, _MOST_NOISE_LEVELS).astype(np.int8)
        self._noise = np.repeat(levels, 3, axis=3).view(np.uint8)

    def _stage(self, canvas: Canvas) -> Stage:
        return Stage(canvas, self._scene.viewpoint, self._scene.lighting)

    def picture(self, index: int) -> tuple[NDArray[np.uint8], list[TruthBox]]:
        """Picture `index` of the loop, (height, width, 3) RGB, and what can be seen moving about in it."""
        seconds = index / PICTURES_PER_SECOND
        canvas = Canvas(self._pixels.copy(), self._depth)
        if self._water is not None:
            self._ripple(canvas, self._water, seconds)
        stage = self._stage(canvas)
        present = []
        for number, actor in enumerate(self._scene.actors):
            pose = actor.route.pose((seconds - actor.starts_seconds) % self._scene.loop_seconds)
            if pose is not None:
                outline = actor.figure.outline(stage, pose)
                if self._scene.viewpoint.is_ahead(outline):
                    pixels, depths = self._scene.viewpoint.project(outline)
                    present.append((float(depths.min()), number, actor.figure, pose, pixels))
        truth = []
        for depth, number, figure, pose, pixels in sorted(present, key=lambda item: (-item[0], item[1])):
            figure.paint(stage, pose, depth)
            box = self._box(pixels, depth)
            if box is not None:
                truth.append(TruthBox(*box, kind=figure.kind, id=number, moving=pose.is_moving))
        # Adding modulo 256 is right as long as no sum leaves 0..255.
        quiet = np.clip(canvas.pixels, _MOST_NOISE_LEVELS, 255 - _MOST_NOISE_LEVELS, out=canvas.pixels)
        return np.add(quiet, self._noise[index % _NOISE_FIELDS], out=quiet), truth

    def _ripple(self, canvas: Canvas, water: Array, seconds: float) -> None:
        """Move the water's light a little; whole waves per loop, so that the loop closes."""
        top, bottom = np.flatnonzero(water.any(axis=1))[[0, -1]]
        rows, columns = np.mgrid[top : bottom + 1, 0:WIDTH].astype(np.float32)
        turn = 2 * np.pi * seconds / self._scene.loop_seconds
        waves = np.sin(rows * 0.9 + columns * 0.05 - 30 * turn) + np.sin(
            rows * 0.5 - columns * 0.11 + 22 * turn
        )
        light = 3.0 * waves * water[top : bottom + 1]
        canvas.add((slice(top, bottom + 1), slice(0, WIDTH)), light[..., None].astype(np.float32))

    def _box(self, pixels: Array, depth: float) -> tuple[int, int, int, int] | None:
        """The visible part of a figure's bounding box, if enough of it is."""
        (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
        x, y = max(int(left), 0), max(int(top), 0)
        w, h = min(int(right) + 1, WIDTH) - x, min(int(bottom) + 1, HEIGHT) - y
        if w < _LEAST_BOX_PX or h < _LEAST_BOX_PX or depth <= NEAR_M:
            return None
        visible = (self._depth[y : y + h, x : x + w] > depth).mean() * w * h
        if visible < _LEAST_VISIBLE_SHARE * (right - left) * (bottom - top):
            return None
        return x, y, w, h
