"""Viewing sessions in the database: what is written when one opens, moves and ends, and how one is read."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.admission import ANALYSIS_PROTOCOL, roles_text
from gateway.audit.records import AuditKind
from gateway.clock import from_micros, to_micros
from gateway.enforcement import Purpose
from gateway.live_session import LiveSession, SessionState
from gateway.store.schema import departments, running_sessions, users, viewer_sessions
from gateway.store.unit import Unit
from policies.access import Action, Obligations


def opened_row(session: LiveSession, obligations: Obligations) -> dict[str, object]:
    """What a session is in the database when it opens, apart from its ticket."""
    return {
        "id": session.id,
        "user_id": session.user_id,
        "department_id": session.unit_id,
        "camera_id": session.camera_id,
        "action": session.action.value,
        "purpose_code": session.purpose.code,
        "purpose_reference": session.purpose.reference,
        "purpose_note": session.purpose.note,
        "rule": session.rule,
        "revision": session.revision,
        "obligations": msgspec.to_builtins(obligations),
        "state": session.state.value,
        "opened_at": to_micros(session.opened_at),
        "expires_at": _micros(session.expires_at),
        "decided_until": _micros(session.decided_until),
        "confirm_by": _micros(session.confirm_by),
        "owner_id": session.owner_id,
        "bytes_sent": 0,
        "protocol": session.protocol,
        "remote": session.remote,
        "stream": session.stream,
        "reserved_bps": session.reserved_bps,
        "roles": roles_text(session.roles),
        "priority": session.priority,
        "duty_id": None if session.duty is None else session.duty.id,
    }


async def running_rows(conn: AsyncConnection) -> Sequence[sa.Row[tuple[object, ...]]]:
    """The sessions that are not over, each with its user and his department: for `restored`."""
    query = (
        sa.select(
            viewer_sessions,
            users.c.display_name,
            users.c.kind,
            users.c.networks,
            departments.c.id.label("unit_id"),
            departments.c.name.label("unit_name"),
        )
        .join(users, users.c.id == viewer_sessions.c.user_id)
        .join(departments, departments.c.id == users.c.department_id)
        .where(running_sessions)
    )
    return (await conn.execute(query)).all()


def restored(row: sa.Row[tuple[object, ...]], deadline: datetime) -> LiveSession:
    """A session that an earlier control left, with its user; `deadline`: for its worker to come back."""
    unattended = row.protocol == ANALYSIS_PROTOCOL
    return LiveSession(
        id=row.id,
        user_id=row.user_id,
        user_name=row.display_name,
        unit_id=row.unit_id,
        unit_name=row.unit_name,
        camera_id=row.camera_id,
        action=Action(row.action),
        purpose=Purpose(code=row.purpose_code, reference=row.purpose_reference, note=row.purpose_note),
        rule=row.rule,
        revision=row.revision,
        opened_at=from_micros(row.opened_at),
        state=SessionState(row.state),
        deadline=None if unattended else deadline,
        expires_at=_instant(row.expires_at),
        decided_until=_instant(row.decided_until),
        confirm_by=_instant(row.confirm_by),
        owner_id=row.owner_id,
        unattended=unattended,
        protocol=row.protocol,
        remote=row.remote,
        bytes_before=row.bytes_sent,
        stream=row.stream,
        reserved_bps=row.reserved_bps,
        admitted_by=row.rule,
        max_concurrent=row.obligations.get("max_concurrent"),
        roles=tuple((row.roles or "").split()),
        priority=row.priority,
        networks=tuple(row.networks or ()) if row.kind == "job" else None,
    )


async def keep_edges(edges: list[tuple[str, datetime | None]], work: Unit) -> None:
    """When the decisions under these sessions may change by themselves."""
    if edges:
        await work.conn.execute(
            sa.update(viewer_sessions)
            .where(viewer_sessions.c.id == sa.bindparam("session_id"))
            .values(decided_until=sa.bindparam("until")),
            [{"session_id": each, "until": _micros(at)} for each, at in edges],
        )


async def write_ends(batch: list[LiveSession], now: int, work: Unit) -> None:
    """Sessions that are over, with the record of each."""
    await work.conn.execute(
        sa.update(viewer_sessions)
        .where(viewer_sessions.c.id == sa.bindparam("session_id"))
        .values(
            state=SessionState.ENDED.value,
            ended_at=now,
            ticket_hash=None,
            end_reason=sa.bindparam("reason"),
            ended_by=sa.bindparam("by"),
            ended_by_unit=sa.bindparam("unit"),
            end_detail=sa.bindparam("detail"),
            bytes_sent=sa.bindparam("sent"),
        ),
        [
            {
                "session_id": s.id,
                "reason": str(s.ending),
                "by": s.ended_by,
                "unit": s.ended_by_unit,
                "detail": s.end_detail,
                "sent": s.bytes_sent,
            }
            for s in batch
        ],
    )
    for session in batch:
        if session.is_in_batch:
            continue
        work.record(
            session.event(
                AuditKind.SESSION_END,
                "ended",
                reason=str(session.ending),
                detail={
                    "bytes_sent": session.bytes_sent,
                    "dropped_access_units": session.dropped_access_units,
                    "ended_by": session.ended_by or "",
                    "ended_by_unit": session.ended_by_unit,
                    "end_detail": session.end_detail,
                },
            )
        )


def _micros(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
