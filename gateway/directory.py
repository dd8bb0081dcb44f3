"""The reading side of the catalogue and of the accounts: pages of what a caller may see."""

from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.accounts import User, read_user, user_of
from gateway.authentication import Principal
from gateway.catalogue import Department, Group, Ref
from gateway.enforcement import Enforcement
from gateway.problems import Problem
from gateway.store.schema import cameras, departments, group_cameras, groups, user_roles, users
from gateway.store.store import Store
from policies.access import MEDIA_ACTIONS, Action, Object, ObjectKind

MAX_PAGE_TOKEN = 512
CHUNK_ROWS = 1000
"""Rows read at once; also how many ids a query may name."""


class CameraStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: idle, connecting, live, backing_off or failed. `error`: why, as a stable code."""

    state: str = "idle"
    error: str | None = None
    fault: str | None = None
    lost_packets: int = 0
    codec: str | None = None
    width: int = 0
    height: int = 0
    bit_rate_bps: int = 0
    viewers: int = 0


class CameraEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`actions`: what the caller may do with the camera, for some purpose, now."""

    id: str
    name: str
    description: str
    department: Ref
    enabled: bool
    has_sub_stream: bool
    status: CameraStatus
    actions: list[Action]


class CameraConnection(msgspec.Struct, frozen=True, kw_only=True):
    """How the gateway reaches the camera, for who manages it. The password is never answered."""

    url: str
    sub_url: str | None
    username: str | None
    has_password: bool
    allow_basic: bool
    declared_bandwidth_bps: int | None
    groups: list[str]


