"""Grants: who may do what with which cameras, from when to when.

The PAP checks them, the ledger keeps them.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditKind
from gateway.authentication import Principal
from gateway.catalogue import Identifier, Text
from gateway.clock import from_micros, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.policy_feed import PolicyFeed, grant_rule
from gateway.problems import Problem
from gateway.purposes import Code, Purposes
from gateway.store.identifiers import new_id
from gateway.store.schema import grants, groups
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import (
    Action,
    Effect,
    GrantRule,
    Object,
    ObjectKind,
    Obligations,
    Subject,
    SubjectKind,
)
from policies.administration import GrantProposal, GrantRefusedError

CHUNK_ROWS = 1000

Moment = Annotated[datetime, Meta(tz=True)]


class Party(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: SubjectKind
    id: Identifier


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: ObjectKind
    id: Identifier


class NewGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`valid_from` inclusive, `valid_to` exclusive; without `purposes` any purpose serves."""

    subject: Party
    object: Target
    actions: Annotated[list[Action], Meta(min_length=1, max_length=16)]
    effect: Effect = Effect.ALLOW
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    purposes: Annotated[list[Code], Meta(max_length=64)] | None = None
    obligations: Obligations = Obligations()
    reason: Text = ""


class GrantEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    subject: Party
    object: Target
    actions: list[Action]
    effect: Effect
    valid_from: datetime | None
    valid_to: datetime | None
    purposes: list[str] | None
    obligations: Obligations
    reason: str
    created_by: str
    created_at: datetime
    revoked_at: datetime | None


class Grants:
    def __init__(self, store: Store, enforcement: Enforcement, feed: PolicyFeed, purposes: Purposes) -> None:
        self._store = store
        self._enforcement = enforcement
        self._feed = feed
        self._purposes = purposes

    async def create(self, principal: Principal, new: NewGrant, circumstances: Circumstances) -> GrantEntry:
        """Raises Problem `access_denied` or `grant_refused` (its `reason` says why)."""
        known = {entry.code for entry in await self._purposes.all()}
        grant_id = new_id()
        target = Object(new.object.kind, new.object.id)
        async with self._store.read() as conn:
            place = await _place(conn, target)
        proposal = GrantProposal(
            giver_id=principal.id,
            subject=Subject(new.subject.kind, new.subject.id),
            object=target,
            actions=frozenset(new.actions),
            effect=new.effect,
            valid_from=new.valid_from,
            valid_to=new.valid_to,
            purposes=None if new.purposes is None else frozenset(new.purposes),
            obligations=new.obligations,
        )

        async def act(work: Unit, grant: Grant) -> GrantEntry | Refused:
            try:
                rule = self._enforcement.accept_grant(proposal, grant_id, known)
            except GrantRefusedError as error:
                return Refused(Problem("grant_refused", str(error), reason=error.code.value))
            await work.conn.execute(
                sa.insert(grants).values(
                    **_values(rule),
                    reason=new.reason,
                    created_by=principal.id,
                    created_at=to_micros(grant.at),
                )
            )
            work.record(grant.event(AuditKind.GRANT, _described(rule, new.reason)))
            await self._feed.write(work, lambda engine: engine.set_grant(rule))
            return _entry_of(rule, new.reason, principal.id, grant.at)

        return await self._enforcement.perform(
            principal,
            Action.CAMERA_SHARE,
            place,
            circumstances,
            f"grant {', '.join(sorted(new.actions))} on {target.kind} {target.id} "
            f"to {new.subject.kind} {new.subject.id}",
            act,
        )

    async def revoke(
        self, principal: Principal, grant_id: str, reason: str, circumstances: Circumstances
    ) -> None:
        """Running pictures that rest on it end within a second. To revoke a denial is to give.

        Raises Problem `not_found`, `access_denied` or `grant_refused`.
        """
        async with self._store.read() as conn:
            query = sa.select(grants).where(grants.c.id == grant_id, grants.c.revoked_at.is_(None))
            row = (await conn.execute(query)).one_or_none()
            if row is None:
                raise Problem("not_found", grant_id)
            rule = grant_rule(row)
            target = Object(ObjectKind(row.object_kind), row.object_id)
            place = await _place(conn, target)

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if rule.effect == Effect.DENY:
                try:
                    self._enforcement.check_sharing(principal.id, target)
                except GrantRefusedError as error:
                    return Refused(Problem("grant_refused", str(error), reason=error.code.value))
            revoked = await work.conn.execute(
                sa.update(grants)
                .where(grants.c.id == grant_id, grants.c.revoked_at.is_(None))
                .values(revoked_at=to_micros(grant.at), revoked_by=principal.id, revoke_reason=reason)
            )
            if revoked.rowcount != 1:
                return Refused(Problem("not_found", grant_id))
            work.record(grant.event(AuditKind.REVOKE, _described(rule, reason)))
            await self._feed.write(work, lambda engine: engine.remove_grant(grant_id))
            return None

        await self._enforcement.perform(
            principal, Action.CAMERA_SHARE, place, circumstances, f"revoke grant {grant_id}", act
        )

    async def visible_to(self, principal: Principal, after: str, size: int) -> list[GrantEntry]:
        """The grants on what the principal may share, and those given to him, in order of id."""
        query = (
            sa.select(grants, groups.c.department_id)
            .outerjoin(groups, _is_group & (groups.c.id == grants.c.object_id))
            .where(grants.c.revoked_at.is_(None))
            .order_by(grants.c.id)
            .limit(CHUNK_ROWS)
        )
        shared: dict[Object, bool] = {}

        def may_see(row: sa.Row[Any]) -> bool:
            place = Object(ObjectKind(row.object_kind), row.object_id)
            if row.department_id is not None:
                place = Object(ObjectKind.DEPARTMENT, row.department_id)
            if place not in shared:
                shared[place] = self._enforcement.decide(principal.id, Action.CAMERA_SHARE, place).allowed
            own = row.subject_kind == SubjectKind.USER and row.subject_id == principal.id
            return own or shared[place]

        found: list[GrantEntry] = []
        async with self._store.read() as conn:
            while len(found) <= size:
                rows = (await conn.execute(query.where(grants.c.id > after))).all()
                found += [_entry(row) for row in rows if may_see(row)]
                if len(rows) < CHUNK_ROWS:
                    break
                after = rows[-1].id
        return found[: size + 1]


