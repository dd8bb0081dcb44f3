"""The policy decision point: facts in, decisions out. Synchronous, in memory; knows no clock, SQL or HTTP.

Owned by the control process and used from its loop's thread alone. Facts may come in any order; what
refers to something unknown is denied until it is known. Everything that fails, denies.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from pyroaring import BitMap

from policies.access import (
    INSTALLATION,
    VISIBLE_ACTIONS,
    AccessRequest,
    Action,
    Decision,
    Effect,
    Explanation,
    GrantRule,
    Object,
    ObjectKind,
    Reason,
    RoleAssignment,
    RuleMatch,
    Sharing,
    Subject,
    SubjectKind,
)
from policies.catalogue import Catalogue, object_key
from policies.enforcer import IndexedEnforcer
from policies.roles import Role
from policies.rules import (
    Conditions,
    MalformedGrantError,
    PolicyRule,
    RuleIndex,
    malformed_conditions,
    rules_of,
    validate_grant,
)
from policies.subjects import Subjects, assignment_key, user_key
from policies.tree import FactRefusedError, Tree
from policies.visibility import Visibility

__all__ = ["FactRefusedError", "PolicyEngine"]

_logger = logging.getLogger(__name__)

_NEAR_MISSES = (
    Reason.PURPOSE_NOT_ALLOWED,
    Reason.GRANT_NOT_YET_VALID,
    Reason.GRANT_EXPIRED,
    Reason.OWN_GRANT,
    Reason.MALFORMED_RULE,
)
"""What a refusal says when grants fit but for a condition: the most helpful first."""


class PolicyEngine:
    """Decides who may do what with which resource.

    After the writes of a transaction the caller calls `advance(revision)`; until then the engine answers
    as of the old revision, and a request that asks for the new one is denied as stale.
    """

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self._roles = roles
        self._departments = Tree()
        self._subjects = Subjects(self._departments, roles)
        self._catalogue = Catalogue(self._departments)
        self._rules = RuleIndex()
        self._enforcer = IndexedEnforcer(self._subjects, self._catalogue, self._rules)
        self._visibility = Visibility(self._subjects, self._catalogue, self._rules)
        self._malformed: dict[str, str] = {}
        self._revision = 0
        for name, role in roles.items():
            self._put_role(name, role.installation, "r:" + name, INSTALLATION)

    # Facts

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def malformed_grants(self) -> Mapping[str, str]:
        """Why a grant was not understood, by its id. Such a grant never allows."""
        return self._malformed

    def advance(self, revision: int) -> None:
        """Say which revision of the policy all facts written so far make up. Raises ValueError if older."""
        if revision < self._revision:
            raise ValueError(f"revision {revision} is older than {self._revision}")
        self._revision = revision

    def check_department(self, department_id: str, parent_id: str | None) -> None:
        """Raise what `set_department` would raise: to ask before the transaction, not after its commit."""
        self._departments.check(department_id, parent_id)

    def check_group(self, group_id: str, parent_id: str | None) -> None:
        """Raise what `set_group` would raise."""
        self._catalogue.check_group(group_id, parent_id)

    def set_department(self, department_id: str, parent_id: str | None) -> None:
        """Add or move a department. Raises FactRefusedError: cycle, too_deep, empty_id."""
        self._departments.set(department_id, parent_id)
        self._departments_changed()
        for name, role in self._roles.items():
            self._put_role(
                name,
                role.department,
                assignment_key(name, department_id),
                Object(ObjectKind.DEPARTMENT, department_id),
            )

    def remove_department(self, department_id: str) -> None:
        """Raises FactRefusedError(in_use) while it has departments, cameras or users."""
        if self._catalogue.has_camera_in(department_id) or self._subjects.has_member(department_id):
            raise FactRefusedError("in_use", f"department {department_id!r} still has cameras or users")
        self._departments.remove(department_id)
        self._departments_changed()
        for name in self._roles:
            self._rules.remove(assignment_key(name, department_id))

    def set_group(self, group_id: str, parent_id: str | None) -> None:
        """Add or move a camera group. Raises FactRefusedError: cycle, too_deep, empty_id."""
        self._catalogue.set_group(group_id, parent_id)

    def remove_group(self, group_id: str) -> None:
        """Raises FactRefusedError(in_use) while it has cameras or groups."""
        self._catalogue.remove_group(group_id)

    def set_camera(
        self,
        camera_id: str,
        department_id: str,
        group_ids: Iterable[str] = (),
        *,
        tags: Iterable[str] = (),
        sharing: Sharing | None = None,
    ) -> None:
        """Add or change a camera; without `sharing`, by grants. Raises FactRefusedError(empty_id)."""
        del sharing
        self._catalogue.set_camera(camera_id, department_id, group_ids, tags)

    def remove_camera(self, camera_id: str) -> None:
        self._catalogue.remove_camera(camera_id)

    def set_user(
        self,
        user_id: str,
        department_id: str | None,
        roles: Iterable[RoleAssignment] = (),
        *,
        enabled: bool = True,
    ) -> None:
        """Add or change a user. A role that policies.yaml does not name carries nothing.

        Raises FactRefusedError(empty_id).
        """
        self._subjects.set_user(user_id, department_id, roles, enabled)

    def remove_user(self, user_id: str) -> None:
        self._subjects.remove_user(user_id)

    def set_grant(self, grant: GrantRule) -> None:
        """Add or replace a grant. A malformed one harms only itself: see `malformed_grants`."""
        gid = f"grant:{grant.id}"
        self.remove_grant(grant.id)
        try:
            valid = validate_grant(grant)
            conditions, actions = Conditions.of_grant(valid), valid.actions
        except MalformedGrantError as error:
            self._malformed[grant.id] = str(error)
            conditions, actions = malformed_conditions(grant), frozenset(Action)
        try:
            self._rules.put(gid, conditions, rules_of(conditions, actions, gid))
        except (KeyError, TypeError, AttributeError):
            _logger.error("grant %r names nothing that could be allowed or denied", grant.id)

    def remove_grant(self, grant_id: str) -> None:
        self._malformed.pop(grant_id, None)
        self._rules.remove(f"grant:{grant_id}")

    def has_subject(self, subject: Subject) -> bool:
        return self._subjects.is_known(subject)

    def has_object(self, resource: Object) -> bool:
        """Whether the object, and everything it lies in, is known."""
        return self._catalogue.ancestors(object_key(resource)) is not None

    def cameras_in(self, resource: Object) -> frozenset[str]:
        """Ids of all cameras in an object, at any depth."""
        return frozenset(self._catalogue.cameras_in(object_key(resource)))

    # Decisions

    def decide(self, request: AccessRequest) -> Decision:
        """Answer one question; never raises. A failure inside is a denial, logged."""
        return self._decide(request)[0]

    def explain(self, request: AccessRequest) -> Explanation:
        """The decision, all rules that matched, and those that would have but for one condition.

        Nothing is said of rules where the request was refused before any was looked at.
        """
        decision, candidates = self._decide(request)
        matching: list[RuleMatch] = []
        near_misses: list[RuleMatch] = []
        for conditions in self._conditions_of(candidates):
            unmet = conditions.unmet(request)
            match = RuleMatch(
                rule=conditions.name,
                effect=conditions.effect,
                subject=conditions.subject,
                object=conditions.object,
                reason=unmet or conditions.reason,
            )
            (near_misses if unmet else matching).append(match)
        return Explanation(decision=decision, matching=tuple(matching), near_misses=tuple(near_misses))

    def is_visible(
        self, user_id: str, camera_id: str, at: datetime, actions: Iterable[Action] = VISIBLE_ACTIONS
    ) -> bool:
        """Whether any of the actions would be allowed for some purpose that the user might declare."""
        return self._visibility.is_visible(user_id, camera_id, at, actions)

    def visible_cameras(
        self, user_id: str, at: datetime, actions: Iterable[Action] = VISIBLE_ACTIONS
    ) -> set[str]:
        """Ids of exactly the cameras for which `is_visible` holds, without asking for each."""
        return self._visibility.visible_cameras(user_id, at, actions)

    def ordinal(self, camera_id: str) -> int | None:
        """A camera's number, kept as long as the engine lives; None if it was never known."""
        return self._catalogue.ordinal(camera_id)

    def camera_of(self, ordinal: int) -> str:
        """Raises IndexError."""
        return self._catalogue.camera_of(ordinal)

    def visible_ordinals(
        self, user_id: str, at: datetime, actions: Iterable[Action] = VISIBLE_ACTIONS
    ) -> BitMap:
        """The numbers of exactly the cameras for which `is_visible` holds."""
        cameras = self.visible_cameras(user_id, at, actions)
        return BitMap(number for camera in cameras if (number := self.ordinal(camera)) is not None)

    def ordinals_in(self, resource: Object) -> BitMap:
        """The numbers of all cameras in an object, at any depth."""
        cameras = self.cameras_in(resource)
        return BitMap(number for camera in cameras if (number := self.ordinal(camera)) is not None)

    def _decide(self, request: AccessRequest) -> tuple[Decision, list[PolicyRule]]:
        try:
            return self._answer(request)
        except Exception:  # fail closed: a bug must deny, and must not end the caller's loop
            _logger.exception("decision failed")
            return self._denial(Reason.INTERNAL_ERROR), []

    def _answer(self, request: AccessRequest) -> tuple[Decision, list[PolicyRule]]:
        if request.min_revision > self._revision:
            return self._denial(Reason.STALE_REVISION), []
        user = user_key(request.user_id)
        closure = self._subjects.closure(user)
        if closure is None or not self._subjects.is_enabled(user):
            unknown, disabled = Reason.UNKNOWN_PRINCIPAL, Reason.PRINCIPAL_DISABLED
            return self._denial(unknown if closure is None else disabled), []
        resource = object_key(request.object)
        ancestors = self._catalogue.ancestors(resource)
        if ancestors is None:
            return self._denial(Reason.UNKNOWN_RESOURCE), []
        candidates = self._rules.candidates(closure, resource, ancestors, request.action)
        allowed, rule = self._enforcer.enforce_over(candidates, user, resource, request)
        if rule is None:
            return self._denial(self._nearest_miss(candidates, request)), candidates
        conditions = self._rules.conditions[rule.gid]
        if not allowed:
            return self._denial(conditions.reason, conditions.name), candidates
        return self._permission(conditions, self._end_of(conditions, candidates, request)), candidates

    def _permission(self, conditions: Conditions, expires_at: datetime | None) -> Decision:
        return Decision(
            effect=Effect.ALLOW,
            reason=conditions.reason,
            rule=conditions.name,
            revision=self._revision,
            obligations=conditions.obligations,
            expires_at=expires_at,
        )

    def _denial(self, reason: Reason, rule: str | None = None) -> Decision:
        return Decision(effect=Effect.DENY, reason=reason, rule=rule, revision=self._revision)

    def _nearest_miss(self, candidates: list[PolicyRule], request: AccessRequest) -> Reason:
        unmet = {
            conditions.unmet(request) for conditions in self._conditions_of(candidates) if conditions.is_allow
        }
        return next((reason for reason in _NEAR_MISSES if reason in unmet), Reason.NO_MATCHING_GRANT)

    def _end_of(
        self, winner: Conditions, candidates: list[PolicyRule], request: AccessRequest
    ) -> datetime | None:
        end = winner.valid_to
        for rule in candidates:
            if rule.effect == Effect.ALLOW:  # denials come first
                break
            conditions = self._rules.conditions[rule.gid]
            start = conditions.valid_from
            if start is not None and start > request.at and conditions.serves(request.purpose):
                end = start if end is None else min(end, start)
        return end

    def _conditions_of(self, rules: Iterable[PolicyRule]) -> Iterator[Conditions]:
        return (self._rules.conditions[rule.gid] for rule in rules)

    def _departments_changed(self) -> None:
        self._subjects.departments_changed()
        self._catalogue.departments_changed()

    def _put_role(self, name: str, actions: Iterable[Action], subject: str, resource: Object) -> None:
        conditions = Conditions(
            name="role:" + name,
            subject=Subject(SubjectKind.ROLE, name),
            object=resource,
            effect=Effect.ALLOW,
            reason=Reason.ROLE,
        )
        place = object_key(resource)
        rules = [PolicyRule(subject, place, action, Effect.ALLOW, subject) for action in actions]
        self._rules.put(subject, conditions, rules)
