"""Encoders' log-ins, whatever they speak: names and passwords that are compared, and a brake on guessing."""

import hmac
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from gateway.relay.guard import neighbourhood
from streams.wire.digest import Credentials

MAX_FAILURES = 5
"""Wrong passwords of one address for one camera within the window; further ones are not tried."""
MAX_ADDRESS_FAILURES = 50
"""The same for all cameras together: many encoders may be behind one address."""
FAILURE_WINDOW_SECONDS = 60.0
MAX_THROTTLED = 4096
"""Pairs of address and camera that are remembered; beyond, the oldest are forgotten."""


def is_login(given: Credentials, expected: Credentials) -> bool:
    """In a time that says nothing of where they differ."""
    return hmac.compare_digest(_text(given), _text(expected))


class LoginThrottle:
    """Counts wrong passwords by address (of IPv6, by its /64) and camera, and by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def is_open(self, address: str, camera: str) -> bool:
        """Whether another password may be tried now."""
        since = self._clock() - FAILURE_WINDOW_SECONDS
        return all(
            failures is None or len(failures) < limit or failures[0] < since
            for key, limit in self._limits(address, camera).items()
            for failures in (self._failures.get(key),)
        )

    def count(self, address: str, camera: str) -> None:
        for key, limit in self._limits(address, camera).items():
            self._failures.setdefault(key, deque(maxlen=limit)).append(self._clock())
            self._failures.move_to_end(key)
        while len(self._failures) > MAX_THROTTLED:
            self._failures.popitem(last=False)

    def _limits(self, address: str, camera: str) -> dict[tuple[str, str], int]:
        near = neighbourhood(address)
        return {(near, camera): MAX_FAILURES, (near, ""): MAX_ADDRESS_FAILURES}


def _text(credentials: Credentials) -> bytes:
    return f"{credentials.username}\0{credentials.password}".encode()