_is_group = grants.c.object_kind == ObjectKind.GROUP.value


async def _place(conn: AsyncConnection, target: Object) -> Object:
    """What `camera:share` is asked about: a group lies nowhere in the PDP's tree, its department does."""
    if target.kind is not ObjectKind.GROUP:
        return target
    query = sa.select(groups.c.department_id).where(groups.c.id == target.id)
    department_id = (await conn.execute(query)).scalar_one_or_none()
    return target if department_id is None else Object(ObjectKind.DEPARTMENT, department_id)


def _values(rule: GrantRule) -> dict[str, object]:
    return {
        "id": rule.id,
        "subject_kind": rule.subject.kind.value,
        "subject_id": rule.subject.id,
        "object_kind": rule.object.kind.value,
        "object_id": rule.object.id,
        "actions": sorted(rule.actions),
        "effect": rule.effect.value,
        "valid_from": to_micros(rule.valid_from) if rule.valid_from else None,
        "valid_to": to_micros(rule.valid_to) if rule.valid_to else None,
        "purposes": None if rule.purposes is None else sorted(rule.purposes),
        "obligations": msgspec.to_builtins(rule.obligations),
    }


def _described(rule: GrantRule, reason: str) -> str:
    until = f", until {rule.valid_to.isoformat()}" if rule.valid_to else ""
    return (
        f"{rule.effect} {', '.join(sorted(rule.actions))} on {rule.object.kind} {rule.object.id} "
        f"to {rule.subject.kind} {rule.subject.id}{until}; {reason}"
    )


def _entry_of(rule: GrantRule, reason: str, created_by: str, created_at: datetime) -> GrantEntry:
    return GrantEntry(
        id=rule.id,
        subject=Party(kind=rule.subject.kind, id=rule.subject.id),
        object=Target(kind=rule.object.kind, id=rule.object.id),
        actions=sorted(rule.actions),
        effect=rule.effect,
        valid_from=rule.valid_from,
        valid_to=rule.valid_to,
        purposes=None if rule.purposes is None else sorted(rule.purposes),
        obligations=rule.obligations,
        reason=reason,
        created_by=created_by,
        created_at=created_at,
        revoked_at=None,
    )


def _entry(row: sa.Row[tuple[object, ...]]) -> GrantEntry:
    return _entry_of(grant_rule(row), row.reason, row.created_by, from_micros(row.created_at))
