"""Who is on duty at a video wall: named sign-on, handover, sign-off (谁使用，谁负责).

A wall's account decides what the wall may show; the person on duty answers for it. Every look has one owner:
when the duty passes on or ends, the pictures end, and the wall opens them anew under whoever is on duty then.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.authentication import Authentication
from gateway.catalogue import Ref
from gateway.clock import Clock, from_micros, to_micros
from gateway.enforcement import Enforcement
from gateway.forms import Name
from gateway.jobs import upward
from gateway.live import LiveSessions
from gateway.principals import Duty, Principal, actor_of, person_of, wall_of
from gateway.problems import Problem
from gateway.self_grants import grant_serving
from gateway.store.identifiers import new_id
from gateway.store.schema import departments, duty_sessions, running_sessions, users, viewer_sessions
from gateway.store.store import Store
from gateway.store.unit import Unit
from gateway.undertakings import Undertakings
from policies.access import Action, Object, ObjectKind
from policies.administration import Account

MAX_DUTY = timedelta(hours=12)
_ENDS_PER_UNIT = 100


class DutyEnd(StrEnum):
    """Why a duty is over; told to the viewer as the detail of `duty_over`."""

    HANDOVER = "handover"
    SIGNED_OFF = "signed_off"
    SHIFT_OVER = "shift_over"
    LOGGED_OUT = "logged_out"
    """The wall's account logged out, or in again, perhaps elsewhere."""
    ACCOUNT_DISABLED = "account_disabled"


class DutyRefusal(StrEnum):
    """Why somebody who has proven who he is cannot sign on; the problem's `reason`."""

    NOT_A_PERSON = "not_a_person"
    OTHER_DEPARTMENT = "other_department"
    OWN_GRANT = "own_grant"
    """He gave the wall, or a department of its, access."""
    UNDERTAKING_REQUIRED = "undertaking_required"
    SECOND_FACTOR_REQUIRED = "second_factor_required"


