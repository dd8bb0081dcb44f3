"""Grants: who may do what with which cameras, from when to when.

The PAP checks them, the ledger keeps them. A grant that was given by right of another one ends with it.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditKind
from gateway.clock import Clock, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.grant_entries import (
    GrantEntry,
    NewGrant,
    described,
    entry_of,
    entry_of_row,
    row_of,
)
from gateway.policy_feed import PolicyFacts, PolicyFeed, grant_rule
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.purposes import Purposes
from gateway.rehearsal import Rehearsal, Rehearsals
from gateway.self_grants import account_served
from gateway.store.identifiers import new_id
from gateway.store.schema import grants, groups
from gateway.store.sealed_rows import Sealed
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action, Effect, GrantRule, Object, ObjectKind, SubjectKind
from policies.administration import GrantRefusedError, Refusal

CHUNK_ROWS = 1000


class GrantFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`active`: only those that have begun and are not over, whatever the hour."""

    subject_kind: SubjectKind | None = None
    subject: str | None = None
    object_kind: ObjectKind | None = None
    object: str | None = None
    active: bool = False


class Grants:
    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        feed: PolicyFeed,
        purposes: Purposes,
        rehearsals: Rehearsals,
        clock: Clock,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._feed = feed
        self._purposes = purposes
        self._rehearsals = rehearsals
        self._clock = clock
        self.ended_listeners: list[Callable[[Unit, Grant, Sequence[str], str], Awaitable[None]]] = []
        """Called in the unit that revokes grants: by right of what, which, and why."""

    async def create(self, principal: Principal, new: NewGrant, circumstances: Circumstances) -> GrantEntry:
        """Raises Problem `access_denied` or `grant_refused` (its `reason` says why).

        A camera that does not exist and one that the giver may not share are refused alike.
        """
        known = await self._known_purposes()
        grant_id = new_id()
        place = await self.place(principal, new.target)

        async def act(work: Unit, grant: Grant) -> GrantEntry | Refused:
            try:
                rule = await self._accepted(work.conn, principal, new, grant_id, known)
            except GrantRefusedError as error:
                return Refused(_refusal(error))
            await work.conn.execute(
                sa.insert(grants).values(
                    **row_of(rule),
                    reason=new.reason,
                    created_by=principal.id,
                    created_at=to_micros(grant.at),
                )
            )
            event = grant.event(AuditKind.GRANT, described(rule, new.reason))
            await work.seal(event, (Sealed.GRANT, grant_id))
            await self._feed.write(work, lambda engine: engine.set_grant(rule), about=[f"grant:{rule.id}"])
            return entry_of(rule, new.reason, principal.id, grant.at)

        return await self._enforcement.perform(
            principal, Action.CAMERA_SHARE, place, circumstances, new.described(), act
        )

    async def rehearse_creation(self, principal: Principal, new: NewGrant) -> Rehearsal:
        """What `create` would do; it writes and records nothing. Raises the same Problems."""
        known = await self._known_purposes()
        place = await self.place(principal, new.target)
        self._enforcement.require(principal, Action.CAMERA_SHARE, place, new.described())
        try:
            async with self._store.read() as conn:
                rule = await self._accepted(conn, principal, new, new_id(), known)
        except GrantRefusedError as error:
            raise _refusal(error) from None
        return await self._rehearsals.of(principal.id, added=[rule])

    async def _accepted(
        self, conn: AsyncConnection, giver: Principal, new: NewGrant, grant_id: str, known: set[str]
    ) -> GrantRule:
        """Raises GrantRefusedError."""
        proposal = new.proposal(giver.id)
        at = to_micros(self._clock())
        served = await account_served(conn, giver.id, proposal.subject, proposal.effect, at)
        if served is not None:
            raise GrantRefusedError(Refusal.SELF_GRANT, f"it would serve {served}, for which you answer")
        return self._enforcement.accept_grant(proposal, grant_id, known)

    async def revoke(
        self, principal: Principal, grant_id: str, reason: str, circumstances: Circumstances
    ) -> None:
        """Running pictures that rest on it, or on what was given by right of it, end within a second.

        To revoke a denial is to give. Who may share only by a grant revokes only what came from him.
        Raises Problem `not_found`, `access_denied` or `grant_refused`.
        """
        row, place = await self._revocable(principal, grant_id)
        rule = grant_rule(row)

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if (refused := await self._refused(work.conn, principal, rule, place)) is not None:
                return Refused(refused)
            if not await self.end(work, grant, rule, reason):
                return Refused(Problem("not_found", grant_id))
            return None

        await self._enforcement.perform(
            principal, Action.CAMERA_SHARE, place, circumstances, f"revoke grant {grant_id}", act
        )

    async def end(self, work: Unit, by: Grant, rule: GrantRule, reason: str) -> bool:
        """In the unit of whoever was allowed to: revoke a grant and what was given by right of it.

        False if it is revoked already.
        """
        if not await _revoke(work, [rule.id], by.at, by.principal.id, reason):
            return False
        ends = {(Sealed.GRANT, rule.id): by.event(AuditKind.REVOKE, described(rule, reason))}
        below = [grant_rule(other) for other in await _given_under(work.conn, rule.id)]
        inherited = f"its parent {rule.id} was revoked; {reason}"
        await _revoke(work, [other.id for other in below], by.at, by.principal.id, inherited)
        for other in below:
            ends[Sealed.GRANT, other.id] = by.event(AuditKind.REVOKE, described(other, inherited))
        await work.unseal(ends)
        gone = [rule.id, *(other.id for other in below)]
        for listener in self.ended_listeners:
            await listener(work, by, gone, reason)
        await self._feed.write(
            work, functools.partial(_remove, gone), about=[f"grant:{identifier}" for identifier in gone]
        )
        return True

    async def rehearse_revocation(self, principal: Principal, grant_id: str) -> Rehearsal:
        """What `revoke` would do; it writes and records nothing. Raises the same Problems."""
        row, place = await self._revocable(principal, grant_id)
        self._enforcement.require(principal, Action.CAMERA_SHARE, place, f"revoke grant {grant_id}")
        rule = grant_rule(row)
        async with self._store.read() as conn:
            if (refused := await self._refused(conn, principal, rule, place)) is not None:
                raise refused
            below = [grant_rule(other) for other in await _given_under(conn, grant_id)]
        return await self._rehearsals.of(principal.id, removed=[rule, *below])

    async def visible_to(
        self, principal: Principal, wanted: GrantFilter, after: str, size: int
    ) -> list[GrantEntry]:
        """Grants on what the principal may share, those he gave and those given to him, in order of id."""
        query = (
            sa.select(grants, groups.c.department_id)
            .outerjoin(groups, _is_group & (groups.c.id == grants.c.object_id))
            .where(*self._conditions(wanted))
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
            return own or row.created_by == principal.id or shared[place]

        found: list[GrantEntry] = []
        async with self._store.read() as conn:
            while len(found) <= size:
                rows = (await conn.execute(query.where(grants.c.id > after))).all()
                found += [entry_of_row(row, self._enforcement.void(row.id)) for row in rows if may_see(row)]
                if len(rows) < CHUNK_ROWS:
                    break
                after = rows[-1].id
        return found[: size + 1]

    def _conditions(self, wanted: GrantFilter) -> list[sa.ColumnElement[bool]]:
        conditions: list[sa.ColumnElement[bool]] = [grants.c.revoked_at.is_(None)]
        for column, value in (
            (grants.c.subject_kind, wanted.subject_kind),
            (grants.c.subject_id, wanted.subject),
            (grants.c.object_kind, wanted.object_kind),
            (grants.c.object_id, wanted.object),
        ):
            if value is not None:
                conditions.append(column == str(value))
        if wanted.active:
            now = to_micros(self._clock())
            conditions.append(sa.or_(grants.c.valid_from.is_(None), grants.c.valid_from <= now))
            conditions.append(sa.or_(grants.c.valid_to.is_(None), grants.c.valid_to > now))
        return conditions

    async def _known_purposes(self) -> set[str]:
        return {entry.code for entry in await self._purposes.all()}

    async def _revocable(self, principal: Principal, grant_id: str) -> tuple[sa.Row[Any], Object]:
        """The grant's row, and what `camera:share` is asked about. Raises Problem `not_found`."""
        async with self._store.read() as conn:
            query = sa.select(grants).where(grants.c.id == grant_id, grants.c.revoked_at.is_(None))
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise Problem("not_found", grant_id)
        return row, await self.place(principal, Object(ObjectKind(row.object_kind), row.object_id))

    async def place(self, principal: Principal, target: Object) -> Object:
        """What `camera:share` is asked about: a group and a tag lie nowhere in the PDP's tree of departments.

        Of a group its department, of a tag the principal's own: whether he may share each camera in it is
        what the PAP asks then. Who was granted `camera:share` on them is asked about them.
        """
        if target.kind not in {ObjectKind.GROUP, ObjectKind.TAG}:
            return target
        if self._enforcement.decide(principal.id, Action.CAMERA_SHARE, target).allowed:
            return target
        if target.kind is ObjectKind.TAG:
            return Object(ObjectKind.DEPARTMENT, principal.department_id)
        query = sa.select(groups.c.department_id).where(groups.c.id == target.id)
        async with self._store.read() as conn:
            department_id = (await conn.execute(query)).scalar_one_or_none()
        return target if department_id is None else Object(ObjectKind.DEPARTMENT, department_id)

    async def _refused(
        self, conn: AsyncConnection, principal: Principal, rule: GrantRule, place: Object
    ) -> Problem | None:
        """Why somebody who may share the place may not revoke this grant after all."""
        target = Object(ObjectKind(rule.object.kind), rule.object.id)
        try:
            # to lift a denial is to give; a tag is in nobody's department
            is_given = rule.effect == Effect.DENY or target.kind is ObjectKind.TAG
            self._enforcement.check_sharing(principal.id, target if is_given else place)
        except GrantRefusedError as error:
            if rule.effect == Effect.DENY:
                return _refusal(error)
            if principal.id not in await _givers_above(conn, rule.id):
                told = "you may share only by a grant, and this one does not come from you"
                return Problem("grant_refused", told, reason=Refusal.BEYOND_GIVER.value)
        return None


_is_group = grants.c.object_kind == ObjectKind.GROUP.value


def _refusal(error: GrantRefusedError) -> Problem:
    return Problem("grant_refused", str(error), reason=error.code.value)


def _remove(grant_ids: Sequence[str], engine: PolicyFacts) -> None:
    for grant_id in grant_ids:
        engine.remove_grant(grant_id)


async def _revoke(work: Unit, grant_ids: Sequence[str], at: datetime, by: str, reason: str) -> int:
    """Mark those that are not revoked yet; return how many that were."""
    count = 0
    for start in range(0, len(grant_ids), CHUNK_ROWS):
        revoked = await work.conn.execute(
            sa.update(grants)
            .where(grants.c.id.in_(grant_ids[start : start + CHUNK_ROWS]), grants.c.revoked_at.is_(None))
            .values(revoked_at=to_micros(at), revoked_by=by, revoke_reason=reason)
        )
        count += revoked.rowcount
    return count


async def _given_under(conn: AsyncConnection, grant_id: str) -> Sequence[sa.Row[Any]]:
    """The grants that were given by right of a grant, at any depth, and are not revoked."""
    below = sa.select(grants.c.id).where(grants.c.parent_id == grant_id).cte(recursive=True)
    below = below.union(sa.select(grants.c.id).join(below, grants.c.parent_id == below.c.id))
    query = sa.select(grants).where(grants.c.id.in_(sa.select(below.c.id)), grants.c.revoked_at.is_(None))
    return (await conn.execute(query.order_by(grants.c.id))).all()


async def _givers_above(conn: AsyncConnection, grant_id: str) -> set[str]:
    """Who gave a grant, and who gave those by right of which it was given."""
    line = (
        sa.select(grants.c.id, grants.c.parent_id, grants.c.created_by)
        .where(grants.c.id == grant_id)
        .cte(recursive=True)
    )
    line = line.union(
        sa.select(grants.c.id, grants.c.parent_id, grants.c.created_by).join(
            line, grants.c.id == line.c.parent_id
        )
    )
    return set((await conn.execute(sa.select(line.c.created_by))).scalars())
