"""Rules and the typed conditions behind them, and the index that finds those which name a request."""

from bisect import insort
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Self, TypeVar

import msgspec

from policies.access import Action, Effect, GrantRule, Object, Obligations, Reason, Subject
from policies.catalogue import object_key
from policies.schedules import UnknownZoneError, WeeklyClock, compile_schedule
from policies.subjects import subject_key

MAX_DELEGATION_DEPTH = 8
"""How many grants may stand above one another; a longer chain is not live."""

T = TypeVar("T")
Precedence = tuple[bool, float, str]

_GRANT = "grant:"
_PRECEDENCE = attrgetter("precedence")
_NO_OBLIGATIONS = Obligations()


class Rule(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One rule as it is decided by: a grant, or what a role or an owner's sharing gives.

    `name`: the grant's id, `role:NAME` or `sharing:CAMERA`; `gid`: Casbin's name of it. `place` and
    `subject_key`: Casbin's names of object and subject. `reason`: why a request is decided so if this rule
    decides. `parent`: the gid of the grant by which it was given. `void`: the grant's. A malformed rule fails
    closed: if it was to allow, it is void; else it denies without conditions.
    """

    gid: str
    name: str
    subject: Subject
    object: Object
    subject_key: str
    place: str
    actions: frozenset[Action]
    is_allow: bool
    reason: Reason
    precedence: Precedence
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    purposes: frozenset[str] | None = None
    granted_by: str | None = None
    obligations: Obligations = _NO_OBLIGATIONS
    clock: WeeklyClock | None = None
    parent: str | None = None
    void: Reason | None = None

    @classmethod
    def of_grant(cls, grant: GrantRule) -> Self:
        """Of a valid grant."""
        is_allow = grant.effect is Effect.ALLOW
        return cls(
            gid=grant_gid(grant.id),
            name=grant.id,
            subject=grant.subject,
            object=grant.object,
            subject_key=subject_key(grant.subject),
            place=object_key(grant.object),
            actions=_shared(grant.actions),
            is_allow=is_allow,
            reason=Reason.GRANTED if is_allow else Reason.DENIED_BY_RULE,
            precedence=precedence_of(is_allow, grant.valid_to, grant_gid(grant.id)),
            valid_from=grant.valid_from,
            valid_to=grant.valid_to,
            purposes=_shared(grant.purposes),
            granted_by=grant.granted_by,
            obligations=_shared(grant.obligations),
            clock=None if grant.schedule is None else compile_schedule(grant.schedule),
            parent=None if grant.parent is None else grant_gid(grant.parent),
            void=grant.void,
        )

    @classmethod
    def of_malformed(cls, grant: GrantRule) -> Self:
        """The fail-closed rule of a grant that did not validate.

        Raises KeyError, TypeError or AttributeError if it names nothing that could be denied.
        """
        is_allow = grant.effect == "allow"
        return cls(
            gid=grant_gid(grant.id),
            name=grant.id,
            subject=grant.subject,
            object=grant.object,
            subject_key=subject_key(grant.subject),
            place=object_key(grant.object),
            actions=ALL_ACTIONS,
            is_allow=is_allow,
            reason=Reason.MALFORMED_RULE,
            precedence=precedence_of(is_allow, None, grant_gid(grant.id)),
            void=Reason.MALFORMED_RULE,
        )

    def to_grant(self) -> GrantRule:
        """The grant that `of_grant` was given."""
        return GrantRule(
            id=self.name,
            subject=self.subject,
            object=self.object,
            actions=self.actions,
            effect=self.effect,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            purposes=self.purposes,
            obligations=self.obligations,
            granted_by=self.granted_by,
            schedule=None if self.clock is None else self.clock.schedule,
            parent=None if self.parent is None else self.parent.removeprefix(_GRANT),
            void=self.void,
        )

    def is_like(self, other: Self) -> bool:
        """Whether a request asks the same of both, but for when they begin and end, and who gave them."""
        return (
            self.is_allow is other.is_allow
            and self.clock is other.clock
            and self.actions == other.actions
            and self.purposes == other.purposes
        )

    @property
    def effect(self) -> Effect:
        return Effect.ALLOW if self.is_allow else Effect.DENY

    def unmet_by(self, user_id: str, at: datetime) -> Reason | None:
        """The first condition that is not met, whatever the purpose; None if the rule is live."""
        return self.unmet_at(at) or (
            Reason.OWN_GRANT if self.is_allow and user_id == self.granted_by else None
        )

    def unmet_at(self, at: datetime) -> Reason | None:
        """The same, for anybody."""
        if self.is_allow and self.void is not None:
            return self.void
        if self.valid_from is not None and at < self.valid_from:
            return Reason.GRANT_NOT_YET_VALID
        if self.valid_to is not None and at >= self.valid_to:
            return Reason.NOT_SHARED if self.reason is Reason.SHARED else Reason.GRANT_EXPIRED
        if self.clock is not None and not self.clock.is_open(at):
            return Reason.OUTSIDE_WINDOW
        return None

    def serves(self, purpose: str | None, *, is_purposeless: bool) -> bool:
        """`is_purposeless`: the action is one of PURPOSELESS_ACTIONS."""
        purposes = self.purposes
        return purposes is None or purpose in purposes or (is_purposeless and bool(purposes))

    def end_after(self, at: datetime) -> datetime | None:
        """When the rule, live at `at`, stops being live; None if never."""
        closing = None if self.clock is None else self.clock.next_change(at)
        return earlier(self.valid_to, closing)

    def start_after(self, at: datetime) -> datetime | None:
        """When the rule, not live at `at`, becomes live; None if never again."""
        start = at if self.valid_from is None or self.valid_from <= at else self.valid_from
        opening = start if self.clock is None else self.clock.opening(start)
        if opening is None or opening <= at or (self.valid_to is not None and opening >= self.valid_to):
            return None
        return opening


ALL_ACTIONS = frozenset(Action)


def precedence_of(is_allow: bool, valid_to: datetime | None, gid: str) -> Precedence:
    """Sorts what decides first: denials, then the longest lasting allow; no two are alike."""
    return is_allow, float("-inf") if valid_to is None else -valid_to.timestamp(), gid


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Of two ends; None is no end."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def grant_gid(grant_id: str) -> str:
    """Casbin's name of a grant; no role and no sharing has it."""
    return _GRANT + grant_id


@lru_cache(maxsize=4096)
def _shared(value: T) -> T:
    """One object for all equal ones: a hundred thousand grants differ in few sets and obligations."""
    return value


def _for_action(lists: Iterable[list[Rule]], action: Action) -> Iterator[Rule]:
    """Of lists of alike rules."""
    for rules in lists:
        if action in rules[0].actions:
            yield from rules


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
    if valid.parent is not None and valid.effect is Effect.DENY:
        raise MalformedGrantError("a denial comes by office only, it has no parent")
    if valid.schedule is not None:
        try:
            compile_schedule(valid.schedule)
        except UnknownZoneError as error:
            raise MalformedGrantError(str(error)) from error
    return valid


class RuleIndex:
    """All rules, by subject, then by object: what Casbin would hold in a list.

    Within a subject and an object, alike rules (`Rule.is_like`) stand together, in order of precedence.
    """

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._by_subject: dict[str, dict[str, list[list[Rule]]]] = {}
        self._subjects_at: dict[str, set[str]] = {}

    def put(self, rule: Rule) -> None:
        """Add a rule, or replace the one of the same gid."""
        self.remove(rule.gid)
        self._rules[rule.gid] = rule
        here = self._by_subject.setdefault(rule.subject_key, {}).setdefault(rule.place, [])
        alike = next((rules for rules in here if rule.is_like(rules[0])), None)
        if alike is None:
            here.append([rule])
        else:
            insort(alike, rule, key=_PRECEDENCE)
        self._subjects_at.setdefault(rule.place, set()).add(rule.subject_key)

    def remove(self, gid: str) -> None:
        """Forget a rule; no-op if there is none."""
        rule = self._rules.pop(gid, None)
        if rule is None:
            return
        by_place = self._by_subject[rule.subject_key]
        here = by_place[rule.place]
        alike = next(rules for rules in here if rule.is_like(rules[0]))
        alike.remove(rule)
        if alike:
            return
        here.remove(alike)
        if here:
            return
        del by_place[rule.place]
        if not by_place:
            del self._by_subject[rule.subject_key]
        subjects = self._subjects_at[rule.place]
        subjects.discard(rule.subject_key)
        if not subjects:
            del self._subjects_at[rule.place]

    def get(self, gid: str) -> Rule | None:
        return self._rules.get(gid)

    def grants(self) -> list[Rule]:
        return [rule for gid, rule in self._rules.items() if gid.startswith(_GRANT)]

    def naming(self, closure: Iterable[str], resource: str, ancestors: frozenset[str]) -> list[list[Rule]]:
        """Rules whose subject and object fit, in lists of alike ones that are not to be changed."""
        found: list[list[Rule]] = []
        for subject in closure:
            by_place = self._by_subject.get(subject)
            if by_place is None:
                continue
            if resource not in ancestors:
                found += by_place.get(resource, ())
            if len(by_place) < len(ancestors):
                places = [place for place in by_place if place in ancestors]
            else:
                places = [ancestor for ancestor in ancestors if ancestor in by_place]
            for place in places:
                found += by_place[place]
        return found

    def reaching(self, closure: Iterable[str], action: Action) -> Iterator[Rule]:
        """All rules of a closure for an action, on whatever object."""
        for subject in closure:
            for here in self._by_subject.get(subject, {}).values():
                yield from _for_action(here, action)

    def lying_on(self, places: Iterable[str], action: Action) -> Iterator[Rule]:
        """All rules on some objects for an action, of whatever subject."""
        for place in places:
            for subject in self._subjects_at.get(place, ()):
                yield from _for_action(self._by_subject[subject][place], action)

    def above(self, rule: Rule) -> Iterator[Rule | None]:
        """The grants by which a rule was given, nearest first; None and the end where the chain is broken."""
        parent = rule.parent
        for _ in range(MAX_DELEGATION_DEPTH):
            if parent is None:
                return
            above = self._rules.get(parent)
            if above is None or not above.is_allow or Action.CAMERA_SHARE not in above.actions:
                break
            yield above
            parent = above.parent
        if parent is not None:
            yield None

    def unmet_above(
        self, rule: Rule, action: Action, at: datetime, places: AbstractSet[str]
    ) -> Reason | None:
        """The first condition that the grants above a rule do not meet. `places`: where the object lies."""
        for above in self.above(rule):
            if above is None or action not in above.actions or above.place not in places:
                return Reason.PARENT_REVOKED
            if (unmet := above.unmet_at(at)) is not None:
                return unmet
        return None
