"""Casbin's stock enforcer decides the same on generated worlds that change, and notices when we do not."""

from datetime import MAXYEAR, timedelta

import msgspec
import pytest
from support.policy_world import HOURS, PURPOSES, Oracle, World, at

from policies import decider as decider_module
from policies import engine as engine_module
from policies.access import VISIBLE_ACTIONS, AccessRequest, Action, Effect, Object, ObjectKind, Reason
from policies.catalogue import Catalogue
from policies.decider import Question
from policies.rules import Rule, RuleIndex
from policies.schedules import WeeklyClock, compile_schedule
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
@pytest.mark.parametrize("part", range(6))
def test_agrees_with_stock_casbin_on_sixty_thousand_decisions(part):
    total, share = compare(215, first_seed=1000 * (part + 1))
    assert total >= 10_000
    assert share >= 0.3


def without_its(**fields):
    """A mutant of RuleIndex.naming, whose rules have other fields."""

    def naming(self, *arguments):
        return [
            [msgspec.structs.replace(rule, **fields) for rule in rules] for rules in NAMING(self, *arguments)
        ]

    return naming


def with_closed_interval(self, moment):
    return UNMET_AT(self, moment - timedelta(microseconds=1))


def without_self_exclusion(self, user_id, moment):
    return self.unmet_at(moment)


def on_utc(self, moment):
    return timedelta(days=moment.weekday(), hours=moment.hour)


def ever_open(self, moment):
    return True


def remembers_forever(self, moment, is_open):
    end = END_OF(self, moment, is_open)
    return end if end.year == MAXYEAR else end + timedelta(hours=1)


def without_denials(self, *arguments):
    return [rules for rules in NAMING(self, *arguments) if rules[0].is_allow]


def allows_first(self, *arguments):
    return [
        [
            msgspec.structs.replace(rule, precedence=(not rule.is_allow, *rule.precedence[1:]))
            for rule in rules
        ]
        for rules in NAMING(self, *arguments)
    ]


def alike_whatever_its(name):
    asked = {"is_allow", "actions", "purposes", "clock"} - {name}

    def is_like(self, other):
        return all(getattr(self, name) == getattr(other, name) for name in asked)

    return is_like


def without_inherited_objects(self, closure, resource, ancestors):
    return NAMING(self, closure, resource, frozenset())


def without_parents(self, *arguments):
    return None


def without_more_than_one_parent(self, rule):
    return iter([next(ABOVE(self, rule))])


def wherever(self, rule, action, moment, places):
    everywhere = {above.place for above in ABOVE(self, rule) if above is not None}
    return UNMET_ABOVE(self, rule, action, moment, everywhere)


def for_any_action(self, rule, action, moment, places):
    return UNMET_ABOVE(self, rule, Action.CAMERA_SHARE, moment, places)


def without(prefix):
    def find(self, key):
        home, found = FIND(self, key)
        return home, found and frozenset(name for name in found if not name.startswith(prefix))

    return find


def without_departments(self, key):
    closure = CLOSURE(self, key)
    return closure and tuple(name for name in closure if not name.startswith("o:"))


def with_an_empty_list_as_any(self):
    return not self.owner_purposes or self.purpose in self.owner_purposes


def long_before(self, key, moment):
    return USER_UNMET(self, key, at(-1))


def nothing(self, *arguments):
    pass


UNMET_AT, NAMING, ABOVE, UNMET_ABOVE = Rule.unmet_at, RuleIndex.naming, RuleIndex.above, RuleIndex.unmet_above
FIND, CLOSURE, END_OF = Catalogue.find, Subjects.closure, WeeklyClock._end_of
USER_UNMET = Subjects.unmet_by

