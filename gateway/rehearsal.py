"""What a change of grants would do, tried on the policy itself and taken back at once: nothing is written.

Who gains and who loses a camera is asked as listings ask it: for some purpose that he might declare. Running
sessions are decided as they are, with their own purpose. Of the cameras and people only those are asked about
whom the changed grants name, within MAX_USERS and MAX_ASKED.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from pyroaring import BitMap
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.enforcement import Enforcement
from gateway.live import LiveSessions
from gateway.live_session import LiveSession
from gateway.policy_feed import PolicyFacts
from gateway.store.schema import departments, user_roles, users
from gateway.store.store import Store
from policies.access import Action, GrantRule, Object, ObjectKind, Subject, SubjectKind

T = TypeVar("T")

MAX_USERS = 2000
"""People that one rehearsal asks about; beyond it the answer says `truncated`."""
MAX_ITEMS = 100
"""Of each kind that are named; all are counted."""
MAX_ASKED = 100_000_000
"""People times cameras: about two seconds of work."""


class AccessItem(msgspec.Struct, frozen=True):
    user: str
    camera: str
    action: Action


class AccessChanges(msgspec.Struct, frozen=True):
    """`count`: how many there are; `items`: the first MAX_ITEMS of them."""

    count: int
    items: list[AccessItem]


class EndingSession(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user: str
    user_name: str
    camera: str
    action: Action


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """`sessions`: those that would end, as far as the caller may see who watches; the count is of all.

    `truncated`: not everybody whom the grants name was asked about, so gains and losses are at least these.
    """

    gains: AccessChanges
    losses: AccessChanges
    sessions: list[EndingSession]
    session_count: int
    truncated: bool


_Regions = list[tuple[Object, frozenset[Action]]]
"""Where a changed grant reaches somebody, and with which actions."""


@dataclass(frozen=True)
class _Change:
    added: tuple[GrantRule, ...]
    removed: tuple[GrantRule, ...]

    def apply(self, facts: PolicyFacts) -> None:
        for rule in self.removed:
            facts.remove_grant(rule.id)
        for rule in self.added:
            facts.set_grant(rule)

    def undo(self, facts: PolicyFacts) -> None:
        for rule in self.added:
            facts.remove_grant(rule.id)
        for rule in self.removed:
            facts.set_grant(rule)

    def by_subject(self) -> Mapping[Subject, _Regions]:
        regions: dict[Subject, _Regions] = {}
        for rule in (*self.added, *self.removed):
            regions.setdefault(rule.subject, []).append((rule.object, rule.actions))
        return regions


@dataclass
class _Tally:
    count: int = 0
    items: list[AccessItem] = field(default_factory=list)

    def add(self, cameras: BitMap, user: str, action: Action, enforcement: Enforcement) -> None:
        self.count += len(cameras)
        for number in cameras[: MAX_ITEMS - len(self.items)]:
            self.items.append(AccessItem(user, enforcement.camera_of(number), action))

    def changes(self) -> AccessChanges:
        return AccessChanges(self.count, self.items)


class Rehearsals:
    def __init__(self, store: Store, enforcement: Enforcement, live: LiveSessions) -> None:
        self._store = store
        self._enforcement = enforcement
        self._live = live

    async def of(
        self, asker_id: str, *, added: Iterable[GrantRule] = (), removed: Iterable[GrantRule] = ()
    ) -> Rehearsal:
        """Of adding and removing grants; the changed ones only. What may be changed is not asked here."""
        change = _Change(tuple(added), tuple(removed))
        affected, truncated = await self._affected(change)
        gains, losses = _Tally(), _Tally()
        asked = 0
        for user, regions in affected.items():
            asked += sum(self._enforcement.size_of(target) for target, _ in regions)
            if asked > MAX_ASKED:
                truncated = True
                break
            await asyncio.sleep(0)  # some ms of work for each, where he may reach a whole city
            before, after = self._try(change, partial(self._cameras, user, regions))
            for action in before:
                losses.add(before[action] - after[action], user, action, self._enforcement)
                gains.add(after[action] - before[action], user, action, self._enforcement)
        ending = self._ending(change)
        return Rehearsal(
            gains=gains.changes(),
            losses=losses.changes(),
            sessions=[_shown(s) for s in ending if self._may_see(asker_id, s)][:MAX_ITEMS],
            session_count=len(ending),
            truncated=truncated,
        )

    async def _affected(self, change: _Change) -> tuple[Mapping[str, _Regions], bool]:
        """The enabled users whom the changed grants name, MAX_USERS at most, and whether there are more."""
        affected: dict[str, _Regions] = {}
        async with self._store.read() as conn:
            for subject, regions in change.by_subject().items():
                for user in await _users_of(conn, subject):
                    if user not in affected and len(affected) == MAX_USERS:
                        return affected, True
                    affected.setdefault(user, []).extend(regions)
        return affected, False

    def _try(self, change: _Change, ask: Callable[[], T]) -> tuple[T, T]:
        return self._enforcement.rehearse(change.apply, change.undo, ask)

    def _cameras(self, user: str, regions: _Regions) -> Mapping[Action, BitMap]:
        allowed: dict[Action, BitMap] = {}
        for target, actions in regions:
            for action in sorted(actions):
                found = self._enforcement.cameras_allowed(user, (action,), target)
                allowed[action] = allowed.get(action, BitMap()) | found
        return allowed

    def _ending(self, change: _Change) -> list[LiveSession]:
        actions = {action for rule in (*change.added, *change.removed) for action in rule.actions}
        running = [s for s in self._live.all() if s.ending is None and s.action in actions]
        before, after = self._try(change, partial(self._allowed, running))
        return [session for session in running if session.id in before - after]

    def _allowed(self, sessions: Iterable[LiveSession]) -> set[str]:
        return {
            session.id
            for session in sessions
            if self._enforcement.decide(
                session.user_id, session.action, _camera(session), session.purpose.code
            ).allowed
        }

    def _may_see(self, asker_id: str, session: LiveSession) -> bool:
        return self._enforcement.decide(asker_id, Action.SESSION_READ, _camera(session)).allowed


async def _users_of(conn: AsyncConnection, subject: Subject) -> list[str]:
    """Ids of the enabled users whom a subject names, in order, one more than MAX_USERS at most."""
    query = sa.select(users.c.id).where(users.c.enabled).order_by(users.c.id).limit(MAX_USERS + 1)
    match subject.kind:
        case SubjectKind.USER:
            query = query.where(users.c.id == subject.id)
        case SubjectKind.ROLE:
            held = sa.select(user_roles.c.user_id).where(user_roles.c.role == subject.id)
            query = query.where(users.c.id.in_(held))
        case SubjectKind.DEPARTMENT:
            below = sa.select(departments.c.id).where(departments.c.id == subject.id).cte(recursive=True)
            below = below.union(
                sa.select(departments.c.id).join(below, departments.c.parent_id == below.c.id)
            )
            query = query.where(users.c.department_id.in_(sa.select(below.c.id)))
    return list((await conn.execute(query)).scalars())


def _camera(session: LiveSession) -> Object:
    return Object(ObjectKind.CAMERA, session.camera_id)


def _shown(session: LiveSession) -> EndingSession:
    return EndingSession(
        id=session.id,
        user=session.user_id,
        user_name=session.user_name,
        camera=session.camera_id,
        action=session.action,
    )
