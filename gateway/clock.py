"""Wall-clock time as the database and the ledger keep it: integer microseconds since the epoch, UTC."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns aware UTC. Injected wherever time decides something, so that tests own it."""

STEP_TOLERATED_US = 2_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> datetime:
    return datetime.now(UTC)


def to_micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True)
class BackwardStep:
    """`step_us`: how far the wall clock went back; `behind_us`: how far it is behind the ledger now."""

    step_us: int
    behind_us: int


class LedgerClock:
    """The later of the wall clock and the ledger's last time: what has expired does not revive.

    It never goes back. While the wall clock is behind, it goes on with the monotonic clock, so that
    deadlines still pass; Linux disciplines both alike, hence only a step parts them.
    """

    def __init__(
        self, wall: Clock = system_clock, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall = wall
        self._monotonic_ns = monotonic_ns
        self._lead = to_micros(wall()) - monotonic_ns() // 1000
        self._known_behind = 0

    def __call__(self) -> datetime:
        return from_micros(self.micros())

    def micros(self) -> int:
        """Now, in microseconds since the epoch, UTC."""
        wall = to_micros(self._wall())
        elapsed = self._monotonic_ns() // 1000
        self._lead = max(self._lead, wall - elapsed)
        return elapsed + self._lead

    def not_before(self, micros: int) -> None:
        """The ledger has a record of that time: from now on it is not earlier."""
        self._lead = max(self._lead, micros - self._monotonic_ns() // 1000)

    def backward_step(self) -> BackwardStep | None:
        """A step back of over STEP_TOLERATED_US that was not told before; smaller ones add up."""
        behind = self.micros() - to_micros(self._wall())
        step = behind - self._known_behind
        if step <= STEP_TOLERATED_US:
            self._known_behind = min(self._known_behind, behind)
            return None
        self._known_behind = behind
        return BackwardStep(step, behind)
