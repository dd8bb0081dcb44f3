"""Viewing sessions: opened from a Grant only, started by a single-use ticket.

Opening is one unit of the store: decide, test every limit, insert the session with its reserved bandwidth
and the ticket's hash, record. `gateway.tickets` redeems, and gives another ticket; what happens afterwards is
`gateway.live`.
"""

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from gateway.admission import (
    ANALYSIS_PROTOCOL,
    DEFAULT_CAMERA_BPS,
    Admission,
    LimitProblem,
    Preempted,
)
from gateway.audit.records import AuditKind, DetailValue
from gateway.authentication import is_logged_in, token_hash
from gateway.clock import Clock, to_micros
from gateway.duty import is_on_duty, stored_duties
from gateway.enforcement import Circumstances, Enforcement, Grant, Purpose, Refused
from gateway.live import LiveSessions
from gateway.live_session import (
    EndReason,
    LiveSession,
    OpenedSession,
    SessionState,
    opened_session,
    start_record,
)
from gateway.messages import stream_key
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.session_rows import opened_row, restored, running_rows
from gateway.store.schema import cameras, viewer_sessions
from gateway.store.store import Store
from gateway.store.unit import Unit
from gateway.waiting import WaitingRoom
from policies.access import Action, Object, ObjectKind

CONFIRM_GRAIN = 30
"""To confirm again within such a fraction of `confirm_seconds` changes and records nothing."""


@dataclass(frozen=True)
class SessionSettings:
    """`confirm_seconds`: a picture that nobody confirms for so long ends; 0: none has to be confirmed."""

    ticket_seconds: int = 30
    lost_seconds: int = 15
    max_duration_seconds: int = 8 * 3600
    confirm_seconds: int = 1800


