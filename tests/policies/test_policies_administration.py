import itertools

import msgspec
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
)

from policies.access import (
    GRANTABLE_ACTIONS,
    INSTALLATION,
    Action,
    Effect,
    Object,
    ObjectKind,
    Obligations,
    Reason,
    RoleAssignment,
    Subject,
    SubjectKind,
)
from policies.administration import (
    Account,
    AccountRefusedError,
    GrantProposal,
    GrantRefusedError,
    Refusal,
    accept_grant,
    check_account,
    check_separation,
    check_sharing,
)

PURPOSES = {"patrol", "theft"}
PROPOSAL = GrantProposal(
    giver_id="paul",
    subject=OLGA,
    object=GATE,
    actions=frozenset({Action.LIVE_VIEW}),
    valid_from=NOW,
    valid_to=NOW + HOUR,
    purposes=frozenset({"patrol"}),
    obligations=Obligations(max_duration_seconds=60),
)


def accept(engine=None, **changes):
    return accept_grant(
        msgspec.structs.replace(PROPOSAL, **changes),
        grant_id="g1",
        at=NOW,
        known_purposes=PURPOSES,
        engine=engine or city(),
    )


def test_an_accepted_grant_opens_the_camera():
    engine = city()
    rule = accept(engine)
    assert (rule.id, rule.granted_by, rule.valid_to) == ("g1", "paul", NOW + HOUR)
    engine.set_grant(rule)
    decision = engine.decide(asks(purpose="patrol"))
    assert decision.allowed
    assert decision.obligations.max_duration_seconds == 60
    assert engine.malformed_grants == {}


@pytest.mark.parametrize("action", Action)
def test_only_actions_on_cameras_can_be_granted(action):
    if action in GRANTABLE_ACTIONS:
        assert accept(actions=frozenset({action})).actions == {action}
    else:
        with pytest.raises(GrantRefusedError) as refused:
            accept(actions=frozenset({Action.LIVE_VIEW, action}))
        assert refused.value.code is Refusal.ACTION_NOT_GRANTABLE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"actions": frozenset()}, Refusal.ACTIONS_EMPTY),
        ({"valid_to": NOW}, Refusal.MALFORMED),
        ({"valid_from": None, "valid_to": NOW}, Refusal.VALIDITY_PAST),
        ({"valid_from": NOW + HOUR, "valid_to": NOW + HOUR}, Refusal.MALFORMED),
        ({"valid_from": NOW.replace(tzinfo=None)}, Refusal.MALFORMED),
        ({"effect": "Allow"}, Refusal.MALFORMED),
        ({"purposes": frozenset()}, Refusal.PURPOSES_EMPTY),
        ({"purposes": frozenset({"patrol", "curiosity"})}, Refusal.PURPOSE_UNKNOWN),
        ({"obligations": Obligations(max_duration_seconds=0)}, Refusal.OBLIGATION_INVALID),
        ({"obligations": Obligations(max_height=-1)}, Refusal.OBLIGATION_INVALID),
        ({"subject": Subject(SubjectKind.USER, "nobody")}, Refusal.SUBJECT_UNKNOWN),
        ({"subject": Subject(SubjectKind.ROLE, "nobody")}, Refusal.SUBJECT_UNKNOWN),
        ({"subject": Subject(SubjectKind.DEPARTMENT, "nobody")}, Refusal.SUBJECT_UNKNOWN),
        ({"subject": Subject(SubjectKind.USER, "paul")}, Refusal.SELF_GRANT),
        ({"object": INSTALLATION}, Refusal.OBJECT_NOT_GRANTABLE),
        ({"object": HARBOUR}, Refusal.NOT_SHAREABLE),
        ({"object": TRAFFIC}, Refusal.NOT_SHAREABLE),
        ({"object": Object(ObjectKind.CAMERA, "none")}, Refusal.NOT_SHAREABLE),
        ({"object": Object(ObjectKind.GROUP, "none")}, Refusal.NOT_SHAREABLE),
        ({"giver_id": "olga", "subject": Subject(SubjectKind.USER, "job")}, Refusal.NOT_SHAREABLE),
        ({"giver_id": "root"}, Refusal.NOT_SHAREABLE),
        ({"giver_id": "nobody"}, Refusal.NOT_SHAREABLE),
    ],
)
def test_a_refusal_says_why(changes, code):
    with pytest.raises(GrantRefusedError) as refused:
        accept(**changes)
    assert refused.value.code is code


