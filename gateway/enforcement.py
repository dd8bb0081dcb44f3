"""The policy enforcement point (PEP): where a decision is asked for, recorded and turned into a Grant.

Order, always: decide, write the audit record, act. The three happen in one transaction of the store, so that
an act without its record cannot exist; if the ledger cannot be written, nothing is granted.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypedDict, TypeVar

import msgspec
from pyroaring import BitMap

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import Clock
from gateway.policy_feed import PolicyFacts
from gateway.principals import Principal, actor_of, wall_of
from gateway.problems import Problem
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies import administration
from policies.access import (
    INSTALLATION,
    MEDIA_ACTIONS,
    AccessRequest,
    Action,
    Decision,
    Effect,
    Explanation,
    GrantRule,
    Object,
    ObjectKind,
    Obligations,
    Reason,
)
from policies.administration import Account, GrantProposal
from policies.engine import FactRefusedError, PolicyEngine
from policies.roles import Role

T = TypeVar("T")


class Purpose(msgspec.Struct, frozen=True, kw_only=True):
    """Why somebody looks (事由): a managed code, and where it asks for one, a case or roster number."""

    code: str
    reference: str | None = None
    note: str | None = None
    max_seconds: int | None = None
    """A use for this purpose ends after so long; None: when others do."""


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


class Enforcement:
    def __init__(self, engine: PolicyEngine, roles: Mapping[str, Role], store: Store, clock: Clock) -> None:
        self._engine = engine
        self._roles = roles
        self._store = store
        self._clock = clock
        self.undertaking_version: int | None = None
        """What a person must have accepted before any picture; None, as before it is known: none is shown."""

    @property
    def revision(self) -> int:
        return self._engine.revision

    def decide(
        self,
        user_id: str,
        action: Action,
        target: Object,
        purpose: str | None = None,
        min_revision: int = 0,
    ) -> Decision:
        """Ask again for something that already runs, or for what a listing may show. Grants nothing."""
        return self._engine.decide(self._request(user_id, action, target, purpose, min_revision))

    def explain(
        self, user_id: str, action: Action, target: Object, purpose: str | None, min_revision: int = 0
    ) -> Explanation:
        """Why a decision comes out so. That a thing does not exist is not said, as in a refusal."""
        found = self._engine.explain(self._request(user_id, action, target, purpose, min_revision))
        decision = msgspec.structs.replace(found.decision, reason=_told(found.decision.reason))
        return msgspec.structs.replace(found, decision=decision)

    def is_allowed_for_some_purpose(self, user_id: str, camera_id: str, action: Action) -> bool:
        """For listings: whether the action would be allowed if the right purpose were declared."""
        return self._engine.is_visible(user_id, camera_id, self._clock(), (action,))

    def is_visible(self, user_id: str, camera_id: str) -> bool:
        """Whether the user may know of the camera; the same as being among `visible_cameras`."""
        return self._engine.is_visible(user_id, camera_id, self._clock())

    def visible_cameras(self, user_id: str) -> frozenset[str]:
        return frozenset(self._engine.visible_cameras(user_id, self._clock()))

    def principals_of(self, action: Action, target: Object) -> set[str]:
        """The enabled users to whom the action on the object is allowed for some purpose."""
        return self._engine.principals_of(target, action, self._clock())

    def watchable_cameras(self, user_id: str) -> frozenset[str]:
        """The cameras whose pictures, hence whose events, the user may see for some purpose."""
        actions = (Action.LIVE_VIEW, Action.FRAMES_CONSUME)
        return frozenset(self._engine.visible_cameras(user_id, self._clock(), actions))

    def cameras_allowed(
        self, user_id: str, actions: Iterable[Action], within: Object | None = None
    ) -> BitMap:
        """Numbers of the cameras, of all or of those within, where one of the actions would be allowed for
        some purpose.
        """
        if within is not None and within.kind == ObjectKind.CAMERA:
            number = self._engine.ordinal(within.id)
            if number is None or not self._engine.is_visible(user_id, within.id, self._clock(), actions):
                return BitMap()
            return BitMap([number])
        allowed = self._engine.visible_ordinals(user_id, self._clock(), actions)
        return allowed if within is None else allowed & self._engine.ordinals_in(within)

    def cameras_in(self, target: Object) -> BitMap:
        """Numbers of all cameras in an object, whoever may see them."""
        return self._engine.ordinals_in(target)

    def ordinal(self, camera_id: str) -> int | None:
        """A camera's number; None if it was never known."""
        return self._engine.ordinal(camera_id)

    def camera_of(self, ordinal: int) -> str:
        """Raises IndexError."""
        return self._engine.camera_of(ordinal)

    def owner_of(self, camera_id: str) -> str | None:
        """The department that a camera belongs to; None if there is no such camera."""
        return self._engine.owner_of(camera_id)

    def is_within(self, department_id: str, other_id: str) -> bool:
        """Whether a department is the other one or lies below it."""
        return self._engine.is_within(department_id, other_id)

    def audits(self, user_id: str, target: Object | None = None) -> bool:
        """Whether somebody reads the ledger about an object; None: about everything.

        Everything is audited by who audits every department that has none above it.
        """
        places = [target or INSTALLATION]
        if target is None and not self.decide(user_id, Action.AUDIT_READ, INSTALLATION).allowed:
            places = [Object(ObjectKind.DEPARTMENT, each) for each in self._engine.top_departments()]
        return bool(places) and all(
            self.decide(user_id, Action.AUDIT_READ, place).allowed for place in places
        )

    def size_of(self, target: Object) -> int:
        """How many cameras are, or lie in, an object."""
        return len(self._engine.ordinals_in(target))

    def rehearse(
        self, change: Callable[[PolicyFacts], None], undo: Callable[[PolicyFacts], None], ask: Callable[[], T]
    ) -> tuple[T, T]:
        """What `ask` answers now, and what it would after a change of the facts.

        Without a pause in between, so that nothing else is ever decided by what was only tried.
        """
        before = ask()
        change(self._engine)
        try:
            return before, ask()
        finally:
            undo(self._engine)

    def accept_grant(
        self, proposal: GrantProposal, grant_id: str, known_purposes: Collection[str]
    ) -> GrantRule:
        """The PAP's check of a grant. Raises GrantRefusedError."""
        return administration.accept_grant(
            proposal,
            grant_id=grant_id,
            at=self._clock(),
            known_purposes=known_purposes,
            engine=self._engine,
        )

    def check_tree(self, kind: ObjectKind, identifier: str, parent_id: str | None) -> Problem | None:
        """Why a department or a group cannot stand there: a cycle, or too deep."""
        check = self._engine.check_department if kind is ObjectKind.DEPARTMENT else self._engine.check_group
        try:
            check(identifier, parent_id)
        except FactRefusedError as error:
            return Problem("conflict", str(error), reason=error.code)
        return None

    def check_sharing(self, user_id: str, target: Object) -> None:
        """Whether somebody may grant on an object, or revoke there. Raises GrantRefusedError."""
        administration.check_sharing(user_id, target, at=self._clock(), engine=self._engine)

    def holds_by_office(self, user_id: str, action: Action, target: Object) -> bool:
        """Whether a role, and no grant, gives somebody the action on a whole object."""
        return self._engine.holds_by_office(user_id, action, target, self._clock())

    def check_account(self, account: Account, actor_id: str) -> None:
        """Whether somebody may write an account. Raises AccountRefusedError."""
        administration.check_account(
            account, actor_id=actor_id, at=self._clock(), roles=self._roles, engine=self._engine
        )

    def check_separation(self, account: Account) -> None:
        """Whether nobody's duties are to be another's as well. Raises AccountRefusedError."""
        administration.check_separation(account, self._roles)

    def is_office(self, role: str) -> bool:
        """Whether a role lets those who hold it do anything by itself, without a grant."""
        return role in self._roles and bool(self._roles[role].department or self._roles[role].installation)

    def require(self, principal: Principal, action: Action, target: Object, content: str) -> None:
        """Refuse what `perform` would refuse, for a question about doing it. Recorded nowhere.

        Raises Problem `access_denied`.
        """
        decision = self.decide(principal.id, action, target)
        if not decision.allowed:
            raise Problem("access_denied", content, reason=_told(decision.reason))

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

        One record names all cameras of one owner, so that each owner finds what concerns him: usually it is
        one record. What does not exist stands in the first.
        """

        async def unit(work: Unit) -> dict[str, Grant | Refused]:
            judged = {
                camera_id: self._judge(
                    principal, action, Object(ObjectKind.CAMERA, camera_id), circumstances, content
                )
                for camera_id in camera_ids
            }
            known = dict.fromkeys(one.owner_id for one in judged.values() if one.owner_id is not None)
            owners: list[str | None] = [*known] or [None]
            for owner_id in owners:
                own = {
                    camera_id: one.decision
                    for camera_id, one in judged.items()
                    if (one.owner_id or owners[0]) == owner_id
                }
                work.record(_batch_event(kind, content, principal, action, owner_id, own, circumstances))
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
            problem = Problem("access_denied", content, reason=_told(decision.reason))
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

    def _owner(self, target: Object) -> str | None:
        """The department whose camera it is, or which it is itself."""
        if target.kind is ObjectKind.CAMERA:
            return self._engine.owner_of(target.id)
        is_known = target.kind is ObjectKind.DEPARTMENT and self._engine.is_within(target.id, target.id)
        return target.id if is_known else None

    def _lacking(self, principal: Principal, action: Action) -> tuple[Reason, Problem] | None:
        """What the principal has to do himself before what policy allows him is his."""
        if action not in MEDIA_ACTIONS:
            return None
        if principal.kind == "wall" and principal.on_duty is None:
            return Reason.NOBODY_ON_DUTY, Problem("nobody_on_duty")
        required = self.undertaking_version
        if required is None or (principal.undertaking_version or 0) < required:
            return Reason.UNDERTAKING_REQUIRED, Problem("undertaking_required", f"version {required}")
        return None

    def _request(
        self, user_id: str, action: Action, target: Object, purpose: str | None, min_revision: int = 0
    ) -> AccessRequest:
        return AccessRequest(
            user_id=user_id,
            action=action,
            object=target,
            at=self._clock(),
            purpose=purpose,
            min_revision=min_revision,
        )


class PurposeColumns(TypedDict):
    purpose_code: str | None
    purpose_reference: str | None
    purpose_note: str | None


def purpose_of(purpose: Purpose | None) -> PurposeColumns:
    """The ledger's columns for why (事由)."""
    if purpose is None:
        return {"purpose_code": None, "purpose_reference": None, "purpose_note": None}
    return {
        "purpose_code": purpose.code,
        "purpose_reference": purpose.reference,
        "purpose_note": purpose.note,
    }


def _told(reason: Reason) -> Reason:
    """What the caller is told: that a thing does not exist is nobody's business who may not see it."""
    return Reason.NO_MATCHING_GRANT if reason is Reason.UNKNOWN_RESOURCE else reason


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
    owner_id: str | None,
    decisions: Mapping[str, Decision],
    circumstances: Circumstances,
) -> AuditEvent:
    """`rules` and `reasons` stand beside `allowed` and `refused`, in the same order."""
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
        owner_id=owner_id,
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
