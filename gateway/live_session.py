"""A viewing session that is not over, as control holds it in memory: its state, its deadlines, its counts."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.audit.records import MAX_INTEGER, AuditEvent, AuditKind, DetailValue, Outcome
from gateway.clock import to_micros
from gateway.enforcement import Purpose, purpose_of
from gateway.principals import Actor, Duty, person_of, wall_of
from policies.access import Action, Obligations

DEFAULT_PRIORITY = 50


class SessionState(StrEnum):
    OPENED = "opened"
    ACTIVE = "active"
    LOST = "lost"
    ENDED = "ended"


class EndReason(StrEnum):
    """Told to the viewer and kept in the ledger."""

    ENDED = "ended"
    ENDED_BY_ADMINISTRATOR = "ended_by_administrator"
    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"
    NOT_STARTED = "not_started"
    LOST = "lost"
    SLOW = "slow"
    CAMERA_GONE = "camera_gone"
    LEASE_LOST = "lease_lost"
    WORKER_LOST = "worker_lost"
    DRAINING = "draining"
    REPLACED = "replaced"
    PREEMPTED = "preempted"
    FAILED = "failed"
    DISPUTED = "disputed"
    UNCONFIRMED = "unconfirmed"
    DUTY_OVER = "duty_over"
    LOGGED_IN_ELSEWHERE = "logged_in_elsewhere"
    LEDGER_UNAVAILABLE = "ledger_unavailable"


@dataclass(slots=True, kw_only=True)
class LiveSession:
    """One viewing session that is not over. `..._before` counts the readers before the present one.

    `deadline` is when the present state runs out: the ticket's, the lost connection's, the lost worker's.
    `decided_until`: when the decision may change by itself, and is taken again. `confirm_by`: it ends then
    unless the viewer says that he still looks; None: nobody has to. `owner_id`: the camera's department then.
    `unattended`: an analysis, which waits for a worker as long as it takes. `stream`: main or sub. `ticket`:
    the unused one, in memory only, since a digest cannot be proved against a hash; None once it is used up.
    `roles`: the user's when it was opened. `ended_by`: a user, or the session that it gave way to; its unit
    is what the viewer is told. `duty`: who looks, at a wall. `networks`: where a job's pictures may go.
    `is_in_batch`: a thumbnail; the record of its batch stands for its start and its end.
    `admitted_by`: the rule that let it in, and `max_concurrent` how many that rule may let in.
    """

    id: str
    user_id: str
    user_name: str
    unit_id: str
    unit_name: str
    camera_id: str
    action: Action
    purpose: Purpose
    rule: str | None
    revision: int
    opened_at: datetime
    state: SessionState
    deadline: datetime | None
    expires_at: datetime | None
    decided_until: datetime | None = None
    confirm_by: datetime | None = None
    owner_id: str | None = None
    unattended: bool = False
    roles: tuple[str, ...] = ()
    priority: int = DEFAULT_PRIORITY
    reserved_bps: int = 0
    admitted_by: str | None = None
    max_concurrent: int | None = None
    stream: str = "main"
    ticket: str | None = field(default=None, repr=False)
    worker: int | None = None
    protocol: str | None = None
    remote: str | None = None
    bytes_before: int = 0
    bytes_now: int = 0
    dropped_before: int = 0
    dropped_now: int = 0
    ending: EndReason | None = None
    ended_by: str | None = None
    ended_by_unit: str = ""
    end_detail: str = ""
    duty: Duty | None = None
    networks: tuple[str, ...] | None = None
    is_in_batch: bool = False

    @property
    def bytes_sent(self) -> int:
        return counted(self.bytes_before + self.bytes_now)

    @property
    def dropped_access_units(self) -> int:
        return counted(self.dropped_before + self.dropped_now)

    def report(self, bytes_sent: int, dropped: int = 0) -> None:
        """The present reader's counts so far, as its worker says them."""
        self.bytes_now = max(self.bytes_now, counted(bytes_sent))
        self.dropped_now = max(self.dropped_now, counted(dropped))

    def reader_over(self) -> None:
        """What the present reader has sent is final; the next one counts from nothing."""
        self.bytes_before, self.bytes_now = self.bytes_sent, 0
        self.dropped_before, self.dropped_now = self.dropped_access_units, 0

    def event(
        self,
        kind: AuditKind,
        happened: str,
        *,
        detail: dict[str, DetailValue],
        reason: str | None = None,
        remote: str | None = None,
    ) -> AuditEvent:
        """What happened to it, as a record: who, of which unit, why, under which rule."""
        return AuditEvent(
            kind=kind,
            outcome=Outcome.OK,
            content=f"{self.action} of camera {self.camera_id} {happened}",
            **self._viewer(),
            **purpose_of(self.purpose),
            action=self.action.value,
            resource=f"camera:{self.camera_id}",
            camera_id=self.camera_id,
            owner_id=self.owner_id,
            session_id=self.id,
            rule=self.rule,
            revision=self.revision,
            reason=reason,
            remote=remote,
            detail=detail if self.duty is None else {**detail, **wall_of(self.user_id, self.duty)},
        )

    def _viewer(self) -> Actor:
        if self.duty is not None:
            return person_of(self.duty)
        return {
            "actor_id": self.user_id,
            "actor_name": self.user_name,
            "unit_id": self.unit_id,
            "unit_name": self.unit_name,
        }

    def due(self, now: datetime) -> EndReason | None:
        """Why time ends the session now, if it does."""
        if self.duty is not None and to_micros(now) >= self.duty.ends_at:
            return EndReason.DUTY_OVER
        if self.expires_at is not None and now >= self.expires_at:
            return EndReason.EXPIRED
        if self.confirm_by is not None and now >= self.confirm_by:
            return EndReason.UNCONFIRMED
        if self.deadline is not None and now >= self.deadline:
            return {
                SessionState.OPENED: EndReason.NOT_STARTED,
                SessionState.LOST: EndReason.LOST,
            }.get(self.state, EndReason.WORKER_LOST)
        return None


@dataclass(frozen=True, kw_only=True)
class OpenedSession:
    """`ticket` is the secret that opens the media once; it is stored hashed and never logged."""

    id: str
    action: Action
    camera_id: str
    camera_name: str
    ticket: str = field(repr=False)
    expires_at: datetime | None
    confirm_by: datetime | None
    obligations: Obligations


def opened_session(
    session: LiveSession, camera_name: str, ticket: str, obligations: Obligations
) -> OpenedSession:
    return OpenedSession(
        id=session.id,
        action=session.action,
        camera_id=session.camera_id,
        camera_name=camera_name,
        ticket=ticket,
        expires_at=min(filter(None, (session.expires_at, session.decided_until)), default=None),
        confirm_by=session.confirm_by,
        obligations=obligations,
    )


def start_record(session: LiveSession) -> AuditEvent:
    """Its media begin."""
    return session.event(
        AuditKind.SESSION_START,
        "started",
        remote=session.remote or "",
        detail={"protocol": session.protocol or ""},
    )


def counted(reported: int) -> int:
    """A worker's figure, within what the ledger can hold."""
    return min(max(reported, 0), MAX_INTEGER)


def end_reason_of(text: str) -> EndReason:
    """A worker's word for it; an unknown word is a failure, never an exception."""
    try:
        return EndReason(text)
    except ValueError:
        return EndReason.FAILED
