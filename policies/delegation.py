"""Giving on: what somebody may give by a grant of `camera:share` that he was given. Pure.

Such a grant never goes beyond its parent: object, actions, validity, weekly windows, purposes and
obligations are the parent's or narrower.
"""

from collections.abc import Iterator
from datetime import datetime

from policies.access import AccessRequest, Action, Effect, GrantRule, Obligations, Reason, Watermark
from policies.engine import PolicyEngine
from policies.rules import MAX_DELEGATION_DEPTH

_STRICTNESS = (Watermark.NONE, Watermark.VISIBLE, Watermark.BURNED_IN)


def parents_of(user_id: str, rule: GrantRule, at: datetime, engine: PolicyEngine) -> list[GrantRule]:
    """The grants that let a user give on the rule's object; none if he may not."""
    request = AccessRequest(user_id=user_id, action=Action.CAMERA_SHARE, object=rule.object, at=at)
    explanation = engine.explain(request)
    if not explanation.decision.allowed:
        return []
    found = (engine.grant(match.rule) for match in explanation.matching if match.reason is Reason.GRANTED)
    return [grant for grant in found if grant is not None]


def beyond(rule: GrantRule, parent: GrantRule, at: datetime, engine: PolicyEngine) -> str | None:
    """In what the rule would exceed the grant by which it is given; None if in nothing.

    A schedule is the parent's own, or any if the parent has none: whether one lies within another is not
    worked out. `valid_from` is not compared: a grant is live only while its parent is.
    """
    return next(_excesses(rule, parent, at, engine), None)


def _excesses(rule: GrantRule, parent: GrantRule, at: datetime, engine: PolicyEngine) -> Iterator[str]:
    if rule.effect is Effect.DENY:
        yield "a denial is given by office only"
    if other := rule.actions - parent.actions:
        yield f"not yours to give: {', '.join(sorted(other))}"
    if parent.valid_to is not None and (rule.valid_to is None or rule.valid_to > parent.valid_to):
        yield f"yours ends at {parent.valid_to.isoformat()}"
    if parent.schedule is not None and rule.schedule != parent.schedule:
        yield "yours has weekly windows: give on the same"
    if parent.purposes is not None and (rule.purposes is None or not rule.purposes <= parent.purposes):
        yield f"yours is for {', '.join(sorted(parent.purposes))}"
    if not _is_as_strict(rule.obligations, parent.obligations):
        yield "yours has stricter obligations"
    if engine.depth(parent.id) >= MAX_DELEGATION_DEPTH:
        yield f"given on {MAX_DELEGATION_DEPTH} times already"
    for action in sorted(rule.actions & parent.actions):
        if not _is_allowed(action, rule, parent, at, engine):
            yield f"you yourself may not: {action}"


def _is_as_strict(given: Obligations, own: Obligations) -> bool:
    limits = (
        (given.max_duration_seconds, own.max_duration_seconds),
        (given.max_height, own.max_height),
        (given.max_concurrent, own.max_concurrent),
    )
    return _STRICTNESS.index(given.watermark) >= _STRICTNESS.index(own.watermark) and all(
        own_limit is None or (limit is not None and limit <= own_limit) for limit, own_limit in limits
    )


def _is_allowed(
    action: Action, rule: GrantRule, parent: GrantRule, at: datetime, engine: PolicyEngine
) -> bool:
    """Whether the giver himself may, on each camera and for each purpose: denials bind him."""
    giver_id = rule.granted_by or ""
    if not engine.ordinals_in(rule.object) <= engine.visible_ordinals(giver_id, at, (action,)):
        return False
    for purpose in rule.purposes or parent.purposes or (None,):
        found = engine.explain(
            AccessRequest(user_id=giver_id, action=action, object=rule.object, at=at, purpose=purpose)
        )
        is_denied_for_some = purpose is None and any(
            match.effect is Effect.DENY and match.reason is Reason.PURPOSE_NOT_ALLOWED
            for match in found.near_misses
        )
        if not found.decision.allowed or is_denied_for_some:
            return False
    return True
