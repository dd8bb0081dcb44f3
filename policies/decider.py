"""The decision itself, twice: a loop for every request, and Casbin over the same rules where it is explained.

The loop must decide as Casbin does over model.conf: tests compare it with the stock enforcer, and each
explanation with ours.
"""

from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

import msgspec

from policies.access import (
    MEDIA_ACTIONS,
    PURPOSELESS_ACTIONS,
    AccessRequest,
    Action,
    Decision,
    Effect,
    Object,
    Reason,
    RuleMatch,
    Sharing,
    SharingMode,
    Subject,
    SubjectKind,
)
from policies.catalogue import Catalogue, Home, object_key
from policies.enforcer import IndexedEnforcer, PolicyRow
from policies.rules import Rule, RuleIndex, earlier, precedence_of
from policies.sharing import is_closed
from policies.subjects import Subjects, member_key, user_key

Candidates = list[list[Rule]]
"""Rules that name a request's subject and object, whatever the action; each list as RuleIndex has it:
alike rules in order of precedence."""

_PRECEDENCE = attrgetter("precedence")

_NEAR_MISSES = (
    Reason.NOT_SHARED,
    Reason.PURPOSE_NOT_ALLOWED,
    Reason.OUTSIDE_WINDOW,
    Reason.GRANT_NOT_YET_VALID,
    Reason.GRANT_EXPIRED,
    Reason.PARENT_REVOKED,
    Reason.DISPUTED,
    Reason.FROZEN,
    Reason.NOT_IN_LEDGER,
    Reason.OWN_GRANT,
    Reason.MALFORMED_RULE,
)
"""What a refusal says when grants fit but for a condition: the most helpful first."""