def test_who_administers_part_of_a_department_cannot_share_all_of_it():
    engine = city()
    engine.set_user("pia", "precinct", [RoleAssignment("department-administrator", "precinct")])
    assert accept(engine, giver_id="pia").object == GATE
    with pytest.raises(GrantRefusedError):
        accept(engine, giver_id="pia", object=POLICE)


def test_a_group_is_shared_by_who_may_share_each_of_its_cameras():
    engine = city()
    check_sharing("paul", SCHOOLS, at=NOW, engine=engine)
    engine.set_group("primary", "schools")
    engine.set_camera("harbour", "traffic", ["primary"])
    with pytest.raises(GrantRefusedError):
        check_sharing("paul", SCHOOLS, at=NOW, engine=engine)
    with pytest.raises(GrantRefusedError):
        check_sharing("tara", SCHOOLS, at=NOW, engine=engine)
    check_sharing("tara", Object(ObjectKind.GROUP, "primary"), at=NOW, engine=engine)
    engine.set_group("empty", None)
    with pytest.raises(GrantRefusedError):
        check_sharing("paul", Object(ObjectKind.GROUP, "empty"), at=NOW, engine=engine)


def test_a_giver_cannot_reach_himself_through_his_department():
    engine = city()
    engine.set_grant(accept(engine, subject=Subject(SubjectKind.DEPARTMENT, "police"), effect=Effect.ALLOW))
    assert engine.decide(asks("paul", purpose="patrol")).reason is Reason.OWN_GRANT


def manage(actor, *roles, department="police", user="new"):
    account = Account(user_id=user, department_id=department, roles=roles)
    check_account(account, actor_id=actor, at=NOW, roles=ROLES, engine=city())


def test_accounts_are_administered_within_the_scope_of_user_manage():
    manage("paul")
    manage("paul", RoleAssignment("operator", "police"))
    manage("paul", RoleAssignment("department-administrator", "precinct"))
    manage("root", RoleAssignment("system-administrator"), department=None)
    manage("root", RoleAssignment("auditor", "police"))


@pytest.mark.parametrize(
    ("actor", "roles", "department", "code"),
    [
        ("paul", [RoleAssignment("system-administrator", "police")], "police", Refusal.NOT_MANAGEABLE),
        ("paul", [RoleAssignment("auditor", "police")], "police", Refusal.NOT_MANAGEABLE),
        ("paul", [RoleAssignment("department-administrator", "traffic")], "police", Refusal.NOT_MANAGEABLE),
        ("paul", [RoleAssignment("operator", "traffic")], "police", Refusal.NOT_MANAGEABLE),
        ("paul", [], "traffic", Refusal.NOT_MANAGEABLE),
        ("paul", [], None, Refusal.NOT_MANAGEABLE),
        ("olga", [], "traffic", Refusal.NOT_MANAGEABLE),
        ("root", [RoleAssignment("boss")], "police", Refusal.ROLE_UNKNOWN),
        ("root", [RoleAssignment("department-administrator")], "police", Refusal.ROLE_WITHOUT_DEPARTMENT),
        ("root", [], "nowhere", Refusal.NOT_MANAGEABLE),
    ],
    ids=repr,
)
def test_nobody_makes_an_account_more_powerful_than_he_may(actor, roles, department, code):
    with pytest.raises(AccountRefusedError) as refused:
        manage(actor, *roles, department=department)
    assert refused.value.code is code


def test_the_three_administrators_exclude_one_another():
    three = ("system-administrator", "security-administrator", "auditor")

    def holds(*roles):
        assigned = tuple(RoleAssignment(role, "police") for role in roles)
        check_separation(Account(user_id="new", department_id="police", roles=assigned), ROLES)

    for role in three:
        holds(role, "operator")
    holds("system-administrator", "department-administrator")
    for role, other in [*itertools.combinations(three, 2), ("department-administrator", "auditor")]:
        with pytest.raises(AccountRefusedError) as refused:
            holds(role, other)
        assert refused.value.code is Refusal.SEPARATE_DUTIES


def test_nobody_administers_his_own_account():
    with pytest.raises(AccountRefusedError) as refused:
        manage("root", department=None, user="root")
    assert refused.value.code is Refusal.OWN_ACCOUNT
