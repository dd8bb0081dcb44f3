"""The catalogue's cameras: registered, changed, given to other owners, deleted.

Every write is decided, recorded, and fed to the PDP.
"""

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import UNSET

from gateway.audit.records import AuditEvent, AuditKind
from gateway.camera_rows import column_values, indexed_camera, policy_sharing, sharing_terms
from gateway.catalogue_index import CatalogueIndex, IndexedCamera
from gateway.clock import to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.forms import (
    CameraChange,
    NewCamera,
    SharingTerms,
    check_item,
    check_sharing_departments,
    check_sharing_purposes,
)
from gateway.keys import InstallationKeys
from gateway.messages import PUSH_URL
from gateway.policy_feed import PolicyFeed
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.identifiers import new_id
from gateway.store.schema import camera_tags, cameras, departments, group_cameras, groups, purposes
from gateway.store.sealed_rows import Sealed
from gateway.store.unit import Unit
from policies.access import Action, Object, ObjectKind, Reason
from policies.administration import GrantRefusedError
from streams.errors import StreamError
from streams.sources.egress import EgressSettings, check_url
from streams.sources.pyav import open_media_file
from streams.sources.source import CameraAddress


class Ref(msgspec.Struct, frozen=True):
    """Another thing, by id and name."""

    id: str
    name: str


_CHECKED = ("code", "civil_code", "network", "longitude", "latitude")
_POLICY = {"department_id", "groups", "tags", "sharing"}
_CONNECTION = {"url", "sub_url", "username", "password", "allow_basic"}
MIN_PUBLISHER_PASSWORD_LENGTH = 12
"""An encoder's password is asked for over the network, by anybody who knows a camera's id."""


