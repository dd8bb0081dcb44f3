"""When a camera is tried again."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from streams.errors import LoginRefusedError, StreamError

_MAX_DOUBLINGS = 30
"""Enough for any maximum, and far from where a float overflows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffSettings:
    """Pauses between attempts double from `backoff_initial_seconds` to `backoff_max_seconds`, less jitter.

    `refused_*`: the same for errors that only a person can mend. A camera that was live and then refuses us
    is probably starting up: for `starting_up_seconds` it is asked as often as one that is not there, unless
    it rejects the password, which it may lock after a few attempts. A source that was live for
    `healthy_seconds` starts again with the shortest pause.
    """

    backoff_initial_seconds: float = 1.0
    backoff_max_seconds: float = 3.0
    refused_initial_seconds: float = 30.0
    refused_max_seconds: float = 300.0
    starting_up_seconds: float = 120.0
    healthy_seconds: float = 60.0


class Backoff:
    """The pauses of one camera, for as long as somebody holds it.

    What passes by itself and what only a person can mend are counted apart: an hour without power says
    nothing about how long a refusal will last.
    """

    def __init__(self, settings: BackoffSettings, random: Callable[[], float]) -> None:
        """`random` gives numbers in [0, 1), for the jitter."""
        self._settings = settings
        self._random = random
        self._failures = {False: 0, True: 0}
        self._was_live = False
        self._refused_at = math.inf

    def after(self, error: StreamError, now: float, live_since: float) -> tuple[float, bool]:
        """Seconds until the next attempt, and whether that is a long pause, for an error at `now`.

        `live_since`: when the failed attempt had its first picture; infinity if it had none.
        """
        settings = self._settings
        if live_since <= now:
            self._was_live, self._refused_at = True, math.inf
        if now - live_since >= settings.healthy_seconds:
            self._failures = {False: 0, True: 0}
        is_long = error.retry_slowly and not self._is_starting_up(error, now)
        initial, maximum = settings.backoff_initial_seconds, settings.backoff_max_seconds
        if is_long:
            initial, maximum = settings.refused_initial_seconds, settings.refused_max_seconds
        step = min(maximum, initial * 2.0 ** min(self._failures[is_long], _MAX_DOUBLINGS))
        self._failures[is_long] += 1
        # Between half a step and a whole one, so that cameras spread out.
        return step * (1 + self._random()) / 2, is_long

    def _is_starting_up(self, error: StreamError, now: float) -> bool:
        if not self._was_live or isinstance(error, LoginRefusedError):
            return False
        self._refused_at = min(self._refused_at, now)
        return now - self._refused_at < self._settings.starting_up_seconds
