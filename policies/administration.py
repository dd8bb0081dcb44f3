"""The policy administration point: which grants and accounts a person may write. Pure; stores nothing.

Whoever gives must hold `camera:share` over all that he gives, by office or by a grant that he does not go
beyond, and cannot give to himself. Whoever
administers an account must hold `user:manage` over all that its roles reach: else a department's
administrator could reset the password of somebody more powerful. Nobody holds roles whose duties are
separate, and only who manages all accounts appoints to one of them.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from policies.access import (
    GRANTABLE_ACTIONS,
    INSTALLATION,
    AccessRequest,
    Action,
    Effect,
    GrantRule,
    Object,
    ObjectKind,
    Obligations,
    RoleAssignment,
    Schedule,
    Subject,
    SubjectKind,
)
from policies.delegation import beyond, parents_of
from policies.engine import PolicyEngine
from policies.roles import Role, joined_duties
from policies.rules import MalformedGrantError, validate_grant


class Refusal(StrEnum):
    """Why a grant or an account may not be written; stable, shown to callers."""

    MALFORMED = "malformed"
    ACTIONS_EMPTY = "actions_empty"
    ACTION_NOT_GRANTABLE = "action_not_grantable"
    VALIDITY_PAST = "validity_past"
    PURPOSES_EMPTY = "purposes_empty"
    PURPOSE_UNKNOWN = "purpose_unknown"
    OBLIGATION_INVALID = "obligation_invalid"
    OBJECT_NOT_GRANTABLE = "object_not_grantable"
    SUBJECT_UNKNOWN = "subject_unknown"
    SELF_GRANT = "self_grant"
    NOT_SHAREABLE = "not_shareable"
    BEYOND_GIVER = "beyond_giver"
    OWN_ACCOUNT = "own_account"
    ROLE_UNKNOWN = "role_unknown"
    ROLE_WITHOUT_DEPARTMENT = "role_without_department"
    NOT_MANAGEABLE = "not_manageable"
    SEPARATE_DUTIES = "separate_duties"


class AdministrationRefusedError(Exception):
    """A change that this person may not make, or nobody may. Nothing to retry."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message)
        self.code = code


class GrantRefusedError(AdministrationRefusedError):
    """A grant that may not be given, or not be revoked, by this person."""


class AccountRefusedError(AdministrationRefusedError):
    """An account that may not be written by this person."""


class GrantProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A grant that somebody wants to give; the fields are those of GrantRule."""

    giver_id: str
    subject: Subject
    object: Object
    actions: frozenset[Action]
    effect: Effect = Effect.ALLOW
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    purposes: frozenset[str] | None = None
    obligations: Obligations = Obligations()
    schedule: Schedule | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A user as an administrator sees him."""

    user_id: str
    department_id: str | None
    roles: tuple[RoleAssignment, ...] = ()


def accept_grant(
    proposal: GrantProposal,
    *,
    grant_id: str,
    at: datetime,
    known_purposes: Collection[str],
    engine: PolicyEngine,
) -> GrantRule:
    """Turn a proposal into a rule, `granted_by` the giver, whose `parent` is the grant by which he may.

    Raises GrantRefusedError. A camera that does not exist and one that the giver may not share are the
    same refusal (`not_shareable`), so that nobody can probe for cameras.
    """
    fields = msgspec.structs.asdict(proposal)
    giver_id = fields.pop("giver_id")
    try:
        rule = validate_grant(GrantRule(id=grant_id, granted_by=giver_id, **fields))
    except MalformedGrantError as error:
        raise GrantRefusedError(Refusal.MALFORMED, str(error)) from error
    _check_content(rule, at, known_purposes)
    _check_subject(rule, giver_id, engine)
    _check_object(rule.object)
    if not engine.holds_by_office(giver_id, Action.CAMERA_SHARE, rule.object, at):
        return _given_on(rule, giver_id, at, engine)
    if Action.CAMERA_MANAGE in rule.actions and not engine.holds_by_office(
        giver_id, Action.CAMERA_MANAGE, rule.object, at
    ):
        raise GrantRefusedError(Refusal.BEYOND_GIVER, "not yours to give: camera:manage")
    return rule


def check_sharing(user_id: str, resource: Object, *, at: datetime, engine: PolicyEngine) -> None:
    """Refuse unless the user holds `camera:share` over the whole object by office: to revoke a denial.

    A group or a tag belongs to nobody: it can be shared by who may share each of its cameras, at least
    one. The same check belongs before putting a camera into a group, since all grants on the group then
    reach it. Raises GrantRefusedError(not_shareable, object_not_grantable).
    """
    _check_object(resource)
    if not engine.holds_by_office(user_id, Action.CAMERA_SHARE, resource, at):
        raise GrantRefusedError(Refusal.NOT_SHAREABLE, f"you may not share this {resource.kind}")


