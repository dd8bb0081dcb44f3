"""The catalogue: departments, groups of cameras, cameras.

Every write is decided, recorded, and fed to the PDP.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from gateway.audit.records import AuditKind
from gateway.authentication import Principal
from gateway.clock import to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.keys import InstallationKeys
from gateway.messages import PUSH_URL
from gateway.policy_feed import PolicyFeed
from gateway.problems import Problem
from gateway.store.identifiers import new_id
from gateway.store.schema import cameras, departments, group_cameras, groups
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action, Object, ObjectKind
from policies.administration import GrantRefusedError
from streams.errors import StreamError
from streams.sources.egress import EgressSettings, check_url
from streams.sources.pyav import open_media_file
from streams.sources.source import CameraAddress

MAX_GROUPS_OF_A_CAMERA = 64

END = r"(?![\s\S])"
"""The end of a text in Python's and in JSON schema's patterns; Python's `$` lets a line feed follow."""

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+" + END)]
Line = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*" + END)]
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00\x7f]*" + END)]
Identifier = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+" + END)]
CameraUrl = Annotated[str, Meta(min_length=1, max_length=2048)]
CivilCode = Annotated[str, Meta(pattern=r"^[0-9]{2,12}" + END)]


class Ref(msgspec.Struct, frozen=True):
    """Another thing, by id and name."""

    id: str
    name: str


