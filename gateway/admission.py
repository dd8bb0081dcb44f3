"""How much may run at once, and who gives way. Tested inside the transaction that opens a session, so no race
passes a limit.

The store's writer holds the ledger's head row while a unit runs, on every database and on every node: two
openings are never counted at the same time.

A session counts in the limits of its user, of its camera, of each role and of the department that the user
had when it was opened, and in the installation's two: sessions and reserved bandwidth, which follows what its
stream is measured at (`gateway.reservations`). An analysis counts in the installation's only. It gives way to
nobody, since it would end for good with nobody there to see it, and nobody gives way to it: `analyses.total`
bounds what analyses take.

Where a grant obliges to `max_concurrent`, the sessions and analyses that it let in count in a limit of its
own; one that goes on under another grant still counts in the one that let it in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.live_session import DEFAULT_PRIORITY, LiveSession
from gateway.problems import Problem
from gateway.store.schema import running_sessions, viewer_sessions
from gateway.store.unit import Unit

ANALYSIS_PROTOCOL = "analysis"
"""The protocol of a session that nobody watches."""
DEFAULT_CAMERA_BPS = 4_000_000
"""What a camera counts that was never measured and declared nothing."""
RETRY_AFTER_SECONDS = 5

Bound = Annotated[int, Meta(ge=0)]
Priority = Annotated[int, Meta(ge=0, le=100)]


@dataclass(frozen=True)
class PrioritySettings:
    """What a role's name or a purpose's code gives, 0 to 100; the highest counts."""

    roles: Mapping[str, Priority] = field(default_factory=dict)
    purposes: Mapping[str, Priority] = field(default_factory=dict)


@dataclass(frozen=True)
class AdmissionSettings:
    """Of departments, roles and cameras, 0 means no bound; `departments`, `roles`, `cameras`: exceptions by
    name. `waiting`: how many may wait for a place.
    """

    sessions_total: int = 3000
    sessions_per_user: int = 16
    sessions_per_department: int = 0
    sessions_per_role: int = 0
    sessions_per_camera: int = 0
    bandwidth_bps: int = 12_000_000_000
    waiting: int = 100
    departments: Mapping[str, Bound] = field(default_factory=dict)
    roles: Mapping[str, Bound] = field(default_factory=dict)
    cameras: Mapping[str, Bound] = field(default_factory=dict)
    priorities: PrioritySettings = PrioritySettings()


class LimitKind(StrEnum):
    """The problem's code when the limit is full. In the order in which limits are tested."""

    USER = "limit_sessions_user"
    CAMERA = "limit_sessions_camera"
    GRANT = "limit_sessions_grant"
    ROLE = "limit_sessions_role"
    DEPARTMENT = "limit_sessions_department"
    TOTAL = "limit_sessions_total"
    BANDWIDTH = "limit_bandwidth"


class Limit(NamedTuple):
    """`name`: of the user, camera, grant, role or department; empty for the installation's."""

    kind: LimitKind
    name: str = ""


class LimitProblem(Problem):
    """A limit is full. It says how many sessions (or bit/s) run, and of nobody whose they are."""

    def __init__(self, limit: Limit, running: int, bound: int) -> None:
        name = f" of {limit.name}" if limit.kind in {LimitKind.ROLE, LimitKind.DEPARTMENT} else ""
        unit = "bit/s reserved" if limit.kind is LimitKind.BANDWIDTH else "sessions running"
        super().__init__(
            limit.kind.value,
            f"{running} of {bound} {unit}{name}",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            running=running,
            bound=bound,
        )
        self.limit = limit


@dataclass(frozen=True, kw_only=True)
class Preempted:
    """A session that gave its place away, and the limit that it was needed for."""

    session_id: str
    limit: Limit
    counts_in: frozenset[Limit]
    reserved_bps: int

    def weight(self, limit: Limit) -> int:
        """What its end gives back of a limit: bit/s of bandwidth, a place of the others."""
        if limit not in self.counts_in:
            return 0
        return self.reserved_bps if limit.kind is LimitKind.BANDWIDTH else 1