MUTANTS = {
    "ignores valid_to": (RuleIndex, "naming", without_its(valid_to=None)),
    "ignores valid_from": (RuleIndex, "naming", without_its(valid_from=None)),
    "closed interval": (Rule, "unmet_at", with_closed_interval),
    "serves the giver": (Rule, "unmet_by", without_self_exclusion),
    "ignores purposes": (RuleIndex, "naming", without_its(purposes=None)),
    "ignores voidness": (RuleIndex, "naming", without_its(void=None)),
    "purposes bind sharing": (decider_module, "PURPOSELESS_ACTIONS", frozenset()),
    "ignores windows": (RuleIndex, "naming", without_its(clock=None)),
    "windows in UTC": (WeeklyClock, "_wall", on_utc),
    "windows never close": (WeeklyClock, "is_open", ever_open),
    "remembers too long": (WeeklyClock, "_end_of", remembers_forever),
    "ignores denials": (RuleIndex, "naming", without_denials),
    "allows decide first": (RuleIndex, "naming", allows_first),
    "takes one purpose for another": (Rule, "is_like", alike_whatever_its("purposes")),
    "takes one window for another": (Rule, "is_like", alike_whatever_its("clock")),
    "ignores what lies around": (RuleIndex, "naming", without_inherited_objects),
    "ignores parents": (RuleIndex, "unmet_above", without_parents),
    "ignores grandparents": (RuleIndex, "above", without_more_than_one_parent),
    "gives on elsewhere": (RuleIndex, "unmet_above", wherever),
    "gives on other actions": (RuleIndex, "unmet_above", for_any_action),
    "never revokes": (RuleIndex, "remove", nothing),
    "ignores groups": (Catalogue, "find", without("g:")),
    "ignores tags": (Catalogue, "find", without("t:")),
    "ignores sharing": (Catalogue, "_home", lambda self, *fields: HOME(self, *fields[:3], None)),
    "ignores not shared": (decider_module, "is_closed", lambda sharing, moment: False),
    "ignores the owner's purposes": (Question, "is_for_a_listed_purpose", True),
    "reads an empty list as any": (Question, "is_for_a_listed_purpose", property(with_an_empty_list_as_any)),
    "the owner's purposes bind every action": (decider_module, "MEDIA_ACTIONS", VISIBLE_ACTIONS),
    "closed to its owner": (decider_module, "member_key", lambda department: "o:" + department + "!"),
    "remembers a moved department (cameras)": (Catalogue, "departments_changed", nothing),
    "remembers a moved department (users)": (Subjects, "departments_changed", nothing),
    "ignores departments of users": (Subjects, "closure", without_departments),
    "serves disabled users": (Subjects, "unmet_by", lambda self, key, moment: None),
    "ignores the end of accounts": (Subjects, "unmet_by", long_before),
    "roles reach everywhere": (engine_module, "assignment_key", lambda role, department: f"r:{role}"),
}
HOME = Catalogue._home


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_oracle_catches(monkeypatch, caplog, mutant):
    monkeypatch.setattr(*MUTANTS[mutant])
    compile_schedule.cache_clear()
    with pytest.raises(AssertionError):
        compare(300)
    assert not caplog.records, "caught because it crashed, not because it decided wrongly"


@pytest.mark.parametrize("seed", range(60))
def test_the_loop_and_our_casbin_agree(seed, caplog):
    world = World(seed)
    for _ in range(40):
        request = world.request()
        assert world.engine.explain(request).decision == world.engine.decide(request)
    assert not caplog.records


def one_by_one(world, user, camera, action, hour):
    target = Object(ObjectKind.CAMERA, camera)
    return any(
        world.engine.decide(
            AccessRequest(user_id=user, action=action, object=target, at=at(hour), purpose=purpose)
        ).allowed
        for purpose in (*PURPOSES, None)
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_list_of_visible_cameras_is_what_checking_one_by_one_gives(seed):
    world = World(seed)
    for hour in range(0, HOURS, 2):
        world.edit()
        for user in [*world.users, "nobody"]:
            seen = {
                c for c in world.cameras if any(one_by_one(world, user, c, a, hour) for a in VISIBLE_ACTIONS)
            }
            assert world.engine.visible_cameras(user, at(hour)) == seen
            assert {c for c in world.cameras if world.engine.is_visible(user, c, at(hour))} == seen


@pytest.mark.parametrize("seed", range(30))
def test_who_can_see_a_camera_is_what_checking_one_by_one_gives(seed):
    world = World(seed)
    for hour in range(0, HOURS, 2):
        world.edit()
        for action in (*VISIBLE_ACTIONS, Action.CAMERA_SHARE):
            for camera in [*world.cameras, "nothing"]:
                found = world.engine.principals_of(Object(ObjectKind.CAMERA, camera), action, at(hour))
                assert found == {u for u in world.users if one_by_one(world, u, camera, action, hour)}


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
