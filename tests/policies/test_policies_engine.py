from datetime import timedelta

import pytest
from support.policy_city import (
    GATE,
    HARBOUR,
    HOUR,
    NOW,
    OLGA,
    POLICE,
    ROLES,
    SCHOOLS,
    TRAFFIC,
    asks,
    city,
    grant,
)

from policies.access import (
    INSTALLATION,
    MEDIA_ACTIONS,
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
from policies.engine import FactRefusedError
from policies.roles import MAX_ROLES, Role, RolesError

TICK = timedelta(microseconds=1)
TOMORROW = WeeklyWindow(days=(NOW.isoweekday() % 7 + 1,), start="01:00", end="02:00")


def test_without_a_grant_nobody_sees_a_picture():
    engine = city()
    for user in ("olga", "paul", "tara", "root", "anna", "job"):
        for action in MEDIA_ACTIONS:
            decision = engine.decide(asks(user, action))
            assert (decision.effect, decision.reason) == (Effect.DENY, Reason.NO_MATCHING_GRANT)
            assert (decision.rule, decision.revision) == (None, 7)


def test_a_grant_opens_one_action_on_one_camera_for_one_user():
    engine = city()
    obligations = Obligations(watermark=Watermark.BURNED_IN, max_duration_seconds=600, max_height=720)
    engine.set_grant(grant(valid_to=NOW + HOUR, obligations=obligations))
    decision = engine.decide(asks())
    assert decision.allowed
    assert (decision.reason, decision.rule, decision.revision) == (Reason.GRANTED, "g1", 7)
    assert (decision.obligations, decision.expires_at) == (obligations, NOW + HOUR)
    assert not engine.decide(asks(action=Action.LIVE_SNAPSHOT)).allowed
    assert not engine.decide(asks(resource=HARBOUR)).allowed
    assert not engine.decide(asks("job")).allowed
    engine.remove_grant("g1")
    assert engine.decide(asks()).reason is Reason.NO_MATCHING_GRANT


@pytest.mark.parametrize("resource", [GATE, SCHOOLS, POLICE, Object(ObjectKind.DEPARTMENT, "precinct")])
@pytest.mark.parametrize(
    "subject", [OLGA, Subject(SubjectKind.ROLE, "operator"), Subject(SubjectKind.DEPARTMENT, "traffic")]
)
def test_grants_reach_through_roles_departments_and_groups(subject, resource):
    engine = city()
    engine.set_grant(grant(subject=subject, resource=resource))
    assert engine.decide(asks()).allowed
    assert not engine.decide(asks("paul")).allowed
    assert not engine.decide(asks(resource=HARBOUR)).allowed


def test_a_grant_to_a_department_reaches_the_departments_below_it():
    engine = city()
    engine.set_user("pia", "precinct")
    engine.set_grant(grant(subject=Subject(SubjectKind.DEPARTMENT, "police"), resource=HARBOUR))
    assert engine.decide(asks("pia", resource=HARBOUR)).allowed
    engine.set_department("precinct", "traffic")
    assert not engine.decide(asks("pia", resource=HARBOUR)).allowed


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (NOW - HOUR - TICK, Reason.GRANT_NOT_YET_VALID),
        (NOW - HOUR, Reason.GRANTED),
        (NOW + HOUR - TICK, Reason.GRANTED),
        (NOW + HOUR, Reason.GRANT_EXPIRED),
    ],
)
def test_validity_is_half_open(at, reason):
    engine = city()
    engine.set_grant(grant(valid_from=NOW - HOUR, valid_to=NOW + HOUR))
    assert engine.decide(asks(at=at)).reason is reason


@pytest.mark.parametrize(
    ("purposes", "purpose", "reason"),
    [
        (None, None, Reason.GRANTED),
        (None, "patrol", Reason.GRANTED),
        (frozenset(), None, Reason.PURPOSE_NOT_ALLOWED),
        (frozenset(), "patrol", Reason.PURPOSE_NOT_ALLOWED),
        (frozenset({"patrol"}), "patrol", Reason.GRANTED),
        (frozenset({"patrol"}), "theft", Reason.PURPOSE_NOT_ALLOWED),
        (frozenset({"patrol"}), None, Reason.PURPOSE_NOT_ALLOWED),
    ],
)
def test_purposes_none_means_any_and_empty_means_none(purposes, purpose, reason):
    engine = city()
    engine.set_grant(grant(purposes=purposes))
    assert engine.decide(asks(purpose=purpose)).reason is reason


