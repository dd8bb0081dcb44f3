"""Who is it? Passwords and second factors become bearer tokens, tokens become principals.

Tokens are 256 random bits; the database holds only their SHA-256. Failures are throttled per user name and
per address, and look the same whether the user exists or not. A person has one log-in: a later one ends it.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import Clock, from_micros, to_micros
from gateway.jobs import may_act, may_come_from
from gateway.keys import InstallationKeys
from gateway.login_attempts import LoginAttempts
from gateway.login_failures import FailureKind, LoginFailures
from gateway.passwords import MAX_PASSWORD_LENGTH, PasswordHashingBusyError, Passwords
from gateway.principal_rows import OF_TOKEN, OF_USER, principal_of
from gateway.principals import Principal, actor_of
from gateway.problems import Problem
from gateway.second_factor import Factor, use_code
from gateway.store.identifiers import fold_username
from gateway.store.schema import login_sessions, users
from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import read_rows
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Reason
from policies.roles import Role

MAX_TOKEN_LENGTH = 128
MAX_ENDED_REMEMBERED = 1024
"""Tokens that a later log-in ended: whoever comes with one is told why, the last so many."""
LOGGED_IN_ELSEWHERE = "logged_in_elsewhere"


@dataclass(frozen=True)
class LoginSettings:
    """`second_factor`: who must have one. Administrators are all who hold a role that carries an action."""

    second_factor: Literal["administrators", "everybody", "nobody"] = "administrators"
    token_hours: float = 12
    failures_per_user: int = 5
    failures_per_address: int = 30
    window_seconds: int = 60


@dataclass(frozen=True)
class Proven:
    """An enabled user's password was given, and where there is a second factor, a code of it."""

    row: sa.Row[Any]
    factor: Factor


@dataclass(frozen=True)
class LoggedIn:
    token: str
    expires_at: datetime
    principal: Principal


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _may_be_token(text: str) -> bool:
    return text.isascii() and 0 < len(text) <= MAX_TOKEN_LENGTH


