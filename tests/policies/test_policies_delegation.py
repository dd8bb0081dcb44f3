"""Giving on what one was given: never beyond it, and no longer than it lives."""

from datetime import timedelta

import msgspec
import pytest
from support.policy_city import GATE, HARBOUR, HOUR, NOW, OLGA, POLICE, SCHOOLS, asks, city, grant

from policies.access import (
    Action,
    Effect,
    Object,
    ObjectKind,
    Obligations,
    Reason,
    RoleAssignment,
    Schedule,
    Subject,
    SubjectKind,
    Watermark,
    WeeklyWindow,
)
from policies.administration import GrantProposal, GrantRefusedError, Refusal, accept_grant, check_sharing
from policies.rules import MAX_DELEGATION_DEPTH

JOB = Subject(SubjectKind.USER, "job")
TARA = Subject(SubjectKind.USER, "tara")
TO_SHARE = frozenset({Action.LIVE_VIEW, Action.CAMERA_SHARE})
OFFICE = Schedule(zone="UTC", windows=(WeeklyWindow(days=(1, 2, 3, 4, 5, 6, 7), start="08:00", end="18:00"),))
OWN = grant(
    "own",
    actions=TO_SHARE,
    valid_to=NOW + 4 * HOUR,
    purposes=frozenset({"patrol", "theft"}),
    schedule=OFFICE,
    obligations=Obligations(watermark=Watermark.VISIBLE, max_duration_seconds=600, max_concurrent=2),
    granted_by="paul",
)
PROPOSAL = GrantProposal(
    giver_id="olga",
    subject=JOB,
    object=GATE,
    actions=frozenset({Action.LIVE_VIEW}),
    valid_to=NOW + 2 * HOUR,
    purposes=frozenset({"patrol"}),
    schedule=OFFICE,
    obligations=Obligations(watermark=Watermark.BURNED_IN, max_duration_seconds=600, max_concurrent=1),
)


def holding(own=OWN):
    engine = city()
    engine.set_grant(own)
    return engine


def give(engine, grant_id="given", **changes):
    rule = accept_grant(
        msgspec.structs.replace(PROPOSAL, **changes),
        grant_id=grant_id,
        at=NOW,
        known_purposes={"patrol", "theft", "traffic"},
        engine=engine,
    )
    engine.set_grant(rule)
    return rule


def test_what_was_given_can_be_given_on():
    engine = holding()
    rule = give(engine)
    assert (rule.parent, rule.granted_by) == ("own", "olga")
    assert engine.decide(asks("job", purpose="patrol")).rule == "given"
    assert give(engine, "by-office", giver_id="paul").parent is None


def test_a_grant_without_the_right_to_share_cannot_be_given_on():
    engine = holding(grant("own"))
    with pytest.raises(GrantRefusedError) as refused:
        give(engine)
    assert refused.value.code is Refusal.NOT_SHAREABLE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"effect": Effect.DENY}, "a denial"),
        ({"actions": frozenset({Action.LIVE_VIEW, Action.PTZ_CONTROL})}, "ptz:control"),
        ({"actions": frozenset({Action.CAMERA_MANAGE})}, "camera:manage"),
        ({"valid_to": None}, "ends at"),
        ({"valid_to": NOW + 4 * HOUR + timedelta(microseconds=1)}, "ends at"),
        ({"schedule": None}, "windows"),
        ({"schedule": msgspec.structs.replace(OFFICE, zone="Asia/Shanghai")}, "windows"),
        ({"purposes": None}, "for patrol, theft"),
        ({"purposes": frozenset({"patrol", "traffic"})}, "for patrol, theft"),
        ({"obligations": Obligations(max_duration_seconds=601, max_concurrent=2)}, "obligations"),
        ({"obligations": Obligations(max_duration_seconds=600)}, "obligations"),
        (
            {"obligations": Obligations(watermark=Watermark.NONE, max_duration_seconds=1, max_concurrent=1)},
            "obligations",
        ),
    ],
)
def test_nothing_is_given_on_beyond_it(changes, message):
    with pytest.raises(GrantRefusedError, match=message) as refused:
        give(holding(), **changes)
    assert refused.value.code is Refusal.BEYOND_GIVER