class Department(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    parent_id: str | None
    civil_code: str | None


class NewDepartment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`civil_code`: administrative division code after GB/T 2260."""

    name: Name
    id: Identifier | None = None
    parent_id: Identifier | None = None
    civil_code: CivilCode | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    parent_id: str | None
    department_id: str


class NewGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    department_id: Identifier
    id: Identifier | None = None
    parent_id: Identifier | None = None


class NewCamera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url` must not contain a credential; `password` is stored sealed and never answered again.

    `url` is `push:` for a camera that cannot be pulled: its encoder publishes to the gateway, with `username`
    and `password`. `sub_url`: of its second, smaller stream, with the same login.
    """

    name: Name
    department_id: Identifier
    url: CameraUrl
    sub_url: CameraUrl | None = None
    id: Identifier | None = None
    description: Text = ""
    username: Line | None = None
    password: Line | None = None
    allow_basic: bool = False
    enabled: bool = True
    declared_bandwidth_bps: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    groups: Annotated[list[Identifier], Meta(max_length=MAX_GROUPS_OF_A_CAMERA)] = []

    def __repr__(self) -> str:
        return f"NewCamera(name={self.name!r})"


class CameraChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes."""

    name: Name | msgspec.UnsetType = msgspec.UNSET
    description: Text | msgspec.UnsetType = msgspec.UNSET
    url: CameraUrl | msgspec.UnsetType = msgspec.UNSET
    sub_url: CameraUrl | None | msgspec.UnsetType = msgspec.UNSET
    username: Line | None | msgspec.UnsetType = msgspec.UNSET
    password: Line | None | msgspec.UnsetType = msgspec.UNSET
    allow_basic: bool | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    declared_bandwidth_bps: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None | msgspec.UnsetType = (
        msgspec.UNSET
    )
    groups: Annotated[list[Identifier], Meta(max_length=MAX_GROUPS_OF_A_CAMERA)] | msgspec.UnsetType = (
        msgspec.UNSET
    )

    def __repr__(self) -> str:
        return "CameraChange(...)"


_CONNECTION = {"url", "sub_url", "username", "password", "allow_basic"}
MIN_PUBLISHER_PASSWORD_LENGTH = 12
"""An encoder's password is asked for over the network, by anybody who knows a camera's id."""


class Catalogue:
    def __init__(
        self,
        enforcement: Enforcement,
        feed: PolicyFeed,
        keys: InstallationKeys,
        egress: EgressSettings,
        file_folder: Path | None,
        switched_off: Callable[[str, str], None],
        moved: Callable[[str], None],
    ) -> None:
        """`switched_off(camera, user)` is called after the commit that disables a camera.

        `moved(camera)`: after one that changes how it is reached. `file_folder`: where `file:`
        addresses may point; None: nowhere.
        """
        self._enforcement = enforcement
        self._feed = feed
        self._keys = keys
        self._egress = egress
        self._file_folder = file_folder
        self._switched_off = switched_off
        self._moved = moved

    async def create_department(
        self, principal: Principal, new: NewDepartment, circumstances: Circumstances
    ) -> Department:
        """Raises Problem `access_denied`, `conflict` (id taken) or `not_found` (parent)."""
        target = Object(ObjectKind.DEPARTMENT, new.parent_id) if new.parent_id else INSTALLATION
        department = Department(
            id=new.id or new_id(), name=new.name, parent_id=new.parent_id, civil_code=new.civil_code
        )

        async def act(work: Unit, grant: Grant) -> Department | Refused:
            if await _exists(work, departments, department.id):
                return Refused(Problem("conflict", f"department {department.id} exists"))
            if (
                misplaced := self._enforcement.check_tree(*_place(ObjectKind.DEPARTMENT, department))
            ) is not None:
                return Refused(misplaced)
            await work.conn.execute(
                sa.insert(departments).values(
                    **msgspec.structs.asdict(department), created_at=to_micros(grant.at)
                )
            )
            work.record(grant.event(AuditKind.DEPARTMENT_CREATED, f"{department.name} ({department.id})"))
            await self._feed.write(
                work, lambda engine: engine.set_department(department.id, department.parent_id)
            )
            return department

        return await self._enforcement.perform(
            principal,
            Action.DEPARTMENT_MANAGE,
            target,
            circumstances,
            f"create department {department.name}",
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
            if group.parent_id is not None and not await _exists(work, groups, group.parent_id):
                return Refused(Problem("not_found", f"group {group.parent_id}"))
            if (misplaced := self._enforcement.check_tree(*_place(ObjectKind.GROUP, group))) is not None:
                return Refused(misplaced)
            await work.conn.execute(
                sa.insert(groups).values(**msgspec.structs.asdict(group), created_at=to_micros(grant.at))
            )
            work.record(grant.event(AuditKind.GROUP_CREATED, f"{group.name} ({group.id})"))
            await self._feed.write(work, lambda engine: engine.set_group(group.id, group.parent_id))
            return group

        return await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            Object(ObjectKind.DEPARTMENT, group.department_id),
            circumstances,
            f"create group {group.name}",
            act,
        )

    async def create_camera(self, principal: Principal, new: NewCamera, circumstances: Circumstances) -> str:
        """Returns the id.

        Raises Problem `access_denied`, `conflict`, `not_found` (group) or `invalid_field`.
        """
        await self._check_urls(new.url, new.sub_url)
        if new.url == PUSH_URL:
            _check_publisher_login(new.username, new.password)
        camera_id = new.id or new_id()

        async def act(work: Unit, grant: Grant) -> str | Refused:
            if await _exists(work, cameras, camera_id):
                return Refused(Problem("conflict", f"camera {camera_id} exists"))
            owner = Object(ObjectKind.DEPARTMENT, new.department_id)
            if (refused := await self._refuse_groups(work, principal, owner, new.groups)) is not None:
                return refused
            now = to_micros(grant.at)
            await work.conn.execute(
                sa.insert(cameras).values(
                    id=camera_id,
                    department_id=new.department_id,
                    name=new.name,
                    description=new.description,
                    url=new.url,
                    sub_url=new.sub_url,
                    username=new.username,
                    secret=self._seal(camera_id, new.password),
                    allow_basic=new.allow_basic,
                    enabled=new.enabled,
                    declared_bandwidth_bps=new.declared_bandwidth_bps,
                    created_at=now,
                    updated_at=now,
                )
            )
            await _join_groups(work, camera_id, new.groups)
            work.record(grant.event(AuditKind.CAMERA_CREATED, f"{new.name} ({camera_id})"))
            await self._feed.write(
                work, lambda engine: engine.set_camera(camera_id, new.department_id, new.groups)
            )
            return camera_id

        return await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            Object(ObjectKind.DEPARTMENT, new.department_id),
            circumstances,
            f"register camera {new.name}",
            act,
        )

    async def change_camera(
        self, principal: Principal, camera_id: str, change: CameraChange, circumstances: Circumstances
    ) -> None:
        """Raises Problem `access_denied`, `not_found` or `invalid_field`."""
        given = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if value is not msgspec.UNSET
        }
        await self._check_urls(given.get("url"), given.get("sub_url"))

        async def act(work: Unit, grant: Grant) -> None | Refused:
            row = (await work.conn.execute(sa.select(cameras).where(cameras.c.id == camera_id))).one_or_none()
            if row is None:
                return Refused(Problem("not_found", camera_id))
            if given.get("url", row.url) == PUSH_URL and given.keys() & _CONNECTION:
                login = self.address_of(row)
                try:
                    _check_publisher_login(
                        given.get("username", login.username), given.get("password", login.password)
                    )
                except Problem as problem:
                    return Refused(problem)
            if (
                refused := await self._refuse_groups(work, principal, grant.target, change.groups)
            ) is not None:
                return refused
            values = {k: v for k, v in given.items() if k not in {"password", "groups"}}
            if "password" in given:
                values["secret"] = self._seal(camera_id, given["password"])
            await work.conn.execute(
                sa.update(cameras)
                .where(cameras.c.id == camera_id)
                .values(**values, updated_at=to_micros(grant.at))
            )
            work.record(grant.event(AuditKind.CAMERA_CHANGED, ", ".join(sorted(given)) or "nothing"))
            if change.enabled is False:
                work.after_commit(lambda: self._switched_off(camera_id, principal.id))
            if given.keys() & _CONNECTION or change.enabled is True:
                self._announce_move(work, camera_id)
            if "groups" in given:
                await work.conn.execute(
                    sa.delete(group_cameras).where(group_cameras.c.camera_id == camera_id)
                )
                await _join_groups(work, camera_id, given["groups"])
                await self._feed.write(
                    work, lambda engine: engine.set_camera(camera_id, row.department_id, given["groups"])
                )
            return None

        await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            Object(ObjectKind.CAMERA, camera_id),
            circumstances,
            f"change camera {camera_id}",
            act,
        )

    async def delete_camera(self, principal: Principal, camera_id: str, circumstances: Circumstances) -> None:
        """The camera goes, its sessions end; the ledger keeps what was. Raises Problem `access_denied`."""

        async def act(work: Unit, grant: Grant) -> None:
            await work.conn.execute(sa.delete(group_cameras).where(group_cameras.c.camera_id == camera_id))
            await work.conn.execute(sa.delete(cameras).where(cameras.c.id == camera_id))
            work.record(grant.event(AuditKind.CAMERA_DELETED, camera_id))
            await self._feed.write(work, lambda engine: engine.remove_camera(camera_id))

        await self._enforcement.perform(
            principal,
            Action.CAMERA_MANAGE,
            Object(ObjectKind.CAMERA, camera_id),
            circumstances,
            f"delete camera {camera_id}",
            act,
        )

    def address_of(self, row: sa.Row[tuple[object, ...]], *, sub: bool = False) -> CameraAddress:
        """Where to pull a camera from, password opened. Raises KeyFileError, Problem `no_sub_stream`."""
        url = row.sub_url if sub else row.url
        if url is None:
            raise Problem("no_sub_stream", row.id)
        return CameraAddress(
            url=url,
            username=row.username,
            password=self._keys.unseal(row.id, row.secret) if row.secret is not None else None,
            allow_basic=row.allow_basic,
        )

    async def _refuse_groups(
        self, work: Unit, principal: Principal, owner: Object, identifiers: list[str] | msgspec.UnsetType
    ) -> Refused | None:
        """All grants on a group reach its cameras: only who may share a camera may put it into one."""
        if not identifiers:
            return None
        if (missing := await _missing_groups(work, identifiers)) is not None:
            return Refused(missing)
        try:
            self._enforcement.check_sharing(principal.id, owner)
        except GrantRefusedError as error:
            return Refused(Problem("grant_refused", str(error), reason=error.code.value))
        return None

    def _seal(self, camera_id: str, password: str | None) -> bytes | None:
        return None if password is None else self._keys.seal(camera_id, password)

    def _announce_move(self, work: Unit, camera_id: str) -> None:
        work.after_commit(lambda: self._moved(camera_id))

    async def _check_urls(self, url: str | None, sub_url: str | None) -> None:
        if url is not None and url != PUSH_URL:
            await self._check_url("url", url)
        if sub_url is not None:
            await self._check_url("sub_url", sub_url)

    async def _check_url(self, field: str, url: str) -> None:
        try:
            if url.lower().startswith("file:"):
                os.close(await asyncio.to_thread(open_media_file, url, self._file_folder))
            else:
                check_url(url, self._egress)
        except StreamError as error:
            raise Problem("invalid_field", f"{field}: {error}") from None


def _check_publisher_login(username: str | None, password: str | None) -> None:
    if not username:
        raise Problem("invalid_field", "username: an encoder that publishes needs one")
    if len(password or "") < MIN_PUBLISHER_PASSWORD_LENGTH:
        raise Problem(
            "invalid_field", f"password: an encoder's has at least {MIN_PUBLISHER_PASSWORD_LENGTH} characters"
        )


def _place(kind: ObjectKind, node: Department | Group) -> tuple[ObjectKind, str, str | None]:
    return kind, node.id, node.parent_id


async def _exists(work: Unit, table: sa.Table, identifier: str) -> bool:
    found = await work.conn.execute(sa.select(table.c.id).where(table.c.id == identifier))
    return found.one_or_none() is not None


async def _missing_groups(work: Unit, identifiers: list[str]) -> Problem | None:
    known = set(
        (await work.conn.execute(sa.select(groups.c.id).where(groups.c.id.in_(identifiers)))).scalars()
    )
    missing = [identifier for identifier in identifiers if identifier not in known]
    return Problem("not_found", f"group {missing[0]}") if missing else None


async def _join_groups(work: Unit, camera_id: str, identifiers: list[str]) -> None:
    if identifiers:
        await work.conn.execute(
            sa.insert(group_cameras),
            [{"group_id": identifier, "camera_id": camera_id} for identifier in dict.fromkeys(identifiers)],
        )
