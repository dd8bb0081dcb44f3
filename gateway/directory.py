"""The reading side of the catalogue and of the accounts: pages of what a caller may see."""

from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.account_entries import User, read_user, user_of
from gateway.catalogue import Ref
from gateway.catalogue_index import CameraFilter, CatalogueIndex
from gateway.catalogue_trees import Department, Group
from gateway.enforcement import Enforcement
from gateway.forms import Direction, SharingTerms
from gateway.national_codes import Network
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.start_up import RETRY_AFTER_SECONDS
from gateway.store.schema import (
    camera_tags,
    cameras,
    departments,
    group_cameras,
    groups,
    user_roles,
    users,
)
from gateway.store.store import Store
from policies.access import MEDIA_ACTIONS, VISIBLE_ACTIONS, Action, Object, ObjectKind

CHUNK_ROWS = 1000
"""Rows read at once."""


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
    code: str | None
    civil_code: str | None
    point_class: int | None
    network: Network | None
    place: str
    longitude: float | None
    latitude: float | None
    direction: Direction | None
    management_unit: str
    retention_days: int | None
    tags: list[str]
    sharing: SharingTerms
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


class CameraSearch(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing is asked for; None: any. `words` are separated by spaces, a camera has all of them."""

    words: str = ""
    department: str | None = None
    group: str | None = None
    tag: str | None = None
    fits: CameraFilter = CameraFilter()


class CameraRow(msgspec.Struct, frozen=True):
    """A camera with its department's name, as the database has it, and its tags, sorted."""

    row: sa.Row[Any]
    tags: list[str]


class CameraListing(msgspec.Struct, frozen=True, kw_only=True):
    """`next_key`: after which the next page begins; None: there is none. `total`: of all pages."""

    page: list[CameraRow]
    next_key: bytes | None
    total: int


class Directory:
    def __init__(self, store: Store, enforcement: Enforcement, index: CatalogueIndex) -> None:
        self._store = store
        self._enforcement = enforcement
        self._index = index

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

    async def cameras(
        self, principal: Principal, search: CameraSearch, after: bytes, size: int
    ) -> CameraListing:
        """Those that the caller may see, in order of folded name and id. Raises Problem `starting`."""
        if not self._index.is_loaded:
            raise Problem("starting", headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        within = self._enforcement.cameras_allowed(principal.id, VISIBLE_ACTIONS)
        for kind, identifier in (
            (ObjectKind.DEPARTMENT, search.department),
            (ObjectKind.GROUP, search.group),
            (ObjectKind.TAG, search.tag),
        ):
            if identifier is not None:
                within &= self._enforcement.cameras_in(Object(kind, identifier))
        found = await self._index.find(within, search.fits, search.words)
        numbers = self._index.page(found, after, size + 1)
        next_key = self._index.sort_key(numbers[size - 1]) if len(numbers) > size else None
        page = await self._read(list(map(self._enforcement.camera_of, numbers[:size])))
        return CameraListing(page=page, next_key=next_key, total=len(found))

    async def camera(self, principal: Principal, camera_id: str) -> CameraRow:
        """Raises Problem `not_found`, also for one that the caller may not see."""
        if self._enforcement.is_visible(principal.id, camera_id):
            for found in await self._read([camera_id]):
                return found
        raise Problem("not_found", camera_id)

    async def _read(self, identifiers: list[str]) -> list[CameraRow]:
        """Cameras in this order; without those that have just been deleted."""
        tags: dict[str, list[str]] = {}
        async with self._store.read() as conn:
            found = await conn.execute(_CAMERAS.where(cameras.c.id.in_(identifiers)))
            rows = {row.id: row for row in found}
            links = sa.select(camera_tags).where(camera_tags.c.camera_id.in_(identifiers))
            for link in await conn.execute(links):
                tags.setdefault(link.camera_id, []).append(link.tag)
        return [
            CameraRow(rows[identifier], sorted(tags.get(identifier, ())))
            for identifier in identifiers
            if identifier in rows
        ]

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
        shares = self._shares(principal)
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

    async def visible_user(self, principal: Principal, user_id: str) -> User:
        """Raises Problem `not_found`, also for one that `users` would not list."""
        user = await self.user(user_id)
        if (
            user.id == principal.id
            or self._shares(principal)
            or self._allowed(principal, Action.USER_MANAGE, user.department_id)
        ):
            return user
        raise Problem("not_found", user_id)

    def _shares(self, principal: Principal) -> bool:
        return self._allowed(principal, Action.CAMERA_SHARE, principal.department_id)

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


_CAMERAS: sa.Select[Any] = sa.select(
    *(column for column in cameras.c if column.name not in {"url", "username", "secret"}),
    departments.c.name.label("department_name"),
).join(departments, departments.c.id == cameras.c.department_id)
"""Cameras without what only their managers may know."""
