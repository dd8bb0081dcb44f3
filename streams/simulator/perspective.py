"""The pinhole camera on its pole: between metres in the street and pixels in the picture.

World axes: x to the right, y up, z away from the camera, in metres; the camera stands at (0, height, 0).
Pixels: u to the right, v down, from the upper left corner.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

NEAR_M = 0.5
"""Nothing closer than this is drawn: a projection through the lens itself has no meaning."""


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """Where a camera stands and looks: `pitch_degrees` below the horizon, `yaw_degrees` to the right."""

    width: int
    height: int
    height_m: float
    pitch_degrees: float
    yaw_degrees: float = 0.0
    field_of_view_degrees: float = 60.0

    @cached_property
    def focal_px(self) -> float:
        return float(self.width / 2 / np.tan(np.radians(self.field_of_view_degrees) / 2))

    @cached_property
    def _axes(self) -> Array:
        """Rows: the camera's right, down and forward axes in world coordinates."""
        pitch, yaw = np.radians(self.pitch_degrees), np.radians(self.yaw_degrees)
        forward = (np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch))
        right = (np.cos(yaw), 0.0, -np.sin(yaw))
        return np.array([right, np.cross(forward, right) * -1, forward], np.float32)

    def rays(self, samples: int) -> Array:
        """Directions through `samples` x `samples` points of every pixel: (3, height*samples, width*samples).

        Their forward component is 1, so that a ray's parameter is the depth of the point it reaches.
        """
        columns = (np.arange(self.width * samples, dtype=np.float32) + 0.5) / samples - self.width / 2
        rows = (np.arange(self.height * samples, dtype=np.float32) + 0.5) / samples - self.height / 2
        u, v = np.meshgrid(columns / self.focal_px, rows / self.focal_px)
        right, down, forward = self._axes
        directions = right[:, None, None] * u + down[:, None, None] * v + forward[:, None, None]
        return np.asarray(directions, np.float32)

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) and depths (N,) in metres of the world points (N, 3); depths are at least NEAR_M."""
        right_down_forward = (points - np.array([0.0, self.height_m, 0.0], np.float32)) @ self._axes.T
        depth = np.maximum(right_down_forward[:, 2], NEAR_M)
        pixels = right_down_forward[:, :2] / depth[:, None] * self.focal_px
        return (pixels + np.array([self.width / 2, self.height / 2])).astype(np.float32), depth

    def is_ahead(self, points: Array) -> bool:
        """Whether all points are in front of the lens, so that their projection can be drawn."""
        offsets = points - np.array([0.0, self.height_m, 0.0], np.float32)
        return bool((offsets @ self._axes[2] > NEAR_M).all())