class Catalogue:
    def __init__(
        self,
        enforcement: Enforcement,
        feed: PolicyFeed,
        index: CatalogueIndex,
        keys: InstallationKeys,
        egress: EgressSettings,
        file_folder: Path | None,
        switched_off: Callable[[Collection[str], Principal], None],
        moved: Callable[[Collection[str]], None],
    ) -> None:
        """`switched_off(cameras, user)` is called after the commit that disables cameras.

        `moved(cameras)`: after one that changes how they are reached. `file_folder`: where `file:`
        addresses may point; None: nowhere.
        """
        self._enforcement = enforcement
        self._feed = feed
        self._index = index
        self._keys = keys
        self._egress = egress
        self._file_folder = file_folder
        self._switched_off = switched_off
        self._moved = moved

    async def create_camera(self, principal: Principal, new: NewCamera, circumstances: Circumstances) -> str:
        """Returns the id.

        Raises Problem `access_denied`, `grant_refused`, `conflict` (id or code), `not_found` (group) or
        `invalid_field`.
        """
        await self._check_urls(new.url, new.sub_url)
        if new.url == PUSH_URL:
            _check_publisher_login(new.username, new.password)
        given = msgspec.structs.asdict(new)
        check_item(sharing=new.sharing, **{name: given[name] for name in _CHECKED})
        camera_id = given["id"] = new.id or new_id()

        async def act(work: Unit, grant: Grant) -> str | Refused:
            if await _exists(work, cameras, camera_id):
                return Refused(Problem("conflict", f"camera {camera_id} exists"))
            owner = Object(ObjectKind.DEPARTMENT, new.department_id)
            try:
                await self._check_links(work, principal, owner, given, SharingTerms())
            except Problem as problem:
                return Refused(problem)
            now = to_micros(grant.at)
            values = column_values(given) | {"created_at": now, "updated_at": now}
            await work.conn.execute(
                sa.insert(cameras).values(**values, secret=self._seal(camera_id, new.password))
            )
            await _set_links(work, camera_id, given)
            event = grant.event(AuditKind.CAMERA_CREATED, f"{new.name} ({camera_id})")
            await work.seal(event, (Sealed.CAMERA, camera_id))
            sharing = policy_sharing(new.sharing)
            await self._feed.write(
                work,
                lambda engine: engine.set_camera(
                    camera_id, new.department_id, new.groups, tags=new.tags, sharing=sharing
                ),
            )
            self._index_after(work, indexed_camera(values))
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
        """Who gives a camera to another owner manages cameras of both.

        Raises Problem `access_denied`, `grant_refused`, `conflict` (code), `not_found` or `invalid_field`.
        """
        asked = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
        await self._check_urls(asked.get("url"), asked.get("sub_url"))

        async def act(work: Unit, grant: Grant) -> None | Refused:
            given = dict(asked)
            row = (await work.conn.execute(sa.select(cameras).where(cameras.c.id == camera_id))).one_or_none()
            if row is None:
                return Refused(Problem("not_found", camera_id))
            if not await work.is_sealed((Sealed.CAMERA, camera_id)):
                return Refused(Problem("conflict", f"camera {camera_id}", reason=Reason.NOT_IN_LEDGER))
            if change.sharing is not UNSET:
                given["sharing"] = change.sharing.of(sharing_terms(row))
            try:
                await self._check_change(work, principal, row, given)
            except Problem as problem:
                return Refused(problem)
            values = column_values(given)
            if "password" in given:
                values["secret"] = self._seal(camera_id, given["password"])
            await work.conn.execute(
                sa.update(cameras)
                .where(cameras.c.id == camera_id)
                .values(**values, updated_at=to_micros(grant.at))
            )
            await _set_links(work, camera_id, given)
            await work.seal(_changed(grant, row, given), (Sealed.CAMERA, camera_id))
            if given.keys() & _POLICY:
                await self._feed_change(work, row, given)
            self._index_after(work, indexed_camera({**row._asdict(), **values}))
            if change.enabled is False:
                work.after_commit(lambda: self._switched_off([camera_id], principal))
            if given.keys() & {*_CONNECTION, "enabled"}:
                work.after_commit(lambda: self._moved([camera_id]))
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
            await work.unseal({(Sealed.CAMERA, camera_id): grant.event(AuditKind.CAMERA_DELETED, camera_id)})
            for table in (group_cameras, camera_tags):
                await work.conn.execute(sa.delete(table).where(table.c.camera_id == camera_id))
            await work.conn.execute(sa.delete(cameras).where(cameras.c.id == camera_id))
            await self._feed.write(
                work, lambda engine: engine.remove_camera(camera_id), about=[f"camera:{camera_id}"]
            )
            work.after_commit(lambda: self._index.remove(camera_id))
            work.after_commit(lambda: self._moved([camera_id]))

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

    async def _check_change(
        self, work: Unit, principal: Principal, row: sa.Row[Any], given: dict[str, Any]
    ) -> None:
        if given.get("url", row.url) == PUSH_URL and given.keys() & _CONNECTION:
            login = self.address_of(row)
            _check_publisher_login(
                given.get("username", login.username), given.get("password", login.password)
            )
        if given.keys() & {*_CHECKED, "sharing"}:
            check_item(
                sharing=given.get("sharing"),
                **{name: given.get(name, getattr(row, name)) for name in _CHECKED},
            )
        new_owner = given.get("department_id", row.department_id)
        if new_owner != row.department_id:
            place = Object(ObjectKind.DEPARTMENT, new_owner)
            if not self._enforcement.decide(principal.id, Action.CAMERA_MANAGE, place).allowed:
                raise Problem("access_denied", f"give the camera to department {new_owner}")
            self._check_may_share(principal, Object(ObjectKind.CAMERA, row.id))
        await self._check_links(
            work, principal, Object(ObjectKind.CAMERA, row.id), {"id": row.id, **given}, sharing_terms(row)
        )

    async def _check_links(
        self, work: Unit, principal: Principal, owned: Object, given: dict[str, Any], before: SharingTerms
    ) -> None:
        """What the form names exists and may be named. Raises Problem.

        Grants on a group or a tag reach its cameras, and an owner's terms give without a grant: only who may
        share the camera may write any of the three, or give it to a department, whose grants reach it too.
        """
        if given.get("code") is not None:
            await _check_code(work, given["code"], given["id"])
        if given.get("groups"):
            await _check_groups(work, given["groups"])
        sharing: SharingTerms = given.get("sharing", before)
        if sharing.departments:
            query = sa.select(departments.c.id).where(departments.c.id.in_(sharing.departments))
            check_sharing_departments(sharing, set((await work.conn.execute(query)).scalars()))
        if sharing.purposes:
            query = sa.select(purposes.c.code).where(purposes.c.code.in_(sharing.purposes))
            check_sharing_purposes(sharing, set((await work.conn.execute(query)).scalars()))
        if given.get("groups") or given.get("tags") or sharing != before:
            self._check_may_share(principal, owned)

    def _check_may_share(self, principal: Principal, owned: Object) -> None:
        try:
            self._enforcement.check_sharing(principal.id, owned)
        except GrantRefusedError as error:
            raise Problem("grant_refused", str(error), reason=error.code.value) from None

    async def _feed_change(self, work: Unit, row: sa.Row[Any], given: dict[str, Any]) -> None:
        owner = given.get("department_id", row.department_id)
        member_of, tags = await _links(work, row.id)
        sharing = policy_sharing(given["sharing"] if "sharing" in given else sharing_terms(row))
        await self._feed.write(
            work,
            lambda engine: engine.set_camera(row.id, owner, member_of, tags=tags, sharing=sharing),
            about=[f"camera:{row.id}"],
        )

    def _index_after(self, work: Unit, entry: IndexedCamera) -> None:
        """To be called after the feed's write: the index asks the PDP for the camera's number."""
        work.after_commit(lambda: self._index.set(entry))

    def _seal(self, camera_id: str, password: str | None) -> bytes | None:
        return None if password is None else self._keys.seal(camera_id, password)

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


