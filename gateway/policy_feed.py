"""Keeps the PDP's facts in step with the database: all at the start, then each write after its commit."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import from_micros
from gateway.store.schema import cameras, departments, grants, group_cameras, groups, user_roles, users
from gateway.store.store import Store
from gateway.store.unit import Unit, read_revision
from policies.access import GrantRule, Object, RoleAssignment, Sharing, Subject
from policies.tree import FactRefusedError

log = structlog.get_logger(__name__)


class PolicyFacts(Protocol):
    """The side of the PDP that takes facts: whoever holds only this cannot ask for a decision."""

    def set_department(self, department_id: str, parent_id: str | None) -> None: ...
    def set_group(self, group_id: str, parent_id: str | None) -> None: ...
    def set_camera(
        self,
        camera_id: str,
        department_id: str,
        group_ids: Iterable[str] = (),
        *,
        tags: Iterable[str] = (),
        sharing: Sharing | None = None,
    ) -> None: ...
    def remove_camera(self, camera_id: str) -> None: ...
    def set_user(
        self,
        user_id: str,
        department_id: str | None,
        roles: Iterable[RoleAssignment] = (),
        *,
        enabled: bool = True,
    ) -> None: ...
    def set_grant(self, grant: GrantRule) -> None: ...
    def remove_grant(self, grant_id: str) -> None: ...
    def advance(self, revision: int) -> None: ...


Write = Callable[[PolicyFacts], None]


class PolicyFeed:
    """The only writer of the engine after the start."""

    def __init__(self, engine: PolicyFacts) -> None:
        self._engine = engine
        self.listeners: list[Callable[[], None]] = []

    async def write(self, work: Unit, *writes: Write) -> None:
        """Raise the revision in this transaction; after its commit, write the engine, tell the listeners."""
        revision = await work.bump_revision()
        work.after_commit(lambda: self._apply(revision, writes))

    def _apply(self, revision: int, writes: tuple[Write, ...]) -> None:
        for write in writes:
            self._write(write)
        self._engine.advance(revision)
        for listener in self.listeners:
            listener()

    async def load(self, store: Store) -> None:
        """Read every fact. Call once, before anything is decided."""
        async with store.read() as conn:
            await self._load_trees(conn)
            await _load_cameras(conn, self._engine)
            await _load_users(conn, self._engine)
            for row in await conn.execute(sa.select(grants).where(grants.c.revoked_at.is_(None))):
                self._engine.set_grant(grant_rule(row))
            self._engine.advance(await read_revision(conn))

    async def _load_trees(self, conn: AsyncConnection) -> None:
        for row in await conn.execute(sa.select(departments.c.id, departments.c.parent_id)):
            self._write(partial(_set_department, row.id, row.parent_id))
        for row in await conn.execute(sa.select(groups.c.id, groups.c.parent_id)):
            self._write(partial(_set_group, row.id, row.parent_id))

    def _write(self, write: Write) -> None:
        """A fact that two writes at once made contradictory is left out: what hangs on it is denied."""
        try:
            write(self._engine)
        except FactRefusedError as error:
            log.error("policy_fact_refused", code=error.code, error=str(error))


def _set_department(identifier: str, parent_id: str | None, engine: PolicyFacts) -> None:
    engine.set_department(identifier, parent_id)


def _set_group(identifier: str, parent_id: str | None, engine: PolicyFacts) -> None:
    engine.set_group(identifier, parent_id)


def grant_rule(row: sa.Row[tuple[object, ...]]) -> GrantRule:
    """A row of `grants` as the PDP takes it: raw, for `set_grant` checks it; a bad one allows nothing."""
    return GrantRule(
        id=row.id,
        subject=Subject(row.subject_kind, row.subject_id),
        object=Object(row.object_kind, row.object_id),
        actions=frozenset(row.actions),
        effect=row.effect,
        valid_from=from_micros(row.valid_from) if row.valid_from is not None else None,
        valid_to=from_micros(row.valid_to) if row.valid_to is not None else None,
        purposes=frozenset(row.purposes) if row.purposes is not None else None,
        obligations=row.obligations,
        granted_by=row.created_by,
    )


async def _load_cameras(conn: AsyncConnection, engine: PolicyFacts) -> None:
    members: dict[str, list[str]] = {}
    for row in await conn.execute(sa.select(group_cameras)):
        members.setdefault(row.camera_id, []).append(row.group_id)
    for row in await conn.execute(sa.select(cameras.c.id, cameras.c.department_id)):
        engine.set_camera(row.id, row.department_id, members.get(row.id, ()))


async def _load_users(conn: AsyncConnection, engine: PolicyFacts) -> None:
    held: dict[str, list[RoleAssignment]] = {}
    for row in await conn.execute(sa.select(user_roles)):
        held.setdefault(row.user_id, []).append(RoleAssignment(row.role, row.department_id))
    for row in await conn.execute(sa.select(users.c.id, users.c.department_id, users.c.enabled)):
        engine.set_user(row.id, row.department_id, held.get(row.id, ()), enabled=row.enabled)