class SignOn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ends_at`: the end of the shift, in at most MAX_DUTY."""

    username: Name
    password: Annotated[str, Meta(min_length=1, max_length=1024)]
    totp: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    ends_at: Annotated[datetime, Meta(tz=True)]

    def __repr__(self) -> str:
        return f"SignOn(username={self.username!r})"


class DutyEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    wall: Ref
    person: Ref
    started_at: datetime
    ends_at: datetime


class Duties:
    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        authentication: Authentication,
        undertakings: Undertakings,
        live: LiveSessions,
        clock: Clock,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._authentication = authentication
        self._undertakings = undertakings
        self._live = live
        self._clock = clock
        authentication.wall_listeners.append(self._logged_in_or_out)

    async def sign_on(self, wall: Principal, new: SignOn, remote: str, request_id: str) -> DutyEntry:
        """Verified and throttled as a log-in, which it is not. Hands over if somebody is on duty.

        Raises Problem `access_denied` (not a wall's log-in), `invalid_field`, `duty_refused` (its `reason`
        is a DutyRefusal), and those of `Authentication.prove`.
        """
        _require_wall(wall)
        now = self._clock()
        if not now < new.ends_at <= now + MAX_DUTY:
            raise Problem("invalid_field", f"ends_at: within {MAX_DUTY // timedelta(hours=1)} hours")
        proven = await self._authentication.prove(new.username, new.password, new.totp, remote)
        person = await self._authentication.principal_of(proven)
        if person is None:  # disabled a moment ago
            raise Problem("invalid_credentials")
        duty = Duty(
            id=new_id(),
            person_id=person.id,
            person_name=person.display_name,
            unit_id=person.department_id,
            unit_name=person.department_name,
            ends_at=to_micros(new.ends_at),
        )

        async def unit(work: Unit) -> DutyEntry | Problem:
            unchanged = sa.select(users.c.id).where(
                users.c.id == person.id, users.c.enabled, users.c.password_hash == proven.row.password_hash
            )
            if (await work.conn.execute(unchanged)).first() is None:
                return Problem("invalid_credentials")
            if (reason := await self._refusal(work, wall, person)) is not None:
                work.record(_refused(wall, person, reason, remote, request_id))
                return Problem("duty_refused", reason.value, reason=reason.value)
            await self._end(work, wall, duty_sessions.c.wall_id == wall.id, DutyEnd.HANDOVER)
            await work.conn.execute(
                sa.insert(duty_sessions).values(
                    id=duty.id,
                    wall_id=wall.id,
                    person_id=person.id,
                    started_at=work.now,
                    ends_at=duty.ends_at,
                )
            )
            work.record(_started(wall, duty, new.ends_at, remote, request_id))
            return DutyEntry(
                id=duty.id,
                wall=Ref(wall.id, wall.display_name),
                person=Ref(person.id, person.display_name),
                started_at=from_micros(work.now),
                ends_at=new.ends_at,
            )

        signed_on = await self._store.run(unit)
        if isinstance(signed_on, Problem):
            raise signed_on
        return signed_on

    async def _refusal(self, work: Unit, wall: Principal, person: Principal) -> DutyRefusal | None:
        if person.kind != "person":
            return DutyRefusal.NOT_A_PERSON
        if person.must_enrol:
            return DutyRefusal.SECOND_FACTOR_REQUIRED
        if wall.department_id not in await upward(work.conn, person.department_id):
            return DutyRefusal.OTHER_DEPARTMENT
        place = Account(user_id=wall.id, department_id=wall.department_id)
        if await grant_serving(work.conn, place, person.id, work.now) is not None:
            return DutyRefusal.OWN_GRANT
        if not self._undertakings.status(person).accepted:
            return DutyRefusal.UNDERTAKING_REQUIRED
        return None

    async def sign_off(self, wall: Principal) -> None:
        """Raises Problem `access_denied` (not a wall's log-in) or `not_found` (nobody is on duty)."""
        _require_wall(wall)

        async def unit(work: Unit) -> int:
            return await self._end(work, wall, duty_sessions.c.wall_id == wall.id, DutyEnd.SIGNED_OFF)

        if not await self._store.run(unit):
            raise Problem("not_found", "nobody is on duty")

    async def end_of(self, work: Unit, by: Principal, user_id: str) -> None:
        """In the unit that disables an account: it is nobody's duty, and no wall, any more."""
        theirs = sa.or_(duty_sessions.c.wall_id == user_id, duty_sessions.c.person_id == user_id)
        await self._end(work, by, theirs, DutyEnd.ACCOUNT_DISABLED)

    async def _logged_in_or_out(self, work: Unit, wall: Principal) -> None:
        await self._end(work, wall, duty_sessions.c.wall_id == wall.id, DutyEnd.LOGGED_OUT)

    async def settle(self) -> None:
        """Write down the shifts that are over; their pictures ended by themselves. Call now and then."""
        now = to_micros(self._clock())
        over = sa.and_(duty_sessions.c.ended_at.is_(None), duty_sessions.c.ends_at <= now)
        query = sa.select(duty_sessions.c.id).where(over).limit(_ENDS_PER_UNIT)
        async with self._store.read() as conn:
            found = list((await conn.execute(query)).scalars())

        async def unit(work: Unit) -> int:
            return await self._end(work, None, duty_sessions.c.id.in_(found), DutyEnd.SHIFT_OVER)

        if found:
            await self._store.run(unit)

    async def _end(
        self, work: Unit, by: Principal | None, which: sa.ColumnElement[bool], reason: DutyEnd
    ) -> int:
        """End those that are not over, and their walls' pictures; return how many. `by` None: time does."""
        rows = (await work.conn.execute(_RUNNING.where(which))).all()
        for row in rows:
            values = {"ended_at": work.now, "end_reason": reason.value}
            await work.conn.execute(
                sa.update(duty_sessions).where(duty_sessions.c.id == row.id).values(**values)
            )
            work.record(_ended(row, reason, by))
            if by is not None:
                work.after_commit(_ending(self._live, row.wall_id, by, reason))
        return len(rows)

    async def list_for(self, principal: Principal) -> list[DutyEntry]:
        """A wall's own; of others, those at walls of departments whose sessions the caller may read."""
        async with self._store.read() as conn:
            rows = (await conn.execute(_RUNNING.order_by(users.c.username_folded))).all()
        may_read: dict[str, bool] = {}
        found = []
        for row in rows:
            place = row.wall_department_id
            if place not in may_read:
                target = Object(ObjectKind.DEPARTMENT, place)
                may_read[place] = self._enforcement.decide(principal.id, Action.SESSION_READ, target).allowed
            if row.wall_id == principal.id or may_read[place]:
                found.append(_entry(row))
        return found


def _require_wall(wall: Principal) -> None:
    if wall.kind != "wall":
        raise Problem("access_denied", "people sign on at a wall, by the wall's own log-in")


_person = users.alias("person")
_unit = departments.alias("unit")
_DUTIES = (
    sa.select(
        duty_sessions,
        users.c.display_name.label("wall_name"),
        users.c.department_id.label("wall_department_id"),
        _person.c.display_name.label("person_name"),
        _unit.c.id.label("unit_id"),
        _unit.c.name.label("unit_name"),
    )
    .join(users, users.c.id == duty_sessions.c.wall_id)
    .join(_person, _person.c.id == duty_sessions.c.person_id)
    .join(_unit, _unit.c.id == _person.c.department_id)
)
_RUNNING = _DUTIES.where(duty_sessions.c.ended_at.is_(None))


async def is_on_duty(conn: AsyncConnection, principal: Principal) -> bool:
    """Whether who was on duty when the request came still is; of anybody but a wall: yes."""
    if principal.kind != "wall":
        return True
    if principal.on_duty is None:
        return False
    query = sa.select(duty_sessions.c.id).where(
        duty_sessions.c.id == principal.on_duty.id, duty_sessions.c.ended_at.is_(None)
    )
    return (await conn.execute(query)).first() is not None


async def stored_duties(conn: AsyncConnection) -> dict[str, tuple[Duty, str | None]]:
    """Of the sessions that the database says are not over, by the duty's id: the duty, and why it is over."""
    looking = sa.select(viewer_sessions.c.duty_id).where(running_sessions)
    rows = await conn.execute(_DUTIES.where(duty_sessions.c.id.in_(looking)))
    return {row.id: (_duty_of(row), row.end_reason) for row in rows}


def _duty_of(row: Any) -> Duty:
    return Duty(
        id=row.id,
        person_id=row.person_id,
        person_name=row.person_name,
        unit_id=row.unit_id,
        unit_name=row.unit_name,
        ends_at=row.ends_at,
    )


def _entry(row: Any) -> DutyEntry:
    return DutyEntry(
        id=row.id,
        wall=Ref(row.wall_id, row.wall_name),
        person=Ref(row.person_id, row.person_name),
        started_at=from_micros(row.started_at),
        ends_at=from_micros(row.ends_at),
    )


def _ending(live: LiveSessions, wall_id: str, by: Principal, reason: DutyEnd) -> Callable[[], None]:
    return lambda: live.end_duty(wall_id, by, reason.value)


def _started(wall: Principal, duty: Duty, ends_at: datetime, remote: str, request_id: str) -> AuditEvent:
    until = ends_at.isoformat(timespec="seconds")
    return AuditEvent(
        kind=AuditKind.DUTY_START,
        outcome=Outcome.OK,
        content=f"on duty at {wall.display_name} ({wall.id}) until {until}",
        **person_of(duty),
        resource=f"wall:{wall.id}",
        remote=remote,
        request_id=request_id,
        detail={**wall_of(wall.id, duty), "ends_at": until},
    )


def _ended(row: Any, reason: DutyEnd, by: Principal | None) -> AuditEvent:
    return AuditEvent(
        kind=AuditKind.DUTY_END,
        outcome=Outcome.OK,
        content=f"no longer on duty at {row.wall_name} ({row.wall_id})",
        **person_of(_duty_of(row)),
        resource=f"wall:{row.wall_id}",
        reason=reason.value,
        detail={**wall_of(row.wall_id, _duty_of(row)), "ended_by": "" if by is None else by.id},
    )


def _refused(
    wall: Principal, person: Principal, reason: DutyRefusal, remote: str, request_id: str
) -> AuditEvent:
    return AuditEvent(
        kind=AuditKind.DECISION,
        outcome=Outcome.DENY,
        content=f"sign on at {wall.display_name} ({wall.id})",
        **actor_of(person),
        resource=f"wall:{wall.id}",
        reason=reason.value,
        remote=remote,
        request_id=request_id,
    )
