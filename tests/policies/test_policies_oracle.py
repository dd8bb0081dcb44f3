"""Casbin's stock enforcer decides the same on generated worlds that change, and notices when we do not."""

from datetime import timedelta

import msgspec
import pytest
from support.policy_world import HOURS, PURPOSES, Oracle, World, at

from policies import engine as engine_module
from policies.access import VISIBLE_ACTIONS, AccessRequest, Effect, Object, ObjectKind, Reason
from policies.catalogue import Catalogue
from policies.rules import Conditions, RuleIndex
from policies.subjects import Subjects

EDITS, REQUESTS = 4, 12


def decisions(seed):
    """(request, ours, the oracle's) for one world, between edits."""
    world = World(seed)
    for _ in range(EDITS):
        world.edit()
        oracle = Oracle(world)
        for _ in range(REQUESTS):
            request = world.request()
            yield request, world.engine.decide(request), oracle.allows(request)


def compare(worlds, first_seed=0):
    total = allowed = 0
    for seed in range(first_seed, first_seed + worlds):
        for request, decision, expected in decisions(seed):
            assert decision.allowed == expected, (seed, request, decision)
            assert decision.reason is not Reason.INTERNAL_ERROR
            total += 1
            allowed += expected
    return total, allowed / total


def test_agrees_with_stock_casbin():
    total, share = compare(30)
    assert total == 30 * EDITS * REQUESTS
    assert share >= 0.3


@pytest.mark.slow
def test_agrees_with_stock_casbin_on_twenty_thousand_decisions():
    total, share = compare(420, first_seed=1000)
    assert total >= 20_000
    assert share >= 0.3


def without_expiry(self, user_id, at):
    return UNMET_BY(msgspec.structs.replace(self, valid_to=None), user_id, at)


def with_closed_interval(self, user_id, at):
    return UNMET_BY(self, user_id, at - timedelta(microseconds=1))


def without_start(self, user_id, at):
    return UNMET_BY(msgspec.structs.replace(self, valid_from=None), user_id, at)


def without_self_exclusion(self, user_id, at):
    return UNMET_BY(self, "", at)


def without_denials(self, *arguments):
    return [rule for rule in CANDIDATES(self, *arguments) if rule.effect == "allow"]


def allows_first(self, *arguments):
    return CANDIDATES(self, *arguments)[::-1]


def without_inherited_objects(self, closure, resource, ancestors, action):
    return CANDIDATES(self, closure, resource, frozenset(), action)


def without_groups(self, key):
    found = ANCESTORS(self, key)
    return found and frozenset(name for name in found if not name.startswith("g:"))


def without_departments(self, key):
    closure = CLOSURE(self, key)
    return closure and frozenset(name for name in closure if not name.startswith("o:"))


def never_forgets(self, gid):
    pass


UNMET_BY, CANDIDATES = Conditions.unmet_by, RuleIndex.candidates
ANCESTORS, CLOSURE = Catalogue.ancestors, Subjects.closure


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (Conditions, "unmet_by", without_expiry),
        (Conditions, "unmet_by", with_closed_interval),
        (Conditions, "unmet_by", without_start),
        (Conditions, "unmet_by", without_self_exclusion),
        (Conditions, "serves", lambda self, purpose: True),
        (RuleIndex, "candidates", without_denials),
        (RuleIndex, "candidates", allows_first),
        (RuleIndex, "candidates", without_inherited_objects),
        (RuleIndex, "remove", never_forgets),
        (Catalogue, "ancestors", without_groups),
        (Catalogue, "departments_changed", lambda self: None),
        (Subjects, "closure", without_departments),
        (Subjects, "departments_changed", lambda self: None),
        (Subjects, "is_enabled", lambda self, key: True),
        (engine_module, "assignment_key", lambda role, department: f"r:{role}"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_oracle_catches(monkeypatch, caplog, owner, name, mutant):
    monkeypatch.setattr(owner, name, mutant)
    with pytest.raises(AssertionError):
        compare(150)
    assert not caplog.records, "caught because it crashed, not because it decided wrongly"


@pytest.mark.parametrize("seed", range(20))
def test_the_list_of_visible_cameras_is_what_checking_one_by_one_gives(seed):
    world = World(seed)
    for hour in range(0, HOURS, 2):
        world.edit()
        for user in [*world.users, "nobody"]:
            one_by_one = {
                camera
                for camera in world.cameras
                if any(
                    world.engine.decide(
                        AccessRequest(
                            user_id=user,
                            action=action,
                            object=Object(ObjectKind.CAMERA, camera),
                            at=at(hour),
                            purpose=purpose,
                        )
                    ).allowed
                    for action in VISIBLE_ACTIONS
                    for purpose in (*PURPOSES, None)
                )
            }
            assert world.engine.visible_cameras(user, at(hour)) == one_by_one
            assert {c for c in world.cameras if world.engine.is_visible(user, c, at(hour))} == one_by_one


@pytest.mark.parametrize("seed", range(30))
def test_an_allow_holds_until_it_expires_and_no_longer(seed):
    world = World(seed)
    for _ in range(30):
        request = world.request()
        decision = world.engine.decide(request)
        if decision.effect is Effect.DENY:
            assert decision.expires_at is None
            continue
        until = decision.expires_at or at(2 * HOURS)
        for hour in range(2 * HOURS):
            if request.at <= at(hour) < until:
                later = msgspec.structs.replace(request, at=at(hour))
                assert world.engine.decide(later).allowed
        if decision.expires_at is not None:
            then = world.engine.decide(msgspec.structs.replace(request, at=decision.expires_at))
            assert (then.effect, then.rule) != (decision.effect, decision.rule)
