"""What stock Casbin gets wrong, or an attacker would try, each in a few lines."""

import gc
import tracemalloc

import pytest
from support.policy_city import GATE, HOUR, NOW, OLGA, ROLES, asks, city, grant

from policies.access import Action, Effect, Object, ObjectKind, Reason, RoleAssignment, Subject, SubjectKind
from policies.enforcer import IndexedEnforcer
from policies.engine import FactRefusedError, PolicyEngine

HOSTILE = [
    "a, b",
    "mallory, /*, view, (",
    "quote\"'`",
    "line\nbreak",
    "nul\0",
    "brackets)(",
    "True) or (True",
    "# comment",
    "&&||!",
    "r_sub",
    "*",
    "..",
    "u:olga",
    "  spaces ",
    "探头",
    "\u202eabc",
    "x" * 5000,
]


def test_an_empty_policy_allows_nobody():
    engine = PolicyEngine({})
    for action in Action:
        assert not engine.decide(asks("", action, Object(ObjectKind.CAMERA, ""))).allowed
    engine.set_user("olga", None)
    engine.set_department("d", None)
    engine.set_camera("gate", "d")
    assert engine.decide(asks()).reason is Reason.NO_MATCHING_GRANT


def test_the_empty_name_is_never_somebody():
    engine = city()
    for write in (
        lambda: engine.set_user("", None),
        lambda: engine.set_camera("", "police"),
        lambda: engine.set_department("", None),
        lambda: engine.set_group("", None),
    ):
        with pytest.raises(FactRefusedError) as refused:
            write()
        assert refused.value.code == "empty_id"
    engine.set_grant(grant(subject=Subject(SubjectKind.USER, "")))
    assert engine.decide(asks("")).reason is Reason.UNKNOWN_PRINCIPAL


def test_a_user_named_like_a_role_is_not_that_role():
    engine = city()
    for name in ("operator", "system-administrator", "department-administrator@police", "r:operator"):
        engine.set_user(name, None)
        engine.set_grant(grant(name, Subject(SubjectKind.ROLE, "operator")))
        for action in Action:
            assert not engine.decide(asks(name, action)).allowed


def test_a_role_named_like_an_assignment_is_not_that_assignment():
    engine = city()
    role = "department-administrator"
    for name in (role, f"{role}@police", f"a:{role}@police"):
        engine.set_user("eve", None, [RoleAssignment(name, None), RoleAssignment(name + "@police", "police")])
        assert not engine.decide(asks("eve", Action.CAMERA_SHARE)).allowed


def test_unknown_names_cost_no_memory():
    engine = city()
    engine.set_grant(grant())

    def ask_for_strangers():
        for number in range(2000):
            engine.decide(asks(f"stranger-{number}"))
            engine.decide(asks(resource=Object(ObjectKind.CAMERA, f"nothing-{number}")))

    ask_for_strangers()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ask_for_strangers()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


def test_edits_cost_no_memory():
    engine = city()

    def edit():
        for number in range(300):
            engine.set_grant(grant(f"grant-{number}", actions=[Action.LIVE_VIEW, Action.CAMERA_READ]))
            engine.decide(asks())
            engine.remove_grant(f"grant-{number}")
            engine.set_camera("gate", "precinct", [f"group-{number}"])
            engine.set_group(f"group-{number}", None)
            engine.set_camera("gate", "precinct", ["schools"])
            engine.remove_group(f"group-{number}")

    edit()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    edit()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_compared_and_never_read(name):
    engine = city()
    engine.set_department(name, "police")
    engine.set_group(name, None)
    engine.set_camera(name, name, [name])
    engine.set_user(name, name)
    camera, subject = Object(ObjectKind.CAMERA, name), Subject(SubjectKind.USER, name)
    assert not engine.decide(asks(name, resource=camera, purpose=name)).allowed
    engine.set_grant(grant(name, subject, Object(ObjectKind.GROUP, name), purposes=frozenset({name})))
    assert engine.decide(asks(name, resource=camera, purpose=name)).rule == name
    assert engine.visible_cameras(name, NOW) == {name}
    assert not engine.decide(asks(name, resource=camera, purpose="patrol")).allowed
    assert not engine.decide(asks(name, purpose=name)).allowed
    assert not engine.decide(asks("olga", resource=camera, purpose=name)).allowed


