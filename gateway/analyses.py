"""Analyses: an analyser on a camera, in somebody's name and for a purpose.

A running analysis is a viewing session of action `frames:consume` that nobody watches: the same decision, the
same limits, the same revocation and the same records. It outlives restarts; it ends when its session ends.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
import structlog
from msgspec import Meta

from analytics.scenes import ANALYSERS
from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import from_micros, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused, StatedPurpose, purpose_of
from gateway.events import Events
from gateway.forms import Identifier
from gateway.live import LiveSessions
from gateway.live_session import EndReason, LiveSession
from gateway.messages import AnalysisEvent, AnalysisState, StartAnalysis, StopAnalysis
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.purposes import DeclaredPurpose
from gateway.sessions import ViewerSessions
from gateway.store.errors import StoreError
from gateway.store.identifiers import new_id
from gateway.store.schema import analyses
from gateway.store.store import Store
from gateway.store.unit import Unit
from gateway.workers import RelayWorkers
from policies.access import Action, Object, ObjectKind

log = structlog.get_logger(__name__)

MIN_PERIOD_SECONDS = 0.2
MAX_PERIOD_SECONDS = 3600


@dataclass(frozen=True)
class AnalysisSettings:
    total: int = 1000


class NewAnalysis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`period_seconds`: how often a keyframe is to be looked at; `parameters` are the analyser's own."""

    camera: Identifier
    analyser: Identifier
    purpose: DeclaredPurpose | None = None
    parameters: dict[str, Any] = {}
    period_seconds: Annotated[float, Meta(ge=MIN_PERIOD_SECONDS, le=MAX_PERIOD_SECONDS)] = 2.0


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """`achieved_period_seconds` is what overload or the camera's keyframe interval leaves of the period."""

    id: str
    camera: str
    analyser: str
    parameters: dict[str, Any]
    period_seconds: float
    achieved_period_seconds: float | None
    error: str | None
    user: str
    purpose: StatedPurpose
    session: str | None
    created_at: datetime


class Analyses:
    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        sessions: ViewerSessions,
        live: LiveSessions,
        workers: RelayWorkers,
        events: Events,
        settings: AnalysisSettings,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._sessions = sessions
        self._live = live
        self._workers = workers
        self._events = events
        self._settings = settings
        self._running: dict[str, Analysis] = {}
        self._ended: list[_Ended] = []

    def get(self, analysis_id: str) -> Analysis | None:
        return self._running.get(analysis_id)

    def all(self) -> list[Analysis]:
        return sorted(self._running.values(), key=lambda analysis: analysis.id)

    async def create(self, principal: Principal, new: NewAnalysis, circumstances: Circumstances) -> Analysis:
        """Raises Problem `access_denied`, `analyser_unknown`, `invalid_field` or the limit that is full."""
        _check_parameters(new)

        async def act(work: Unit, grant: Grant) -> Analysis | Refused:
            if await _count(work) >= self._settings.total:
                return Refused(Problem("limit_analyses", f"{self._settings.total} analyses are running"))
            opened = await self._sessions.insert(work, grant, unattended=True)
            if isinstance(opened, Refused):
                return opened
            purpose = grant.circumstances.purpose
            analysis = Analysis(
                id=new_id(),
                camera=new.camera,
                analyser=new.analyser,
                parameters=new.parameters,
                period_seconds=new.period_seconds,
                achieved_period_seconds=None,
                error=None,
                user=principal.id,
                purpose=StatedPurpose(code="") if purpose is None else purpose.stated(),
                session=opened.id,
                created_at=grant.at,
            )
            await work.conn.execute(sa.insert(analyses).values(**_row(analysis)))
            work.record(
                msgspec.structs.replace(
                    grant.event(AuditKind.ANALYSIS_START, f"{new.analyser} every {new.period_seconds} s"),
                    session_id=opened.id,
                )
            )
            work.after_commit(lambda: self._started(analysis))
            return analysis

        return await self._enforcement.perform(
            principal,
            Action.FRAMES_CONSUME,
            Object(ObjectKind.CAMERA, new.camera),
            circumstances,
            f"analyse camera {new.camera} with {new.analyser}",
            act,
        )

    async def load(self) -> None:
        """Take up what was running. Call once, after `ViewerSessions.load` and before workers connect."""
        query = sa.select(analyses).where(analyses.c.state == "active")
        async with self._store.read() as conn:
            rows = (await conn.execute(query)).all()
        for row in rows:
            analysis = _restored(row)
            if row.session_id is not None and self._live.get(row.session_id) is not None:
                self._running[row.id] = analysis
            else:
                self._ended.append(_Ended(analysis, EndReason.FAILED, None))
        await self.settle()

    def place(self, worker: int) -> None:
        """A worker came, with or without memory, or went: what it ran, and what nobody runs, is started."""
        connected = self._workers.numbers()
        for analysis in self._running.values():
            session = self._live.get(analysis.session or "")
            if session is not None and (session.worker == worker or session.worker not in connected):
                self._start(analysis)

    def report(self, message: AnalysisState) -> None:
        """Keep what a worker says of an analysis; one that is not running any more is to stop."""
        analysis = self._running.get(message.analysis)
        if analysis is None:
            self._stop(message.analysis)
            return
        self._running[analysis.id] = msgspec.structs.replace(
            analysis,
            achieved_period_seconds=message.achieved_period_seconds,
            error=message.error,
        )

    async def take(self, message: AnalysisEvent) -> None:
        """Keep an event of a running analysis; what cannot be kept is logged and dropped."""
        analysis = self._running.get(message.analysis)
        if analysis is None or analysis.camera != message.camera:
            self._stop(message.analysis)
            return
        try:
            await self._events.take(message)
        except (StoreError, ValueError) as error:
            log.error("analysis_event_lost", analysis=analysis.id, error=str(error))

    def session_ending(self, session: LiveSession) -> None:
        """Listener of `LiveSessions`: the decision under an analysis is gone, and so is the analysis."""
        if not session.unattended:
            return
        for analysis in [a for a in self._running.values() if a.session == session.id]:
            del self._running[analysis.id]
            self._events.forget(analysis.id)
            self._stop(analysis.id)
            self._ended.append(_Ended(analysis, session.ending or EndReason.ENDED, session))

    def _stop(self, analysis_id: str) -> None:
        for worker in self._workers.numbers():
            self._workers.send(worker, StopAnalysis(analysis=analysis_id))

    async def settle(self) -> None:
        """Write what ended since the last call. Control calls it every second."""
        ended, self._ended = self._ended, []
        if not ended:
            return

        async def unit(work: Unit) -> None:
            for end in ended:
                await work.conn.execute(
                    sa.update(analyses)
                    .where(analyses.c.id == end.analysis.id)
                    .values(state="ended", ended_at=work.now, end_reason=end.reason.value)
                )
                work.record(_end_record(end))

        try:
            await self._store.run(unit)
        except BaseException:
            self._ended = ended + self._ended
            raise

    def _started(self, analysis: Analysis) -> None:
        self._running[analysis.id] = analysis
        self._start(analysis)

    def _start(self, analysis: Analysis) -> None:
        session = self._live.get(analysis.session or "")
        worker = self._workers.worker_for(analysis.camera)
        if session is None or worker is None:
            return
        session.worker = worker
        self._workers.send(
            worker,
            StartAnalysis(
                analysis=analysis.id,
                session=session.id,
                camera=analysis.camera,
                analyser=analysis.analyser,
                parameters=analysis.parameters,
                period_seconds=analysis.period_seconds,
            ),
        )


