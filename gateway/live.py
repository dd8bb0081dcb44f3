"""What runs now: the index of viewing sessions, and the one task that ends them.

The database row is the truth; this index is built from it at the start and follows each commit.

    opened ──ticket redeemed──▶ active ──connection lost──▶ lost ──new ticket──▶ opened
       │                          │                           │
       └── 30 s without start ────┴──── ended, revoked, ... ──┴── 15 s without return ──▶ ended

To end a session is to tell its worker at once, to wait a moment for the last byte count, and then to write
the end record. All records that are due are written as one unit; what cannot be written is tried again, and
until then its slot counts as taken. Telling never waits for writing. What was decided before control's own
start is decided again after it; a worker that shows what control does not know of is told to stop.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from gateway.causes import Causes
from gateway.clock import Clock, to_micros
from gateway.enforcement import Enforcement
from gateway.live_session import EndReason, LiveSession, SessionState, end_reason_of
from gateway.messages import End, RunningSession, SessionOver, SessionUsage, ToWorker
from gateway.principals import Principal
from gateway.session_rows import keep_edges, write_ends
from gateway.start_up import StartUp
from gateway.store.errors import StoreError
from gateway.store.store import Store
from policies.access import Object, ObjectKind, Reason

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
REDECIDE_CHUNK = 200
"""Sessions re-decided between two turns of the event loop: a few ms of work."""
END_RECORDS_PER_UNIT = 500
EDGES_PER_UNIT = 500
LAST_COUNT_SECONDS = 1.0
"""How long a worker may take to report the last bytes of a session that it was told to end."""
WORKER_GRACE_SECONDS = 10.0
"""How long a session waits for its vanished worker, or for any worker after control's own start."""


_REVOKING = {
    Reason.GRANT_EXPIRED: EndReason.EXPIRED,
    Reason.PRINCIPAL_EXPIRED: EndReason.EXPIRED,
    Reason.UNKNOWN_RESOURCE: EndReason.CAMERA_GONE,
    Reason.DISPUTED: EndReason.DISPUTED,
}
_WHAT_TIME_ENDED = {EndReason.EXPIRED: "max_duration", EndReason.DUTY_OVER: "shift_over"}


class Workers(Protocol):
    """The relay workers; a message to one that is gone is dropped."""

    def send(self, worker: int, message: ToWorker) -> None: ...


