"""How things move: a path on the ground and a timetable along it, pure functions of time."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from operator import itemgetter

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
    def _slopes(self) -> list[float]:
        """Speeds at the timetable's entries that never overshoot (Fritsch and Carlson, 1980)."""
        pairs = pairwise(self.timetable)
        rates = [(share - before) / (time - earlier) for (earlier, before), (time, share) in pairs]
        inner = [2 * a * b / (a + b) if a > 0 and b > 0 else 0.0 for a, b in pairwise(rates)]
        return [rates[0], *inner, rates[-1]]

    @property
    def duration_seconds(self) -> float:
        return self.timetable[-1][0]

    def distance(self, seconds: float) -> float:
        """Metres travelled at a time (cubic Hermite interpolation of the timetable)."""
        after = bisect_right(self.timetable, seconds, key=itemgetter(0))
        index = min(max(after - 1, 0), len(self.timetable) - 2)
        (begin, share_before), (end, share_after) = self.timetable[index : index + 2]
        span = end - begin
        t = min(max((seconds - begin) / span, 0.0), 1.0)
        share = (
            share_before * (1 + 2 * t) * (1 - t) ** 2
            + self._slopes[index] * span * t * (1 - t) ** 2
            + share_after * t * t * (3 - 2 * t)
            + self._slopes[index + 1] * span * t * t * (t - 1)
        )
        return share * float(self._path[1][-1])

    def pose(self, seconds: float) -> Pose | None:
        """Where the traveller is, or None before the timetable begins and after it ends."""
        if not self.timetable[0][0] <= seconds <= self.duration_seconds:
            return None
        path, distances = self._path
        before, here, after = (
            self.distance(seconds + offset) for offset in (-_ACCELERATION_STEP_S, 0, _ACCELERATION_STEP_S)
        )
        speed = (after - before) / (2 * _ACCELERATION_STEP_S)
        segment = min(max(int(np.searchsorted(distances, here, side="right")) - 1, 0), len(path) - 2)
        (x0, z0), (x1, z1) = path[segment].tolist(), path[segment + 1].tolist()
        step = float(distances[segment + 1] - distances[segment])
        share = min(max((here - float(distances[segment])) / step, 0.0), 1.0)
        x, z = x0 + (x1 - x0) * share, z0 + (z1 - z0) * share
        ahead, behind = path[min(segment + 2, len(path) - 1)].tolist(), path[max(segment - 1, 0)].tolist()
        along_x, along_z = ahead[0] - behind[0], ahead[1] - behind[1]
        length = math.hypot(along_x, along_z)
        heading = along_x / length, along_z / length
        acceleration = (after - 2 * here + before) / _ACCELERATION_STEP_S**2
        return Pose(x, z, heading, here, speed, acceleration)