class DisagreementError(Exception):
    """The loop and Casbin decide differently: a defect of ours."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """A request with what is known of its user and its object.

    `is_closed`: the object is a camera that is not shared with this user. `ends_at`: when it will be, or when
    the user's account ends. `owner_purposes`: for no others may its pictures be looked at, None: any.
    """

    user_id: str
    action: Action
    at: datetime
    purpose: str | None
    closure: tuple[str, ...]
    resource: str
    ancestors: frozenset[str]
    is_purposeless: bool
    is_closed: bool
    ends_at: datetime | None
    owner_purposes: frozenset[str] | None

    @property
    def is_for_a_listed_purpose(self) -> bool:
        """Whether the owner lists the declared purpose."""
        return self.owner_purposes is None or self.purpose in self.owner_purposes


class Verdict(NamedTuple):
    """`rule`: what decided, None if nothing did."""

    reason: Reason
    rule: Rule | None
    expires_at: datetime | None = None


class Explained(NamedTuple):
    """As Explanation."""

    verdict: Verdict
    matching: list[RuleMatch]
    near_misses: list[RuleMatch]
    owner_purposes: frozenset[str] | None


class Decider:
    """Reads the facts and rules of its engine; holds nothing itself."""

    def __init__(self, subjects: Subjects, catalogue: Catalogue, rules: RuleIndex) -> None:
        self._subjects = subjects
        self._catalogue = catalogue
        self._rules = rules
        self._enforcer = IndexedEnforcer(subjects, catalogue, _is_live)

    def question(
        self, user_id: str, action: Action, target: Object, at: datetime, purpose: str | None
    ) -> tuple[Question, Candidates] | Reason:
        """What is asked and the rules that name it, or why nothing can be asked."""
        user = user_key(user_id)
        closure = self._subjects.closure(user)
        if closure is None:
            return Reason.UNKNOWN_PRINCIPAL
        if (unmet := self._subjects.unmet_by(user, at)) is not None:
            return unmet
        resource = object_key(target)
        home, ancestors = self._catalogue.find(resource)
        if ancestors is None:
            return Reason.UNKNOWN_RESOURCE
        candidates = self._rules.naming(closure, resource, ancestors)
        closed, ends, listed = False, None, None
        if home is not None and home.sharing is not None and action in MEDIA_ACTIONS:
            closed, ends = _shared_until(home, home.sharing, closure, at)
            listed = home.sharing.purposes
            candidates = [*candidates, *_given_by(home.sharing, target, action, closure)]
        return Question(
            user_id,
            action,
            at,
            purpose,
            closure,
            resource,
            ancestors,
            action in PURPOSELESS_ACTIONS,
            closed,
            earlier(ends, self._subjects.end_of(user)),
            listed,
        ), candidates

    def decide(self, request: AccessRequest) -> Verdict:
        asked = self.question(request.user_id, request.action, request.object, request.at, request.purpose)
        return Verdict(asked, None) if isinstance(asked, Reason) else self._verdict(*asked)

    def explain(self, request: AccessRequest) -> Explained:
        """The verdict and the rules around it, best first.

        Raises DisagreementError unless Casbin says the same.
        """
        asked = self.question(request.user_id, request.action, request.object, request.at, request.purpose)
        if isinstance(asked, Reason):
            return Explained(Verdict(asked, None), [], [], None)
        question, candidates = asked
        verdict = self._verdict(question, candidates)
        rules = sorted(
            (rule for listed in candidates for rule in listed if question.action in rule.actions),
            key=_PRECEDENCE,
        )
        unmet_of = {rule.gid: self.unmet(rule, question) for rule in rules}
        rows = [
            PolicyRow(rule.subject_key, rule.place, question.action, rule.effect, rule.gid) for rule in rules
        ]
        decided = self._enforcer.enforce_over(
            rows, user_key(question.user_id), question.resource, question.action, unmet_of
        )
        ours = verdict.rule is not None and verdict.rule.is_allow, verdict.rule and verdict.rule.gid
        if decided != ours:
            raise DisagreementError(f"decided {ours}, Casbin {decided}")
        matching = [_match(rule, None) for rule in rules if unmet_of[rule.gid] is None]
        near_misses = [_match(rule, unmet) for rule in rules if (unmet := unmet_of[rule.gid])]
        # whom no rule names learns nothing of the camera
        is_missed = any(miss.reason is Reason.PURPOSE_NOT_ALLOWED for miss in near_misses)
        refusing = question.owner_purposes if is_missed and not question.is_for_a_listed_purpose else None
        return Explained(verdict, matching, near_misses, refusing)

    def unmet(self, rule: Rule, question: Question) -> Reason | None:
        """The first condition that the request does not meet; None if the rule is live for it."""
        unmet = self.unmet_for_any_purpose(rule, question)
        if unmet is None and not (
            rule.serves(question.purpose, is_purposeless=question.is_purposeless)
            and (question.is_for_a_listed_purpose or not rule.is_allow)
        ):
            return Reason.PURPOSE_NOT_ALLOWED
        return unmet

    def unmet_for_any_purpose(self, rule: Rule, question: Question) -> Reason | None:
        unmet = rule.unmet_by(question.user_id, question.at)
        if unmet is None and rule.parent is not None:
            places = question.ancestors | {question.resource}
            unmet = self._rules.unmet_above(rule, question.action, question.at, places)
        if unmet is None and question.is_closed and rule.is_allow:
            return Reason.NOT_SHARED
        return unmet

    def _verdict(self, question: Question, candidates: Candidates) -> Verdict:
        if question.is_for_a_listed_purpose:
            winner = self._winner(question, candidates)
        else:  # what no grant can allow may still be denied
            winner = self._winner(question, [rules for rules in candidates if not rules[0].is_allow])
        if winner is None:
            return Verdict(self._nearest_miss(question, candidates), None)
        if not winner.is_allow:
            return Verdict(winner.reason, winner)
        return Verdict(winner.reason, winner, self._end_of(winner, question, candidates))

    def _winner(self, question: Question, candidates: Candidates) -> Rule | None:
        """The live rule that precedes all others. Where somebody was given a hundred, many are alike."""
        at = question.at
        winner: Rule | None = None
        for rules in candidates:
            if not _concerns(rules[0], question) or (
                rules[0].clock is not None and not rules[0].clock.is_open(at)
            ):
                continue
            for rule in rules:
                if winner is not None and winner.precedence < rule.precedence:
                    break
                if rule.is_allow and rule.valid_to is not None and rule.valid_to <= at:
                    break  # what follows ended earlier
                if self.unmet_for_any_purpose(rule, question) is None:
                    winner = rule
                    break
        return winner

    def _nearest_miss(self, question: Question, candidates: Candidates) -> Reason:
        misses = {
            self.unmet(rule, question)
            for rules in candidates
            for rule in rules
            if rule.is_allow and question.action in rule.actions
        }
        return next((reason for reason in _NEAR_MISSES if reason in misses), Reason.NO_MATCHING_GRANT)

    def _end_of(self, winner: Rule, question: Question, candidates: Candidates) -> datetime | None:
        """The first moment at which the winner ends, or what it rests on, or at which a denial begins."""
        at = question.at
        end = earlier(winner.end_after(at), question.ends_at)
        if winner.parent is not None:
            for above in self._rules.above(winner):
                end = end if above is None else earlier(end, above.end_after(at))
        for rules in candidates:
            if rules[0].is_allow or not _concerns(rules[0], question):
                continue
            opening = at if rules[0].clock is None else rules[0].clock.opening(at)
            if opening is None or (end is not None and end <= opening):
                continue  # none of them begins before
            for rule in rules:
                end = earlier(end, rule.start_after(at))
        return end


def _concerns(rule: Rule, question: Question) -> bool:
    """Whether a rule, and all that are like it, are for the action and the purpose."""
    return question.action in rule.actions and rule.serves(
        question.purpose, is_purposeless=question.is_purposeless
    )


def _is_live(unmet: dict[str, Reason | None], gid: str) -> bool:
    """The model's live(ctx, gid): `ctx` is what was found unmet of each rule that names the request."""
    return unmet[gid] is None


