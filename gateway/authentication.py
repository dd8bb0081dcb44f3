"""Who is it? Passwords become bearer tokens, tokens become principals.

Tokens are 256 random bits; the database holds only their SHA-256. Failures are throttled per user name and
per address, and look the same whether the user exists or not.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

import msgspec
import sqlalchemy as sa
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import Clock, to_micros
from gateway.passwords import MAX_PASSWORD_LENGTH, PasswordHashingBusyError, Passwords
from gateway.problems import Problem
from gateway.store.identifiers import fold_username
from gateway.store.schema import departments, login_sessions, user_roles, users
from gateway.store.store import Store
from gateway.store.unit import Unit, UnitFunction

MAX_TOKEN_LENGTH = 128


class RoleHeld(msgspec.Struct, frozen=True):
    """A role, and the department in whose subtree it was assigned."""

    role: str
    department: str


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed on at a wall, and until when (microseconds since the epoch, UTC)."""

    id: str
    person_id: str
    person_name: str
    ends_at: int


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A person or a job that has proven who it is."""

    id: str
    username: str
    display_name: str
    department_id: str
    department_name: str
    kind: str
    locale: str
    roles: tuple[RoleHeld, ...]
    login: bytes
    """The hash of the token that it came with: names this log-in, opens nothing."""
    must_enrol: bool = False
    """An administrator without a second factor: may set one up, and nothing else."""
    has_second_factor: bool = False
    undertaking_version: int | None = None
    """The newest undertaking that this person accepted; a job's responsible person's."""
    on_duty: Duty | None = None
    """Of a wall: the person who answers for what it shows now."""


@dataclass(frozen=True)
class LoginSettings:
    token_hours: float = 12
    failures_per_user: int = 5
    failures_per_address: int = 30
    window_seconds: int = 60


@dataclass(frozen=True)
class LoggedIn:
    token: str
    expires_at: datetime
    principal: Principal


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Authentication:
    def __init__(self, store: Store, passwords: Passwords, settings: LoginSettings, clock: Clock) -> None:
        self._store = store
        self._passwords = passwords
        self._settings = settings
        self._clock = clock
        self._throttle = MovingWindowRateLimiter(MemoryStorage())
        self._undecided: Counter[str] = Counter()
        window = settings.window_seconds
        self._per_user = RateLimitItemPerSecond(settings.failures_per_user, window, "login-user")
        self._per_address = RateLimitItemPerSecond(settings.failures_per_address, window, "login-address")

    async def login(self, username: str, password: str, remote: str, request_id: str) -> LoggedIn:
        """Raises Problem `invalid_credentials`, `login_throttled` or `login_busy`."""
        name = fold_username(username[:MAX_PASSWORD_LENGTH])
        async with self._attempt(name, remote):
            row = await self._verified(name, password)
            if row is None:
                await self._throttle.hit(self._per_user, name)
                await self._throttle.hit(self._per_address, remote)
        logged_in = None if row is None else await self._open_login(row, remote, request_id)
        if logged_in is None:
            await self._store.run(_failure_unit(username, remote, request_id))
            raise Problem("invalid_credentials")
        return logged_in

    @asynccontextmanager
    async def _attempt(self, name: str, remote: str) -> AsyncIterator[None]:
        """Attempts that are not decided yet count as failures: guesses at once are guesses too."""
        left = {
            item.key_for(key): (await self._throttle.get_window_stats(item, key)).remaining
            for item, key in ((self._per_user, name), (self._per_address, remote))
        }
        if any(self._undecided[key] >= remaining for key, remaining in left.items()):
            raise Problem("login_throttled", headers={"Retry-After": str(self._settings.window_seconds)})
        self._undecided.update(left.keys())
        try:
            yield
        finally:
            self._undecided -= Counter(left.keys())

    async def _verified(self, name: str, password: str) -> sa.Row[Any] | None:
        """The enabled user of that name and password. Takes as long if there is none."""
        row = await self._find(name)
        usable = row is not None and row.enabled and len(password) <= MAX_PASSWORD_LENGTH
        try:
            matches = await self._passwords.verify(
                row.password_hash if row is not None and usable else None, password[:MAX_PASSWORD_LENGTH]
            )
        except PasswordHashingBusyError:
            raise Problem("login_busy", headers={"Retry-After": "1"}) from None
        return row if matches else None

    async def principal(self, token: str) -> Principal | None:
        """The principal of a token, or None if the token is unknown, expired or its user disabled."""
        if not token.isascii() or not 0 < len(token) <= MAX_TOKEN_LENGTH:
            return None
        hashed = token_hash(token)
        found = {"hashed": hashed, "now": to_micros(self._clock())}
        async with self._store.read() as conn:
            rows = (await conn.execute(_OF_TOKEN, found)).all()
        return _principal(rows, hashed)

    async def is_valid(self, principal: Principal) -> bool:
        """Whether the log-in that the principal came with still stands: for answers that take long."""
        query = sa.select(login_sessions.c.user_id).where(
            login_sessions.c.token_hash == principal.login,
            login_sessions.c.expires_at > to_micros(self._clock()),
        )
        async with self._store.read() as conn:
            return (await conn.execute(query)).one_or_none() is not None

    async def logout(self, principal: Principal, remote: str, request_id: str) -> None:
        async def unit(work: Unit) -> None:
            await work.conn.execute(
                sa.delete(login_sessions).where(login_sessions.c.token_hash == principal.login)
            )
            work.record(
                AuditEvent(
                    kind=AuditKind.LOGOUT,
                    outcome=Outcome.OK,
                    content="log out",
                    **actor_of(principal),
                    remote=remote,
                    request_id=request_id,
                )
            )

        await self._store.run(unit)

    async def _open_login(self, row: sa.Row[Any], remote: str, request_id: str) -> LoggedIn | None:
        """None if the account was disabled or got another password since it was verified."""
        token = secrets.token_urlsafe(32)
        now = self._clock()
        expires_at = now + timedelta(hours=self._settings.token_hours)
        principal = await self._load(row.id, token_hash(token))
        if principal is None:
            return None

        async def unit(work: Unit) -> bool:
            unchanged = sa.select(users.c.id).where(
                users.c.id == row.id, users.c.enabled, users.c.password_hash == row.password_hash
            )
            if (await work.conn.execute(unchanged)).first() is None:
                return False
            await work.conn.execute(
                sa.delete(login_sessions).where(login_sessions.c.expires_at <= to_micros(now))
            )
            await work.conn.execute(
                sa.insert(login_sessions).values(
                    token_hash=principal.login,
                    user_id=row.id,
                    created_at=to_micros(now),
                    expires_at=to_micros(expires_at),
                    remote=remote,
                )
            )
            work.record(
                AuditEvent(
                    kind=AuditKind.LOGIN,
                    outcome=Outcome.OK,
                    content="log in",
                    **actor_of(principal),
                    remote=remote,
                    request_id=request_id,
                )
            )
            return True

        return LoggedIn(token, expires_at, principal) if await self._store.run(unit) else None

    async def _load(self, user_id: str, login: bytes) -> Principal | None:
        async with self._store.read() as conn:
            rows = (await conn.execute(_OF_USER, {"user": user_id})).all()
        return _principal(rows, login)

    async def _find(self, name: str) -> sa.Row[Any] | None:
        query = sa.select(users).where(users.c.username_folded == name)
        async with self._store.read() as conn:
            return (await conn.execute(query)).one_or_none()


_WITH_ROLES = (
    sa.select(
        users.c.id,
        users.c.username,
        users.c.display_name,
        users.c.department_id,
        departments.c.name.label("department_name"),
        users.c.kind,
        users.c.locale,
        user_roles.c.role,
        user_roles.c.department_id.label("role_department_id"),
    )
    .join(departments, departments.c.id == users.c.department_id)
    .outerjoin(user_roles, user_roles.c.user_id == users.c.id)
    .where(users.c.enabled)
    .order_by(user_roles.c.role, user_roles.c.department_id)
)
"""One row for each role that the user holds; one without a role if he holds none."""
_OF_USER = _WITH_ROLES.where(users.c.id == sa.bindparam("user"))
_OF_TOKEN = _WITH_ROLES.join(login_sessions, login_sessions.c.user_id == users.c.id).where(
    login_sessions.c.token_hash == sa.bindparam("hashed"),
    login_sessions.c.expires_at > sa.bindparam("now"),
)


def _principal(rows: Sequence[Any], login: bytes) -> Principal | None:
    if not rows:
        return None
    row = rows[0]
    return Principal(
        id=row.id,
        username=row.username,
        display_name=row.display_name,
        department_id=row.department_id,
        department_name=row.department_name,
        kind=row.kind,
        locale=row.locale,
        roles=tuple(RoleHeld(row.role, row.role_department_id) for row in rows if row.role is not None),
        login=login,
    )


class Actor(TypedDict):
    actor_id: str
    actor_name: str
    unit_id: str
    unit_name: str


def actor_of(principal: Principal) -> Actor:
    """The ledger's columns for who acted: unit and name (单位、姓名)."""
    return {
        "actor_id": principal.id,
        "actor_name": principal.display_name,
        "unit_id": principal.department_id,
        "unit_name": principal.department_name,
    }


def _failure_unit(username: str, remote: str, request_id: str) -> UnitFunction[None]:
    async def unit(work: Unit) -> None:
        work.record(
            AuditEvent(
                kind=AuditKind.LOGIN_FAILED,
                outcome=Outcome.DENY,
                content="log in",
                reason="invalid_credentials",
                actor_name=username[:MAX_PASSWORD_LENGTH],
                remote=remote,
                request_id=request_id,
            )
        )

    return unit
