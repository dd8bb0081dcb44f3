"""Looking at who may do what: why a decision comes out so, who sees a camera, what somebody sees.

Questions, not uses: nothing is recorded. Each is for whom it concerns, and for auditors.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import from_micros
from gateway.enforcement import Enforcement
from gateway.explanations import GrantFacts, Question, Told, grants_told, tell
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.purposes import Purposes
from gateway.store.schema import cameras, departments, grants, groups, users
from gateway.store.store import Store
from policies.access import (
    VISIBLE_ACTIONS,
    Action,
    Decision,
    Effect,
    Explanation,
    Object,
    ObjectKind,
    Reason,
    RuleMatch,
    Schedule,
    SubjectKind,
)


class Named(msgspec.Struct, frozen=True):
    id: str
    name: str


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """An explanation, and `text`: the same in sentences, one in a line.

    `owner_purposes`: the owner's list, if it is in the way.
    """

    decision: Decision
    matching: tuple[RuleMatch, ...]
    near_misses: tuple[RuleMatch, ...]
    owner_purposes: frozenset[str] | None
    text: Told


class CameraViewer(msgspec.Struct, frozen=True, kw_only=True):
    """`rule`: the grant or role by which he may, for some purpose that he might declare."""

    id: str
    name: str
    department: Named
    rule: str | None


class ViewedCamera(msgspec.Struct, frozen=True, kw_only=True):
    """`actions`: those of them that were asked about and are allowed for some purpose."""

    id: str
    name: str
    department: Named
    actions: list[Action]


class AccessReview:
    def __init__(self, store: Store, enforcement: Enforcement, purposes: Purposes) -> None:
        self._store = store
        self._enforcement = enforcement
        self._purposes = purposes

    async def explain(
        self,
        principal: Principal,
        user_id: str,
        action: Action,
        camera_id: str,
        purpose: str | None,
        min_revision: int,
    ) -> Explained:
        """Of oneself; of others for who shares the camera, and for auditors. Raises Problem `access_denied`.

        A purpose that nobody manages is asked about like any other.
        """
        camera = Object(ObjectKind.CAMERA, camera_id)
        if user_id != principal.id and not self._may_review(principal, camera):
            raise Problem("access_denied", "explanations about others are for who shares the camera")
        explanation = self._enforcement.explain(user_id, action, camera, purpose, min_revision)
        texts = {entry.code: Told(entry.text.zh, entry.text.en) for entry in await self._purposes.all()}
        async with self._store.read() as conn:
            facts = await _grant_facts(conn, grants_told(explanation), texts)
            question = Question(
                user=(await _names(conn, users, [user_id], users.c.display_name)).get(user_id, user_id),
                # a camera that he may not know of keeps its name to itself
                camera=(await _names(conn, cameras, [camera_id])).get(camera_id, camera_id)
                if self._knows(principal, camera)
                else camera_id,
                action=action,
                purpose=None if purpose is None else texts.get(purpose, Told(purpose, purpose)),
                owner_purposes=None
                if explanation.owner_purposes is None
                else tuple(texts.get(code, Told(code, code)) for code in sorted(explanation.owner_purposes)),
            )
        return Explained(
            decision=explanation.decision,
            matching=explanation.matching,
            near_misses=explanation.near_misses,
            owner_purposes=explanation.owner_purposes,
            text=tell(question, explanation, facts),
        )

    async def viewers(
        self, principal: Principal, camera_id: str, action: Action, after: str, size: int
    ) -> tuple[list[CameraViewer], int]:
        """Who may do it, of all enabled users, in order of id, one more than `size`; and how many there are.

        For who shares the camera, and for auditors. Raises Problem `access_denied`.
        """
        camera = Object(ObjectKind.CAMERA, camera_id)
        if not self._may_review(principal, camera):
            raise Problem("access_denied", "who sees a camera is for who shares it to know")
        allowed = self._enforcement.principals_of(action, camera)
        page = sorted(user for user in allowed if user > after)[: size + 1]
        async with self._store.read() as conn:
            rows = await _with_department(conn, users, users.c.display_name, page)
        return [
            CameraViewer(
                id=row.id,
                name=row.name,
                department=Named(row.department_id, row.department_name),
                rule=self._rule_for(row.id, action, camera),
            )
            for row in rows
        ], len(allowed)

    async def cameras_of(
        self, principal: Principal, user_id: str, action: Action | None, after: str | None, size: int
    ) -> tuple[list[ViewedCamera], int]:
        """What somebody sees, one more than `size` after a camera, and how many cameras that are in all.

        Without an action, whatever makes a camera visible. For himself, for who manages the account, and
        for auditors. Raises Problem `not_found`, `access_denied` or `invalid_field` (page_token).
        """
        async with self._store.read() as conn:
            query = sa.select(users.c.department_id).where(users.c.id == user_id)
            department_id = (await conn.execute(query)).scalar_one_or_none()
        if department_id is None:
            raise Problem("not_found", user_id)
        department = Object(ObjectKind.DEPARTMENT, department_id)
        manages = self._enforcement.decide(principal.id, Action.USER_MANAGE, department).allowed
        if not (user_id == principal.id or manages or self._enforcement.audits(principal.id, department)):
            raise Problem("access_denied", "what others see is for who manages their account")
        actions = (action,) if action is not None else tuple(sorted(VISIBLE_ACTIONS))
        allowed = self._enforcement.cameras_allowed(user_id, actions)
        start = 0
        if after is not None:
            number = self._enforcement.ordinal(after)
            if number is None:
                raise Problem("invalid_field", "page_token")
            start = allowed.rank(number)
        page = [self._enforcement.camera_of(number) for number in allowed[start : start + size + 1]]
        async with self._store.read() as conn:
            rows = await _with_department(conn, cameras, cameras.c.name, page)
        return [
            ViewedCamera(
                id=row.id,
                name=row.name,
                department=Named(row.department_id, row.department_name),
                actions=[
                    action
                    for action in actions
                    if self._enforcement.is_allowed_for_some_purpose(user_id, row.id, action)
                ],
            )
            for row in rows
        ], len(allowed)

    def _may_review(self, principal: Principal, camera: Object) -> bool:
        shares = self._enforcement.decide(principal.id, Action.CAMERA_SHARE, camera).allowed
        return shares or self._enforcement.audits(principal.id, camera)

    def _knows(self, principal: Principal, camera: Object) -> bool:
        return self._enforcement.is_visible(principal.id, camera.id) or self._may_review(principal, camera)

    def _rule_for(self, user_id: str, action: Action, camera: Object) -> str | None:
        told = self._enforcement.explain(user_id, action, camera, None)
        return told.decision.rule if told.decision.allowed else _rule_for_some_purpose(told)


def _rule_for_some_purpose(told: Explanation) -> str | None:
    return next(
        (
            match.rule
            for match in told.near_misses
            if match.effect is Effect.ALLOW and match.reason is Reason.PURPOSE_NOT_ALLOWED
        ),
        None,
    )


async def _with_department(
    conn: AsyncConnection, table: sa.Table, name: sa.Column[str], ids: Collection[str]
) -> list[sa.Row[Any]]:
    """Rows with id, name and department, in the order of `ids`; what is gone meanwhile is left out."""
    query = (
        sa.select(
            table.c.id,
            name.label("name"),
            departments.c.id.label("department_id"),
            departments.c.name.label("department_name"),
        )
        .join(departments, departments.c.id == table.c.department_id)
        .where(table.c.id.in_(ids))
    )
    found = {row.id: row for row in await conn.execute(query)}
    return [found[identifier] for identifier in ids if identifier in found]


async def _names(
    conn: AsyncConnection, table: sa.Table, ids: Iterable[str], name: sa.Column[str] | None = None
) -> dict[str, str]:
    shown = table.c.name if name is None else name
    rows = await conn.execute(sa.select(table.c.id, shown).where(table.c.id.in_(sorted(set(ids)))))
    return {row[0]: row[1] for row in rows}


async def _grant_facts(
    conn: AsyncConnection, ids: list[str], texts: Mapping[str, Told]
) -> dict[str, GrantFacts]:
    rows = (await conn.execute(sa.select(grants).where(grants.c.id.in_(ids)))).all()
    people = await _names(
        conn,
        users,
        [row.created_by for row in rows] + [row.subject_id for row in rows],
        users.c.display_name,
    )
    places = {
        table: await _names(conn, table, [row.object_id for row in rows] + [row.subject_id for row in rows])
        for table in (cameras, groups, departments)
    }
    subjects = {"user": people, "department": places[departments]}
    objects = {"camera": places[cameras], "group": places[groups], "department": places[departments]}
    return {
        row.id: GrantFacts(
            giver=people.get(row.created_by, row.created_by),
            subject_kind=SubjectKind(row.subject_kind),
            subject=subjects.get(row.subject_kind, {}).get(row.subject_id, row.subject_id),
            object_kind=ObjectKind(row.object_kind),
            object=objects.get(row.object_kind, {}).get(row.object_id, row.object_id),
            valid_from=_moment(row.valid_from),
            valid_to=_moment(row.valid_to),
            schedule=_schedule(row.schedule),
            purposes=None
            if row.purposes is None
            else tuple(texts.get(code, Told(code, code)) for code in row.purposes),
        )
        for row in rows
    }


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _schedule(stored: Any) -> Schedule | None:
    try:
        return None if stored is None else msgspec.convert(stored, Schedule)
    except msgspec.ValidationError:  # the PDP calls such a grant malformed
        return None
