"""Disputes: an owner or an auditor doubts a grant, and until somebody else has decided, it allows nothing.

Two people at least: nobody upholds what he raised himself, and whoever gave the grant does not dismiss the
doubt about it. Who raised a dispute may take it back. An upheld one revokes the grant and what was given by
right of it. Where the grant is revoked before anybody has decided, there is nothing left to decide.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditEvent, AuditKind
from gateway.catalogue import Ref
from gateway.clock import from_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.forms import END, Identifier
from gateway.grants import Grants
from gateway.policy_feed import PolicyFeed, grant_rule
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.identifiers import new_id
from gateway.store.schema import disputes, grants, users
from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import read_policy_state
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action, Effect, Object, ObjectKind, Reason

CHUNK_ROWS = 500
MAX_REASON = 2000

Why = Annotated[str, Meta(min_length=1, max_length=MAX_REASON, pattern=r"^[^\x00\x7f]*\S[^\x00\x7f]*" + END)]


class DisputeOutcome(StrEnum):
    UPHELD = "upheld"
    """The grant is revoked."""
    DISMISSED = "dismissed"
    """The grant counts again."""
    REVOKED = "revoked"
    """The grant was revoked, by whoever might, before anybody had decided."""


class DisputeRefusal(StrEnum):
    """The `reason` of the problem `dispute_refused`."""

    DENIAL = "denial"
    """What denies cannot be suspended by a doubt: that would allow."""
    BEYOND_OFFICE = "beyond_office"
    OWN_DISPUTE = "own_dispute"
    OWN_GRANT = "own_grant"


class NewDispute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grant: Identifier
    reason: Why


class DisputeClosing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    outcome: Literal["upheld", "dismissed"]
    reason: Why


class DisputeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome` and what follows: None while it is open."""

    id: str
    grant: str
    subject: str
    object: str
    reason: str
    opened_by: Ref
    opened_at: datetime
    outcome: DisputeOutcome | None
    closed_by: Ref | None
    closed_at: datetime | None
    closing_reason: str | None