def test_deny_beats_allow_however_specific():
    engine = city()
    engine.set_grant(grant("allow"))
    engine.set_grant(grant("deny", Subject(SubjectKind.ROLE, "operator"), POLICE, effect=Effect.DENY))
    decision = engine.decide(asks())
    assert (decision.effect, decision.reason, decision.rule) == (Effect.DENY, Reason.DENIED_BY_RULE, "deny")
    engine.remove_grant("deny")
    assert engine.decide(asks()).allowed


def test_an_allow_ends_when_a_denial_begins():
    engine = city()
    engine.set_grant(grant("allow", valid_to=NOW + 3 * HOUR))
    engine.set_grant(grant("later", effect=Effect.DENY, valid_from=NOW + 2 * HOUR))
    theft = frozenset({"theft"})
    engine.set_grant(grant("theft", effect=Effect.DENY, valid_from=NOW + HOUR, purposes=theft))
    engine.set_grant(grant("gone", effect=Effect.DENY, valid_to=NOW - HOUR))
    assert engine.decide(asks(purpose="patrol")).expires_at == NOW + 2 * HOUR
    assert engine.decide(asks(purpose="theft")).expires_at == NOW + HOUR


def test_of_several_grants_the_longest_lasting_decides():
    engine = city()
    engine.set_grant(grant("hour", valid_to=NOW + HOUR))
    engine.set_grant(grant("day", valid_to=NOW + 24 * HOUR))
    assert engine.decide(asks()).rule == "day"
    engine.set_grant(grant("always"))
    assert engine.decide(asks()).rule == "always"
    assert engine.decide(asks()).expires_at is None


@pytest.mark.parametrize(
    "unfit",
    [
        {"actions": [Action.LIVE_SNAPSHOT]},
        {"purposes": frozenset({"theft"})},
        {"schedule": Schedule(zone="UTC", windows=(TOMORROW,))},
        {"valid_from": NOW + HOUR},
    ],
)
def test_a_grant_that_does_not_fit_stands_in_no_other_ones_way(unfit):
    engine = city()
    engine.set_grant(grant("unfit", **unfit))
    engine.set_grant(grant("fits", valid_to=NOW + HOUR))
    assert engine.decide(asks(purpose="patrol")).rule == "fits"


def test_the_reason_of_a_denial_is_the_most_helpful():
    engine = city()
    engine.set_grant(grant("old", valid_to=NOW - HOUR))
    assert engine.decide(asks()).reason is Reason.GRANT_EXPIRED
    engine.set_grant(grant("coming", valid_from=NOW + HOUR))
    assert engine.decide(asks()).reason is Reason.GRANT_NOT_YET_VALID
    engine.set_grant(grant("other", purposes=frozenset({"theft"})))
    assert engine.decide(asks(purpose="patrol")).reason is Reason.PURPOSE_NOT_ALLOWED
    engine.set_grant(grant("deny", effect=Effect.DENY))
    assert engine.decide(asks(purpose="patrol")).reason is Reason.DENIED_BY_RULE


def test_who_and_what_is_unknown_is_denied_and_said_so():
    engine = city()
    engine.set_grant(grant())
    assert engine.decide(asks("nobody")).reason is Reason.UNKNOWN_PRINCIPAL
    for kind in ObjectKind:
        assert engine.decide(asks(resource=Object(kind, "none"))).reason is Reason.UNKNOWN_RESOURCE
    engine.set_user("olga", "traffic", enabled=False)
    assert engine.decide(asks()).reason is Reason.PRINCIPAL_DISABLED
    assert engine.visible_cameras("olga", NOW) == set()
    assert not engine.is_visible("olga", "gate", NOW)
    engine.set_user("olga", "traffic", until=NOW)
    assert engine.decide(asks()).reason is Reason.PRINCIPAL_EXPIRED
    assert engine.visible_cameras("olga", NOW) == engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == set()
    engine.set_user("olga", "traffic", until=NOW + HOUR)
    assert engine.decide(asks()).expires_at == NOW + HOUR
    engine.set_user("olga", "traffic")
    assert engine.decide(asks()).expires_at is None
    engine.remove_user("olga")
    assert engine.decide(asks()).reason is Reason.UNKNOWN_PRINCIPAL
    engine.remove_camera("gate")
    assert engine.decide(asks("paul")).reason is Reason.UNKNOWN_RESOURCE


