"""Policy rules as Casbin reads them, the typed conditions behind them, and the index by (subject, action)."""

from bisect import insort
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple, Self

import msgspec

from policies.access import (
    AccessRequest,
    Action,
    Effect,
    GrantRule,
    Object,
    Obligations,
    Reason,
    Subject,
)
from policies.catalogue import object_key
from policies.subjects import subject_key


class PolicyRule(NamedTuple):
    """One Casbin policy row; the fields are those of `p` in model.conf. `effect` is exactly allow or deny."""

    subject: str
    object: str
    action: str
    effect: str
    gid: str


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What `live(ctx, gid)` tests, and what a decision says of the rule.

    `name`: the grant's id, or `role:NAME`. `reason`: why a request is decided so if this rule decides.
    A malformed rule fails closed: if it was to allow, it never does; else it denies without conditions.
    """

    name: str
    subject: Subject
    object: Object
    effect: Effect
    reason: Reason
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    purposes: frozenset[str] | None = None
    excluded_user: str | None = None
    obligations: Obligations = Obligations()

    @classmethod
    def of_grant(cls, grant: GrantRule) -> Self:
        is_allow = grant.effect is Effect.ALLOW
        return cls(
            name=grant.id,
            subject=grant.subject,
            object=grant.object,
            effect=grant.effect,
            reason=Reason.GRANTED if is_allow else Reason.DENIED_BY_RULE,
            valid_from=grant.valid_from,
            valid_to=grant.valid_to,
            purposes=grant.purposes,
            excluded_user=grant.granted_by if is_allow else None,
            obligations=grant.obligations,
        )

    @property
    def is_allow(self) -> bool:
        return self.effect is Effect.ALLOW

    @property
    def precedence(self) -> tuple[bool, float, str]:
        """Sorts what decides first: denials, then the longest lasting allow."""
        remaining = float("-inf") if self.valid_to is None else -self.valid_to.timestamp()
        return self.is_allow, remaining, self.name

    def unmet(self, request: AccessRequest) -> Reason | None:
        """The first condition that the request does not meet; None if the rule is live for it."""
        return self.unmet_by(request.user_id, request.at) or (
            None if self.serves(request.purpose) else Reason.PURPOSE_NOT_ALLOWED
        )

    def unmet_by(self, user_id: str, at: datetime) -> Reason | None:
        """The same, whatever the purpose."""
        if self.reason is Reason.MALFORMED_RULE and self.is_allow:
            return Reason.MALFORMED_RULE
        if self.valid_from is not None and at < self.valid_from:
            return Reason.GRANT_NOT_YET_VALID
        if self.valid_to is not None and at >= self.valid_to:
            return Reason.GRANT_EXPIRED
        if self.excluded_user is not None and user_id == self.excluded_user:
            return Reason.OWN_GRANT
        return None

    def serves(self, purpose: str | None) -> bool:
        return self.purposes is None or purpose in self.purposes


class MalformedGrantError(ValueError):
    """A grant whose values are not of the declared types; the message names the first wrong field."""


def validate_grant(grant: GrantRule) -> GrantRule:
    """Check every field of a grant against its declared type, which constructing one does not.

    Raises MalformedGrantError.
    """
    try:
        valid = msgspec.convert(msgspec.to_builtins(grant), GrantRule)
    except (msgspec.ValidationError, TypeError) as error:
        raise MalformedGrantError(str(error)) from error
    if valid.valid_from and valid.valid_to and valid.valid_from >= valid.valid_to:
        raise MalformedGrantError("valid_from is not before valid_to")
    if not valid.subject.id:
        raise MalformedGrantError("the subject is empty")
    return valid


def malformed_conditions(grant: GrantRule) -> Conditions:
    """The fail-closed conditions of a grant that did not validate: see Conditions."""
    return Conditions(
        name=grant.id,
        subject=grant.subject,
        object=grant.object,
        effect=Effect.ALLOW if grant.effect == "allow" else Effect.DENY,
        reason=Reason.MALFORMED_RULE,
    )


def rules_of(conditions: Conditions, actions: Iterable[Action], gid: str) -> list[PolicyRule]:
    """One row per action."""
    subject, resource = subject_key(conditions.subject), object_key(conditions.object)
    return [PolicyRule(subject, resource, action, conditions.effect, gid) for action in actions]


class RuleIndex:
    """All rules, by (subject, action), then by object; and their conditions by gid.

    It holds what Casbin would hold in a list. Within an object, rules are in order of precedence.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], dict[str, list[PolicyRule]]] = {}
        self._rules: dict[str, list[PolicyRule]] = {}
        self.conditions: dict[str, Conditions] = {}

    def put(self, gid: str, conditions: Conditions, rules: list[PolicyRule]) -> None:
        """Add or replace the rules of one gid."""
        self.remove(gid)
        self.conditions[gid] = conditions
        self._rules[gid] = rules
        for rule in rules:
            bucket = self._buckets.setdefault((rule.subject, rule.action), {})
            insort(bucket.setdefault(rule.object, []), rule, key=self._precedence)

    def remove(self, gid: str) -> None:
        """Forget the rules of a gid; no-op if there are none."""
        for rule in self._rules.pop(gid, ()):
            bucket = self._buckets[rule.subject, rule.action]
            bucket[rule.object].remove(rule)
            if not bucket[rule.object]:
                del bucket[rule.object]
            if not bucket:
                del self._buckets[rule.subject, rule.action]
        self.conditions.pop(gid, None)

    def candidates(
        self, closure: Iterable[str], resource: str, ancestors: frozenset[str], action: str
    ) -> list[PolicyRule]:
        """Rules whose subject, object and action fit, in order of precedence; conditions are not tested."""
        found: list[PolicyRule] = []
        for bucket in self._buckets_of(closure, action):
            if resource not in ancestors and (rules := bucket.get(resource)) is not None:
                found += rules
            if len(bucket) < len(ancestors):
                for place, rules in bucket.items():
                    if place in ancestors:
                        found += rules
            else:
                for ancestor in ancestors:
                    if (rules := bucket.get(ancestor)) is not None:
                        found += rules
        if len(found) > 1:
            found.sort(key=self._precedence)
        return found

    def reaching(self, closure: Iterable[str], action: str) -> Iterator[PolicyRule]:
        """All rules of a closure for an action, on whatever object."""
        for bucket in self._buckets_of(closure, action):
            for rules in bucket.values():
                yield from rules

    def _buckets_of(self, closure: Iterable[str], action: str) -> Iterator[dict[str, list[PolicyRule]]]:
        for subject in closure:
            bucket = self._buckets.get((subject, action))
            if bucket is not None:
                yield bucket

    def _precedence(self, rule: PolicyRule) -> tuple[bool, float, str]:
        return self.conditions[rule.gid].precedence
