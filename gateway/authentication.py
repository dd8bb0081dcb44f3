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
from typing import Any, Literal, TypedDict

import msgspec
import sqlalchemy as sa

from gateway.audit.records import AuditEvent, AuditKind, DetailValue, Outcome
from gateway.clock import Clock, from_micros, to_micros
from gateway.jobs import may_act, may_come_from
from gateway.keys import InstallationKeys
from gateway.login_attempts import LoginAttempts
from gateway.login_failures import FailureKind, LoginFailures
from gateway.passwords import MAX_PASSWORD_LENGTH, PasswordHashingBusyError, Passwords
from gateway.problems import Problem
from gateway.second_factor import Factor, use_code
from gateway.store.identifiers import fold_username
from gateway.store.schema import departments, duty_sessions, login_sessions, user_roles, users
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.roles import Role

MAX_TOKEN_LENGTH = 128
MAX_ENDED_REMEMBERED = 1024
"""Tokens that a later log-in ended: whoever comes with one is told why, the last so many."""
LOGGED_IN_ELSEWHERE = "logged_in_elsewhere"


class RoleHeld(msgspec.Struct, frozen=True):
    """A role, and the department in whose subtree it was assigned."""

    role: str
    department: str


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed on at a wall, and until when (microseconds since the epoch, UTC)."""

    id: str
    person_id: str
    person_name: str
    unit_id: str
    unit_name: str
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
    networks: tuple[str, ...] | None = None
    """Of a job: where it may come from, in CIDR notation; None: anywhere."""


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
        self._ended_elsewhere: OrderedDict[bytes, None] = OrderedDict()
        self.ended_listeners: list[Callable[[Principal], None]] = []
        """Called with whoever has logged in when that ended an earlier log-in of his."""
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
            factor = await self._use_code(row.id, code)
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

    async def _use_code(self, user_id: str, code: str) -> Factor | None:
        async def unit(work: Unit) -> Factor | None:
            return await use_code(work, self._keys, user_id, code, self._clock())

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
        return row if matches else None

    async def principal(self, token: str) -> Principal | None:
        """The principal of a token, or None if the token is unknown, expired or its user disabled."""
        if not _may_be_token(token):
            return None
        hashed = token_hash(token)
        found = {"hashed": hashed, "now": to_micros(self._clock())}
        async with self._store.read() as conn:
            rows = (await conn.execute(_OF_TOKEN, found)).all()
        return self._principal(rows, hashed)

    def refuse(self, token: str, remote: str) -> str | None:
        """Somebody came with a token that opens nothing. Returns why, if it can still be said."""
        if _may_be_token(token) and token_hash(token) in self._ended_elsewhere:
            return LOGGED_IN_ELSEWHERE
        self.failures.count(FailureKind.TOKEN, remote)
        return None

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
        for listener in self.ended_listeners:
            listener(principal)

    async def _load(self, user_id: str, login: bytes) -> Principal | None:
        asked = {"user": user_id, "now": to_micros(self._clock())}
        async with self._store.read() as conn:
            rows = (await conn.execute(_OF_USER, asked)).all()
        return self._principal(rows, login)

    def _principal(self, rows: Sequence[Any], login: bytes) -> Principal | None:
        if not rows:
            return None
        row = rows[0]
        roles = tuple(RoleHeld(row.role, row.role_department_id) for row in rows if row.role is not None)
        has_second_factor = row.totp_enabled_at is not None
        return Principal(
            id=row.id,
            username=row.username,
            display_name=row.display_name,
            department_id=row.department_id,
            department_name=row.department_name,
            kind=row.kind,
            locale=row.locale,
            roles=roles,
            undertaking_version=row.undertaking_version,
            login=login,
            must_enrol=not has_second_factor and self._needs_second_factor(row.kind, roles),
            has_second_factor=has_second_factor,
            on_duty=_duty(row),
            networks=tuple(row.networks or ()) if row.kind == "job" else None,
        )

    def _needs_second_factor(self, kind: str, roles: Iterable[RoleHeld]) -> bool:
        """Asked at each request: a role that was given or changed a moment ago counts."""
        if self._settings.second_factor == "nobody":
            return False
        if self._settings.second_factor == "everybody" and kind == "person":
            return True
        held = (self._roles.get(role.role, Role()) for role in roles)
        return any(role.department or role.installation for role in held)

    async def _find(self, name: str) -> sa.Row[Any] | None:
        query = sa.select(users, may_act.label("acts")).where(users.c.username_folded == name)
        async with self._store.read() as conn:
            return (await conn.execute(query)).one_or_none()


_person = users.alias("person")
_person_unit = departments.alias("person_unit")
_responsible = users.alias("responsible")
_undertaking_of_job = sa.select(_responsible.c.undertaking_version).where(
    _responsible.c.id == users.c.responsible_id, _responsible.c.enabled
)
_WITH_ROLES = (
    sa.select(
        users.c.id,
        users.c.username,
        users.c.display_name,
        users.c.department_id,
        departments.c.name.label("department_name"),
        users.c.kind,
        users.c.locale,
        users.c.totp_enabled_at,
        users.c.networks,
        sa.case(
            (users.c.kind == "job", _undertaking_of_job.scalar_subquery()),
            (users.c.kind == "wall", _person.c.undertaking_version),
            else_=users.c.undertaking_version,
        ).label("undertaking_version"),
        user_roles.c.role,
        user_roles.c.department_id.label("role_department_id"),
        duty_sessions.c.id.label("duty_id"),
        duty_sessions.c.ends_at.label("duty_ends_at"),
        _person.c.id.label("person_id"),
        _person.c.display_name.label("person_name"),
        _person_unit.c.id.label("person_unit_id"),
        _person_unit.c.name.label("person_unit_name"),
    )
    .join(departments, departments.c.id == users.c.department_id)
    .outerjoin(user_roles, user_roles.c.user_id == users.c.id)
    .outerjoin(
        duty_sessions,
        sa.and_(
            duty_sessions.c.wall_id == users.c.id,
            duty_sessions.c.ended_at.is_(None),
            duty_sessions.c.ends_at > sa.bindparam("now"),
        ),
    )
    .outerjoin(_person, sa.and_(_person.c.id == duty_sessions.c.person_id, _person.c.enabled))
    .outerjoin(_person_unit, _person_unit.c.id == _person.c.department_id)
    .where(may_act)
    .order_by(user_roles.c.role, user_roles.c.department_id)
)
"""One row for each role that the user holds; one without a role if he holds none."""
_OF_USER = _WITH_ROLES.where(users.c.id == sa.bindparam("user"))
_OF_TOKEN = _WITH_ROLES.join(login_sessions, login_sessions.c.user_id == users.c.id).where(
    login_sessions.c.token_hash == sa.bindparam("hashed"),
    login_sessions.c.expires_at > sa.bindparam("now"),
)


def _duty(row: sa.Row[Any]) -> Duty | None:
    """Of a wall; a person who was disabled answers for nothing any more."""
    if row.person_id is None:
        return None
    return Duty(
        id=row.duty_id,
        person_id=row.person_id,
        person_name=row.person_name,
        unit_id=row.person_unit_id,
        unit_name=row.person_unit_name,
        ends_at=row.duty_ends_at,
    )


async def _end_earlier(work: Unit, row: sa.Row[Any], now: int) -> list[bytes]:
    """Forget log-ins that are over, and end those that are not: a job may have many, others one."""
    await work.conn.execute(sa.delete(login_sessions).where(login_sessions.c.expires_at <= now))
    if row.kind == "job":
        return []
    earlier = sa.delete(login_sessions).where(login_sessions.c.user_id == row.id)
    return list((await work.conn.execute(earlier.returning(login_sessions.c.token_hash))).scalars())


class Actor(TypedDict):
    actor_id: str
    actor_name: str
    unit_id: str
    unit_name: str


def actor_of(principal: Principal) -> Actor:
    """The ledger's columns for who acted: unit and name (单位、姓名); at a wall, of who is on duty."""
    if principal.on_duty is not None:
        return person_of(principal.on_duty)
    return {
        "actor_id": principal.id,
        "actor_name": principal.display_name,
        "unit_id": principal.department_id,
        "unit_name": principal.department_name,
    }


def person_of(duty: Duty) -> Actor:
    """The ledger's columns for who is on duty at a wall."""
    return {
        "actor_id": duty.person_id,
        "actor_name": duty.person_name,
        "unit_id": duty.unit_id,
        "unit_name": duty.unit_name,
    }


def wall_of(wall_id: str, duty: Duty) -> dict[str, DetailValue]:
    """What a record of something done at a wall says beside who did it."""
    return {"wall": wall_id, "duty": duty.id}