class Authentication:
    """`roles`: those that there are now, by name."""

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        keys: InstallationKeys,
        roles: Mapping[str, Role],
        settings: LoginSettings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._keys = keys
        self._roles = roles
        self._settings = settings
        self._clock = clock
        self.failures = LoginFailures(store, clock)
        self.attempts = LoginAttempts(
            settings.failures_per_user,
            settings.failures_per_address,
            settings.window_seconds,
            self.failures,
        )
        self._alarmed: set[str] = set()
        self._ended_elsewhere: OrderedDict[bytes, None] = OrderedDict()
        self.ended_listeners: list[Callable[[str, Principal], None]] = []
        """Called with whose log-ins ended, and who ended them: he himself by logging in elsewhere."""
        self.wall_listeners: list[Callable[[Unit, Principal], Awaitable[None]]] = []
        """Called in the unit in which a wall's account logs in or out."""

    async def login(
        self, username: str, password: str, code: str | None, remote: str, request_id: str
    ) -> LoggedIn:
        """Raises Problem as `prove` does."""
        proven = await self.prove(username, password, code, remote)
        logged_in = await self._open_login(proven, remote, request_id)
        if logged_in is None:
            self.failures.count(FailureKind.PASSWORD, remote, username)
            raise Problem("invalid_credentials")
        return logged_in

    async def prove(self, username: str, password: str, code: str | None, remote: str) -> Proven:
        """Check who somebody is, and use up the code. Opens nothing and records no success.

        A wrong password and a wrong code look alike; only who has the right password is told that a code is
        needed, or that a job's key has expired or may not come from there. Raises Problem
        `invalid_credentials`, `second_factor_required`, `key_expired`, `network_not_allowed`,
        `login_throttled` or `login_busy`.
        """
        name = fold_username(username[:MAX_PASSWORD_LENGTH])
        async with self.attempts.one(name, remote):
            row = await self._verified(name, password)
            if row is None:
                await self.attempts.failed(FailureKind.PASSWORD, name, remote)
                raise Problem("invalid_credentials")
            if row.kind == "job":
                await self._check_job(row, name, remote)
            if row.totp_enabled_at is None:
                return Proven(row, Factor.NONE)
            if code is None:
                await self.attempts.failed(FailureKind.CODE_MISSING, name, remote)
                raise Problem("second_factor_required")
            factor = await self._use_code(row.id, code, remote)
            if factor is None:
                await self.attempts.failed(FailureKind.CODE, name, remote)
                raise Problem("invalid_credentials")
            return Proven(row, factor)

    async def _check_job(self, row: sa.Row[Any], name: str, remote: str) -> None:
        if row.password_expires_at is None or row.password_expires_at <= to_micros(self._clock()):
            await self.attempts.failed(FailureKind.KEY_EXPIRED, name, remote)
            raise Problem("key_expired")
        if not may_come_from(row.networks or (), remote):
            await self.attempts.failed(FailureKind.NETWORK, name, remote)
            raise Problem("network_not_allowed")

    async def principal_of(self, proven: Proven) -> Principal | None:
        """Who that is, without a log-in; None if he was disabled since."""
        return await self._load(proven.row.id, b"")

    def check_network(self, principal: Principal, remote: str) -> None:
        """A job's token is good in its networks only. Raises Problem `network_not_allowed`, and counts it."""
        if principal.networks is None or may_come_from(principal.networks, remote):
            return
        self.failures.count(FailureKind.NETWORK, remote, principal.username)
        raise Problem("network_not_allowed")

    async def _use_code(self, user_id: str, code: str, remote: str) -> Factor | None:
        """None, too, for an account that the ledger does not know so."""
        principal = await self._load(user_id, b"")
        if principal is None:
            return None

        async def unit(work: Unit) -> Factor | None:
            if not await work.is_sealed((Sealed.USER, user_id)):
                return None
            factor = await use_code(work, self._keys, user_id, code, self._clock())
            if factor is Factor.RECOVERY_CODE:
                event = AuditEvent(
                    kind=AuditKind.SECOND_FACTOR_CHANGED,
                    outcome=Outcome.OK,
                    content="use up a recovery code",
                    **actor_of(principal),
                    remote=remote,
                )
                await work.seal(event, (Sealed.USER, user_id))
            return factor

        return await self._store.run(unit)

    async def _verified(self, name: str, password: str) -> sa.Row[Any] | None:
        """The enabled user of that name and password. Takes as long if there is none."""
        row = await self._find(name)
        usable = row is not None and row.acts and len(password) <= MAX_PASSWORD_LENGTH
        try:
            matches = await self._passwords.verify(
                row.password_hash if row is not None and usable else None, password[:MAX_PASSWORD_LENGTH]
            )
        except PasswordHashingBusyError:
            raise Problem("login_busy", headers={"Retry-After": "1"}) from None
        return row if matches and row is not None and await self._is_in_ledger(row) else None

    async def _is_in_ledger(self, row: sa.Row[Any]) -> bool:
        """Whether the account is what was recorded of it: somebody may have put his own password there."""
        async with self._store.read() as conn:
            stored = [found async for found in read_rows(conn, Sealed.USER, [row.id])]
        if all(found.fits(self._store.seals) for found in stored):
            return True
        if row.id not in self._alarmed:
            self._alarmed.add(row.id)
            await self._store.record(
                AuditEvent(
                    kind=AuditKind.POLICY_ALARM,
                    outcome=Outcome.DENY,
                    content="an account that the ledger does not know so was logged in to",
                    resource=f"{Sealed.USER}:{row.id}",
                    reason=Reason.NOT_IN_LEDGER.value,
                )
            )
        return False

    async def principal(self, token: str) -> Principal | None:
        """The principal of a token, or None if the token is unknown, expired or its user disabled."""
        if not _may_be_token(token):
            return None
        hashed = token_hash(token)
        found = {"hashed": hashed, "now": to_micros(self._clock())}
        async with self._store.read() as conn:
            rows = (await conn.execute(OF_TOKEN, found)).all()
        return self._principal(rows, hashed)

    def refuse(self, token: str, remote: str) -> str | None:
        """Somebody came with a token that opens nothing. Returns why, if it can still be said."""
        if _may_be_token(token) and token_hash(token) in self._ended_elsewhere:
            return LOGGED_IN_ELSEWHERE
        self.failures.count(FailureKind.TOKEN, remote)
        return None

    async def is_valid(self, principal: Principal) -> bool:
        """Whether the log-in that the principal came with still stands: for answers that take long."""
        async with self._store.read() as conn:
            return await is_logged_in(conn, principal, self._clock())

    async def logout(self, principal: Principal, remote: str, request_id: str) -> None:
        async def unit(work: Unit) -> None:
            await work.conn.execute(
                sa.delete(login_sessions).where(login_sessions.c.token_hash == principal.login)
            )
            await self._tell_of_wall(work, principal)
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

    async def end_logins(self, work: Unit, user_id: str, by: Principal) -> None:
        """In the unit that replaces what somebody logs in with: what was opened with the old one ends."""
        await work.conn.execute(sa.delete(login_sessions).where(login_sessions.c.user_id == user_id))
        work.after_commit(lambda: self._tell_of_end(user_id, by))

    async def _open_login(self, proven: Proven, remote: str, request_id: str) -> LoggedIn | None:
        """None if the account was disabled or got another password or factor since it was verified."""
        row = proven.row
        token = secrets.token_urlsafe(32)
        now = self._clock()
        expires_at = now + timedelta(hours=self._settings.token_hours)
        if row.password_expires_at is not None:
            expires_at = min(expires_at, from_micros(row.password_expires_at))
        principal = await self._load(row.id, token_hash(token))
        if principal is None:
            return None

        async def unit(work: Unit) -> bool:
            unchanged = sa.select(users.c.id).where(
                users.c.id == row.id,
                may_act,
                users.c.password_hash == row.password_hash,
                users.c.totp_enabled_at.is_not_distinct_from(row.totp_enabled_at),
            )
            if (await work.conn.execute(unchanged)).first() is None:
                return False
            ended = await _end_earlier(work, row, to_micros(now))
            await self._tell_of_wall(work, principal)
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
                    detail={"second_factor": proven.factor.value, "ended_earlier": bool(ended)},
                )
            )
            if ended:
                work.after_commit(lambda: self._ended(principal, ended))
            return True

        return LoggedIn(token, expires_at, principal) if await self._store.run(unit) else None

    async def _tell_of_wall(self, work: Unit, principal: Principal) -> None:
        if principal.kind == "wall":
            for listener in self.wall_listeners:
                await listener(work, principal)

    def _ended(self, principal: Principal, logins: Iterable[bytes]) -> None:
        self._ended_elsewhere.update(dict.fromkeys(logins))
        while len(self._ended_elsewhere) > MAX_ENDED_REMEMBERED:
            self._ended_elsewhere.popitem(last=False)
        self._tell_of_end(principal.id, principal)

    def _tell_of_end(self, user_id: str, by: Principal) -> None:
        for listener in self.ended_listeners:
            listener(user_id, by)

    async def _load(self, user_id: str, login: bytes) -> Principal | None:
        asked = {"user": user_id, "now": to_micros(self._clock())}
        async with self._store.read() as conn:
            rows = (await conn.execute(OF_USER, asked)).all()
        return self._principal(rows, login)

    def _principal(self, rows: Sequence[Any], login: bytes) -> Principal | None:
        principal = principal_of(rows, login)
        if principal is None or principal.has_second_factor:
            return principal
        return msgspec.structs.replace(principal, must_enrol=self._needs_second_factor(principal))

    def _needs_second_factor(self, principal: Principal) -> bool:
        """Asked at each request: a role that was given or changed a moment ago counts."""
        if self._settings.second_factor == "nobody":
            return False
        if self._settings.second_factor == "everybody" and principal.kind == "person":
            return True
        held = (self._roles.get(role.role, Role()) for role in principal.roles)
        return any(role.department or role.installation for role in held)

    async def _find(self, name: str) -> sa.Row[Any] | None:
        query = sa.select(users, may_act.label("acts")).where(users.c.username_folded == name)
        async with self._store.read() as conn:
            return (await conn.execute(query)).one_or_none()


async def is_logged_in(conn: AsyncConnection, principal: Principal, at: datetime) -> bool:
    """Whether the log-in that the principal came with still stands."""
    query = sa.select(login_sessions.c.user_id).where(
        login_sessions.c.token_hash == principal.login, login_sessions.c.expires_at > to_micros(at)
    )
    return (await conn.execute(query)).first() is not None


async def _end_earlier(work: Unit, row: sa.Row[Any], now: int) -> list[bytes]:
    """Forget log-ins that are over, and end those that are not: a job may have many, others one."""
    await work.conn.execute(sa.delete(login_sessions).where(login_sessions.c.expires_at <= now))
    if row.kind == "job":
        return []
    earlier = sa.delete(login_sessions).where(login_sessions.c.user_id == row.id)
    return list((await work.conn.execute(earlier.returning(login_sessions.c.token_hash))).scalars())