def test_a_check_never_answers_from_before_the_revision_it_asks_for():
    engine = city()
    engine.set_grant(grant())
    assert engine.decide(asks(min_revision=7)).allowed
    assert engine.decide(asks(min_revision=8)).reason is Reason.STALE_REVISION
    engine.advance(8)
    assert engine.decide(asks(min_revision=8)).revision == 8
    engine.advance(8)
    with pytest.raises(ValueError, match="older"):
        engine.advance(7)


def test_roles_reach_as_far_as_policies_yaml_says():
    engine = city()

    def may(user, action, resource):
        return engine.decide(asks(user, action, resource)).allowed

    assert may("paul", Action.CAMERA_SHARE, GATE)
    assert may("paul", Action.USER_MANAGE, POLICE)
    assert not may("paul", Action.CAMERA_SHARE, HARBOUR)
    assert not may("paul", Action.USER_MANAGE, TRAFFIC)
    assert not may("paul", Action.USER_MANAGE, INSTALLATION)
    assert may("root", Action.CAMERA_READ, GATE)
    assert may("root", Action.DEPARTMENT_MANAGE, INSTALLATION)
    assert not may("root", Action.PURPOSE_MANAGE, INSTALLATION)
    assert not may("root", Action.CAMERA_SHARE, GATE)
    assert not may("root", Action.AUDIT_READ, INSTALLATION)
    assert may("anna", Action.AUDIT_READ, GATE)
    assert not may("anna", Action.AUDIT_READ, TRAFFIC)
    assert not may("anna", Action.AUDIT_READ, INSTALLATION)
    assert not may("anna", Action.CAMERA_READ, GATE)
    assert engine.decide(asks("paul", Action.CAMERA_READ)).rule == "role:department-administrator"
    assert engine.decide(asks("paul", Action.CAMERA_READ)).reason is Reason.ROLE


def test_the_cameras_in_an_object():
    engine = city()
    assert engine.cameras_in(INSTALLATION) == {"gate", "harbour"}
    assert engine.cameras_in(POLICE) == engine.cameras_in(SCHOOLS) == engine.cameras_in(GATE) == {"gate"}
    assert engine.cameras_in(Object(ObjectKind.CAMERA, "none")) == frozenset()
    assert engine.cameras_in(Object(ObjectKind.DEPARTMENT, "none")) == frozenset()


def test_a_role_of_department_scope_without_a_department_reaches_nothing():
    engine = city()
    engine.set_user("paul", "police", [RoleAssignment("department-administrator")])
    assert not engine.decide(asks("paul", Action.CAMERA_READ)).allowed


def test_what_somebody_sees_is_what_is_granted_or_in_his_department():
    engine = city()
    assert engine.visible_cameras("root", NOW) == {"gate", "harbour"}
    assert engine.visible_cameras("paul", NOW) == {"gate"}
    assert engine.visible_cameras("olga", NOW) == set()
    engine.set_grant(grant(purposes=frozenset({"theft"})))
    assert engine.visible_cameras("olga", NOW) == {"gate"}
    assert engine.visible_cameras("olga", NOW, [Action.PTZ_CONTROL]) == set()
    engine.set_grant(grant("not", effect=Effect.DENY, purposes=frozenset({"theft"})))
    assert engine.visible_cameras("olga", NOW) == set()


def test_explain_names_every_rule_that_matched_and_every_near_miss():
    engine = city()
    engine.set_grant(grant("allow"))
    engine.set_grant(grant("deny", resource=POLICE, effect=Effect.DENY))
    engine.set_grant(grant("late", valid_to=NOW))
    engine.set_grant(grant("elsewhere", resource=HARBOUR))
    explanation = engine.explain(asks())
    assert explanation.decision == engine.decide(asks())
    assert [(match.rule, match.reason) for match in explanation.matching] == [
        ("deny", Reason.DENIED_BY_RULE),
        ("allow", Reason.GRANTED),
    ]
    assert explanation.matching[0].object == POLICE
    assert [(m.rule, m.reason) for m in explanation.near_misses] == [("late", Reason.GRANT_EXPIRED)]
    assert engine.explain(asks("nobody")).matching == ()