def _check_object(resource: Object) -> None:
    if resource.kind is ObjectKind.INSTALLATION:
        raise GrantRefusedError(Refusal.OBJECT_NOT_GRANTABLE, "the whole installation cannot be granted")


def _given_on(rule: GrantRule, giver_id: str, at: datetime, engine: PolicyEngine) -> GrantRule:
    excesses = []
    for parent in parents_of(giver_id, rule, at, engine):
        excess = beyond(rule, parent, at, engine)
        if excess is None:
            return msgspec.structs.replace(rule, parent=parent.id)
        excesses.append(excess)
    if excesses:
        raise GrantRefusedError(Refusal.BEYOND_GIVER, excesses[0])
    raise GrantRefusedError(Refusal.NOT_SHAREABLE, f"you may not share this {rule.object.kind}")


def check_account(
    account: Account, *, actor_id: str, at: datetime, roles: Mapping[str, Role], engine: PolicyEngine
) -> None:
    """Refuse unless the actor holds `user:manage` over the account's department and all its roles' scopes.

    Call it for the account as it is and as it shall be. Raises AccountRefusedError: own_account,
    role_unknown, role_without_department, not_manageable.
    """
    if account.user_id == actor_id:
        raise AccountRefusedError(Refusal.OWN_ACCOUNT, "nobody administers his own account")
    scopes = {_scope(account.department_id)}
    for assignment in account.roles:
        scopes |= _scopes_of_role(assignment, roles)
    for scope in scopes:
        if not _holds(actor_id, Action.USER_MANAGE, scope, at, engine):
            raise AccountRefusedError(
                Refusal.NOT_MANAGEABLE, f"you may not manage accounts of this {scope.kind}"
            )


def check_separation(account: Account, roles: Mapping[str, Role]) -> None:
    """Refuse an account that would join separate duties. Raises AccountRefusedError: separate_duties."""
    joined = joined_duties([assignment.role for assignment in account.roles], roles)
    if joined is not None:
        raise AccountRefusedError(Refusal.SEPARATE_DUTIES, f"nobody is both {joined[0]} and {joined[1]}")


def _check_content(rule: GrantRule, at: datetime, known_purposes: Collection[str]) -> None:
    if not rule.actions:
        raise GrantRefusedError(Refusal.ACTIONS_EMPTY, "no action")
    if other := rule.actions - GRANTABLE_ACTIONS:
        raise GrantRefusedError(Refusal.ACTION_NOT_GRANTABLE, f"not grantable: {', '.join(sorted(other))}")
    if rule.valid_to is not None and rule.valid_to <= at:
        raise GrantRefusedError(Refusal.VALIDITY_PAST, "valid_to has passed")
    if rule.purposes is not None:
        if not rule.purposes:
            raise GrantRefusedError(Refusal.PURPOSES_EMPTY, "an empty list of purposes serves nobody")
        if unknown := rule.purposes.difference(known_purposes):
            raise GrantRefusedError(Refusal.PURPOSE_UNKNOWN, f"unknown: {', '.join(sorted(unknown))}")
    obligations = rule.obligations
    for limit in (obligations.max_duration_seconds, obligations.max_height, obligations.max_concurrent):
        if limit is not None and limit <= 0:
            raise GrantRefusedError(Refusal.OBLIGATION_INVALID, "limits must be positive")


def _check_subject(rule: GrantRule, giver_id: str, engine: PolicyEngine) -> None:
    if rule.subject == Subject(SubjectKind.USER, giver_id):
        raise GrantRefusedError(Refusal.SELF_GRANT, "nobody grants to himself")
    if not engine.has_subject(rule.subject):
        raise GrantRefusedError(Refusal.SUBJECT_UNKNOWN, f"unknown {rule.subject.kind}")


def _scopes_of_role(assignment: RoleAssignment, roles: Mapping[str, Role]) -> set[Object]:
    role = roles.get(assignment.role)
    if role is None:
        raise AccountRefusedError(Refusal.ROLE_UNKNOWN, f"unknown role: {assignment.role}")
    if role.department and assignment.department_id is None:
        raise AccountRefusedError(
            Refusal.ROLE_WITHOUT_DEPARTMENT, f"{assignment.role} works in a department: name it"
        )
    scopes = {_scope(assignment.department_id)} if assignment.department_id is not None else set()
    return scopes | {INSTALLATION} if role.installation or role.separate_from else scopes


def _scope(department_id: str | None) -> Object:
    return INSTALLATION if department_id is None else Object(ObjectKind.DEPARTMENT, department_id)


def _holds(user_id: str, action: Action, resource: Object, at: datetime, engine: PolicyEngine) -> bool:
    return engine.decide(AccessRequest(user_id=user_id, action=action, object=resource, at=at)).allowed
