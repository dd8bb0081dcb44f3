"""Roles: those of the policies file, which are only read here, and those that are made over the API.

A role is never changed: who holds it would get more or less without anybody having given it. Nor is one
made or removed whose name somebody holds or a grant names.

Separation of duties: no role shows pixels (media actions can only be granted); who reads the ledger changes
nothing that it records; and who shares cameras everywhere does not manage everybody's accounts as well.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Protocol

import msgspec
import sqlalchemy as sa
import structlog
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditKind
from gateway.clock import to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.forms import END
from gateway.policy_feed import PolicyFeed
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.sealed_facts import SealedFacts
from gateway.store.schema import grants, user_roles
from gateway.store.schema import roles as role_rows
from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import by_name, raw, stored_row
from gateway.store.unit import Unit
from policies.access import INSTALLATION, MEDIA_ACTIONS, Action, SubjectKind
from policies.roles import MAX_ROLES, Role, RolesError

log = structlog.get_logger(__name__)

READING_ACTIONS = frozenset({Action.AUDIT_READ, Action.USAGE_READ, Action.SESSION_READ, Action.CAMERA_READ})
"""What a role with `audit:read` may carry beside it."""
_MANAGING_ACTIONS = frozenset(
    {Action.USER_MANAGE, Action.DEPARTMENT_MANAGE, Action.PURPOSE_MANAGE, Action.SECURITY_MANAGE}
)

RoleName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}" + END)]
_Actions = Annotated[list[Action], Meta(max_length=len(Action))]


class NewRole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Actions by scope: in the department of the assignment and below it, or in the whole installation."""

    name: RoleName
    department: _Actions = []
    installation: _Actions = []


class RoleEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`source`: `file` is the policies file, which only the operator changes."""

    name: str
    department: list[Action]
    installation: list[Action]
    source: Literal["file", "api"]


class RoleFacts(Protocol):
    """The side of the PDP that takes roles."""

    def set_role(self, name: str, role: Role) -> None: ...
    def remove_role(self, name: str) -> None: ...


class Roles:
    """`known`: all roles by name, at first the file's. Others read it; only this class writes it."""

    def __init__(
        self, enforcement: Enforcement, feed: PolicyFeed, facts: RoleFacts, known: dict[str, Role]
    ) -> None:
        self._enforcement = enforcement
        self._feed = feed
        self._facts = facts
        self._known = known
        self._of_the_file = frozenset(known)

    async def load(self, conn: AsyncConnection, found: SealedFacts) -> None:
        """Take over the roles that were made here. Call once, before anything is decided.

        One that the file has by now, that cannot be understood, or whose seal does not fit is left out, and
        logged. `found` is told of all.
        """
        query = sa.select(*map(raw, role_rows.c)).order_by(role_rows.c.name)
        for columns in by_name((await conn.execute(query)).all()):
            stored, name = stored_row(Sealed.ROLE, columns), columns["name"]
            role = _role_of(stored.fields) if found.check(Sealed.ROLE, stored) else None
            if role is None or name in self._known:
                log.error("role_left_out", name=name)
                continue
            try:
                self._put(name, role)
            except RolesError as error:
                log.error("role_left_out", name=name, error=str(error))

    def all(self) -> list[RoleEntry]:
        return [
            RoleEntry(
                name=name,
                department=sorted(role.department),
                installation=sorted(role.installation),
                source="file" if name in self._of_the_file else "api",
            )
            for name, role in self._known.items()
        ]

    async def create(self, principal: Principal, new: NewRole, circumstances: Circumstances) -> RoleEntry:
        """Raises Problem `access_denied`, `role_refused` (its `reason` says why) or `conflict`."""
        role = Role(department=frozenset(new.department), installation=frozenset(new.installation))

        async def act(work: Unit, grant: Grant) -> RoleEntry | Refused:
            problem = refusal(role) or await self._conflict(work.conn, new.name)
            if problem is not None:
                return Refused(problem)
            entry = RoleEntry(
                name=new.name,
                department=sorted(role.department),
                installation=sorted(role.installation),
                source="api",
            )
            await work.conn.execute(
                sa.insert(role_rows).values(
                    name=new.name,
                    department=entry.department,
                    installation=entry.installation,
                    created_by=principal.id,
                    created_at=to_micros(grant.at),
                )
            )
            event = grant.event(AuditKind.POLICY_CHANGED, f"role {new.name} made: {_described(role)}")
            await work.seal(event, (Sealed.ROLE, new.name))
            await self._feed.write(work, lambda _: self._put(new.name, role))
            return entry

        return await self._enforcement.perform(
            principal, Action.USER_MANAGE, INSTALLATION, circumstances, f"make role {new.name}", act
        )

    async def remove(self, principal: Principal, name: str, circumstances: Circumstances) -> None:
        """Raises Problem `access_denied`, `not_found`, `role_read_only` or `conflict` while it is used."""

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if name in self._of_the_file:
                return Refused(Problem("role_read_only", name))
            if await _is_used(work.conn, name):
                return Refused(Problem("conflict", f"role {name} is held or granted to", reason="in_use"))
            made = role_rows.c.name == name
            if (await work.conn.execute(sa.select(role_rows.c.name).where(made))).first() is None:
                return Refused(Problem("not_found", name))
            event = grant.event(AuditKind.POLICY_CHANGED, f"role {name} removed")
            await work.unseal({(Sealed.ROLE, name): event})
            await work.conn.execute(sa.delete(role_rows).where(made))
            await self._feed.write(work, lambda _: self._drop(name))
            return None

        await self._enforcement.perform(
            principal, Action.USER_MANAGE, INSTALLATION, circumstances, f"remove role {name}", act
        )

    async def _conflict(self, conn: AsyncConnection, name: str) -> Problem | None:
        count = (await conn.execute(sa.select(sa.func.count()).select_from(role_rows))).scalar_one()
        taken = sa.select(role_rows.c.name).where(role_rows.c.name == name)
        if name in self._of_the_file:
            return Problem("role_read_only", name)
        if (await conn.execute(taken)).first() is not None:
            return Problem("conflict", f"role {name} exists")
        if count + len(self._of_the_file) >= MAX_ROLES:
            return Problem("role_refused", f"there are {MAX_ROLES} roles", reason="too_many_roles")
        if await _is_used(conn, name):
            return Problem("conflict", f"somebody holds a former role {name}", reason="in_use")
        return None

    def leave_out(self, names: Iterable[str]) -> None:
        """What `load` does with roles whose seals do not fit."""
        for name in self._known.keys() & set(names) - self._of_the_file:
            self._drop(name)

    def _put(self, name: str, role: Role) -> None:
        self._facts.set_role(name, role)
        self._known[name] = role

    def _drop(self, name: str) -> None:
        self._facts.remove_role(name)
        self._known.pop(name, None)


def refusal(role: Role) -> Problem | None:
    """Why nobody may make such a role; None if one may."""
    actions = role.department | role.installation
    if pixels := actions & MEDIA_ACTIONS:
        told = f"{', '.join(sorted(pixels))} can only be granted, never come with a role"
        return Problem("role_refused", told, reason="media_action")
    if Action.AUDIT_READ in actions and (more := actions - READING_ACTIONS):
        told = f"who reads the ledger may not hold {', '.join(sorted(more))}"
        return Problem("role_refused", told, reason="duties_not_separate")
    if Action.CAMERA_SHARE in role.installation and (more := actions & _MANAGING_ACTIONS):
        told = f"who shares all cameras may not hold {', '.join(sorted(more))}"
        return Problem("role_refused", told, reason="duties_not_separate")
    return None


async def _is_used(conn: AsyncConnection, name: str) -> bool:
    held = sa.exists().where(user_roles.c.role == name)
    granted = sa.exists().where(
        grants.c.subject_kind == SubjectKind.ROLE.value,
        grants.c.subject_id == name,
        grants.c.revoked_at.is_(None),
    )
    return bool((await conn.execute(sa.select(sa.or_(held, granted)))).scalar_one())


def _role_of(row: Any) -> Role | None:
    try:
        role = msgspec.convert({"department": row.department, "installation": row.installation}, Role)
    except msgspec.ValidationError:
        return None
    return role if refusal(role) is None else None


def _described(role: Role) -> str:
    parts = [
        f"{scope}: {', '.join(sorted(actions))}"
        for scope, actions in (("department", role.department), ("installation", role.installation))
        if actions
    ]
    return "; ".join(parts)