class LiveSessions:
    """Owned by control's composition root; `run` lives as long as control does."""

    def __init__(
        self,
        start_up: StartUp,
        store: Store,
        enforcement: Enforcement,
        workers: Workers,
        causes: Causes,
        lost_seconds: float,
        clock: Clock,
    ) -> None:
        self._start_up = start_up
        self._store = store
        self._enforcement = enforcement
        self._workers = workers
        self._causes = causes
        self._lost_for = timedelta(seconds=lost_seconds)
        self._clock = clock
        self._sessions: dict[str, LiveSession] = {}
        self._pids: dict[int, int] = {}
        self._over: dict[str, LiveSession] = {}
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()
        self._written = asyncio.Event()
        self._moved: set[str] = set()
        self._edges_moved = asyncio.Event()
        self._decided_revision: int | None = None
        self._is_outdated = False
        self.ending_listeners: list[Callable[[LiveSession], None]] = []
        """Called when a session's end begins: it must stop now, recorded or not."""
        self.listeners: list[Callable[[LiveSession], None]] = []
        """Called when a session's end is durable."""

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def decided_revision(self) -> int | None:
        """Under which every session is decided, its worker told; None if some are to be decided again."""
        return self._decided_revision

    def get(self, session_id: str) -> LiveSession | None:
        return self._sessions.get(session_id)

    def all(self) -> Iterable[LiveSession]:
        return self._sessions.values()

    def add(self, session: LiveSession) -> None:
        """After the commit that opened it. Decided before a later revision? Then it is decided again."""
        self._sessions[session.id] = session
        if session.revision != self._enforcement.revision:
            self._decide_all_again()

    def policy_changed(self) -> None:
        self._wake.set()

    def _decide_all_again(self) -> None:
        self._decided_revision = None
        self._is_outdated = True
        self._wake.set()

    # ---- what workers report -------------------------------------------------------------------------

    def report_usage(self, worker: int, usage: Iterable[SessionUsage]) -> None:
        """Keep the counts. What should not run there any more is told to stop, perhaps once more."""
        for entry in usage:
            session = self._sessions.get(entry.session)
            if session is None:
                self._workers.send(worker, _end_of(entry.session, EndReason.WORKER_LOST))
            elif session.worker != worker:
                self._workers.send(worker, _end_of(entry.session, EndReason.REPLACED))
            else:
                session.report(entry.bytes_sent, entry.dropped_access_units)
                if session.ending is not None:
                    self._workers.send(
                        worker,
                        _end_of(session.id, session.ending, session.end_detail, session.ended_by_unit),
                    )

    def report_over(self, worker: int, report: SessionOver) -> None:
        session = self._sessions.get(report.session)
        if session is None or session.worker != worker:
            return
        session.report(report.bytes_sent, report.dropped_access_units)
        session.reader_over()
        is_reopened = session.state is SessionState.OPENED and session.ending is None
        if is_reopened or report.reason == EndReason.REPLACED:
            return
        session.worker = None
        if session.ending is None and report.lost:
            session.state = SessionState.LOST
            session.deadline = self._clock() + self._lost_for
            return
        self._finish(session, session.ending or end_reason_of(report.reason))

    def adopt(self, worker: int, pid: int, running: Iterable[RunningSession]) -> list[str]:
        """A worker says hello: returns the sessions that it must end: not ours any more, or on another."""
        self._begin_process(worker, pid)
        unknown = []
        announced = set()
        for entry in running:
            session = self._sessions.get(entry.session)
            if session is None or session.unattended or session.worker not in {None, worker}:
                unknown.append(entry.session)
                continue
            announced.add(entry.session)
            session.worker = worker
            session.report(entry.bytes_sent)
            if session.ending is not None or session.state is SessionState.OPENED:
                unknown.append(entry.session)
                continue
            session.state = SessionState.ACTIVE
            session.deadline = None
        for session in self._of_worker(worker):
            if session.id not in announced:
                session.deadline = self._clock()
        return unknown

    def _begin_process(self, worker: int, pid: int) -> None:
        """What readers of the process before it had sent is final: nobody is left to report more of it."""
        if self._pids.get(worker) != pid:
            self._pids[worker] = pid
            for session in self._sessions.values():
                if session.worker == worker:
                    session.reader_over()

    def worker_gone(self, worker: int) -> None:
        deadline = self._clock() + timedelta(seconds=WORKER_GRACE_SECONDS)
        for session in self._of_worker(worker):
            session.deadline = deadline

    def _of_worker(self, worker: int) -> list[LiveSession]:
        """The sessions whose media that worker sends, or should."""
        return [
            session
            for session in self._sessions.values()
            if session.worker == worker
            and session.state is SessionState.ACTIVE
            and session.ending is None
            and not session.unattended
        ]

    # ---- ending --------------------------------------------------------------------------------------

    def end(
        self,
        session_id: str,
        reason: EndReason,
        by: str | None = None,
        detail: str = "",
        *,
        by_unit: str = "",
    ) -> None:
        """End a session now. Its worker is told at once; the record follows within a second.

        `by`: the user, or the session that it gives way to, for the ledger. `by_unit`: the name of their
        unit, which the viewer is told.
        """
        session = self._sessions.get(session_id)
        if session is None or session.ending is not None:
            return
        session.ended_by, session.ended_by_unit, session.end_detail = by, by_unit, detail
        self._begin_end(session, reason)
        has_reader = session.worker is not None or session.state is SessionState.ACTIVE
        if session.unattended or not has_reader or reason is EndReason.WORKER_LOST:
            self._finish(session, reason)
            return
        if session.worker is not None:
            self._workers.send(session.worker, _end_of(session_id, reason, detail, by_unit))
        session.deadline = self._clock() + timedelta(seconds=LAST_COUNT_SECONDS)

    def end_cameras(self, cameras: Collection[str], by: Principal) -> None:
        """The cameras were switched off in the catalogue."""
        reason, detail = EndReason.CAMERA_GONE, "switched_off"
        for session in list(self._sessions.values()):
            if session.camera_id in cameras:
                self.end(session.id, reason, by=by.id, detail=detail, by_unit=by.department_name)

    def end_duty(self, wall_id: str, by: Principal, detail: str) -> None:
        """Nobody is signed on at a wall any more, or somebody else is."""
        for session in list(self._sessions.values()):
            if session.user_id == wall_id:
                self.end(session.id, EndReason.DUTY_OVER, by=by.id, detail=detail, by_unit=by.department_name)

    def end_user(self, user_id: str, by: Principal) -> None:
        """What somebody watches ends with his log-in; analyses go on. `by` himself: he logged in again."""
        reason = EndReason.LOGGED_IN_ELSEWHERE if by.id == user_id else EndReason.ENDED_BY_ADMINISTRATOR
        for session in list(self._sessions.values()):
            if session.user_id == user_id and not session.unattended:
                self.end(session.id, reason, by=by.id, by_unit=by.department_name)

    def _begin_end(self, session: LiveSession, reason: EndReason) -> None:
        if session.ending is None:
            session.ending = reason
            for listener in self.ending_listeners:
                listener(session)

    def _finish(self, session: LiveSession, reason: EndReason) -> None:
        self._begin_end(session, reason)
        self._over[session.id] = session
        self._finished.set()

    async def drain(self) -> None:
        """End every session but analyses, which go on after a restart; return when `run` has recorded it."""
        for session in list(self._sessions.values()):
            if not session.unattended:
                self.end(session.id, EndReason.DRAINING)
        while any(not session.unattended for session in self._sessions.values()):
            self._written.clear()
            await self._written.wait()

    async def run(self) -> None:
        """Sweep, re-decide and write until cancelled. A slow database delays what is written only."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_repeat(self._wake, self._settle))
            tasks.create_task(_repeat(self._finished, self._write_ends))
            tasks.create_task(_repeat(self._edges_moved, self._write_edges))

    async def _settle(self) -> None:
        """One round of `run`: everything that is due now, is ended now."""
        self._sweep(self._clock())
        if self._start_up.is_over:
            await self._redecide()

    def _sweep(self, now: datetime) -> None:
        for session in list(self._sessions.values()):
            if session.id in self._over:
                continue
            if session.ending is None and session.decided_until is not None and now >= session.decided_until:
                self._at_time_edge(session)
            reason = session.due(now)
            if reason is None:
                continue
            if session.ending is None:
                self.end(session.id, reason, detail=_WHAT_TIME_ENDED.get(reason, ""))
            elif session.deadline is not None and now >= session.deadline:
                self._finish(session, session.ending)

    def _at_time_edge(self, session: LiveSession) -> None:
        """The decision may be another one from now on; who cannot ask yet, as at the start, ends it."""
        if self._start_up.is_over:
            self._decide_again(session)
        else:
            self.end(session.id, EndReason.EXPIRED, detail=Reason.GRANT_EXPIRED.value)

    async def _redecide(self) -> None:
        revision = self._enforcement.revision
        if revision == self._decided_revision:
            return
        self._is_outdated = False
        for index, session in enumerate(list(self._sessions.values())):
            if index % REDECIDE_CHUNK == REDECIDE_CHUNK - 1:
                await asyncio.sleep(0)
            if session.ending is None:
                self._decide_again(session)
        # a session that came in a pause, decided under the old policy, asks for another round
        if not self._is_outdated:
            self._decided_revision = revision

    def _decide_again(self, session: LiveSession) -> None:
        decision = self._enforcement.decide(
            session.user_id,
            session.action,
            Object(ObjectKind.CAMERA, session.camera_id),
            session.purpose.code,
        )
        if not decision.allowed:
            reason = _REVOKING.get(decision.reason, EndReason.REVOKED)
            unit = self._causes.since(
                session.revision,
                (
                    f"grant:{session.rule}",
                    f"grant:{decision.rule}",
                    f"user:{session.user_id}",
                    f"camera:{session.camera_id}",
                ),
            )
            self.end(session.id, reason, detail=decision.reason.value, by_unit=unit)
            return
        session.revision = decision.revision
        session.rule = decision.rule
        if session.decided_until != decision.expires_at:
            session.decided_until = decision.expires_at
            self._moved.add(session.id)
            self._edges_moved.set()

    async def _write_edges(self) -> None:
        """Keep when decisions change by themselves: a control that starts needs it before its policy."""
        while self._moved:
            batch = set(list(self._moved)[:EDGES_PER_UNIT])
            self._moved -= batch
            edges = [(each, session.decided_until) for each in batch if (session := self.get(each))]
            try:
                await self._store.run(functools.partial(keep_edges, edges))
            except StoreError as error:
                self._moved |= batch
                log.error("time_edges_not_kept", sessions=len(batch), code=error.code)
                return

    async def _write_ends(self) -> None:
        while self._over:
            batch = list(self._over.values())[:END_RECORDS_PER_UNIT]
            try:
                await self._store.run(functools.partial(write_ends, batch, to_micros(self._clock())))
            except StoreError as error:
                log.error("session_end_not_recorded", sessions=len(batch), code=error.code)
                return
            self._written.set()
            for session in batch:
                self._over.pop(session.id, None)
                self._sessions.pop(session.id, None)
                session.state = SessionState.ENDED
                for listener in self.listeners:
                    listener(session)


def _end_of(session_id: str, reason: EndReason, detail: str = "", by: str = "") -> End:
    return End(session=session_id, reason=reason.value, detail=detail, by=by)


async def _repeat(wake: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    """Act whenever woken, and at each tick."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                await wake.wait()
        wake.clear()
        try:
            await act()
        # Revocation and expiry must outlive whatever one round meets: the next one tries again.
        except Exception:
            log.exception("sessions_round_failed")
