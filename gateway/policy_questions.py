"""What policy allows: questions to the decision point (PDP) that grant nothing and are recorded nowhere.

For listings, for what already runs, for the trees and accounts that may be written. Whoever acts goes through
`gateway.enforcement`, which is the one place that makes a Grant of an answer.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

import msgspec
from pyroaring import BitMap

from gateway.clock import Clock
from gateway.policy_feed import PolicyFacts
from gateway.principals import Principal
from gateway.problems import Problem
from policies import administration
from policies.access import (
    INSTALLATION,
    AccessRequest,
    Action,
    Decision,
    Explanation,
    GrantRule,
    Object,
    ObjectKind,
    Reason,
)
from policies.administration import Account, GrantProposal
from policies.engine import FactRefusedError, PolicyEngine
from policies.roles import Role

T = TypeVar("T")


class PolicyQuestions:
    """`roles`: those that there are now, by name."""

    def __init__(self, engine: PolicyEngine, roles: Mapping[str, Role], clock: Clock) -> None:
        self._engine = engine
        self._roles = roles
        self._clock = clock

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
        decision = msgspec.structs.replace(found.decision, reason=told(found.decision.reason))
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

    def void(self, grant_id: str) -> Reason | None:
        """Why a grant allows nothing now, whatever its conditions; None if it counts."""
        return self._engine.void(grant_id)

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
            raise Problem("access_denied", content, reason=told(decision.reason))

    def _owner(self, target: Object) -> str | None:
        """The department whose camera it is, or which it is itself."""
        if target.kind is ObjectKind.CAMERA:
            return self._engine.owner_of(target.id)
        is_known = target.kind is ObjectKind.DEPARTMENT and self._engine.is_within(target.id, target.id)
        return target.id if is_known else None

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


def told(reason: Reason) -> Reason:
    """What the caller is told: that a thing does not exist is nobody's business who may not see it."""
    return Reason.NO_MATCHING_GRANT if reason is Reason.UNKNOWN_RESOURCE else reason
