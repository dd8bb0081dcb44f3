"""What moves in a scene: vehicles, people, cyclists and boats, built of shaded faces and strokes."""

# ruff: noqa: PLR2004 (figures are described by numbers)

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from streams.simulator.paint import Canvas, Colour, convex_hull
from streams.simulator.perspective import Array, Viewpoint
from streams.simulator.routes import Pose
from streams.simulator.world import Lighting

_GLASS: Colour = (0.13, 0.17, 0.22)
_TYRE: Colour = (0.06, 0.06, 0.07)
_SKIN: Colour = (0.80, 0.62, 0.50)
_FACES = {
    "front": (0, 1, 5, 4),
    "back": (2, 3, 7, 6),
    "left": (3, 0, 4, 7),
    "right": (1, 2, 6, 5),
    "top": (4, 5, 6, 7),
}
_STRIDE_M = 1.3
_DETAIL_PX_PER_M = 6.0
"""Vehicles that are smaller in the picture get neither windows nor wheels."""
_LIMBS_PX_PER_M = 22.0
"""People who are smaller in the picture get no arms."""


@dataclass(frozen=True)
class Windows:
    """Panes on the faces of a block: how many on a side, and between which shares of the height."""

    side_panes: int
    bottom: float
    top: float


_CAR_WINDOWS = Windows(2, 0.12, 0.86)
_CAB_WINDOWS = Windows(1, 0.52, 0.86)


@dataclass(frozen=True)
class Stage:
    """Where actors are painted: the canvas, and how the scene is seen and lit."""

    canvas: Canvas
    viewpoint: Viewpoint
    lighting: Lighting

    def place(self, pose: Pose, points: Array) -> Array:
        """World points of (forward, left, up) offsets (N, 3) from a pose."""
        ahead_x, ahead_z = pose.heading
        forward, left, up = points.T
        world = np.empty_like(points)
        world[:, 0] = forward * ahead_x - left * ahead_z + pose.x
        world[:, 1] = up
        world[:, 2] = forward * ahead_z + left * ahead_x + pose.z
        return world

    def lit(self, colour: Colour, normal: Array) -> Colour:
        """A colour under the scene's light, for a face that looks along `normal`."""
        lighting = self.lighting
        up = 0.8 + 0.2 * float(normal[1])
        extra, tint = 0.22, lighting.lamp_colour
        if lighting.sun is not None:
            towards = sum(a * float(b) for a, b in zip(lighting.sun, normal, strict=True))
            extra = lighting.sun_strength * max(towards, 0.0) / math.hypot(*lighting.sun)
            tint = (1.0, 1.0, 1.0)
        red, green, blue = (
            min(own * (ambient * up + extra * lamp), 1.0)
            for own, ambient, lamp in zip(colour, lighting.ambient, tint, strict=True)
        )
        return red, green, blue

    def block(
        self, pose: Pose, corners: Array, colour: Colour, *, depth: float, windows: Windows | None = None
    ) -> None:
        """Paint the faces of a block (see `_block`) that look at the camera."""
        world = self.place(pose, corners)
        pixels = self.viewpoint.project(world)[0]
        for face, normal in self._visible_faces(world):
            quad = pixels[list(_FACES[face])]
            self.canvas.polygon(quad, self.lit(colour, normal), depth=depth)
            if windows is not None and face != "top":
                panes = windows.side_panes if face in {"left", "right"} else 1
                for pane in range(panes):
                    left, right = (pane + 0.07) / panes, (pane + 0.93) / panes
                    glass = _inner(quad, left, right, windows.bottom, windows.top)
                    self.canvas.polygon(glass, _GLASS, depth=depth, opacity=0.93)

    def _visible_faces(self, corners: Array) -> Iterator[tuple[str, Array]]:
        """Names and outward unit normals of a block's faces that look at the camera."""
        quads = corners[np.array(list(_FACES.values()))]
        a, b = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
        normals = a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]
        middles = quads.mean(axis=1)
        outwards = np.sign((normals * (middles - corners.mean(axis=0))).sum(axis=1))
        normals *= (outwards / np.maximum(np.sqrt((normals * normals).sum(axis=1)), 1e-6))[:, None]
        to_eye = np.array([0, self.viewpoint.height_m, 0], np.float32) - middles
        for face, normal, facing in zip(_FACES, normals, (normals * to_eye).sum(axis=1), strict=True):
            if facing > 0:
                yield face, normal

    def shadow(self, points: Array, depth: float) -> None:
        """The shadow of a convex set of world points; a faint one below it at night."""
        if self.lighting.sun is None:
            cast, opacity, softness = points * np.array([1, 0, 1], np.float32), 0.45, 6.0
        else:
            sun = np.array(self.lighting.sun, np.float32)
            cast, opacity, softness = points - points[:, 1:2] / sun[1] * sun, 0.5, 1.5
        hull = convex_hull(self.viewpoint.project(cast.astype(np.float32))[0])
        self.canvas.polygon(hull, (0.05, 0.06, 0.08), depth=depth, opacity=opacity, softness=softness)


