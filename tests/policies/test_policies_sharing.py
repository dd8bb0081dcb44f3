"""How an owner shares a camera: with some without a grant, by grants, or with nobody outside."""

import pytest
from support.policy_city import GATE, HARBOUR, HOUR, NOW, OLGA, POLICE, SCHOOLS, asks, city, grant

from policies.access import Action, Effect, Object, ObjectKind, Reason, Sharing, SharingMode

WITH_TRAFFIC = Sharing(mode=SharingMode.UNCONDITIONAL, departments=("traffic",))
NOT_SHARED = Sharing(mode=SharingMode.NOT_SHARED, departments=("traffic",))


def shared(sharing, tags=()):
    engine = city()
    engine.set_camera("gate", "precinct", ["schools"], tags=tags, sharing=sharing)
    return engine


def test_unconditional_sharing_lets_a_department_watch_without_a_grant():
    engine = shared(WITH_TRAFFIC)
    decision = engine.decide(asks(purpose="patrol"))
    assert (decision.effect, decision.reason, decision.rule) == (Effect.ALLOW, Reason.SHARED, "sharing:gate")
    assert engine.explain(asks()).matching[0].rule == "sharing:gate"
    assert not engine.decide(asks(action=Action.LIVE_SNAPSHOT)).allowed
    assert not engine.decide(asks("paul")).allowed
    assert engine.visible_cameras("olga", NOW) == {"gate"}
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == {"olga", "tara", "job"}
    assert engine.principals_of(GATE, Action.LIVE_SNAPSHOT, NOW) == set()


def test_it_reaches_the_departments_below_and_a_denial_beats_it():
    engine = shared(WITH_TRAFFIC)
    engine.set_department("signals", "traffic")
    engine.set_user("sam", "signals")
    assert engine.decide(asks("sam")).reason is Reason.SHARED
    engine.set_grant(grant("deny", resource=POLICE, effect=Effect.DENY))
    assert engine.decide(asks()).reason is Reason.DENIED_BY_RULE
    assert engine.decide(asks("sam")).allowed


@pytest.mark.parametrize("mode", [SharingMode.UNCONDITIONAL, SharingMode.CONDITIONAL])
def test_sharing_ends(mode):
    engine = shared(Sharing(mode=mode, departments=("traffic",), until=NOW + HOUR))
    engine.set_grant(grant("given", resource=SCHOOLS, valid_to=NOW + 2 * HOUR))
    assert engine.decide(asks()).expires_at == NOW + HOUR
    over = engine.decide(asks(at=NOW + HOUR))
    assert over.reason is Reason.NOT_SHARED
    assert engine.visible_cameras("olga", NOW) == {"gate"}
    assert engine.visible_cameras("olga", NOW + HOUR) == set()
    assert engine.visible_cameras("olga", NOW) == {"gate"}  # whoever asks about earlier gets that answer
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW + HOUR) == set()


def test_what_is_not_shared_is_for_the_owners_people_alone():
    engine = shared(NOT_SHARED)
    engine.set_user("pia", "precinct")
    for number, user in enumerate(("olga", "paul", "pia")):
        engine.set_grant(
            grant(f"g{number}", type(OLGA)(OLGA.kind, user), actions=[Action.LIVE_VIEW, Action.CAMERA_READ])
        )
    assert engine.decide(asks()).reason is Reason.NOT_SHARED
    assert engine.decide(asks(action=Action.CAMERA_READ)).allowed  # that it exists is no picture
    assert engine.decide(asks("paul")).reason is Reason.NOT_SHARED  # of the department above the owner
    assert engine.decide(asks("pia")).allowed
    assert engine.visible_cameras("olga", NOW, [Action.LIVE_VIEW]) == set()
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == {"pia"}
    assert [match.reason for match in engine.explain(asks()).near_misses] == [Reason.NOT_SHARED]
    engine.set_camera("gate", "precinct", ["schools"])
    assert engine.decide(asks()).allowed


def test_the_owners_people_need_a_grant_as_before():
    engine = shared(NOT_SHARED)
    engine.set_user("pia", "precinct")
    assert engine.decide(asks("pia")).reason is Reason.NO_MATCHING_GRANT


def test_a_changed_or_removed_camera_leaves_nothing_behind():
    engine = shared(Sharing(mode=SharingMode.UNCONDITIONAL, departments=("traffic",), until=NOW + HOUR))
    engine.set_camera("gate", "precinct", sharing=NOT_SHARED)
    assert engine.visible_cameras("olga", NOW) == set()
    engine.set_camera("gate", "precinct", sharing=WITH_TRAFFIC)
    assert engine.visible_cameras("olga", NOW + 2 * HOUR) == {"gate"}
    engine.remove_camera("gate")
    assert engine.visible_cameras("olga", NOW) == set()
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == set()


