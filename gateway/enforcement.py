"""The policy enforcement point (PEP): where a decision is asked for, recorded and turned into a Grant.

Order, always: decide, write the audit record, act. The three happen in one transaction of the store, so that
an act without its record cannot exist; if the ledger cannot be written, nothing is granted.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypedDict, TypeVar

import msgspec

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import Clock
from gateway.policy_questions import PolicyQuestions, told
from gateway.principals import Principal, actor_of, wall_of
from gateway.problems import Problem
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import (
    MEDIA_ACTIONS,
    Action,
    Decision,
    Effect,
    Object,
    ObjectKind,
    Obligations,
    Reason,
)
from policies.engine import PolicyEngine
from policies.roles import Role

T = TypeVar("T")


class StatedPurpose(msgspec.Struct, frozen=True, kw_only=True):
    """Why somebody looks (事由): a managed code, and where it asks for one, a case or roster number."""

    code: str
    reference: str | None = None
    note: str | None = None


class Purpose(StatedPurpose, frozen=True, kw_only=True):
    """A stated one, with what follows from its code."""

    max_seconds: int | None = None
    """A use for this purpose ends after so long; None: when others do."""

    def stated(self) -> StatedPurpose:
        return StatedPurpose(code=self.code, reference=self.reference, note=self.note)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a decision's record says beside who, what and whether.

    `min_revision`: of the policy that must be known to who decides, else the answer is no (`stale_revision`).
    """

    remote: str
    request_id: str
    purpose: Purpose | None = None
    min_revision: int = 0


_MINT = object()


class Grant:
    """Proof of one allowed decision, already recorded. Only `Enforcement` can make one."""

    __slots__ = ("action", "at", "circumstances", "decision", "owner_id", "principal", "target")

    def __init__(
        self,
        mint: object,
        *,
        principal: Principal,
        action: Action,
        target: Object,
        owner_id: str | None,
        decision: Decision,
        circumstances: Circumstances,
        at: datetime,
    ) -> None:
        if mint is not _MINT or not decision.allowed:
            msg = "a Grant comes from Enforcement and from an allowed decision only"
            raise TypeError(msg)
        self.principal = principal
        self.action = action
        self.target = target
        self.owner_id = owner_id
        self.decision = decision
        self.circumstances = circumstances
        self.at = at

    @property
    def obligations(self) -> Obligations:
        return self.decision.obligations

    def event(self, kind: AuditKind, content: str, outcome: Outcome = Outcome.OK) -> AuditEvent:
        """What was done with this grant, as a record: who, of which unit, why, under which rule."""
        return _event(
            kind,
            outcome,
            content,
            self.principal,
            self.action,
            self.target,
            self.owner_id,
            self.decision,
            self.circumstances,
        )


@dataclass(frozen=True)
class Refused:
    """What an act returns to refuse after all: the decision's record stays, nothing else does."""

    problem: Problem


@dataclass(frozen=True)
class _Judged:
    decision: Decision
    owner_id: str | None
    outcome: Grant | Refused


@dataclass(frozen=True)
class _Done(Generic[T]):
    value: T


Act = Callable[[Unit, Grant], Awaitable[T | Refused]]