class ViewerSessions:
    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        admission: Admission,
        waiting: WaitingRoom,
        live: LiveSessions,
        bit_rate: Callable[[str], int | None],
        settings: SessionSettings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._admission = admission
        self._waiting = waiting
        self._live = live
        self._bit_rate = bit_rate
        self._settings = settings
        self._clock = clock

    async def open(
        self,
        principal: Principal,
        camera_id: str,
        action: Action,
        circumstances: Circumstances,
        stream: str = "main",
        wait_seconds: float = 0,
    ) -> OpenedSession:
        """Raises Problem `access_denied`, `camera_disabled`, `no_sub_stream` or the limit that is full.

        While a limit is full, waits for up to `wait_seconds` and decides again whenever it may have room.
        The ledger gets the decision that made the caller wait and the one that ended the waiting; one that
        changed nothing is rolled back with its record, or waiting would fill the ledger.
        """

        async def attempt(is_first: bool) -> OpenedSession:
            async def act(work: Unit, grant: Grant) -> OpenedSession | Refused:
                opened = await self.insert(work, grant, stream=stream)
                if isinstance(opened, Refused) and isinstance(opened.problem, LimitProblem) and not is_first:
                    raise opened.problem
                return opened

            return await self._enforcement.perform(
                principal,
                action,
                Object(ObjectKind.CAMERA, camera_id),
                circumstances,
                f"{action} of camera {camera_id}",
                act,
            )

        priority = self._priority(principal, circumstances)
        return await self._waiting.ask(attempt, principal.id, priority, wait_seconds)

    async def insert(
        self,
        work: Unit,
        grant: Grant,
        *,
        stream: str = "main",
        unattended: bool = False,
        is_in_batch: bool = False,
    ) -> OpenedSession | Refused:
        """The part of the unit that follows the decision. `unattended`: an analysis, started at once.

        `is_in_batch`: see LiveSession.
        """
        camera_id = grant.target.id
        # a later log-in ends what ran when it came, and this did not run yet
        if not await is_logged_in(work.conn, grant.principal, grant.at):
            return Refused(Problem("not_authenticated"))
        camera = (
            await work.conn.execute(
                sa.select(
                    cameras.c.name, cameras.c.enabled, cameras.c.declared_bandwidth_bps, cameras.c.sub_url
                ).where(cameras.c.id == camera_id)
            )
        ).one_or_none()
        if camera is None or not camera.enabled:
            return Refused(Problem("camera_disabled", camera_id))
        if stream == "sub" and camera.sub_url is None:
            return Refused(Problem("no_sub_stream", camera_id))
        bit_rate = (
            self._bit_rate(stream_key(camera_id, stream))
            or (camera.declared_bandwidth_bps if stream == "main" else None)
            or DEFAULT_CAMERA_BPS
        )
        if not await is_on_duty(work.conn, grant.principal):
            return Refused(Problem("nobody_on_duty"))
        ticket = secrets.token_urlsafe(24)
        session = self._live_session(grant, stream, None if unattended else ticket)
        session.reserved_bps = bit_rate
        session.is_in_batch = is_in_batch
        admitted = await self._admission.admit(work, session)
        if isinstance(admitted, LimitProblem):
            return Refused(admitted)
        await work.conn.execute(
            sa.insert(viewer_sessions).values(
                **opened_row(session, grant.obligations),
                ticket_hash=None if unattended else token_hash(ticket),
                ticket_expires_at=to_micros(session.deadline) if session.deadline else None,
                started_at=to_micros(grant.at) if unattended else None,
            )
        )
        if unattended:
            work.record(start_record(session))
        work.after_commit(lambda: self._begin(session, admitted))
        return opened_session(session, camera.name, ticket, grant.obligations)

    def _begin(self, session: LiveSession, preempted: list[Preempted]) -> None:
        self._live.add(session)
        for other in preempted:
            self._live.end(
                other.session_id,
                EndReason.PREEMPTED,
                by=session.id,
                detail=other.limit.kind.value,
                by_unit=session.unit_name,
            )

    def _priority(self, principal: Principal, circumstances: Circumstances) -> int:
        purpose = circumstances.purpose
        return self._admission.priority_of(_roles(principal), purpose.code if purpose else "")

    def _live_session(self, grant: Grant, stream: str, ticket: str | None) -> LiveSession:
        unattended = ticket is None
        principal, decision, settings = grant.principal, grant.decision, self._settings
        purpose = grant.circumstances.purpose or Purpose(code="")
        limits = [purpose.max_seconds]
        if not unattended:
            limits += [settings.max_duration_seconds, grant.obligations.max_duration_seconds]
        seconds = min(filter(None, limits), default=None)
        is_confirmed = not unattended and principal.kind != "job" and settings.confirm_seconds > 0
        return LiveSession(
            id=uuid.uuid4().hex,
            user_id=principal.id,
            user_name=principal.display_name,
            unit_id=principal.department_id,
            unit_name=principal.department_name,
            camera_id=grant.target.id,
            action=grant.action,
            purpose=purpose,
            rule=decision.rule,
            revision=decision.revision,
            opened_at=grant.at,
            state=SessionState.ACTIVE if unattended else SessionState.OPENED,
            deadline=None if unattended else grant.at + timedelta(seconds=settings.ticket_seconds),
            expires_at=None if seconds is None else grant.at + timedelta(seconds=seconds),
            decided_until=decision.expires_at,
            confirm_by=grant.at + timedelta(seconds=settings.confirm_seconds) if is_confirmed else None,
            owner_id=grant.owner_id,
            unattended=unattended,
            roles=_roles(principal),
            admitted_by=decision.rule,
            max_concurrent=grant.obligations.max_concurrent,
            priority=self._priority(principal, grant.circumstances),
            protocol=ANALYSIS_PROTOCOL if unattended else None,
            remote=grant.circumstances.remote,
            stream=stream,
            ticket=ticket,
            duty=principal.on_duty,
            networks=principal.networks,
        )

    async def confirm(self, principal: Principal, session_id: str) -> datetime | None:
        """The viewer still looks. Returns until when he need not say so again; None: never.

        Raises Problem `not_found` or `session_over`.
        """
        live = self._live.get(session_id)
        if live is None or live.user_id != principal.id:
            raise Problem("not_found", session_id)
        if live.ending is not None:
            raise Problem("session_over", session_id)
        extent = timedelta(seconds=self._settings.confirm_seconds)
        confirm_by = self._clock() + extent
        if live.confirm_by is None or confirm_by - live.confirm_by <= extent / CONFIRM_GRAIN:
            return live.confirm_by

        async def unit(work: Unit) -> bool:
            changed = await work.conn.execute(
                sa.update(viewer_sessions)
                .where(
                    viewer_sessions.c.id == session_id,
                    viewer_sessions.c.state != SessionState.ENDED.value,
                )
                .values(confirm_by=to_micros(confirm_by))
            )
            if changed.rowcount != 1:
                return False
            detail: dict[str, DetailValue] = {"confirm_by": to_micros(confirm_by)}
            work.record(live.event(AuditKind.SESSION_CONFIRMED, "confirmed", detail=detail))
            work.after_commit(lambda: self._confirmed(live, confirm_by))
            return True

        if not await self._store.run(unit) or live.ending is not None:
            raise Problem("session_over", session_id)
        return confirm_by

    def _confirmed(self, live: LiveSession, confirm_by: datetime) -> None:
        live.confirm_by = confirm_by

    async def end_other(
        self, principal: Principal, session: LiveSession, circumstances: Circumstances
    ) -> None:
        """End somebody else's session. Raises Problem `access_denied`."""

        async def act(work: Unit, _: Grant) -> None:
            work.after_commit(
                lambda: self._live.end(
                    session.id,
                    EndReason.ENDED_BY_ADMINISTRATOR,
                    by=principal.id,
                    by_unit=principal.department_name,
                )
            )

        await self._enforcement.perform(
            principal,
            Action.SESSION_END,
            Object(ObjectKind.CAMERA, session.camera_id),
            circumstances,
            f"end session {session.id}",
            act,
        )

    async def load(self) -> None:
        """Take over what the database says is not over. Call once, before `LiveSessions.run`."""
        async with self._store.read() as conn:
            rows = await running_rows(conn)
            duties = await stored_duties(conn)
        for row in rows:
            session = restored(row, self._clock() + timedelta(seconds=self._settings.lost_seconds))
            session.duty, duty_end = duties.get(row.duty_id, (None, None))
            self._live.add(session)
            if duty_end is not None:
                self._live.end(row.id, EndReason.DUTY_OVER, detail=duty_end)
            if row.preempted_at is not None:
                self._live.end(row.id, EndReason.PREEMPTED, by=row.ended_by)


def _roles(principal: Principal) -> tuple[str, ...]:
    return tuple(sorted({held.role for held in principal.roles}))