def test_a_grant_never_serves_the_one_who_gave_it():
    engine = city()
    everyone = Subject(SubjectKind.DEPARTMENT, "traffic")
    engine.set_grant(grant(subject=everyone, resource=HARBOUR, granted_by="tara"))
    assert engine.decide(asks("olga", resource=HARBOUR)).allowed
    assert engine.decide(asks("tara", resource=HARBOUR)).reason is Reason.OWN_GRANT
    assert engine.visible_cameras("tara", NOW, [Action.LIVE_VIEW]) == set()


def test_facts_may_come_in_any_order_and_until_complete_are_denied():
    engine = city()
    engine.set_grant(grant(resource=POLICE))
    engine.set_camera("new", "station", ["trains"])
    new = Object(ObjectKind.CAMERA, "new")
    for missing in (
        lambda: engine.set_department("station", "district"),
        lambda: engine.set_department("district", "police"),
        lambda: engine.set_group("trains", None),
    ):
        assert engine.decide(asks(resource=new)).reason is Reason.UNKNOWN_RESOURCE
        assert engine.visible_cameras("olga", NOW) == {"gate"}
        missing()
    assert engine.decide(asks(resource=new)).allowed
    assert engine.visible_cameras("olga", NOW) == {"gate", "new"}


def test_a_user_of_an_unknown_department_is_unknown():
    engine = city()
    engine.set_grant(grant())
    engine.set_user("olga", "nowhere")
    assert engine.decide(asks()).reason is Reason.UNKNOWN_PRINCIPAL
    engine.set_department("nowhere", None)
    assert engine.decide(asks()).allowed


def test_a_contradiction_can_be_found_before_it_is_written():
    engine = city()
    engine.check_department("new", "police")
    engine.check_group("new", "schools")
    engine.set_group("primary", "schools")
    for check, write, node, parent in (
        (engine.check_department, engine.set_department, "police", "precinct"),
        (engine.check_group, engine.set_group, "schools", "primary"),
    ):
        for refused_call in (check, write):
            with pytest.raises(FactRefusedError) as refused:
                refused_call(node, parent)
            assert refused.value.code == "cycle"
    assert engine.cameras_in(POLICE) == {"gate"}


def test_what_is_in_use_is_not_removed():
    engine = city()
    engine.set_department("empty", "traffic")
    for remove, name in (
        (engine.remove_department, "police"),
        (engine.remove_department, "precinct"),
        (engine.remove_department, "traffic"),
        (engine.remove_group, "schools"),
    ):
        with pytest.raises(FactRefusedError) as refused:
            remove(name)
        assert refused.value.code == "in_use"
    engine.remove_department("empty")
    engine.remove_camera("gate")
    engine.remove_group("schools")
    engine.remove_department("precinct")
    assert not engine.has_object(SCHOOLS)
    assert engine.decide(asks("paul", Action.USER_MANAGE, POLICE)).allowed


def test_a_failure_inside_denies(caplog):
    engine = city()
    engine.set_grant(grant(valid_to=NOW + HOUR))
    naive = asks(at=NOW.replace(tzinfo=None))
    assert engine.decide(naive).reason is Reason.INTERNAL_ERROR
    assert engine.explain(naive).matching == ()
    assert engine.decide(asks()).allowed
    assert "decision failed" in caplog.text