@dataclass(frozen=True)
class _Ended:
    """`session` None: it ended before control's own start."""

    analysis: Analysis
    reason: EndReason
    session: LiveSession | None


async def _count(work: Unit) -> int:
    query = sa.select(sa.func.count()).select_from(analyses).where(analyses.c.state == "active")
    return int((await work.conn.execute(query)).scalar_one())


def _end_record(end: _Ended) -> AuditEvent:
    analysis, session = end.analysis, end.session
    return AuditEvent(
        kind=AuditKind.ANALYSIS_END,
        outcome=Outcome.OK,
        content=f"{analysis.analyser} on camera {analysis.camera} ended",
        actor_id=analysis.user,
        actor_name=session.user_name if session else None,
        unit_id=session.unit_id if session else None,
        unit_name=session.unit_name if session else None,
        **purpose_of(analysis.purpose),
        resource=f"analysis:{analysis.id}",
        camera_id=analysis.camera,
        session_id=analysis.session,
        reason=end.reason.value,
    )


def _check_parameters(new: NewAnalysis) -> None:
    analyser = ANALYSERS.get(new.analyser)
    if analyser is None:
        raise Problem("analyser_unknown", new.analyser)
    try:
        msgspec.convert(new.parameters, analyser.parameters)
    except (msgspec.ValidationError, ValueError) as error:
        raise Problem("invalid_field", f"parameters: {error}") from None


def _row(analysis: Analysis) -> dict[str, object]:
    return {
        "id": analysis.id,
        "user_id": analysis.user,
        "camera_id": analysis.camera,
        "analyser": analysis.analyser,
        "parameters": analysis.parameters,
        "period_ms": round(analysis.period_seconds * 1000),
        "purpose_code": analysis.purpose.code,
        "purpose_reference": analysis.purpose.reference,
        "purpose_note": analysis.purpose.note,
        "state": "active",
        "session_id": analysis.session,
        "created_at": to_micros(analysis.created_at),
    }


def _restored(row: sa.Row[tuple[object, ...]]) -> Analysis:
    return Analysis(
        id=row.id,
        camera=row.camera_id,
        analyser=row.analyser,
        parameters=row.parameters,
        period_seconds=row.period_ms / 1000,
        achieved_period_seconds=None,
        error=None,
        user=row.user_id,
        purpose=StatedPurpose(code=row.purpose_code, reference=row.purpose_reference, note=row.purpose_note),
        session=row.session_id,
        created_at=from_micros(row.created_at),
    )