class Directory:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    async def departments(self) -> list[Department]:
        query = sa.select(departments).order_by(departments.c.name, departments.c.id)
        async with self._store.read() as conn:
            return [
                Department(id=r.id, name=r.name, parent_id=r.parent_id, civil_code=r.civil_code)
                for r in await conn.execute(query)
            ]

    async def groups(self) -> list[Group]:
        query = sa.select(groups).order_by(groups.c.name, groups.c.id)
        async with self._store.read() as conn:
            return [
                Group(id=r.id, name=r.name, parent_id=r.parent_id, department_id=r.department_id)
                for r in await conn.execute(query)
            ]

    async def visible_cameras(
        self, principal: Principal, search: str, after: tuple[str, str] | None, size: int
    ) -> tuple[list[sa.Row[Any]], int]:
        """Rows in order of name and id after the token, one more than a page, and the total."""
        visible = self._enforcement.visible_cameras(principal.id)
        wanted: list[sa.ColumnElement[bool]] = []
        if search:
            wanted.append(
                sa.or_(
                    cameras.c.name.icontains(search, autoescape=True),
                    cameras.c.description.icontains(search, autoescape=True),
                )
            )
        if len(visible) <= CHUNK_ROWS:
            wanted.append(cameras.c.id.in_(visible))
        page: list[sa.Row[Any]] = []
        async with self._store.read() as conn:
            total = len(visible)
            if search:
                found = await conn.execute(sa.select(cameras.c.id).where(*wanted))
                total = len(visible.intersection(found.scalars()))
            while len(page) <= size:
                rows = (await conn.execute(_camera_page(after).where(*wanted))).all()
                page += [row for row in rows if row.id in visible]
                if len(rows) < CHUNK_ROWS:
                    break
                after = rows[-1].name, rows[-1].id
        return page[: size + 1], total

    async def camera(self, principal: Principal, camera_id: str) -> sa.Row[Any]:
        """Raises Problem `not_found`, also for one that the caller may not see."""
        if self._enforcement.is_visible(principal.id, camera_id):
            async with self._store.read() as conn:
                row = (await conn.execute(_camera_query().where(cameras.c.id == camera_id))).one_or_none()
            if row is not None:
                found: sa.Row[Any] = row
                return found
        raise Problem("not_found", camera_id)

    async def camera_row(self, camera_id: str) -> sa.Row[Any] | None:
        """The whole row, sealed password included: for who pulls the camera."""
        async with self._store.read() as conn:
            return (await conn.execute(sa.select(cameras).where(cameras.c.id == camera_id))).one_or_none()

    async def connection(self, camera_id: str) -> CameraConnection | None:
        row = await self.camera_row(camera_id)
        if row is None:
            return None
        query = sa.select(group_cameras.c.group_id).where(group_cameras.c.camera_id == camera_id)
        async with self._store.read() as conn:
            member_of = sorted((await conn.execute(query)).scalars())
        return CameraConnection(
            url=row.url,
            sub_url=row.sub_url,
            username=row.username,
            has_password=row.secret is not None,
            allow_basic=row.allow_basic,
            declared_bandwidth_bps=row.declared_bandwidth_bps,
            groups=member_of,
        )

    def allowed_actions(self, principal: Principal, camera_id: str) -> list[Action]:
        return [
            action
            for action in (*sorted(MEDIA_ACTIONS), Action.CAMERA_MANAGE, Action.CAMERA_SHARE)
            if self._enforcement.is_allowed_for_some_purpose(principal.id, camera_id, action)
        ]

    async def users(self, principal: Principal, search: str, after: str, size: int) -> list[User]:
        """In order of user name: the caller, those whom he may manage, and all for who shares cameras."""
        shares = self._allowed(principal, Action.CAMERA_SHARE, principal.department_id)
        managed: dict[str, bool] = {}

        def may_see(row: sa.Row[Any]) -> bool:
            department = row.department_id
            if department not in managed:
                managed[department] = shares or self._allowed(principal, Action.USER_MANAGE, department)
            return managed[department] or row.id == principal.id

        query = sa.select(users).order_by(users.c.username_folded).limit(CHUNK_ROWS)
        if search:
            query = query.where(
                sa.or_(
                    users.c.username.icontains(search, autoescape=True),
                    users.c.display_name.icontains(search, autoescape=True),
                )
            )
        page: list[sa.Row[Any]] = []
        async with self._store.read() as conn:
            while len(page) <= size:
                rows = (await conn.execute(query.where(users.c.username_folded > after))).all()
                page += filter(may_see, rows)
                if len(rows) < CHUNK_ROWS:
                    break
                after = rows[-1].username_folded
            del page[size + 1 :]
            held = await conn.execute(
                sa.select(user_roles).where(user_roles.c.user_id.in_([row.id for row in page]))
            )
            roles: dict[str, list[str]] = {}
            for assignment in held:
                roles.setdefault(assignment.user_id, []).append(assignment.role)
        return [user_of(row, sorted(roles.get(row.id, []))) for row in page]

    async def user(self, user_id: str) -> User:
        """Raises Problem `not_found`. What may be done with it is the PEP's to say."""
        async with self._store.read() as conn:
            user = await read_user(conn, user_id)
        if user is None:
            raise Problem("not_found", user_id)
        return user

    def _allowed(self, principal: Principal, action: Action, department_id: str) -> bool:
        target = Object(ObjectKind.DEPARTMENT, department_id)
        return self._enforcement.decide(principal.id, action, target).allowed


def _camera_query() -> sa.Select[Any]:
    return sa.select(
        cameras.c.id,
        cameras.c.name,
        cameras.c.description,
        cameras.c.enabled,
        cameras.c.sub_url,
        departments.c.id.label("department_id"),
        departments.c.name.label("department_name"),
    ).join(departments, departments.c.id == cameras.c.department_id)


def _camera_page(after: tuple[str, str] | None) -> sa.Select[Any]:
    """The next rows in the database's own order of names, whatever its collation is."""
    query = _camera_query().order_by(cameras.c.name, cameras.c.id).limit(CHUNK_ROWS)
    return query if after is None else query.where(sa.tuple_(cameras.c.name, cameras.c.id) > after)
