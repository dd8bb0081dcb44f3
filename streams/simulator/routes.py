"""How things move: a path on the ground and a timetable along it, pure functions of time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streams.simulator.perspective import Array

_CORNER_CUTS = 3
_ACCELERATION_STEP_S = 0.4
_MOVING_MPS = 0.15


@dataclass(frozen=True)
class Pose:
    """Where something is, in metres on the ground; `heading` is a unit vector (x, z)."""

    x: float
    z: float
    heading: tuple[float, float]
    travelled_m: float
    speed_mps: float
    acceleration: float = 0.0

    @property
    def is_moving(self) -> bool:
        return self.speed_mps > _MOVING_MPS


@dataclass(frozen=True, eq=False)
class Route:
    """A path through `points` (x, z), corners rounded, and a timetable of (seconds, share of the path).

    Between two entries of the timetable the speed changes smoothly; equal shares are a stop. Outside of it
    the traveller is not there.
    """

    points: tuple[tuple[float, float], ...]
    timetable: tuple[tuple[float, float], ...]

    @cached_property
    def _path(self) -> tuple[Array, Array]:
        """The rounded path (N, 2) and the distance of each of its points from the start (Chaikin, 1974)."""
        path = np.array(self.points, np.float32)
        for _ in range(_CORNER_CUTS):
            near, far = path[:-1] * 0.75 + path[1:] * 0.25, path[:-1] * 0.25 + path[1:] * 0.75
            path = np.concatenate([path[:1], np.stack([near, far], axis=1).reshape(-1, 2), path[-1:]])
        steps = np.hypot(*np.diff(path, axis=0).T)
        return path, np.concatenate([[0], np.cumsum(steps)]).astype(np.float32)

    @cached_property
    def _slopes(self) -> Array:
        """Speeds at the timetable's entries that never overshoot (Fritsch and Carlson, 1980)."""
        times, shares = np.array(self.timetable, np.float32).T
        rates = np.diff(shares) / np.diff(times)
        slopes = np.concatenate([rates[:1], np.zeros(len(rates) - 1, np.float32), rates[-1:]])
        both = (rates[:-1] > 0) & (rates[1:] > 0)
        inner = np.zeros(len(rates) - 1, np.float32)
        inner[both] = 2 * rates[:-1][both] * rates[1:][both] / (rates[:-1] + rates[1:])[both]
        slopes[1:-1] = inner
        return slopes

    @property
    def duration_seconds(self) -> float:
        return self.timetable[-1][0]

    def distance(self, seconds: float) -> float:
        """Metres travelled at a time (cubic Hermite interpolation of the timetable)."""
        times, shares = np.array(self.timetable, np.float32).T
        index = int(np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(times) - 2))
        span = times[index + 1] - times[index]
        t = float(np.clip((seconds - times[index]) / span, 0, 1))
        share = (
            shares[index] * (1 + 2 * t) * (1 - t) ** 2
            + self._slopes[index] * span * t * (1 - t) ** 2
            + shares[index + 1] * t * t * (3 - 2 * t)
            + self._slopes[index + 1] * span * t * t * (t - 1)
        )
        return float(share * self._path[1][-1])

    def pose(self, seconds: float) -> Pose | None:
        """Where the traveller is, or None before the timetable begins and after it ends."""
        if not self.timetable[0][0] <= seconds <= self.duration_seconds:
            return None
        path, distances = self._path
        before, here, after = (
            self.distance(seconds + offset) for offset in (-_ACCELERATION_STEP_S, 0, _ACCELERATION_STEP_S)
        )
        speed = (after - before) / (2 * _ACCELERATION_STEP_S)
        x, z = (float(np.interp(here, distances, path[:, axis])) for axis in (0, 1))
        segment = int(np.clip(np.searchsorted(distances, here, side="right") - 1, 0, len(path) - 2))
        ahead, behind = path[min(segment + 2, len(path) - 1)], path[max(segment - 1, 0)]
        along = (ahead - behind) / np.hypot(*(ahead - behind))
        acceleration = (after - 2 * here + before) / _ACCELERATION_STEP_S**2
        return Pose(x, z, (float(along[0]), float(along[1])), here, speed, acceleration)