class Disputes:
    def __init__(self, store: Store, enforcement: Enforcement, feed: PolicyFeed, grants: Grants) -> None:
        self._store = store
        self._enforcement = enforcement
        self._feed = feed
        self._grants = grants
        grants.ended_listeners.append(self._revoked)

    async def open(self, principal: Principal, new: NewDispute, circumstances: Circumstances) -> DisputeEntry:
        """Suspend a grant at once; pictures that rest on it end.

        For who holds `camera:share` or `audit:read` on all of its object by office. Raises Problem
        `not_found`, `access_denied`, `dispute_refused` (its `reason` is a DisputeRefusal) or `conflict`.
        """
        target = await self._target(new.grant)
        action = self._office(principal.id, target)
        place = await self._grants.place(principal, target)
        dispute_id = new_id()

        async def act(work: Unit, grant: Grant) -> Refused | None:
            row = await _running_grant(work.conn, new.grant)
            if row is None:
                return Refused(Problem("not_found", new.grant))
            if (problem := self._unopenable(principal, row, target)) is not None:
                return Refused(problem)
            if await _is_disputed(work.conn, new.grant):
                return Refused(Problem("conflict", f"grant {new.grant} is disputed"))
            await work.conn.execute(
                sa.insert(disputes).values(
                    id=dispute_id,
                    grant_id=new.grant,
                    reason=new.reason,
                    opened_by=principal.id,
                    opened_at=work.now,
                )
            )
            work.record(_event(grant, AuditKind.DISPUTE_OPENED, dispute_id, new.grant, new.reason))
            rule = grant_rule(row, Reason.DISPUTED)
            await self._feed.write(work, lambda engine: engine.set_grant(rule), about=[f"grant:{new.grant}"])
            return None

        content = f"dispute grant {new.grant}"
        await self._enforcement.perform(principal, action, place, circumstances, content, act)
        return await self._entry(dispute_id)

    async def close(
        self, principal: Principal, dispute_id: str, closing: DisputeClosing, circumstances: Circumstances
    ) -> DisputeEntry:
        """For who holds `camera:share` on all of the object by office, or to take back one's own.

        Raises Problem `not_found`, `access_denied`, `dispute_refused` or `conflict` (closed already).
        """
        present = await self._row(dispute_id)
        target = Object(ObjectKind(present.object_kind), present.object_id)
        outcome = DisputeOutcome(closing.outcome)
        takes_back = principal.id == present.opened_by and outcome is DisputeOutcome.DISMISSED
        action = self._office(principal.id, target) if takes_back else Action.CAMERA_SHARE
        place = await self._grants.place(principal, target)

        async def act(work: Unit, grant: Grant) -> Refused | None:
            problem = None if takes_back else self._unclosable(principal, present, target, outcome)
            if problem is not None:
                return Refused(problem)
            closed = await work.conn.execute(
                sa.update(disputes)
                .where(disputes.c.id == dispute_id, disputes.c.outcome.is_(None))
                .values(
                    outcome=outcome.value,
                    closed_by=principal.id,
                    closed_at=work.now,
                    closing_reason=closing.reason,
                )
            )
            if closed.rowcount != 1:
                return Refused(Problem("conflict", f"dispute {dispute_id} is closed"))
            told = f"{outcome}: {closing.reason}"
            work.record(_event(grant, AuditKind.DISPUTE_CLOSED, dispute_id, present.grant_id, told))
            await self._follow(work, grant, present.grant_id, outcome, closing.reason)
            return None

        content = f"close dispute {dispute_id}: {outcome}"
        await self._enforcement.perform(principal, action, place, circumstances, content, act)
        return await self._entry(dispute_id)

    async def _follow(
        self, work: Unit, by: Grant, grant_id: str, outcome: DisputeOutcome, reason: str
    ) -> None:
        """What a closing does to the grant, if that was not revoked meanwhile."""
        row = await _running_grant(work.conn, grant_id)
        if row is None:
            return
        if outcome is DisputeOutcome.UPHELD:
            await self._grants.end(work, by, grant_rule(row), f"disputed and upheld; {reason}")
            return
        rule = grant_rule(row, await _void(work, row))
        await self._feed.write(work, lambda engine: engine.set_grant(rule))

    async def _revoked(self, work: Unit, by: Grant, grant_ids: Sequence[str], reason: str) -> None:
        """In the unit that revokes grants: what is still open about them is closed."""
        told = (f"the grant was revoked; {reason}" if reason else "the grant was revoked")[:MAX_REASON]
        for start in range(0, len(grant_ids), CHUNK_ROWS):
            about = disputes.c.grant_id.in_(grant_ids[start : start + CHUNK_ROWS])
            closed = await work.conn.execute(
                sa.update(disputes)
                .where(about, disputes.c.outcome.is_(None))
                .values(
                    outcome=DisputeOutcome.REVOKED.value,
                    closed_by=by.principal.id,
                    closed_at=work.now,
                    closing_reason=told,
                )
                .returning(disputes.c.id, disputes.c.grant_id)
            )
            for dispute_id, grant_id in closed.all():
                text = f"{DisputeOutcome.REVOKED}: {told}"
                work.record(_event(by, AuditKind.DISPUTE_CLOSED, dispute_id, grant_id, text))

    async def visible_to(
        self, principal: Principal, after: str, size: int, *, is_open: bool
    ) -> list[DisputeEntry]:
        """Those one has raised, and those about what one owns or audits by office; in order of id."""
        query = _DISPUTES.order_by(disputes.c.id).limit(CHUNK_ROWS)
        if is_open:
            query = query.where(disputes.c.outcome.is_(None))
        offices: dict[Object, bool] = {}

        def may_see(row: sa.Row[Any]) -> bool:
            target = Object(ObjectKind(row.object_kind), row.object_id)
            if target not in offices:
                offices[target] = self._holds_office(principal.id, target)
            return row.opened_by == principal.id or offices[target]

        found: list[sa.Row[Any]] = []
        async with self._store.read() as conn:
            while len(found) <= size:
                rows: Sequence[sa.Row[Any]] = (await conn.execute(query.where(disputes.c.id > after))).all()
                found += filter(may_see, rows)
                if len(rows) < CHUNK_ROWS:
                    break
                after = rows[-1].id
        return [_entry_of(row) for row in found[: size + 1]]

    def _office(self, user_id: str, target: Object) -> Action:
        """By which office somebody speaks about a grant's object; without one, what he would need."""
        owns = self._enforcement.holds_by_office(user_id, Action.CAMERA_SHARE, target)
        audits = not owns and self._enforcement.holds_by_office(user_id, Action.AUDIT_READ, target)
        return Action.AUDIT_READ if audits else Action.CAMERA_SHARE

    def _holds_office(self, user_id: str, target: Object) -> bool:
        return self._enforcement.holds_by_office(user_id, self._office(user_id, target), target)

    def _unopenable(self, principal: Principal, row: sa.Row[Any], target: Object) -> Problem | None:
        if not self._holds_office(principal.id, target):
            return _refused(DisputeRefusal.BEYOND_OFFICE)
        return _refused(DisputeRefusal.DENIAL) if row.effect != Effect.ALLOW else None

    def _unclosable(
        self, principal: Principal, dispute: sa.Row[Any], target: Object, outcome: DisputeOutcome
    ) -> Problem | None:
        if not self._enforcement.holds_by_office(principal.id, Action.CAMERA_SHARE, target):
            return _refused(DisputeRefusal.BEYOND_OFFICE)
        if principal.id == dispute.opened_by:
            return _refused(DisputeRefusal.OWN_DISPUTE)
        if outcome is DisputeOutcome.DISMISSED and principal.id == dispute.given_by:
            return _refused(DisputeRefusal.OWN_GRANT)
        return None

    async def _target(self, grant_id: str) -> Object:
        """Raises Problem `not_found`."""
        async with self._store.read() as conn:
            row = await _running_grant(conn, grant_id)
        if row is None:
            raise Problem("not_found", grant_id)
        return Object(ObjectKind(row.object_kind), row.object_id)

    async def _row(self, dispute_id: str) -> sa.Row[Any]:
        """Raises Problem `not_found`."""
        async with self._store.read() as conn:
            row = (await conn.execute(_DISPUTES.where(disputes.c.id == dispute_id))).one_or_none()
        if row is None:
            raise Problem("not_found", dispute_id)
        return row

    async def _entry(self, dispute_id: str) -> DisputeEntry:
        return _entry_of(await self._row(dispute_id))