async def _exists(work: Unit, table: sa.Table, identifier: str) -> bool:
    found = await work.conn.execute(sa.select(table.c.id).where(table.c.id == identifier))
    return found.one_or_none() is not None


async def _check_code(work: Unit, code: str, camera_id: str) -> None:
    query = sa.select(cameras.c.id).where(cameras.c.code == code, cameras.c.id != camera_id)
    if (await work.conn.execute(query)).first() is not None:
        raise Problem("conflict", f"code: a camera has {code}")


async def _check_groups(work: Unit, identifiers: list[str]) -> None:
    query = sa.select(groups.c.id).where(groups.c.id.in_(identifiers))
    known = set((await work.conn.execute(query)).scalars())
    for identifier in identifiers:
        if identifier not in known:
            raise Problem("not_found", f"group {identifier}")


_LINKS = (("groups", group_cameras, group_cameras.c.group_id), ("tags", camera_tags, camera_tags.c.tag))


async def _set_links(work: Unit, camera_id: str, given: dict[str, Any]) -> None:
    """Replace the camera's groups and tags by those that are given."""
    for name, table, column in _LINKS:
        if name in given:
            await work.conn.execute(sa.delete(table).where(table.c.camera_id == camera_id))
            rows = [{column.name: value, "camera_id": camera_id} for value in dict.fromkeys(given[name])]
            if rows:
                await work.conn.execute(sa.insert(table), rows)


async def _links(work: Unit, camera_id: str) -> list[list[str]]:
    """Its groups and its tags."""
    return [
        list((await work.conn.execute(sa.select(column).where(table.c.camera_id == camera_id))).scalars())
        for _, table, column in _LINKS
    ]


def _changed(grant: Grant, row: sa.Row[Any], given: dict[str, Any]) -> AuditEvent:
    """What changed, for the ledger: the fields' names, and both owners when it was given away."""
    told = ", ".join(sorted(given)) or "nothing"
    old, new = row.department_id, given.get("department_id", row.department_id)
    if new == old:
        return grant.event(AuditKind.CAMERA_CHANGED, told)
    event = grant.event(AuditKind.CAMERA_CHANGED, f"{told}; from {old} to {new}")
    return msgspec.structs.replace(event, owner_id=None, owner_ids=(old, new))
