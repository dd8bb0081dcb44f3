"""Accounts as the API takes and answers them, and as the database has them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import from_micros
from gateway.forms import END, Identifier, Name
from gateway.jobs import MAX_KEY_DAYS, JobParticulars
from gateway.passwords import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH
from gateway.store.schema import user_roles, users
from policies.access import RoleAssignment
from policies.administration import Account

MAX_ROLES_OF_A_USER = 16

Password = Annotated[str, Meta(min_length=MIN_PASSWORD_LENGTH, max_length=MAX_PASSWORD_LENGTH)]
Username = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f\x7f]+" + END)]


@dataclass(frozen=True)
class AccountSettings:
    """`key_days`: how long a job's key lives, at most MAX_KEY_DAYS."""

    key_days: int = MAX_KEY_DAYS


class User(msgspec.Struct, frozen=True, kw_only=True):
    """`job` and `key_expires_at`: of a job only."""

    id: str
    username: str
    display_name: str
    department_id: str
    kind: str
    enabled: bool
    locale: str | None
    roles: list[str]
    job: JobParticulars | None = None
    key_expires_at: datetime | None = None


class NewUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without a password one is generated, and answered this once. A job's is its key: always generated.

    A wall shows pictures by its own grants while a person is on duty there; it holds no role.
    """

    username: Username
    display_name: Name
    department_id: Identifier
    kind: Literal["person", "job", "wall"] = "person"
    id: Identifier | None = None
    password: Password | None = None
    roles: Annotated[list[str], Meta(max_length=MAX_ROLES_OF_A_USER)] = []
    locale: Literal["zh", "en"] | None = None
    job: JobParticulars | None = None

    def __repr__(self) -> str:
        return f"NewUser(username={self.username!r})"


class CreatedUser(msgspec.Struct, frozen=True, kw_only=True):
    """`password` only if it was generated; it is not stored in clear and cannot be asked for again."""

    user: User
    password: str | None

    def __repr__(self) -> str:
        return f"CreatedUser(user={self.user!r})"


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A job's new key: its password from now on. Answered this once."""

    password: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"IssuedKey(expires_at={self.expires_at})"


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes. Disabling, and a new password, end log-ins and running pictures at once."""

    display_name: Name | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    password: Password | msgspec.UnsetType = msgspec.UNSET
    roles: Annotated[list[str], Meta(max_length=MAX_ROLES_OF_A_USER)] | msgspec.UnsetType = msgspec.UNSET
    locale: Literal["zh", "en"] | None | msgspec.UnsetType = msgspec.UNSET
    job: JobParticulars | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return "UserChange(...)"


async def read_user(conn: AsyncConnection, user_id: str) -> User | None:
    row = (await conn.execute(sa.select(users).where(users.c.id == user_id))).one_or_none()
    if row is None:
        return None
    held = await conn.execute(sa.select(user_roles.c.role).where(user_roles.c.user_id == user_id))
    return user_of(row, sorted(held.scalars()))


def user_of(row: sa.Row[Any], roles: list[str]) -> User:
    return User(
        id=row.id,
        username=row.username,
        display_name=row.display_name,
        department_id=row.department_id,
        kind=row.kind,
        enabled=row.enabled,
        locale=row.locale,
        roles=roles,
        job=_particulars(row),
        key_expires_at=None if row.password_expires_at is None else from_micros(row.password_expires_at),
    )


def account_of(user: User) -> Account:
    """An account as the PAP takes it."""
    roles = tuple(RoleAssignment(role, user.department_id) for role in user.roles)
    return Account(user_id=user.id, department_id=user.department_id, roles=roles)


def _particulars(row: sa.Row[Any]) -> JobParticulars | None:
    """None also of a job that is older than the duty to have them: it does nothing until somebody answers."""
    if row.kind != "job" or row.responsible_id is None:
        return None
    return JobParticulars(
        responsible_id=row.responsible_id,
        processing=row.processing,
        recipients=row.recipients,
        result_days=row.result_days,
        networks=row.networks,
    )