_opener, _closer = users.alias("opener"), users.alias("closer")
_DISPUTES = (
    sa.select(
        disputes,
        grants.c.subject_kind,
        grants.c.subject_id,
        grants.c.object_kind,
        grants.c.object_id,
        grants.c.created_by.label("given_by"),
        _opener.c.display_name.label("opener_name"),
        _closer.c.display_name.label("closer_name"),
    )
    .join(grants, grants.c.id == disputes.c.grant_id)
    .join(_opener, _opener.c.id == disputes.c.opened_by)
    .outerjoin(_closer, _closer.c.id == disputes.c.closed_by)
)


def _entry_of(row: sa.Row[Any]) -> DisputeEntry:
    return DisputeEntry(
        id=row.id,
        grant=row.grant_id,
        subject=f"{row.subject_kind}:{row.subject_id}",
        object=f"{row.object_kind}:{row.object_id}",
        reason=row.reason,
        opened_by=Ref(row.opened_by, row.opener_name),
        opened_at=from_micros(row.opened_at),
        outcome=None if row.outcome is None else DisputeOutcome(row.outcome),
        closed_by=None if row.closed_by is None else Ref(row.closed_by, row.closer_name),
        closed_at=None if row.closed_at is None else from_micros(row.closed_at),
        closing_reason=row.closing_reason,
    )


async def _running_grant(conn: AsyncConnection, grant_id: str) -> sa.Row[Any] | None:
    query = sa.select(grants).where(grants.c.id == grant_id, grants.c.revoked_at.is_(None))
    return (await conn.execute(query)).one_or_none()


async def _is_disputed(conn: AsyncConnection, grant_id: str) -> bool:
    query = sa.select(disputes.c.id).where(disputes.c.grant_id == grant_id, disputes.c.outcome.is_(None))
    return (await conn.execute(query)).first() is not None


async def _void(work: Unit, row: sa.Row[Any]) -> Reason | None:
    """Why a grant that is no longer disputed counts for nothing all the same: as `PolicyFeed.load` does."""
    if not await work.is_sealed((Sealed.GRANT, row.id)):
        return Reason.NOT_IN_LEDGER
    state = await read_policy_state(work.conn, work.seals)
    return None if state is not None and state.epoch == row.epoch else Reason.FROZEN


def _event(by: Grant, kind: AuditKind, dispute_id: str, grant_id: str, told: str) -> AuditEvent:
    event = by.event(kind, f"dispute {dispute_id} of grant {grant_id}: {told}"[:MAX_REASON])
    return msgspec.structs.replace(event, detail={**event.detail, "dispute": dispute_id, "grant": grant_id})


def _refused(reason: DisputeRefusal) -> Problem:
    return Problem("dispute_refused", reason.value, reason=reason.value)