def test_a_tag_is_an_object_as_long_as_a_camera_has_it():
    engine = shared(None, tags=("crossing",))
    crossing = Object(ObjectKind.TAG, "crossing")
    engine.set_grant(grant(resource=crossing))
    assert engine.decide(asks()).allowed
    assert not engine.decide(asks(resource=HARBOUR)).allowed
    assert engine.has_object(crossing)
    engine.set_camera("gate", "precinct", ["schools"])
    assert not engine.decide(asks()).allowed
    assert not engine.has_object(crossing)
    assert engine.decide(asks(resource=crossing)).reason is Reason.UNKNOWN_RESOURCE


def listing(*purposes, **terms):
    return Sharing(purposes=frozenset(purposes), **terms)


def test_a_denial_that_waits_lets_nobody_past_the_owners_list():
    engine = shared(listing("patrol"))
    engine.set_grant(grant("given"))
    engine.set_grant(grant("later", effect=Effect.DENY, valid_from=NOW + HOUR))
    assert engine.decide(asks(purpose="theft")).reason is Reason.PURPOSE_NOT_ALLOWED
    assert engine.decide(asks(purpose="patrol")).expires_at == NOW + HOUR


def test_the_owners_list_of_purposes_binds_every_picture_and_nothing_else():
    engine = shared(listing("patrol", "theft"))
    engine.set_grant(
        grant(resource=SCHOOLS, actions=[Action.LIVE_VIEW, Action.PTZ_CONTROL, Action.CAMERA_READ])
    )
    for action in (Action.LIVE_VIEW, Action.PTZ_CONTROL):
        assert engine.decide(asks(action=action, purpose="theft")).allowed
        for purpose in ("traffic", None):
            refused = engine.decide(asks(action=action, purpose=purpose))
            assert (refused.effect, refused.reason) == (Effect.DENY, Reason.PURPOSE_NOT_ALLOWED)
    assert engine.decide(asks(action=Action.CAMERA_READ, purpose="traffic")).allowed


def test_an_empty_list_allows_nobody_a_picture_and_none_allows_any_purpose():
    engine = shared(listing())
    engine.set_user("pia", "precinct")
    engine.set_grant(grant("pias", type(OLGA)(OLGA.kind, "pia")))
    assert engine.decide(asks("pia", purpose="patrol")).reason is Reason.PURPOSE_NOT_ALLOWED
    assert engine.visible_cameras("pia", NOW, [Action.LIVE_VIEW]) == set()
    assert engine.principals_of(GATE, Action.LIVE_VIEW, NOW) == set()
    engine.set_camera("gate", "precinct", ["schools"], sharing=Sharing())
    assert engine.decide(asks("pia", purpose="whatever")).allowed
    assert engine.visible_cameras("pia", NOW, [Action.LIVE_VIEW]) == {"gate"}


def test_the_list_binds_unconditional_sharing_too():
    engine = shared(listing("patrol", mode=SharingMode.UNCONDITIONAL, departments=("traffic",)))
    assert engine.decide(asks(purpose="patrol")).reason is Reason.SHARED
    assert engine.decide(asks(purpose="theft")).reason is Reason.PURPOSE_NOT_ALLOWED


def test_a_denial_says_so_whatever_the_list_says():
    engine = shared(listing("patrol"))
    engine.set_grant(grant(resource=SCHOOLS))
    engine.set_grant(grant("deny", resource=SCHOOLS, effect=Effect.DENY))
    assert engine.decide(asks(purpose="theft")).reason is Reason.DENIED_BY_RULE


def test_an_explanation_names_the_list_that_stands_in_the_way():
    engine = shared(listing("patrol", "theft"))
    engine.set_grant(grant(resource=SCHOOLS))
    found = engine.explain(asks(purpose="traffic"))
    assert found.owner_purposes == {"patrol", "theft"}
    assert [miss.reason for miss in found.near_misses] == [Reason.PURPOSE_NOT_ALLOWED]
    assert engine.explain(asks(purpose="patrol")).owner_purposes is None


def test_a_list_that_shares_no_purpose_with_the_grant_hides_the_camera():
    engine = shared(listing("patrol"))
    engine.set_grant(grant(resource=SCHOOLS, purposes=frozenset({"theft"})))
    assert engine.visible_cameras("olga", NOW) == set()
    engine.set_camera("gate", "precinct", ["schools"], sharing=listing("theft"))
    assert engine.visible_cameras("olga", NOW) == {"gate"}
    engine.remove_camera("gate")
    assert engine.visible_cameras("olga", NOW) == set()
