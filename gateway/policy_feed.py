"""Keeps the PDP's facts in step with the database: all at the start, then each write after its commit.

A row that nobody can read harms only itself: a camera, user or grant that makes no sense allows nothing. So
does one whose seal does not fit: the user holds nothing, the department, group or camera is unknown and with
it denied, the grant is void; a denial goes on to deny. See `gateway.store.seals`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.camera_reading import Cameras, sharing_of
from gateway.causes import Causes
from gateway.clock import from_micros
from gateway.jobs import acts_until, may_act
from gateway.sealed_facts import SealedFacts
from gateway.store.key_pages import Links, by_key, pages_by_key
from gateway.store.schema import (
    departments,
    disputes,
    grants,
    groups,
    recovery_codes,
    user_roles,
    users,
)
from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import by_name, raw, read_policy_state, stored_row
from gateway.store.store import Store
from gateway.store.unit import Unit, read_revision
from policies.access import GrantRule, Object, Reason, RoleAssignment, Sharing, Subject
from policies.tree import FactRefusedError

log = structlog.get_logger(__name__)

ADDED_AT_ONCE = 500
"""Facts of an import that are taken in between two turns of the loop."""

_ROLES = Links(*user_roles.c["user_id", "role", "department_id"])
_RECOVERY_CODES = Links(*recovery_codes.c["user_id", "code_hash"])


class PolicyFacts(Protocol):
    """The side of the PDP that takes facts: whoever holds only this cannot ask for a decision."""

    def set_department(self, department_id: str, parent_id: str | None) -> None: ...
    def remove_department(self, department_id: str) -> None: ...
    def forget_department(self, department_id: str) -> None: ...
    def set_group(self, group_id: str, parent_id: str | None) -> None: ...
    def remove_group(self, group_id: str) -> None: ...
    def forget_group(self, group_id: str) -> None: ...
    def set_cameras(
        self,
        entries: Iterable[tuple[str, str, tuple[str, ...], tuple[str, ...], Sharing | None]],
    ) -> None: ...
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
        until: datetime | None = None,
    ) -> None: ...
    @property
    def grants(self) -> list[GrantRule]: ...
    def set_grant(self, grant: GrantRule) -> None: ...
    def remove_grant(self, grant_id: str) -> None: ...
    def advance(self, revision: int) -> None: ...


Write = Callable[[PolicyFacts], None]


class PolicyFeed:
    """The only writer of the engine. What is written while the start still reads, waits until it has read."""

    def __init__(self, engine: PolicyFacts) -> None:
        self._engine = engine
        self.causes = Causes()
        self._is_loaded = False
        self._waiting: list[tuple[int, tuple[Write, ...]]] = []
        self._additions: deque[Write] = deque()
        self._added_revision = 0
        self.listeners: list[Callable[[], None]] = []

    async def write(
        self, work: Unit, *writes: Write, about: Iterable[str] = (), additions: Sequence[Write] = ()
    ) -> None:
        """Raise the revision in this transaction; after its commit, write the engine, tell the listeners.

        `about`: the `grant:id`, `user:id` and `camera:id` whose pictures may end by it; the unit of the
        record made last is to blame. `additions`: any number of facts about what nobody knows yet, and what
        is therefore denied; they wait for `catch_up`, or for the next write, and the revision for them.
        """
        revision = await work.bump_revision()
        if names := tuple(about):
            unit = work.events[-1].unit_name or ""
            work.after_commit(lambda: self.causes.note(revision, unit, names))
        work.after_commit(lambda: self._apply(revision, writes, additions))

    def _apply(self, revision: int, writes: tuple[Write, ...], additions: Sequence[Write] = ()) -> None:
        if not self._is_loaded:
            self._waiting.append((revision, (*writes, *additions)))
            return
        if self._additions:
            self._add(len(self._additions))
        for write in writes:
            self._write(write)
        if additions:
            self._additions.extend(additions)
            self._added_revision = revision
        else:
            self._advance(revision)

    async def catch_up(self) -> None:
        """Write the additions that wait, some between two turns of the loop."""
        while self._additions:
            self._add(ADDED_AT_ONCE)
            await asyncio.sleep(0)

    def _add(self, count: int) -> None:
        for _ in range(min(count, len(self._additions))):
            self._write(self._additions.popleft())
        if not self._additions:
            self._advance(self._added_revision)

    def _advance(self, revision: int) -> None:
        self._engine.advance(revision)
        for listener in self.listeners:
            listener()

    async def load(self, store: Store, cameras: Cameras, found: SealedFacts | None = None) -> None:
        """Read every fact. Call once, before anything is decided.

        Cameras come last: one that is known is decided with everything that bears on it, one that is not
        is denied to all. `found` is told of every row. What is written while it reads is written again.
        """
        found = found or SealedFacts(store.seals)
        async with store.read() as conn:
            state = await read_policy_state(conn, store.seals)
            await self._load_trees(conn, found)
            await self._load_users(conn, found)
            await self._load_grants(conn, found, None if state is None else state.epoch)
            revision = await read_revision(conn)
        await self._load_cameras(cameras, found)
        revision = min(revision, cameras.revision)
        self._engine.advance(revision)
        self._is_loaded = True
        for later, writes in self._waiting:
            if later > revision:  # else what was read has it already
                self._apply(later, writes)
        self._waiting.clear()

    async def _load_trees(self, conn: AsyncConnection, found: SealedFacts) -> None:
        for kind, table, setter in (
            (Sealed.DEPARTMENT, departments, _set_department),
            (Sealed.GROUP, groups, _set_group),
        ):
            async for rows in pages_by_key(conn, sa.select(table), table.c.id):
                stored = [stored_row(kind, columns) for columns in by_name(rows)]
                for row, fits in zip(rows, found.check_all(kind, stored), strict=True):
                    if fits:
                        self._write(partial(setter, row.id, row.parent_id))

    async def _load_users(self, conn: AsyncConnection, found: SealedFacts) -> None:
        query = sa.select(*map(raw, users.c), may_act.label("acts"))
        async for rows in pages_by_key(conn, query, users.c.id):
            held_roles = await _ROLES.of(conn, rows)
            roles = by_key((user_id, RoleAssignment(*held)) for user_id, *held in held_roles)
            codes = by_key(await _RECOVERY_CODES.of(conn, rows))
            stored = []
            for columns in by_name(rows):
                user_id = columns["id"]
                pairs = [(role.role, role.department_id) for role in roles.get(user_id, ())]
                stored.append(stored_row(Sealed.USER, columns, pairs, codes.get(user_id, ())))
            for row, is_known in zip(rows, found.check_all(Sealed.USER, stored), strict=True):
                self._engine.set_user(
                    row.id,
                    row.department_id,
                    roles.get(row.id, ()) if is_known else (),
                    enabled=is_known and bool(row.acts),
                    until=acts_until(row) if is_known else None,
                )

    async def _load_grants(self, conn: AsyncConnection, found: SealedFacts, epoch: int | None) -> None:
        async for rules in stored_grants(conn, found, epoch):
            for rule in rules:
                self._engine.set_grant(rule)

    async def _load_cameras(self, cameras: Cameras, found: SealedFacts) -> None:
        async for page in cameras.facts(found):
            self._engine.set_cameras(
                (camera_id, department_id, groups, tags, sharing_of(terms))
                for camera_id, department_id, groups, tags, terms in page
            )
            await asyncio.sleep(0)  # what was read ahead is there at once

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


def grant_rule(row: Any, void: Reason | None = None) -> GrantRule:
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
        void=void,
    )


async def stored_grants(
    conn: AsyncConnection, found: SealedFacts, epoch: int | None, among: Collection[str] | None = None
) -> AsyncIterator[list[GrantRule]]:
    """All that are not revoked, in pages; void are those that do not fit their seal, are frozen, or disputed.

    `epoch`: the present one; None: nobody knows it, and all are frozen. `among`: of these few ids.
    """
    query = sa.select(disputes.c.grant_id).where(disputes.c.outcome.is_(None))
    disputed = set((await conn.execute(query)).scalars())
    every = sa.select(*map(raw, grants.c)).where(grants.c.revoked_at.is_(None))
    if among is not None:
        every = every.where(grants.c.id.in_(among))
    async for rows in pages_by_key(conn, every, grants.c.id):
        rules = []
        stored = [stored_row(Sealed.GRANT, columns) for columns in by_name(rows)]
        for row, held, fits in zip(rows, stored, found.check_all(Sealed.GRANT, stored), strict=True):
            void = None
            if not fits:
                void = Reason.NOT_IN_LEDGER
            elif row.epoch != epoch:
                void = Reason.FROZEN
            elif row.id in disputed:
                void = Reason.DISPUTED
            rules.append(_stored_grant(row, held.fields, void))
        yield rules


def _stored_grant(row: sa.Row[Any], fields: Any, void: Reason | None) -> GrantRule:
    """`fields`: the row with its JSON decoded. One that cannot be read has an action that there is not.

    The PDP takes that for malformed: it never allows, and denies what it was to deny.
    """
    why = "broken JSON"
    if fields is not None:
        try:
            return grant_rule(fields, void)
        except (TypeError, ValueError, OverflowError) as error:
            why = str(error)
    log.error("policy_grant_unreadable", grant=row.id, error=why)
    return GrantRule(
        id=row.id,
        subject=Subject(row.subject_kind, row.subject_id),
        object=Object(row.object_kind, row.object_id),
        actions=frozenset({"unreadable"}),  # type: ignore[arg-type] # what the PDP must refuse
        effect=row.effect,
    )