class Figure(Protocol):
    """The look of an actor; `kind` is its label in the ground truth."""

    @property
    def kind(self) -> str: ...

    def outline(self, stage: Stage, pose: Pose) -> Array:
        """World points (N, 3) whose convex hull is the figure."""

    def paint(self, stage: Stage, pose: Pose, depth: float) -> None:
        """Paint it, shadow first. `depth`: of its nearest point, in metres."""


def _block(low: Sequence[float], high: Sequence[float], inset: Sequence[float] = (0, 0, 0)) -> Array:
    """Eight (forward, left, up) corners; `inset` of the upper face: front, back, sides."""
    (back, right, bottom), (front, left, top) = low, high
    nose, tail, sides = inset
    upper = [front - nose, back + tail, left - sides, right + sides]
    return np.array(
        [
            (front, left, bottom), (front, right, bottom), (back, right, bottom), (back, left, bottom),
            (upper[0], upper[2], top), (upper[0], upper[3], top), (upper[1], upper[3], top),
            (upper[1], upper[2], top),
        ],
        np.float32,
    )  # fmt: skip


def _inner(quad: Array, left: float, right: float, bottom: float, top: float) -> Array:
    """A part of a face, in shares of its width and height."""
    a, b, c, d = quad

    def at(u: float, v: float) -> Array:
        return np.asarray((a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v, np.float32)

    return np.stack([at(left, bottom), at(right, bottom), at(right, top), at(left, top)])


@dataclass(frozen=True)
class Vehicle:
    """A vehicle of two blocks: body and cabin. Dimensions in metres: length, width, height."""

    kind: str
    colour: Colour
    size: tuple[float, float, float]

    def _blocks(self) -> tuple[tuple[Array, Colour, Windows | None], ...]:
        """(corners, colour, windows) of each block, in the order of painting."""
        length, width, height = self.size
        front, half = length / 2, width / 2
        if self.kind == "truck":
            return (
                (_block((-front, -half, 0.9), (front - 2.2, half, height)), (0.82, 0.83, 0.85), None),
                (_block((front - 2.0, -half, 0.5), (front, half, height * 0.85), (0.25, 0, 0.05)),
                 self.colour, _CAB_WINDOWS),
            )  # fmt: skip
        if self.kind in {"bus", "van"}:
            slope = 0.12 * height
            body = _block((-front, -half, 0.35), (front, half, height), (slope, slope / 3, 0.08))
            panes = 6 if self.kind == "bus" else 2
            return ((body, self.colour, Windows(panes, 0.52, 0.86)),)
        waist = 0.58 * height
        return (
            (_block((-front, -half, 0.28), (front, half, waist), (0.15, 0.1, 0.08)), self.colour, None),
            (_block((-front * 0.86, -half * 0.9, waist), (front * 0.42, half * 0.9, height),
                    (length * 0.14, length * 0.1, 0.18)), self.colour, _CAR_WINDOWS),
        )  # fmt: skip

    def outline(self, stage: Stage, pose: Pose) -> Array:
        solid = np.concatenate([corners for corners, _, _ in self._blocks()])
        wheels = solid * np.array([0.8, 1, 0], np.float32)
        return stage.place(pose, np.concatenate([solid, wheels]))

    def paint(self, stage: Stage, pose: Pose, depth: float) -> None:
        stage.shadow(self.outline(stage, pose), depth)
        if stage.lighting.is_night:
            self._light_road(stage, pose, depth)
        length, width, _ = self.size
        under = _block((-length * 0.46, -width * 0.46, 0.05), (length * 0.46, width * 0.46, 0.5))
        stage.block(pose, under, _TYRE, depth=depth)
        is_far = stage.viewpoint.focal_px / depth < _DETAIL_PX_PER_M
        blocks = self._blocks()
        if self.kind == "truck" and not _faces_camera(pose):
            blocks = blocks[::-1]
        for corners, colour, windows in blocks:
            stage.block(pose, corners, colour, depth=depth, windows=None if is_far else windows)
        if not is_far:
            self._paint_wheels(stage, pose, depth)
        self._paint_lights(stage, pose, depth)

    def _paint_wheels(self, stage: Stage, pose: Pose, depth: float) -> None:
        length, width, _ = self.size
        radius = 0.48 if self.kind in {"bus", "truck"} else 0.33
        turns = np.linspace(0, 2 * np.pi, 11)[:-1]
        left = np.array([-pose.heading[1], pose.heading[0]])
        towards = 1.0 if left @ np.array([-pose.x, -pose.z]) > 0 else -1.0
        for share in (-0.31, 0.31):
            rim = np.stack(
                [
                    share * length + radius * np.cos(turns),
                    np.full(turns.size, towards * width / 2),
                    radius + radius * np.sin(turns),
                ],
                axis=1,
            ).astype(np.float32)
            pixels = stage.viewpoint.project(stage.place(pose, rim))[0]
            stage.canvas.polygon(pixels, _TYRE, depth=depth)
            hub = pixels.mean(axis=0) + (pixels - pixels.mean(axis=0)) * 0.5
            stage.canvas.polygon(
                hub, stage.lit((0.5, 0.5, 0.52), np.array([0, 1, 0], np.float32)), depth=depth
            )

    def _lamps(self, *, front: bool) -> Array:
        length, width, height = self.size
        ahead = (length / 2 + 0.02) * (1 if front else -1)
        up = 0.75 if self.kind in {"bus", "truck"} else 0.45 * height
        return np.array([(ahead, width * 0.36, up), (ahead, -width * 0.36, up)], np.float32)

    def _paint_lights(self, stage: Stage, pose: Pose, depth: float) -> None:
        is_front = _faces_camera(pose)
        is_braking = not is_front and pose.acceleration < -0.6
        lamps, depths = stage.viewpoint.project(stage.place(pose, self._lamps(front=is_front)))
        night = stage.lighting.is_night
        colour: Colour = (1.0, 0.97, 0.85) if is_front else (0.85 if night or is_braking else 0.5, 0.05, 0.05)
        for lamp, lamp_depth in zip(lamps, depths, strict=True):
            pixels_per_metre = stage.viewpoint.focal_px / float(lamp_depth)
            stage.canvas.stroke(lamp, lamp, 0.24 * pixels_per_metre, colour, depth=depth)
            if night:
                reach = (1.5 if is_front else 0.8) * pixels_per_metre + 3
                halo: Colour = (0.55, 0.5, 0.4) if is_front else (0.5, 0.03, 0.02)
                stage.canvas.glow(lamp, reach, halo, depth=depth)

    def _light_road(self, stage: Stage, pose: Pose, depth: float) -> None:
        """Soft cones on the road ahead."""
        front = self.size[0] / 2
        for reach, spread, strength in ((15.0, 2.6, 0.06), (11.0, 2.0, 0.08), (7.0, 1.4, 0.10)):
            cone = np.array(
                [(front, 0.5, 0), (front + reach, spread, 0), (front + reach, -spread, 0), (front, -0.5, 0)],
                np.float32,
            )
            world = stage.place(pose, cone)
            if stage.viewpoint.is_ahead(world):
                pixels = stage.viewpoint.project(world)[0]
                stage.canvas.polygon(pixels, (1.0, 0.93, 0.75), depth=depth, opacity=strength, softness=14)


@dataclass(frozen=True)
class Person:
    """Someone on foot. `height` in metres."""

    coat: Colour
    trousers: Colour = (0.16, 0.18, 0.26)
    height: float = 1.72
    kind: str = "person"

    def outline(self, stage: Stage, pose: Pose) -> Array:
        half = 0.17 * self.height
        return stage.place(pose, _block((-half, -half, 0), (half, half, self.height)))

    def paint(self, stage: Stage, pose: Pose, depth: float) -> None:
        if stage.lighting.sun is not None:
            stage.shadow(stage.place(pose, _block((-0.15, -0.22, 0), (0.15, 0.22, self.height))), depth)
        self.paint_body(stage, pose, depth, lift=0.0)

    def paint_body(self, stage: Stage, pose: Pose, depth: float, *, lift: float) -> None:
        """The body alone, its feet `lift` metres above the ground."""
        tall = self.height
        swing = np.sin(2 * np.pi * pose.travelled_m / _STRIDE_M) if pose.is_moving else 0.0
        step = 0.17 * tall * swing
        hip, neck = 0.50 * tall + lift, 0.82 * tall + lift
        joints = np.array(
            [
                (step, 0.06, lift + 0.03), (-step, -0.06, lift + 0.03), (0, 0, hip), (0, 0, neck),
                (-step * 0.8, 0.19, hip), (step * 0.8, -0.19, hip), (0, 0.17, neck - 0.04),
                (0, -0.17, neck - 0.04), (0.02, 0, 0.93 * tall + lift),
            ],
            np.float32,
        )  # fmt: skip
        pixels, depths = stage.viewpoint.project(stage.place(pose, joints))
        scale = stage.viewpoint.focal_px / float(depths[2])
        upright = np.array([0, 0.5, 0], np.float32)
        coat, trousers = stage.lit(self.coat, upright), stage.lit(self.trousers, upright)
        sleeve = stage.lit((self.coat[0] * 0.8, self.coat[1] * 0.8, self.coat[2] * 0.8), upright)
        limbs: tuple[tuple[int, int, float, Colour], ...] = (
            (0, 2, 0.15, trousers), (1, 2, 0.15, trousers), (4, 6, 0.11, sleeve), (2, 3, 0.34, coat),
            (5, 7, 0.11, sleeve), (8, 8, 0.24, stage.lit(_SKIN, upright)),
        )  # fmt: skip
        if scale < _LIMBS_PX_PER_M:
            limbs = (limbs[0], limbs[1], limbs[3], limbs[5])
        for start, end, width, colour in limbs:
            stage.canvas.stroke(pixels[start], pixels[end], width * tall / 1.72 * scale, colour, depth=depth)
        crown = pixels[8] - np.array([0, 0.05 * scale], np.float32)
        hair = stage.lit((0.12, 0.09, 0.08), upright)
        stage.canvas.stroke(crown, crown, 0.2 * tall / 1.72 * scale, hair, depth=depth)


@dataclass(frozen=True)
class Cyclist:
    """A person on a bicycle."""

    rider: Person
    kind: str = "bicycle"

    def outline(self, stage: Stage, pose: Pose) -> Array:
        return stage.place(pose, _block((-0.85, -0.25, 0), (0.85, 0.25, self.rider.height + 0.3)))

    def paint(self, stage: Stage, pose: Pose, depth: float) -> None:
        if stage.lighting.sun is not None:
            stage.shadow(stage.place(pose, _block((-0.8, -0.1, 0), (0.8, 0.1, 1.7))), depth)
        turns = np.linspace(0, 2 * np.pi, 13)
        for hub in (-0.55, 0.55):
            rim = np.stack([hub + 0.33 * np.cos(turns), 0 * turns, 0.34 + 0.33 * np.sin(turns)], axis=1)
            pixels, depths = stage.viewpoint.project(stage.place(pose, rim.astype(np.float32)))
            width = max(0.06 * stage.viewpoint.focal_px / float(depths[0]), 1.0)
            for start, end in pairwise(pixels):
                stage.canvas.stroke(start, end, width, _TYRE, depth=depth)
        self.rider.paint_body(stage, pose, depth, lift=0.28)


@dataclass(frozen=True)
class Boat:
    """A barge with a wheelhouse. Size in metres: length, width, height."""

    hull: Colour
    size: tuple[float, float, float] = (16.0, 4.0, 2.8)
    kind: str = "boat"

    def outline(self, stage: Stage, pose: Pose) -> Array:
        length, width, height = self.size
        return stage.place(pose, _block((-length / 2, -width / 2, 0), (length / 2, width / 2, height)))

    def paint(self, stage: Stage, pose: Pose, depth: float) -> None:
        length, width, height = self.size
        half, beam = length / 2, width / 2
        wake = np.array([(-half, 0.6, 0), (-half * 2.2, beam, 0), (-half * 2.2, -beam, 0), (-half, -0.6, 0)])
        pixels = stage.viewpoint.project(stage.place(pose, wake.astype(np.float32)))[0]
        stage.canvas.polygon(pixels, (0.85, 0.9, 0.92), depth=depth, opacity=0.25, softness=6)
        hull = _block((-half, -beam, 0), (half, beam, 1.1), (-0.8, -0.3, -0.2))
        cabin = _block((-half * 0.85, -beam * 0.7, 1.1), (-half * 0.35, beam * 0.7, height), (0.3, 0.1, 0.1))
        cargo = _block((-half * 0.2, -beam * 0.7, 1.1), (half * 0.75, beam * 0.7, 1.7), (0.2, 0.2, 0.1))
        for corners, colour, windows in (
            (hull, self.hull, None),
            (cargo, (0.55, 0.42, 0.30), None),
            (cabin, (0.92, 0.92, 0.9), _CAB_WINDOWS),
        ):
            stage.block(pose, corners, colour, depth=depth, windows=windows)


def _faces_camera(pose: Pose) -> bool:
    return pose.x * pose.heading[0] + pose.z * pose.heading[1] < 0
