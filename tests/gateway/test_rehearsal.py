"""What a change would do is said exactly, and nothing of it happens."""

import pytest
from support.controls import add_camera, add_user, open_city

from gateway import rehearsal

NOTHING = {"count": 0, "items": []}


def _body(subject=("user", "urban-operator"), target=("camera", "gate"), actions=("live:view",), **more):
    return {
        "subject": {"kind": subject[0], "id": subject[1]},
        "object": {"kind": target[0], "id": target[1]},
        "actions": list(actions),
        **more,
    }


async def _rehearse(city, body, by="traffic-admin"):
    return await city.call(by, "POST", "/grants?dry_run=1", body, 200)


async def _state(city):
    """All that a rehearsal must leave alone."""
    granted = (await city.call("traffic-admin", "GET", "/grants"))["items"]
    return granted, city.services.enforcement.revision, await city.records(), len(city.services.live)


async def test_who_would_gain(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        before = await _state(city)
        told = await _rehearse(city, _body(("department", "urban"), ("department", "traffic")))
        assert told.keys() == {"gains", "losses", "sessions", "session_count", "truncated"}
        assert (told["losses"], told["sessions"], told["session_count"]) == (NOTHING, [], 0)
        assert not told["truncated"]
        assert told["gains"]["count"] == 4
        assert {(item["user"], item["camera"]) for item in told["gains"]["items"]} == {
            (user, camera) for user in ("urban-admin", "urban-operator") for camera in ("gate", "bridge")
        }
        assert await _state(city) == before
        await city.watch("urban-operator", expect=403)
        # whoever has it already gains nothing; a role's holders are asked too
        await city.grant("urban-operator")
        told = await _rehearse(city, _body(("role", "operator"), ("camera", "gate")))
        assert [item["user"] for item in told["gains"]["items"]] == ["traffic-operator"]


async def test_who_would_lose_and_which_pictures_would_end(tmp_path):
    async with open_city(tmp_path) as city:
        first = await city.grant("urban-operator", actions=["live:view", "camera:share"])
        await city.grant("job", by="urban-operator")
        await city.grant("traffic-operator")
        watching = {user: (await city.watch(user))["id"] for user in ("urban-operator", "job")}
        unmoved = (await city.watch("traffic-operator"))["id"]
        before = await _state(city)
        told = await city.call("traffic-admin", "DELETE", f"/grants/{first}?dry_run=1", expect=200)
        assert told["gains"] == NOTHING
        assert {(item["user"], item["action"]) for item in told["losses"]["items"]} == {
            ("urban-operator", "live:view"),
            ("urban-operator", "camera:share"),
            ("job", "live:view"),
        }
        assert {session["id"] for session in told["sessions"]} == set(watching.values())
        assert told["session_count"] == 2
        assert await _state(city) == before
        assert city.services.live.get(unmoved) is not None
        # what was said is what happens
        await city.call("traffic-admin", "DELETE", f"/grants/{first}")
        await city.until(lambda: len(city.services.live) == 1)
        assert {session.id for session in city.services.live.all()} == {unmoved}


async def test_a_denial_takes_and_its_end_gives(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("urban-operator", purposes=["patrol"])
        await city.watch("urban-operator")
        deny = _body(effect="deny", target=("department", "traffic"))
        told = await _rehearse(city, deny)
        assert (told["losses"]["count"], told["session_count"]) == (1, 1)
        # one that is for another purpose ends nothing and takes nothing
        told = await _rehearse(city, {**deny, "purposes": ["case"]})
        assert (told["losses"]["count"], told["session_count"]) == (0, 0)
        grant = (await city.call("traffic-admin", "POST", "/grants", deny))["id"]
        told = await city.call("traffic-admin", "DELETE", f"/grants/{grant}?dry_run=1", expect=200)
        assert told["gains"]["items"] == [{"user": "urban-operator", "camera": "gate", "action": "live:view"}]


async def test_who_may_not_change_may_not_rehearse(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        for user in ("root", "urban-admin", "auditor", "job"):
            await city.call(user, "POST", "/grants?dry_run=1", _body(), 403)
            await city.call(user, "DELETE", f"/grants/{grant}?dry_run=1", expect=403)
        await city.call("traffic-admin", "DELETE", "/grants/nope?dry_run=1", expect=404)
        problem = await city.call("traffic-admin", "POST", "/grants?dry_run=1", _body(purposes=[]), 422)
        assert problem["reason"] == "purposes_empty"
        problem = await city.call("traffic-admin", "POST", "/grants?dry_run=maybe", _body(), 422)
        assert problem["code"] == "invalid_field"


async def test_who_may_not_see_sessions_gets_their_number_only(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant("urban-operator", actions=["live:view", "camera:share"])
        child = await city.grant("job", by="urban-operator")
        await city.watch("job")
        told = await city.call("urban-operator", "DELETE", f"/grants/{child}?dry_run=1", expect=200)
        assert (told["sessions"], told["session_count"]) == ([], 1)


@pytest.mark.parametrize(("limit", "truncated"), [(2, False), (1, True)])
async def test_limits_of_the_people_asked_about(tmp_path, monkeypatch, limit, truncated):
    monkeypatch.setattr(rehearsal, "MAX_USERS", limit)
    async with open_city(tmp_path) as city:
        told = await _rehearse(city, _body(("department", "urban")))
        assert (told["gains"]["count"], told["truncated"]) == (limit, truncated)


@pytest.mark.parametrize(("limit", "people", "truncated"), [(4, 2, False), (3, 1, True)])
async def test_limits_of_what_is_asked(tmp_path, monkeypatch, limit, people, truncated):
    monkeypatch.setattr(rehearsal, "MAX_ASKED", limit)
    async with open_city(tmp_path) as city:
        told = await _rehearse(city, _body(("department", "urban"), ("department", "traffic")))
        assert (told["gains"]["count"], told["truncated"]) == (2 * people, truncated)


@pytest.mark.parametrize(("limit", "named"), [(2, 2), (1, 1)])
async def test_limits_of_what_is_named(tmp_path, monkeypatch, limit, named):
    monkeypatch.setattr(rehearsal, "MAX_ITEMS", limit)
    async with open_city(tmp_path) as city:
        await add_camera(city, "third")
        await add_user(city, "urban-second", "urban", "operator", login=False)
        told = await _rehearse(city, _body(target=("department", "traffic")))
        assert (told["gains"]["count"], len(told["gains"]["items"])) == (3, named)


async def test_nothing_is_decided_by_what_is_only_tried(tmp_path):
    async with open_city(tmp_path) as city:
        enforcement = city.services.enforcement

        def fail():
            calls.append(1)
            if len(calls) == 2:
                raise ZeroDivisionError

        calls = []
        done = []
        with pytest.raises(ZeroDivisionError):
            enforcement.rehearse(lambda _: done.append("change"), lambda _: done.append("undo"), fail)
        assert done == ["change", "undo"]
