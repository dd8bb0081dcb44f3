"""A brake on guessing: failures per user name and per address, within a moving window."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from gateway.login_failures import FailureKind, LoginFailures
from gateway.problems import Problem


class LoginAttempts:
    """Passwords and second factors' codes alike are tried within `one`."""

    def __init__(self, per_user: int, per_address: int, window_seconds: int, failures: LoginFailures) -> None:
        self._failures = failures
        self._window_seconds = window_seconds
        self._throttle = MovingWindowRateLimiter(MemoryStorage())
        self._undecided: Counter[str] = Counter()
        self._per_user = RateLimitItemPerSecond(per_user, window_seconds, "login-user")
        self._per_address = RateLimitItemPerSecond(per_address, window_seconds, "login-address")

    @asynccontextmanager
    async def one(self, name: str, remote: str) -> AsyncIterator[None]:
        """Attempts that are not decided yet count as failures: guesses at once are guesses too.

        `name`: folded. Raises Problem `login_throttled`.
        """
        left = {
            item.key_for(key): (await self._throttle.get_window_stats(item, key)).remaining
            for item, key in ((self._per_user, name), (self._per_address, remote))
        }
        if any(self._undecided[key] >= remaining for key, remaining in left.items()):
            self._failures.count(FailureKind.THROTTLED, remote, name)
            raise Problem("login_throttled", headers={"Retry-After": str(self._window_seconds)})
        self._undecided.update(left.keys())
        try:
            yield
        finally:
            self._undecided -= Counter(left.keys())

    async def failed(self, kind: FailureKind, name: str, remote: str) -> None:
        """The attempt failed: within `one`, before anything else may be tried."""
        self._failures.count(kind, remote, name)
        await self._throttle.hit(self._per_user, name)
        await self._throttle.hit(self._per_address, remote)