def _match(rule: Rule, unmet: Reason | None) -> RuleMatch:
    return RuleMatch(
        rule=rule.name,
        effect=rule.effect,
        subject=rule.subject,
        object=rule.object,
        reason=unmet or rule.reason,
    )


def _shared_until(
    home: Home, sharing: Sharing, closure: tuple[str, ...], at: datetime
) -> tuple[bool, datetime | None]:
    """Whether a camera is closed to a user by how it is shared, and when else it will be."""
    if member_key(home.department_id) in closure:
        return False, None
    return is_closed(sharing, at), None if sharing.mode is SharingMode.NOT_SHARED else sharing.until


def _given_by(
    sharing: Sharing, camera: Object, action: Action, closure: tuple[str, ...]
) -> Iterator[list[Rule]]:
    """The rule that unconditional sharing stands for, if it names the user."""
    if sharing.mode is not SharingMode.UNCONDITIONAL or action is not Action.LIVE_VIEW:
        return
    for department_id in sharing.departments:
        if member_key(department_id) in closure:
            name = f"sharing:{camera.id}"
            yield [
                Rule(
                    gid=name,
                    name=name,
                    subject=Subject(SubjectKind.DEPARTMENT, department_id),
                    object=camera,
                    subject_key=member_key(department_id),
                    place=object_key(camera),
                    actions=frozenset((Action.LIVE_VIEW,)),
                    is_allow=True,
                    reason=Reason.SHARED,
                    precedence=precedence_of(True, sharing.until, name),
                    valid_to=sharing.until,
                )
            ]
            return


def decision_of(verdict: Verdict, revision: int) -> Decision:
    rule = verdict.rule
    if rule is None or not rule.is_allow:
        return Decision(
            effect=Effect.DENY,
            reason=verdict.reason,
            rule=None if rule is None else rule.name,
            revision=revision,
        )
    return Decision(
        effect=Effect.ALLOW,
        reason=verdict.reason,
        rule=rule.name,
        revision=revision,
        obligations=rule.obligations,
        expires_at=verdict.expires_at,
    )