@pytest.mark.parametrize("target", [HARBOUR, POLICE, SCHOOLS, Object(ObjectKind.DEPARTMENT, "precinct")])
def test_nothing_is_given_on_outside_of_it(target):
    with pytest.raises(GrantRefusedError) as refused:
        give(holding(), object=target)
    assert refused.value.code is Refusal.NOT_SHAREABLE


def test_exactly_the_same_can_be_given_on():
    fields = {name: getattr(OWN, name) for name in ("actions", "valid_to", "purposes", "obligations")}
    assert give(holding(), **fields).parent == "own"


def test_a_part_of_a_department_or_a_group_can_be_given_on():
    engine = holding(msgspec.structs.replace(OWN, object=POLICE))
    assert give(engine, object=GATE).parent == "own"
    assert give(engine, object=Object(ObjectKind.DEPARTMENT, "precinct")).parent == "own"
    engine = holding(msgspec.structs.replace(OWN, object=SCHOOLS))
    assert give(engine, object=SCHOOLS).parent == "own"


def test_what_the_giver_himself_is_denied_he_cannot_give():
    engine = holding(msgspec.structs.replace(OWN, object=POLICE, purposes=None))
    theft = frozenset({"theft"})
    engine.set_grant(grant("deny", resource=GATE, effect=Effect.DENY, purposes=theft))
    assert give(engine).parent == "own"
    for changes in ({"purposes": theft}, {"purposes": None}):
        with pytest.raises(GrantRefusedError, match="you yourself may not: live:view"):
            give(engine, **changes)
    engine.set_grant(grant("deny", resource=GATE, effect=Effect.DENY))
    with pytest.raises(GrantRefusedError, match="you yourself may not"):
        give(engine, object=POLICE)


def test_of_several_grants_one_that_is_wide_enough_serves():
    engine = holding()
    engine.set_grant(
        msgspec.structs.replace(OWN, id="narrow", valid_to=NOW + 5 * HOUR, purposes=frozenset({"theft"}))
    )
    assert give(engine).parent == "own"


def test_purposes_do_not_bind_the_giving_itself():
    engine = holding()
    assert engine.decide(asks(action=Action.CAMERA_SHARE)).allowed
    assert engine.principals_of(GATE, Action.CAMERA_SHARE, NOW) == {"olga", "paul"}
    assert not engine.decide(asks(action=Action.LIVE_VIEW)).allowed
    engine.set_grant(msgspec.structs.replace(OWN, purposes=frozenset()))
    assert not engine.decide(asks(action=Action.CAMERA_SHARE)).allowed


def test_revoking_takes_all_that_was_given_on():
    engine = holding()
    give(engine, actions=TO_SHARE)
    give(engine, "next", giver_id="job", subject=TARA)
    question = asks("tara", purpose="patrol")
    assert engine.decide(question).rule == "next"
    engine.remove_grant("own")
    assert engine.decide(question).reason is Reason.PARENT_REVOKED
    assert engine.explain(question).near_misses[0].reason is Reason.PARENT_REVOKED
    assert engine.visible_cameras("tara", NOW, [Action.LIVE_VIEW]) == set()
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == set()
    engine.set_grant(OWN)
    assert engine.decide(question).allowed
    engine.remove_grant("given")
    assert engine.decide(question).reason is Reason.PARENT_REVOKED


def test_what_was_given_on_ends_with_what_it_rests_on():
    engine = holding()
    give(engine)
    question = asks("job", purpose="patrol")
    assert engine.decide(question).expires_at == NOW + 2 * HOUR
    engine.set_grant(msgspec.structs.replace(OWN, valid_to=NOW + HOUR))
    assert engine.decide(question).expires_at == NOW + HOUR
    over = msgspec.structs.replace(question, at=NOW + HOUR)
    assert engine.decide(over).reason is Reason.GRANT_EXPIRED
    engine.set_grant(msgspec.structs.replace(OWN, valid_to=OWN.valid_to.replace(tzinfo=None)))
    assert engine.decide(question).reason is Reason.MALFORMED_RULE


def test_what_is_void_says_why_and_so_does_what_was_given_by_it():
    engine = holding()
    give(engine)
    assert (engine.void("own"), engine.void("given")) == (None, None)
    engine.set_grant(msgspec.structs.replace(OWN, void=Reason.DISPUTED))
    assert (engine.void("own"), engine.void("given")) == (Reason.DISPUTED, Reason.DISPUTED)
    engine.set_grant(msgspec.structs.replace(OWN, valid_to=OWN.valid_to.replace(tzinfo=None)))
    assert (engine.void("own"), engine.void("given")) == (Reason.MALFORMED_RULE, Reason.MALFORMED_RULE)
    engine.remove_grant("own")
    assert (engine.void("own"), engine.void("given")) == (Reason.NOT_IN_LEDGER, Reason.PARENT_REVOKED)