class Enforcement(PolicyQuestions):
    """The one that makes a Grant of an answer."""

    def __init__(self, engine: PolicyEngine, roles: Mapping[str, Role], store: Store, clock: Clock) -> None:
        super().__init__(engine, roles, clock)
        self._store = store
        self.undertaking_version: int | None = None
        """What a person must have accepted before any picture; None, as before it is known: none is shown."""

    async def perform(
        self,
        principal: Principal,
        action: Action,
        target: Object,
        circumstances: Circumstances,
        content: str,
        act: Act[T],
    ) -> T:
        """Decide, record, act: one transaction. Returns what `act` returned.

        `content` (内容) says in words what the principal is about to do.

        Raises Problem `access_denied` (with the reason code) if the decision is to deny, and whatever
        problem `act` refused with; in both cases the decision's record is durable before the raise.
        """

        async def unit(work: Unit) -> _Done[T] | Refused:
            grant = self._authorize(work, principal, action, target, circumstances, content)
            if isinstance(grant, Refused):
                return grant
            result = await act(work, grant)
            return result if isinstance(result, Refused) else _Done(result)

        outcome = await self._store.run(unit)
        if isinstance(outcome, Refused):
            raise outcome.problem
        return outcome.value

    def _authorize(
        self,
        work: Unit,
        principal: Principal,
        action: Action,
        target: Object,
        circumstances: Circumstances,
        content: str,
    ) -> Grant | Refused:
        judged = self._judge(principal, action, target, circumstances, content)
        work.record(
            _event(
                AuditKind.DECISION,
                Outcome.ALLOW if judged.decision.allowed else Outcome.DENY,
                content,
                principal,
                action,
                target,
                judged.owner_id,
                judged.decision,
                circumstances,
            )
        )
        return judged.outcome

    async def authorize_each(
        self,
        principal: Principal,
        action: Action,
        camera_ids: Iterable[str],
        circumstances: Circumstances,
        kind: AuditKind,
        content: str,
    ) -> dict[str, Grant | Refused]:
        """Decide about each of some cameras, in their order, and record them together in one unit.

        One record names them all, and every owner.
        """

        async def unit(work: Unit) -> dict[str, Grant | Refused]:
            judged = {
                camera_id: self._judge(
                    principal, action, Object(ObjectKind.CAMERA, camera_id), circumstances, content
                )
                for camera_id in camera_ids
            }
            work.record(_batch_event(kind, content, principal, action, judged, circumstances))
            return {camera_id: one.outcome for camera_id, one in judged.items()}

        return await self._store.run(unit)

    def decide_again(self, grant: Grant) -> Grant | Refused:
        """The use that a grant was given for, decided anew just before it begins later than its record."""
        content = f"{grant.action} of camera {grant.target.id}"
        return self._judge(grant.principal, grant.action, grant.target, grant.circumstances, content).outcome

    def _judge(
        self,
        principal: Principal,
        action: Action,
        target: Object,
        circumstances: Circumstances,
        content: str,
    ) -> _Judged:
        """Decide, and make the Grant of a decision that is or was recorded: the one place that makes any."""
        purpose = circumstances.purpose
        now = self._clock()
        decision = self._engine.decide(
            self._request(
                principal.id,
                action,
                target,
                purpose.code if purpose else None,
                circumstances.min_revision,
            )
        )
        owner_id = self._owner(target)
        problem = None
        if not decision.allowed:
            problem = Problem("access_denied", content, reason=told(decision.reason))
        elif (lacking := self._lacking(principal, action)) is not None:
            reason, problem = lacking
            decision = Decision(effect=Effect.DENY, reason=reason, rule=None, revision=decision.revision)
        if problem is not None:
            return _Judged(decision, owner_id, Refused(problem))
        grant = Grant(
            _MINT,
            principal=principal,
            action=action,
            target=target,
            owner_id=owner_id,
            decision=decision,
            circumstances=circumstances,
            at=now,
        )
        return _Judged(decision, owner_id, grant)

    def _lacking(self, principal: Principal, action: Action) -> tuple[Reason, Problem] | None:
        """What the principal has to do himself before what policy allows him is his."""
        if action not in MEDIA_ACTIONS:
            return None
        if principal.kind == "wall" and principal.on_duty is None:
            return Reason.NOBODY_ON_DUTY, Problem("nobody_on_duty")
        if not self.has_undertaken(principal):
            version = f"version {self.undertaking_version}"
            return Reason.UNDERTAKING_REQUIRED, Problem("undertaking_required", version)
        return None

    def has_undertaken(self, principal: Principal) -> bool:
        """Whether the newest undertaking is accepted: of a job by its responsible person, of a wall by who is
        on duty.
        """
        required = self.undertaking_version
        return required is not None and (principal.undertaking_version or 0) >= required


class PurposeColumns(TypedDict):
    purpose_code: str | None
    purpose_reference: str | None
    purpose_note: str | None


def purpose_of(purpose: StatedPurpose | None) -> PurposeColumns:
    """The ledger's columns for why (事由)."""
    if purpose is None:
        return {"purpose_code": None, "purpose_reference": None, "purpose_note": None}
    return {
        "purpose_code": purpose.code,
        "purpose_reference": purpose.reference,
        "purpose_note": purpose.note,
    }


def _event(
    kind: AuditKind,
    outcome: Outcome,
    content: str,
    principal: Principal,
    action: Action,
    target: Object,
    owner_id: str | None,
    decision: Decision,
    circumstances: Circumstances,
) -> AuditEvent:
    return AuditEvent(
        kind=kind,
        outcome=outcome,
        content=content,
        **actor_of(principal),
        **purpose_of(circumstances.purpose),
        action=action.value,
        resource=f"{target.kind}:{target.id}",
        camera_id=target.id if target.kind is ObjectKind.CAMERA else None,
        owner_id=owner_id,
        rule=decision.rule,
        revision=decision.revision,
        reason=decision.reason.value,
        remote=circumstances.remote,
        request_id=circumstances.request_id,
        detail={} if principal.on_duty is None else wall_of(principal.id, principal.on_duty),
    )


def _batch_event(
    kind: AuditKind,
    content: str,
    principal: Principal,
    action: Action,
    judged: Mapping[str, _Judged],
    circumstances: Circumstances,
) -> AuditEvent:
    """`rules` and `reasons` stand beside `allowed` and `refused`, in the same order."""
    decisions = {camera_id: one.decision for camera_id, one in judged.items()}
    allowed = {camera_id: one for camera_id, one in decisions.items() if one.allowed}
    refused = {camera_id: one for camera_id, one in decisions.items() if not one.allowed}
    duty = {} if principal.on_duty is None else wall_of(principal.id, principal.on_duty)
    return AuditEvent(
        kind=kind,
        outcome=Outcome.ALLOW if allowed else Outcome.DENY,
        content=f"{content}: {len(allowed)} allowed, {len(refused)} refused",
        **actor_of(principal),
        **purpose_of(circumstances.purpose),
        action=action.value,
        camera_ids=tuple(judged),
        owner_ids=tuple({one.owner_id for one in judged.values() if one.owner_id is not None}),
        revision=next(iter(decisions.values())).revision,
        remote=circumstances.remote,
        request_id=circumstances.request_id,
        detail={
            **duty,
            "allowed": list(allowed),
            "rules": [one.rule or "" for one in allowed.values()],
            "refused": list(refused),
            "reasons": [one.reason.value for one in refused.values()],
        },
    )