class Admission:
    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings

    def priority_of(self, roles: Iterable[str], purpose: str) -> int:
        """The highest that a role or the purpose gives; DEFAULT_PRIORITY if none gives any."""
        by_role, by_purpose = self._settings.priorities.roles, self._settings.priorities.purposes
        given = [by_role[role] for role in roles if role in by_role]
        if purpose in by_purpose:
            given.append(by_purpose[purpose])
        return max(given, default=DEFAULT_PRIORITY)

    def bound(self, limit: Limit) -> int | None:
        """How many sessions, or bit/s, the limit allows; None: any. A grant's bound is its own to say."""
        settings = self._settings
        bound = 0
        match limit.kind:
            case LimitKind.USER:
                return settings.sessions_per_user
            case LimitKind.TOTAL:
                return settings.sessions_total
            case LimitKind.BANDWIDTH:
                return settings.bandwidth_bps
            case LimitKind.CAMERA:
                bound = settings.cameras.get(limit.name, settings.sessions_per_camera)
            case LimitKind.ROLE:
                bound = settings.roles.get(limit.name, settings.sessions_per_role)
            case LimitKind.DEPARTMENT:
                bound = settings.departments.get(limit.name, settings.sessions_per_department)
            case LimitKind.GRANT:
                pass
        return bound or None

    async def admit(self, work: Unit, session: LiveSession) -> list[Preempted] | LimitProblem:
        """Test the limits that one more session would count in; return who gives way to it, mostly nobody.

        Where a limit is full, the sessions in it of strictly lower priority give way, the lowest and among
        equals the newest first, as many as it takes; their rows are marked and count no more. If that does
        not suffice, nothing is marked, and the limit comes back as a problem. Narrow limits are tested
        first: whoever leaves one leaves the installation's too.
        """
        bounds = {
            limit: bound
            for limit in limits_of(session)
            if (bound := _obliged(limit, session) or self.bound(limit)) is not None
        }
        running, lowest = await _running(work.conn, bounds)
        may_preempt = not session.unattended and lowest is not None and lowest < session.priority
        leaving: list[Preempted] = []
        for limit, bound in bounds.items():
            asked = session.reserved_bps if limit.kind is LimitKind.BANDWIDTH else 1
            excess = running[limit] + asked - bound - sum(other.weight(limit) for other in leaving)
            if excess <= 0:
                continue
            found = await _lowest(work.conn, limit, excess, session, leaving) if may_preempt else []
            if sum(other.weight(limit) for other in found) < excess:
                return LimitProblem(limit, running[limit], bound)
            leaving += found
        if leaving:
            await work.conn.execute(
                sa.update(viewer_sessions)
                .where(viewer_sessions.c.id.in_([other.session_id for other in leaving]))
                .values(preempted_at=work.now, ended_by=session.id)
            )
        return leaving


def limits_of(session: LiveSession) -> tuple[Limit, ...]:
    """The limits that a session counts in, the narrow ones first."""
    return _limits(
        session.user_id,
        session.camera_id,
        session.roles,
        session.unit_id,
        session.admitted_by if session.max_concurrent is not None else None,
        unattended=session.unattended,
    )


def roles_text(roles: Iterable[str]) -> str:
    """A session's roles as its row keeps them: each between two spaces, which no role's name contains."""
    return "".join(f" {role} " for role in roles)


def _obliged(limit: Limit, session: LiveSession) -> int | None:
    return session.max_concurrent if limit.kind is LimitKind.GRANT else None


