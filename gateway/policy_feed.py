"""Keeps the PDP's facts in step with the database: all at the start, then each write after its commit.

A row that nobody can read harms only itself: a camera, user or grant that makes no sense allows nothing.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.causes import Causes
from gateway.clock import from_micros
from gateway.store.schema import (
    camera_tags,
    cameras,
    departments,
    grants,
    group_cameras,
    groups,
    user_roles,
    users,
)
from gateway.store.store import Store
from gateway.store.unit import Unit, read_revision
from policies.access import GrantRule, Object, RoleAssignment, Sharing, SharingMode, Subject
from policies.tree import FactRefusedError

log = structlog.get_logger(__name__)

PAGE_ROWS = 2000
"""Rows read, and then taken in between two turns of the loop: some 20 ms of work."""


class PolicyFacts(Protocol):
    """The side of the PDP that takes facts: whoever holds only this cannot ask for a decision."""

    def set_department(self, department_id: str, parent_id: str | None) -> None: ...
    def remove_department(self, department_id: str) -> None: ...
    def set_group(self, group_id: str, parent_id: str | None) -> None: ...
    def remove_group(self, group_id: str) -> None: ...
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
V = TypeVar("V")


class PolicyFeed:
    """The only writer of the engine. What is written while the start still reads, waits until it has read."""

    def __init__(self, engine: PolicyFacts) -> None:
        self._engine = engine
        self.causes = Causes()
        self._is_loaded = False
        self._waiting: list[tuple[int, tuple[Write, ...]]] = []
        self.listeners: list[Callable[[], None]] = []

    async def write(self, work: Unit, *writes: Write, about: Iterable[str] = ()) -> None:
        """Raise the revision in this transaction; after its commit, write the engine, tell the listeners.

        `about`: the `grant:id`, `user:id` and `camera:id` whose pictures may end by it; the unit of the
        record made last is to blame.
        """
        revision = await work.bump_revision()
        if names := tuple(about):
            unit = work.events[-1].unit_name or ""
            work.after_commit(lambda: self.causes.note(revision, unit, names))
        work.after_commit(lambda: self._apply(revision, writes))

    def _apply(self, revision: int, writes: tuple[Write, ...]) -> None:
        if not self._is_loaded:
            self._waiting.append((revision, writes))
            return
        for write in writes:
            self._write(write)
        self._engine.advance(revision)
        for listener in self.listeners:
            listener()

    async def load(self, store: Store) -> None:
        """Read every fact, as of one revision. Call once, before anything is decided.

        Cameras come last: one that is known is decided with everything that bears on it, one that is not
        is denied to all.
        """
        async with store.read() as conn:
            await self._load_trees(conn)
            await self._load_users(conn)
            await self._load_grants(conn)
            await self._load_cameras(conn)
            revision = await read_revision(conn)
        self._engine.advance(revision)
        self._is_loaded = True
        for later, writes in self._waiting:
            if later > revision:  # else what was read has it already
                self._apply(later, writes)
        self._waiting.clear()

    async def _load_trees(self, conn: AsyncConnection) -> None:
        for table, setter in ((departments, _set_department), (groups, _set_group)):
            async for rows in _pages(conn, sa.select(table.c.id, table.c.parent_id), table.c.id):
                for row in rows:
                    self._write(partial(setter, row.id, row.parent_id))

    async def _load_users(self, conn: AsyncConnection) -> None:
        query = sa.select(users.c.id, users.c.department_id, users.c.enabled)
        async for rows in _pages(conn, query, users.c.id):
            roles = _by_key(
                await conn.execute(_between(user_roles, user_roles.c.user_id, rows)),
                lambda held: (held.user_id, RoleAssignment(held.role, held.department_id)),
            )
            for row in rows:
                self._engine.set_user(
                    row.id, row.department_id, roles.get(row.id, ()), enabled=bool(row.enabled)
                )

    async def _load_grants(self, conn: AsyncConnection) -> None:
        query = sa.select(*map(_raw, grants.c)).where(grants.c.revoked_at.is_(None))
        async for rows in _pages(conn, query, grants.c.id):
            for row in rows:
                self._engine.set_grant(_stored_grant(row))

    async def _load_cameras(self, conn: AsyncConnection) -> None:
        async for rows in _pages(conn, _CAMERAS, cameras.c.id):
            member_of = _by_key(
                await conn.execute(_between(group_cameras, group_cameras.c.camera_id, rows)),
                lambda member: (member.camera_id, member.group_id),
            )
            tagged = _by_key(
                await conn.execute(_between(camera_tags, camera_tags.c.camera_id, rows)),
                lambda tag: (tag.camera_id, tag.tag),
            )
            for camera_id, department_id, *terms in map(tuple, rows):
                self._engine.set_camera(
                    camera_id,
                    department_id,
                    member_of.get(camera_id, ()),
                    tags=tagged.get(camera_id, ()),
                    sharing=_stored_sharing(*terms),
                )

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


async def _pages(
    conn: AsyncConnection, query: sa.Select[Any], key: sa.Column[str]
) -> AsyncIterator[Sequence[sa.Row[Any]]]:
    """All rows in the order of their key, which starts the row, in pages; none is empty.

    An empty key is left out: the PDP knows no empty names.
    """
    query = query.where(key > sa.bindparam("after")).order_by(key).limit(PAGE_ROWS)
    after = ""
    while rows := (await conn.execute(query, {"after": after})).all():
        yield rows
        if len(rows) < PAGE_ROWS:
            return
        after = rows[-1][0]


def _between(table: sa.Table, key: sa.Column[str], rows: Sequence[sa.Row[Any]]) -> sa.Select[Any]:
    """What belongs to a page of rows: those of a table of links between its first and its last key."""
    return sa.select(table).where(key >= rows[0][0], key <= rows[-1][0])


def _by_key(links: Iterable[sa.Row[Any]], pair: Callable[[Any], tuple[str, V]]) -> dict[str, list[V]]:
    found: dict[str, list[V]] = {}
    for key, value in map(pair, links):
        found.setdefault(key, []).append(value)
    return found


def _raw(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """JSON as its text, so that one that is broken fails where it is decoded, not where the page is read."""
    if not isinstance(column.type, sa.JSON):
        return column
    return sa.cast(column, sa.Text).label(column.name)


def grant_rule(row: Any) -> GrantRule:
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
        schedule=row.schedule,
        parent=row.parent_id,
    )


_GRANT_JSON = tuple(column.name for column in grants.c if isinstance(column.type, sa.JSON))


def _stored_grant(row: sa.Row[Any]) -> GrantRule:
    """A row with its JSON undecoded. One that cannot be read has an action that there is not.

    The PDP takes that for malformed: it never allows, and denies what it was to deny.
    """
    fields = row._asdict()
    try:
        for name in _GRANT_JSON:
            fields[name] = msgspec.json.decode(fields[name]) if fields[name] is not None else None
        return grant_rule(SimpleNamespace(**fields))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        log.error("policy_grant_unreadable", grant=row.id, error=str(error))
        return GrantRule(
            id=row.id,
            subject=Subject(row.subject_kind, row.subject_id),
            object=Object(row.object_kind, row.object_id),
            actions=frozenset({"unreadable"}),  # type: ignore[arg-type] # what the PDP must refuse
            effect=row.effect,
        )


_CAMERAS = sa.select(
    cameras.c.id,
    cameras.c.department_id,
    cameras.c.sharing_mode,
    _raw(cameras.c.sharing_departments),
    cameras.c.sharing_until,
    _raw(cameras.c.sharing_purposes),
)


def _stored_sharing(
    mode: str, departments: str | None, until: int | None, purposes: str | None
) -> Sharing | None:
    """A camera's columns as the PDP takes them; what cannot be read is not shared, and for no purpose."""
    if mode == SharingMode.CONDITIONAL and until is None and purposes is None:
        return None
    try:
        return Sharing(
            mode=SharingMode(mode),
            departments=msgspec.json.decode(departments, type=tuple[str, ...]) if departments else (),
            until=None if until is None else from_micros(until),
            purposes=None if purposes is None else msgspec.json.decode(purposes, type=frozenset[str]),
        )
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        log.error("policy_sharing_unreadable", error=str(error))
        return Sharing(mode=SharingMode.NOT_SHARED, purposes=frozenset())