@pytest.mark.parametrize(
    "fields",
    [
        {"effect": "Allow"},
        {"effect": "allow "},
        {"actions": frozenset({"live:veiw"})},
        {"valid_to": (NOW + HOUR).replace(tzinfo=None)},
        {"valid_from": NOW + HOUR, "valid_to": NOW},
        {"valid_to": 17},
        {"purposes": "patrol"},
        {"subject": Subject("user", 1)},
        {"subject": Subject("admin", "olga")},
        {"object": Object("everything", "gate")},
        {"subject": None},
        {"obligations": None},
        {"granted_by": 17},
    ],
    ids=repr,
)
def test_a_malformed_grant_allows_nothing_and_harms_no_other(fields):
    engine = city()
    engine.set_camera("other", "traffic")
    other = Object(ObjectKind.CAMERA, "other")
    engine.set_grant(grant("good", resource=other))
    values = {"subject": OLGA, "object": GATE, "actions": frozenset({Action.LIVE_VIEW})} | fields
    engine.set_grant(grant("bad", values.pop("subject"), values.pop("object"), **values))
    assert not engine.decide(asks()).allowed
    assert engine.decide(asks(resource=other)).rule == "good"
    assert "bad" in engine.malformed_grants
    engine.set_grant(grant("bad"))
    assert engine.decide(asks()).allowed
    assert engine.malformed_grants == {}


@pytest.mark.parametrize("effect", ["Deny", "DENY", "", "no", Effect.DENY])
def test_a_malformed_denial_still_denies(effect):
    engine = city()
    engine.set_grant(grant("allow"))
    engine.set_grant(grant("bad", effect=effect, actions=["live:veiw"]))
    decision = engine.decide(asks())
    assert (decision.effect, decision.reason, decision.rule) == (Effect.DENY, Reason.MALFORMED_RULE, "bad")
    assert engine.visible_cameras("olga", NOW) == set()
    assert engine.decide(asks("job")).reason is not Reason.MALFORMED_RULE


def test_a_malformed_grant_is_named_as_the_reason():
    engine = city()
    engine.set_grant(grant("bad", valid_to=NOW.replace(tzinfo=None)))
    assert engine.decide(asks()).reason is Reason.MALFORMED_RULE
    assert [match.rule for match in engine.explain(asks()).near_misses] == ["bad"]


def test_a_grant_written_twice_is_gone_after_one_removal():
    engine = city()
    engine.set_grant(grant())
    engine.set_grant(grant())
    engine.remove_grant("g1")
    assert not engine.decide(asks()).allowed


def test_a_replaced_grant_leaves_nothing_behind():
    engine = city()
    engine.set_grant(grant(actions=[Action.LIVE_VIEW, Action.PTZ_CONTROL]))
    engine.set_grant(grant(actions=[Action.LIVE_SNAPSHOT]))
    assert not engine.decide(asks()).allowed
    assert not engine.decide(asks(action=Action.PTZ_CONTROL)).allowed


def test_a_grant_named_like_a_role_is_not_confused_with_it():
    engine = city()
    engine.set_grant(grant("role:department-administrator", effect=Effect.DENY))
    engine.remove_grant("r:system-administrator")
    assert engine.decide(asks("paul", Action.CAMERA_READ)).allowed
    assert engine.decide(asks("root", Action.CAMERA_READ)).allowed


def test_casbin_cannot_be_switched_off():
    enforcer = city()._decider._enforcer
    assert isinstance(enforcer, IndexedEnforcer)
    with pytest.raises(TypeError):
        enforcer.enable_enforce(False)


def test_the_deepest_tree_is_decided():
    engine = PolicyEngine(ROLES)
    for level in range(32):
        engine.set_department(f"d{level}", f"d{level - 1}" if level else None)
    engine.set_camera("gate", "d31")
    engine.set_user("olga", None)
    engine.set_grant(grant(resource=Object(ObjectKind.DEPARTMENT, "d0")))
    assert engine.decide(asks()).allowed
    with pytest.raises(FactRefusedError) as refused:
        engine.set_department("d32", "d31")
    assert refused.value.code == "too_deep"
