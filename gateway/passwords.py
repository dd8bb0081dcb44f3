"""Password hashing: argon2id off the event loop, with a bound on how many wait."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 256
"""Argon2 hashes whatever it is given; a megabyte of password is work for an attacker's benefit."""


class PasswordHashingBusyError(Exception):
    """More passwords wait to be hashed than may; try again in a second."""


@dataclass(frozen=True)
class PasswordSettings:
    """OWASP's second argon2id parameter set: 19 MiB, two passes, about 25 ms a hash."""

    memory_kib: int = 19_456
    passes: int = 2
    concurrent: int = 2
    waiting: int = 32


class Passwords:
    """Hashes and verifies; owns the two slots that hashing may use."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.passes, memory_cost=settings.memory_kib, parallelism=1
        )
        self._slots = asyncio.Semaphore(settings.concurrent)
        self._waiting = 0
        self._max_waiting = settings.waiting
        # Verified when the user does not exist, so that both cases take as long.
        self._decoy = self._hasher.hash(secrets.token_urlsafe(16))

    def hash_now(self, password: str) -> str:
        """Blocks for about 25 ms: for the command line and for threads."""
        return self._hasher.hash(password)

    async def hash(self, password: str) -> str:
        """Raises PasswordHashingBusyError."""
        async with self._slot():
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """False for a wrong password, an unreadable hash or no hash. Raises PasswordHashingBusyError."""
        async with self._slot():
            matches = await asyncio.to_thread(self._verify, password_hash or self._decoy, password)
        return matches and password_hash is not None

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= self._max_waiting:
            raise PasswordHashingBusyError
        self._waiting += 1
        try:
            async with self._slots:
                yield
        finally:
            self._waiting -= 1

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False


def generate_password() -> str:
    """About 105 bits, in characters that survive a telephone call."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(7)) for _ in range(3))