def test_conditions_and_denials_are_not_void():
    engine = holding(msgspec.structs.replace(OWN, valid_to=NOW))
    assert engine.void("own") is None
    engine.set_grant(grant("never", effect=Effect.DENY, void=Reason.FROZEN))
    assert engine.void("never") is None
    assert engine.decide(asks("olga")).reason is Reason.DENIED_BY_RULE


def test_a_camera_that_leaves_what_was_given_is_lost_to_all():
    engine = holding(msgspec.structs.replace(OWN, object=POLICE))
    give(engine)
    question = asks("job", purpose="patrol")
    assert engine.decide(question).allowed
    engine.set_camera("gate", "traffic")
    assert engine.decide(question).reason is Reason.PARENT_REVOKED
    assert engine.visible_cameras("job", NOW) == set()


def test_the_chain_is_bounded_and_a_circle_is_dead():
    engine = city()
    people = [Subject(SubjectKind.USER, f"u{number}") for number in range(MAX_DELEGATION_DEPTH + 2)]
    for person in people:
        engine.set_user(person.id, None)
    engine.set_grant(grant("g0", people[0], actions=TO_SHARE))
    fields = {
        "actions": TO_SHARE,
        "schedule": None,
        "obligations": Obligations(),
        "purposes": None,
        "valid_to": None,
    }
    for number in range(1, MAX_DELEGATION_DEPTH + 1):
        rule = give(engine, f"g{number}", giver_id=f"u{number - 1}", subject=people[number], **fields)
        assert rule.parent == f"g{number - 1}"
        assert engine.decide(asks(f"u{number}")).rule == f"g{number}"
    with pytest.raises(GrantRefusedError, match="times already"):
        give(engine, "more", giver_id=f"u{number}", subject=people[-1], **fields)
    engine.set_grant(msgspec.structs.replace(rule, id="more", parent=rule.id, subject=people[-1]))
    assert not engine.decide(asks(people[-1].id)).allowed
    engine.set_grant(msgspec.structs.replace(rule, id="one", parent="other"))
    engine.set_grant(msgspec.structs.replace(rule, id="other", parent="one"))
    engine.remove_grant(rule.id)
    assert engine.decide(asks(people[-2].id)).reason is Reason.PARENT_REVOKED


def test_managing_is_given_by_who_manages():
    engine = city()
    engine.set_role("sharer", type(engine.roles["operator"])(department=frozenset({Action.CAMERA_SHARE})))
    engine.set_user("sara", "police", [RoleAssignment("sharer", "police")])
    manage = frozenset({Action.CAMERA_MANAGE})
    assert give(engine, giver_id="paul", actions=manage).parent is None
    with pytest.raises(GrantRefusedError) as refused:
        give(engine, giver_id="sara", actions=manage)
    assert refused.value.code is Refusal.BEYOND_GIVER


def test_a_denial_is_lifted_by_office_only():
    engine = holding()
    check_sharing("paul", GATE, at=NOW, engine=engine)
    with pytest.raises(GrantRefusedError):
        check_sharing("olga", GATE, at=NOW, engine=engine)


def test_a_tag_is_shared_by_who_may_share_each_of_its_cameras():
    engine = city()
    tag = Object(ObjectKind.TAG, "crossing")
    with pytest.raises(GrantRefusedError):
        check_sharing("paul", tag, at=NOW, engine=engine)
    engine.set_camera("gate", "precinct", tags=["crossing"])
    check_sharing("paul", tag, at=NOW, engine=engine)
    engine.set_camera("harbour", "traffic", tags=["crossing"])
    with pytest.raises(GrantRefusedError):
        check_sharing("paul", tag, at=NOW, engine=engine)


def test_a_grant_is_given_back_as_it_was_set():
    engine = holding()
    rule = give(engine)
    assert engine.grant("given") == rule
    assert engine.grant("own") == OWN
    assert engine.grant("none") is None
    engine.set_grant(grant("bad", effect="Allow"))
    assert engine.grant("bad") is None
    assert OWN.subject == OLGA
