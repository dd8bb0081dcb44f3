"""The two trees of the catalogue: departments, which own cameras, and groups of cameras.

Every write is decided, recorded, and fed to the PDP.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from gateway.audit.records import AuditKind
from gateway.clock import to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.forms import DepartmentChange, GroupChange, NewDepartment, NewGroup, check_department
from gateway.policy_feed import PolicyFeed
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.identifiers import new_id
from gateway.store.schema import cameras, departments, grants, group_cameras, groups, user_roles, users
from gateway.store.sealed_rows import Sealed
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action, Object, ObjectKind, Reason, SubjectKind
from policies.administration import GrantRefusedError


class Department(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    parent_id: str | None
    civil_code: str | None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    parent_id: str | None
    department_id: str


class CatalogueTrees:
    def __init__(self, store: Store, enforcement: Enforcement, feed: PolicyFeed) -> None:
        self._store = store
        self._enforcement = enforcement
        self._feed = feed

    async def create_department(
        self, principal: Principal, new: NewDepartment, circumstances: Circumstances
    ) -> Department:
        """Raises Problem `access_denied`, `conflict` (id taken), `not_found` (parent) or `invalid_field`."""
        check_department(new.civil_code)
        department = Department(
            id=new.id or new_id(), name=new.name, parent_id=new.parent_id, civil_code=new.civil_code
        )

        async def act(work: Unit, grant: Grant) -> Department | Refused:
            if await _exists(work, departments, department.id):
                return Refused(Problem("conflict", f"department {department.id} exists"))
            place = (ObjectKind.DEPARTMENT, department.id, department.parent_id)
            if (misplaced := self._enforcement.check_tree(*place)) is not None:
                return Refused(misplaced)
            await work.conn.execute(
                sa.insert(departments).values(
                    **msgspec.structs.asdict(department), created_at=to_micros(grant.at)
                )
            )
            event = grant.event(AuditKind.DEPARTMENT_CREATED, f"{department.name} ({department.id})")
            await work.seal(event, (Sealed.DEPARTMENT, department.id))
            await self._feed.write(
                work, lambda engine: engine.set_department(department.id, department.parent_id)
            )
            return department

        return await self._enforcement.perform(
            principal,
            Action.DEPARTMENT_MANAGE,
            _department(new.parent_id),
            circumstances,
            f"create department {department.name}",
            act,
        )

    async def change_department(
        self, principal: Principal, department_id: str, change: DepartmentChange, circumstances: Circumstances
    ) -> Department:
        """Rename or move it: who moves it manages the new place too.

        Raises Problem `access_denied`, `conflict` (reason `cycle`, `too_deep`), `not_found` or
        `invalid_field`.
        """
        given = _given(change)
        check_department(given.get("civil_code"))

        async def act(work: Unit, grant: Grant) -> Department | Refused:
            row = await _row(work, departments, department_id)
            if row is None:
                return Refused(Problem("not_found", department_id))
            if not await work.is_sealed((Sealed.DEPARTMENT, department_id)):
                return Refused(Problem("conflict", department_id, reason=Reason.NOT_IN_LEDGER))
            department = Department(
                **{name: given.get(name, getattr(row, name)) for name in Department.__struct_fields__}
            )
            if department.parent_id != row.parent_id:
                place = _department(department.parent_id)
                decision = self._enforcement.decide(principal.id, Action.DEPARTMENT_MANAGE, place)
                if not decision.allowed:
                    return Refused(Problem("access_denied", f"move it to {place.id or 'the top'}"))
                misplaced = self._enforcement.check_tree(
                    ObjectKind.DEPARTMENT, department_id, department.parent_id
                )
                if misplaced is not None:
                    return Refused(misplaced)
                await self._feed.write(
                    work, lambda engine: engine.set_department(department_id, department.parent_id)
                )
            await _update(work, departments, department_id, given)
            event = grant.event(AuditKind.DEPARTMENT_CHANGED, _told(department_id, given))
            await work.seal(event, (Sealed.DEPARTMENT, department_id))
            return department

        return await self._enforcement.perform(
            principal,
            Action.DEPARTMENT_MANAGE,
            _department(department_id),
            circumstances,
            f"change department {department_id}",
            act,
        )

    async def delete_department(
        self, principal: Principal, department_id: str, circumstances: Circumstances
    ) -> None:
        """Raises Problem `access_denied` or, while anything uses it, `conflict` (reason `in_use`).

        A grant that outlived it would reach a new department of the same id.
        """

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if (user := await _used(work, _uses_of_department(department_id))) is not None:
                return Refused(
                    Problem("conflict", f"department {department_id} still has {user}", reason="in_use")
                )
            event = grant.event(AuditKind.DEPARTMENT_DELETED, department_id)
            await work.unseal({(Sealed.DEPARTMENT, department_id): event})
            await work.conn.execute(sa.delete(departments).where(departments.c.id == department_id))
            await self._feed.write(work, lambda engine: engine.remove_department(department_id))
            return None

        await self._enforcement.perform(
            principal,
            Action.DEPARTMENT_MANAGE,
            _department(department_id),
            circumstances,
            f"delete department {department_id}",
            act,
        )

    async def create_group(self, principal: Principal, new: NewGroup, circumstances: Circumstances) -> Group:
        """Raises Problem `access_denied`, `conflict` or `not_found` (parent)."""
        group = Group(
            id=new.id or new_id(), name=new.name, parent_id=new.parent_id, department_id=new.department_id
        )

        async def act(work: Unit, grant: Grant) -> Group | Refused:
            if await _exists(work, groups, group.id):
                return Refused(Problem("conflict", f"group {group.id} exists"))
            if (refused := await self._refuse_place(work, principal, group)) is not None:
                return refused
            await work.conn.execute(
                sa.insert(groups).values(**msgspec.structs.asdict(group), created_at=to_micros(grant.at))
            )
            event = grant.event(AuditKind.GROUP_CREATED, f"{group.name} ({group.id})")
            await work.seal(event, (Sealed.GROUP, group.id))
            await self._feed.write(work, lambda engine: engine.set_group(group.id, group.parent_id))
            return group

        return await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            _department(group.department_id),
            circumstances,
            f"create group {group.name}",
            act,
        )

    async def change_group(
        self, principal: Principal, group_id: str, change: GroupChange, circumstances: Circumstances
    ) -> Group:
        """Rename or move it: who moves it may share all cameras in it: grants on its new place reach them.

        Raises Problem `access_denied`, `grant_refused`, `conflict` (reason `cycle`, `too_deep`) or
        `not_found`.
        """
        given = _given(change)

        async def act(work: Unit, grant: Grant) -> Group | Refused:
            row = await _row(work, groups, group_id)
            if row is None:
                return Refused(Problem("not_found", f"group {group_id}"))
            if not await work.is_sealed((Sealed.GROUP, group_id)):
                return Refused(Problem("conflict", f"group {group_id}", reason=Reason.NOT_IN_LEDGER))
            group = Group(**{name: given.get(name, getattr(row, name)) for name in Group.__struct_fields__})
            if group.parent_id != row.parent_id:
                if (refused := await self._refuse_place(work, principal, group)) is not None:
                    return refused
                await self._feed.write(work, lambda engine: engine.set_group(group_id, group.parent_id))
            await _update(work, groups, group_id, given)
            event = grant.event(AuditKind.GROUP_CHANGED, _told(group_id, given))
            await work.seal(event, (Sealed.GROUP, group_id))
            return group

        return await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            await self._owner_of_group(group_id),
            circumstances,
            f"change group {group_id}",
            act,
        )

    async def delete_group(self, principal: Principal, group_id: str, circumstances: Circumstances) -> None:
        """Raises Problem `access_denied`, `not_found` or, while anything uses it, `conflict`."""

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if (user := await _used(work, _uses_of_group(group_id))) is not None:
                return Refused(Problem("conflict", f"group {group_id} still has {user}", reason="in_use"))
            event = grant.event(AuditKind.GROUP_DELETED, group_id)
            await work.unseal({(Sealed.GROUP, group_id): event})
            await work.conn.execute(sa.delete(groups).where(groups.c.id == group_id))
            await self._feed.write(work, lambda engine: engine.remove_group(group_id))
            return None

        await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            await self._owner_of_group(group_id),
            circumstances,
            f"delete group {group_id}",
            act,
        )

    async def _owner_of_group(self, group_id: str) -> Object:
        async with self._store.read() as conn:
            query = sa.select(groups.c.department_id).where(groups.c.id == group_id)
            owner = (await conn.execute(query)).scalar_one_or_none()
        if owner is None:
            raise Problem("not_found", f"group {group_id}")
        return _department(owner)

    async def _refuse_place(self, work: Unit, principal: Principal, group: Group) -> Refused | None:
        if group.parent_id is not None and not await _exists(work, groups, group.parent_id):
            return Refused(Problem("not_found", f"group {group.parent_id}"))
        misplaced = self._enforcement.check_tree(ObjectKind.GROUP, group.id, group.parent_id)
        if misplaced is not None:
            return Refused(misplaced)
        if group.parent_id is not None:
            for owner in (await work.conn.execute(_owners_in_group(group.id))).scalars():
                try:
                    self._enforcement.check_sharing(principal.id, _department(owner))
                except GrantRefusedError as error:
                    return Refused(Problem("grant_refused", str(error), reason=error.code.value))
        return None


def _department(department_id: str | None) -> Object:
    return INSTALLATION if department_id is None else Object(ObjectKind.DEPARTMENT, department_id)


def _given(change: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}


def _told(identifier: str, given: Mapping[str, Any]) -> str:
    return f"{identifier}: " + (", ".join(f"{name} {value}" for name, value in given.items()) or "nothing")


async def _row(work: Unit, table: sa.Table, identifier: str) -> sa.Row[Any] | None:
    return (await work.conn.execute(sa.select(table).where(table.c.id == identifier))).one_or_none()


async def _exists(work: Unit, table: sa.Table, identifier: str) -> bool:
    return await _row(work, table, identifier) is not None


async def _update(work: Unit, table: sa.Table, identifier: str, given: Mapping[str, Any]) -> None:
    if given:
        await work.conn.execute(sa.update(table).where(table.c.id == identifier).values(**given))


async def _used(work: Unit, uses: Mapping[str, sa.ColumnElement[bool]]) -> str | None:
    """What still uses it, in words; None: nothing."""
    for what, condition in uses.items():
        if (await work.conn.execute(sa.select(sa.exists().where(condition)))).scalar_one():
            return what
    return None


def _uses_of_department(department_id: str) -> dict[str, sa.ColumnElement[bool]]:
    shared_with = sa.cast(cameras.c.sharing_departments, sa.Text).contains(
        f'"{department_id}"', autoescape=True
    )
    return {
        "departments": departments.c.parent_id == department_id,
        "cameras": cameras.c.department_id == department_id,
        "groups": groups.c.department_id == department_id,
        "users": users.c.department_id == department_id,
        "roles of users": user_roles.c.department_id == department_id,
        "grants": _names(grants.c.subject_kind, grants.c.subject_id, SubjectKind.DEPARTMENT, department_id)
        | _names(grants.c.object_kind, grants.c.object_id, ObjectKind.DEPARTMENT, department_id),
        "cameras that are shared with it": shared_with,
    }


def _uses_of_group(group_id: str) -> dict[str, sa.ColumnElement[bool]]:
    return {
        "groups": groups.c.parent_id == group_id,
        "cameras": group_cameras.c.group_id == group_id,
        "grants": _names(grants.c.object_kind, grants.c.object_id, ObjectKind.GROUP, group_id),
    }


def _names(kind: sa.Column[Any], identifier: sa.Column[Any], value: str, of: str) -> sa.ColumnElement[bool]:
    return sa.and_(grants.c.revoked_at.is_(None), kind == value, identifier == of)


def _owners_in_group(group_id: str) -> sa.Select[Any]:
    """The departments that own a camera in the group or below it."""
    below = sa.select(groups.c.id).where(groups.c.id == group_id).cte(recursive=True)
    below = below.union(sa.select(groups.c.id).where(groups.c.parent_id == below.c.id))
    return (
        sa.select(cameras.c.department_id)
        .distinct()
        .join(group_cameras, group_cameras.c.camera_id == cameras.c.id)
        .where(group_cameras.c.group_id.in_(sa.select(below.c.id)))
    )