def _limits(
    user_id: str,
    camera_id: str,
    roles: Iterable[str],
    department_id: str,
    grant_id: str | None,
    *,
    unattended: bool = False,
) -> tuple[Limit, ...]:
    grant = () if grant_id is None else (Limit(LimitKind.GRANT, grant_id),)
    installation = (Limit(LimitKind.TOTAL), Limit(LimitKind.BANDWIDTH))
    if unattended:
        return (*grant, *installation)
    return (
        Limit(LimitKind.USER, user_id),
        Limit(LimitKind.CAMERA, camera_id),
        *grant,
        *(Limit(LimitKind.ROLE, role) for role in roles),
        Limit(LimitKind.DEPARTMENT, department_id),
        *installation,
    )


_counted = sa.and_(running_sessions, viewer_sessions.c.preempted_at.is_(None))
_attended = sa.func.coalesce(viewer_sessions.c.protocol, "") != ANALYSIS_PROTOCOL


def _is_in(limit: Limit) -> sa.ColumnElement[bool]:
    """Whether a row of `viewer_sessions` that counts at all counts in the limit."""
    match limit.kind:
        case LimitKind.USER:
            return sa.and_(viewer_sessions.c.user_id == limit.name, _attended)
        case LimitKind.CAMERA:
            return sa.and_(viewer_sessions.c.camera_id == limit.name, _attended)
        case LimitKind.GRANT:
            return viewer_sessions.c.rule == limit.name
        case LimitKind.ROLE:
            return sa.and_(viewer_sessions.c.roles.contains(roles_text([limit.name])), _attended)
        case LimitKind.DEPARTMENT:
            return sa.and_(viewer_sessions.c.department_id == limit.name, _attended)
        case LimitKind.TOTAL | LimitKind.BANDWIDTH:
            return sa.true()


def _weight(limit: Limit) -> sa.ColumnElement[int]:
    return viewer_sessions.c.reserved_bps if limit.kind is LimitKind.BANDWIDTH else sa.literal(1)


async def _running(conn: AsyncConnection, limits: Iterable[Limit]) -> tuple[Mapping[Limit, int], int | None]:
    """What counts in each limit now, and the lowest priority that could give way: one pass over what runs."""
    limits = tuple(limits)
    counts = [
        sa.func.coalesce(sa.func.sum(viewer_sessions.c.reserved_bps), 0)
        if limit.kind is LimitKind.BANDWIDTH
        else sa.func.count().filter(_is_in(limit))
        for limit in limits
    ]
    lowest = sa.func.min(viewer_sessions.c.priority).filter(_attended)
    *values, priority = (await conn.execute(sa.select(*counts, lowest).where(_counted))).one()
    return {limit: int(value) for limit, value in zip(limits, values, strict=True)}, priority


async def _lowest(
    conn: AsyncConnection, limit: Limit, excess: int, session: LiveSession, leaving: Iterable[Preempted]
) -> list[Preempted]:
    """The first in the order of giving way whose weights reach `excess`; all of them if they do not."""
    columns = viewer_sessions.c
    order = (columns.priority, columns.opened_at.desc(), columns.id.desc())
    reached = sa.func.sum(_weight(limit)).over(order_by=order, rows=(None, 0))
    candidates = (
        sa.select(
            columns.id,
            columns.user_id,
            columns.camera_id,
            columns.roles,
            columns.department_id,
            columns.rule,
            columns.reserved_bps,
            (reached - _weight(limit)).label("before"),
        )
        .where(
            _counted,
            _attended,
            _is_in(limit),
            columns.priority < session.priority,
            columns.id.not_in([other.session_id for other in leaving]),
        )
        .subquery()
    )
    rows = await conn.execute(
        sa.select(candidates).where(candidates.c.before < excess).order_by(candidates.c.before)
    )
    return [_preempted(row, limit) for row in rows]


def _preempted(row: sa.Row[Any], limit: Limit) -> Preempted:
    return Preempted(
        session_id=row.id,
        limit=limit,
        counts_in=frozenset(
            _limits(row.user_id, row.camera_id, (row.roles or "").split(), row.department_id, row.rule)
        ),
        reserved_bps=row.reserved_bps,
    )