def test_a_role_made_later_works_at_once_and_is_gone_at_once():
    engine = city()
    engine.set_user("rita", "traffic", [RoleAssignment("reader", "police"), RoleAssignment("reader")])
    everyone = Subject(SubjectKind.ROLE, "reader")
    assert not engine.has_subject(everyone)
    role = Role(department=frozenset({Action.CAMERA_READ}), installation=frozenset({Action.USAGE_READ}))
    engine.set_role("reader", role)
    assert engine.has_subject(everyone)
    assert engine.roles["reader"] == role
    assert engine.decide(asks("rita", Action.CAMERA_READ)).rule == "role:reader"
    assert not engine.decide(asks("rita", Action.CAMERA_READ, HARBOUR)).allowed
    assert engine.decide(asks("rita", Action.USAGE_READ, INSTALLATION)).allowed
    engine.set_department("new", "police")
    engine.set_camera("young", "new")
    assert engine.visible_cameras("rita", NOW) == {"gate", "young"}
    engine.set_role("reader", Role(department=frozenset({Action.CAMERA_READ})))
    assert not engine.decide(asks("rita", Action.USAGE_READ, INSTALLATION)).allowed
    engine.remove_role("reader")
    engine.remove_role("reader")
    assert not engine.decide(asks("rita", Action.CAMERA_READ)).allowed
    assert not engine.has_subject(everyone)
    assert "reader" not in ROLES


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("viewer", Role(department=frozenset({Action.LIVE_VIEW})), "live:view can only be granted"),
        ("viewer", Role(installation=frozenset({Action.PTZ_CONTROL})), "can only be granted"),
        ("Boss@police", Role(), "a role's name"),
        ("", Role(), "a role's name"),
    ],
)
def test_a_role_made_later_may_carry_no_more_than_one_of_the_file(name, role, message):
    engine = city()
    with pytest.raises(RolesError, match=message):
        engine.set_role(name, role)
    assert dict(engine.roles) == dict(ROLES)


def test_the_number_of_roles_made_later_is_limited():
    engine = city()
    for number in range(MAX_ROLES - len(ROLES)):
        engine.set_role(f"role-{number}", Role())
    engine.set_role("role-0", Role(department=frozenset({Action.CAMERA_READ})))
    with pytest.raises(RolesError, match="more than"):
        engine.set_role("one-more", Role())


def test_ordinals_are_kept_and_lists_are_sets_of_them():
    engine = city()
    gate, harbour = engine.ordinal("gate"), engine.ordinal("harbour")
    assert [engine.camera_of(number) for number in (gate, harbour)] == ["gate", "harbour"]
    assert set(engine.ordinals_in(INSTALLATION)) == {gate, harbour}
    assert set(engine.visible_ordinals("paul", NOW)) == {gate}
    engine.ordinals_in(INSTALLATION).clear()
    engine.remove_camera("gate")
    assert set(engine.ordinals_in(INSTALLATION)) == {harbour}
    engine.set_camera("new", "precinct")
    engine.set_camera("gate", "precinct")
    assert engine.ordinal("gate") == gate
    assert engine.ordinal("none") is None
    with pytest.raises(IndexError):
        engine.camera_of(3)


def test_who_may_do_what_with_something():
    engine = city()
    assert engine.principals_of(GATE, Action.CAMERA_READ, NOW) == {"paul", "root"}
    assert engine.principals_of(INSTALLATION, Action.DEPARTMENT_MANAGE, NOW) == {"root"}
    assert engine.principals_of(GATE, Action.AUDIT_READ, NOW) == {"anna"}
    assert engine.principals_of(Object(ObjectKind.CAMERA, "none"), Action.CAMERA_READ, NOW) == set()
    engine.set_grant(grant(subject=Subject(SubjectKind.DEPARTMENT, "traffic"), granted_by="tara"))
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == {"olga", "job"}
    engine.set_user("job", "traffic", enabled=False)
    engine.set_grant(grant("deny", effect=Effect.DENY, purposes=frozenset({"theft"})))
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == {"olga"}
    engine.set_grant(grant("deny", effect=Effect.DENY))
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == set()


def test_what_is_forgotten_is_as_if_it_had_never_been_known():
    """Unlike what is removed, with all that hangs on it still there: that is denied until it is set again."""
    engine = city()
    engine.set_grant(grant())
    assert engine.decide(asks()).allowed
    for forget, set_again in (
        (lambda: engine.forget_department("police"), lambda: engine.set_department("police", None)),
        (lambda: engine.forget_group("schools"), lambda: engine.set_group("schools", None)),
    ):
        forget()
        assert engine.decide(asks()).reason is Reason.UNKNOWN_RESOURCE
        set_again()
        assert engine.decide(asks()).allowed


def test_all_grants_are_told_as_they_were_set():
    engine = city()
    grants = [grant(), grant("g2", void=Reason.FROZEN)]
    for each in (*grants, grant("g3", actions={"no such"})):
        engine.set_grant(each)
    assert engine.grants == grants
    engine.remove_grant("g1")
    assert engine.grants == grants[1:]
