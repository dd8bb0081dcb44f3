"""The policy decision point: facts in, decisions out. Synchronous, in memory; knows no clock, SQL or HTTP.

Owned by the control process and used from its loop's thread alone. Facts may come in any order; what
refers to something unknown is denied until it is known. Everything that fails, denies.
"""

import logging
from collections.abc import Iterable, Mapping
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
    Sharing,
    Subject,
    SubjectKind,
)
from policies.catalogue import CameraEntry, Catalogue, object_key
from policies.decider import Decider, decision_of
from policies.roles import Role, check_role
from policies.rules import (
    MalformedGrantError,
    Rule,
    RuleIndex,
    grant_gid,
    precedence_of,
    validate_grant,
)
from policies.subjects import Subjects, assignment_key
from policies.tree import FactRefusedError, Tree
from policies.visibility import Visibility

__all__ = ["FactRefusedError", "PolicyEngine"]

_logger = logging.getLogger(__name__)


class PolicyEngine:
    """Decides who may do what with which resource.

    After the writes of a transaction the caller calls `advance(revision)`; until then the engine answers
    as of the old revision, and a request that asks for the new one is denied as stale.
    """

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self._roles = dict(roles)
        self._departments = Tree()
        self._subjects = Subjects(self._departments, self._roles)
        self._catalogue = Catalogue(self._departments)
        self._rules = RuleIndex()
        self._decider = Decider(self._subjects, self._catalogue, self._rules)
        self._visibility = Visibility(self._subjects, self._catalogue, self._rules, self._decider)
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

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles of policies.yaml and those set since, by name."""
        return self._roles

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
        is_new = department_id not in self._departments
        self._departments.set(department_id, parent_id)
        self._departments_changed()
        if is_new:
            for name, role in self._roles.items():
                self._put_role_in(name, role, department_id)

    def remove_department(self, department_id: str) -> None:
        """Raises FactRefusedError(in_use) while it has departments, cameras or users."""
        if self._catalogue.has_camera_in(department_id) or self._subjects.has_member(department_id):
            raise FactRefusedError("in_use", f"department {department_id!r} still has cameras or users")
        self._departments.remove(department_id)
        self.forget_department(department_id)

    def forget_department(self, department_id: str) -> None:
        """As if it had never been known: all in it and below it is denied until it is set again."""
        self._departments.forget(department_id)
        self._departments_changed()
        for name in self._roles:
            self._rules.remove(assignment_key(name, department_id))

    def set_group(self, group_id: str, parent_id: str | None) -> None:
        """Add or move a camera group. Raises FactRefusedError: cycle, too_deep, empty_id."""
        self._catalogue.set_group(group_id, parent_id)

    def remove_group(self, group_id: str) -> None:
        """Raises FactRefusedError(in_use) while it has cameras or groups."""
        self._catalogue.remove_group(group_id)

    def forget_group(self, group_id: str) -> None:
        """As if it had never been known: what lies in it is denied until it is set again."""
        self._catalogue.forget_group(group_id)

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
        self._catalogue.set_camera(camera_id, department_id, group_ids, tags, sharing)

    def set_cameras(self, entries: Iterable[CameraEntry]) -> None:
        """Add or change many. Raises FactRefusedError(empty_id), the new ones being set."""
        self._catalogue.set_cameras(entries)

    def remove_camera(self, camera_id: str) -> None:
        self._catalogue.remove_camera(camera_id)

    def set_user(
        self,
        user_id: str,
        department_id: str | None,
        roles: Iterable[RoleAssignment] = (),
        *,
        enabled: bool = True,
        until: datetime | None = None,
    ) -> None:
        """Add or change a user. A role that is not known carries nothing until it is.

        `until`: he may do nothing from then on. Raises FactRefusedError(empty_id).
        """
        self._subjects.set_user(user_id, department_id, roles, enabled, until)

    def remove_user(self, user_id: str) -> None:
        self._subjects.remove_user(user_id)

    def set_role(self, name: str, role: Role) -> None:
        """Add or replace a role; who is assigned it counts by it at once. Raises RolesError."""
        check_role(name, role, {*self._roles, name})
        self.remove_role(name)
        self._roles[name] = role
        self._put_role(name, role.installation, "r:" + name, INSTALLATION)
        for department_id in self._departments:
            self._put_role_in(name, role, department_id)

    def remove_role(self, name: str) -> None:
        """Forget a role; no-op if unknown. Who is assigned it keeps the grants to it, if any are left."""
        if self._roles.pop(name, None) is not None:
            self._rules.remove("r:" + name)
            for department_id in self._departments:
                self._rules.remove(assignment_key(name, department_id))

    def set_grant(self, grant: GrantRule) -> None:
        """Add or replace a grant. A malformed one harms only itself: see `malformed_grants`."""
        self.remove_grant(grant.id)
        try:
            self._rules.put(self._rule_of(grant))
        except (KeyError, TypeError, AttributeError):
            _logger.error("grant %r names nothing that could be allowed or denied", grant.id)

    def remove_grant(self, grant_id: str) -> None:
        self._malformed.pop(grant_id, None)
        self._rules.remove(grant_gid(grant_id))

    def _rule_of(self, grant: GrantRule) -> Rule:
        try:
            return Rule.of_grant(validate_grant(grant))
        except MalformedGrantError as error:
            self._malformed[grant.id] = str(error)
            return Rule.of_malformed(grant)

    @property
    def grants(self) -> list[GrantRule]:
        """All as they were set, without malformed ones, which never allow."""
        return [rule.to_grant() for rule in self._rules.grants() if rule.reason is not Reason.MALFORMED_RULE]

    def grant(self, grant_id: str) -> GrantRule | None:
        """A grant as it was set; None if there is none or it was malformed."""
        rule = self._rules.get(grant_gid(grant_id))
        return None if rule is None or rule.reason is Reason.MALFORMED_RULE else rule.to_grant()

    def void(self, grant_id: str) -> Reason | None:
        """Why a grant allows nothing, whatever its conditions: it, or one by which it was given, is void.

        None if it counts, as a denial always does. One that nobody set is `not_in_ledger`.
        """
        rule = self._rules.get(grant_gid(grant_id))
        if rule is None:
            return Reason.NOT_IN_LEDGER
        if not rule.is_allow:
            return None
        for one in (rule, *self._rules.above(rule)):
            if one is None:
                return Reason.PARENT_REVOKED
            if one.void is not None:
                return one.void
        return None

    def depth(self, grant_id: str) -> int:
        """How many grants stand above a grant, one on top of the other."""
        rule = self._rules.get(grant_gid(grant_id))
        return 0 if rule is None else sum(1 for _ in self._rules.above(rule))

    def has_subject(self, subject: Subject) -> bool:
        return self._subjects.is_known(subject)

    def has_object(self, resource: Object) -> bool:
        """Whether the object, and everything it lies in, is known."""
        return self._catalogue.ancestors(object_key(resource)) is not None

    def cameras_in(self, resource: Object) -> frozenset[str]:
        """Ids of all cameras in an object, at any depth. For small objects: see `ordinals_in`."""
        return frozenset(map(self._catalogue.camera_of, self.ordinals_in(resource)))

    def ordinals_in(self, resource: Object) -> BitMap:
        """The numbers of all cameras in an object, at any depth."""
        return self._catalogue.ordinals_in(object_key(resource))

    def owner_of(self, camera_id: str) -> str | None:
        """The department that a camera belongs to; None if there is no such camera."""
        home = self._catalogue.home_of(object_key(Object(ObjectKind.CAMERA, camera_id)))
        return None if home is None else home.department_id

    def is_within(self, department_id: str, other_id: str) -> bool:
        """Whether a department is the other one or lies below it; no if a department above it is unknown."""
        return other_id in (self._departments.path(department_id) or ())

    def top_departments(self) -> list[str]:
        """Those with none above them."""
        return [each for each in self._departments if self._departments.path(each) == (each,)]

    def ordinal(self, camera_id: str) -> int | None:
        """A camera's number, kept as long as the engine lives; None if it was never known."""
        return self._catalogue.ordinal(camera_id)

    def ordinals(self, camera_ids: Iterable[str]) -> list[int | None]:
        """`ordinal` of each."""
        return self._catalogue.ordinals(camera_ids)

    def camera_of(self, ordinal: int) -> str:
        """Raises IndexError."""
        return self._catalogue.camera_of(ordinal)

    # Decisions

    def decide(self, request: AccessRequest) -> Decision:
        """Answer one question; never raises. A failure inside is a denial, logged."""
        try:
            if request.min_revision > self._revision:
                return self._denial(Reason.STALE_REVISION)
            return decision_of(self._decider.decide(request), self._revision)
        except Exception:  # fail closed: a bug must deny, and must not end the caller's loop
            _logger.exception("decision failed")
            return self._denial(Reason.INTERNAL_ERROR)

    def explain(self, request: AccessRequest) -> Explanation:
        """The decision, all rules that matched, and those that would have but for one condition.

        Nothing is said of rules where the request was refused before any was looked at. Casbin is asked
        too: should it not agree, that is a failure inside.
        """
        try:
            if request.min_revision > self._revision:
                return Explanation(decision=self._denial(Reason.STALE_REVISION), matching=(), near_misses=())
            found = self._decider.explain(request)
        except Exception:  # as in `decide`
            _logger.exception("decision failed")
            return Explanation(decision=self._denial(Reason.INTERNAL_ERROR), matching=(), near_misses=())
        return Explanation(
            decision=decision_of(found.verdict, self._revision),
            matching=tuple(found.matching),
            near_misses=tuple(found.near_misses),
            owner_purposes=found.owner_purposes,
        )

    def is_visible(
        self, user_id: str, camera_id: str, at: datetime, actions: Iterable[Action] = VISIBLE_ACTIONS
    ) -> bool:
        """Whether any of the actions would be allowed for some purpose that the user might declare."""
        return self._visibility.is_visible(user_id, camera_id, at, actions)

    def visible_ordinals(
        self, user_id: str, at: datetime, actions: Iterable[Action] = VISIBLE_ACTIONS
    ) -> BitMap:
        """The numbers of exactly the cameras for which `is_visible` holds, without asking for each."""
        return self._visibility.visible(user_id, at, actions)

    def visible_cameras(
        self, user_id: str, at: datetime, actions: Iterable[Action] = VISIBLE_ACTIONS
    ) -> set[str]:
        """The ids instead of the numbers, for who sees few."""
        return set(map(self._catalogue.camera_of, self.visible_ordinals(user_id, at, actions)))

    def holds_by_office(self, user_id: str, action: Action, resource: Object, at: datetime) -> bool:
        """Whether a role gives the user the action on the whole object, and no denial takes it.

        A group or a tag belongs to nobody: it is held by who holds each of its cameras, at least one.
        """
        if resource.kind in (ObjectKind.GROUP, ObjectKind.TAG):
            cameras = self.ordinals_in(resource)
            return bool(cameras) and cameras <= self._visibility.visible(
                user_id, at, (action,), by_office=True
            )
        request = AccessRequest(user_id=user_id, action=action, object=resource, at=at)
        found = self.explain(request)
        return found.decision.allowed and any(match.reason is Reason.ROLE for match in found.matching)

    def principals_of(self, resource: Object, action: Action, at: datetime) -> set[str]:
        """Ids of exactly the enabled users to whom the action would be allowed for some purpose."""
        return self._visibility.principals_of(resource, action, at)

    def _denial(self, reason: Reason, rule: str | None = None) -> Decision:
        return Decision(effect=Effect.DENY, reason=reason, rule=rule, revision=self._revision)

    def _departments_changed(self) -> None:
        self._subjects.departments_changed()
        self._catalogue.departments_changed()

    def _put_role_in(self, name: str, role: Role, department_id: str) -> None:
        place = Object(ObjectKind.DEPARTMENT, department_id)
        self._put_role(name, role.department, assignment_key(name, department_id), place)

    def _put_role(self, role: str, actions: frozenset[Action], subject: str, resource: Object) -> None:
        if not actions:
            return
        name = "role:" + role
        self._rules.put(
            Rule(
                gid=subject,
                name=name,
                subject=Subject(SubjectKind.ROLE, role),
                object=resource,
                subject_key=subject,
                place=object_key(resource),
                actions=actions,
                is_allow=True,
                reason=Reason.ROLE,
                precedence=precedence_of(True, None, subject),
            )
        )
