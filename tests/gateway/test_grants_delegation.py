"""Giving on: whoever was granted `camera:share` gives on within it, and what he gave ends with it."""

import asyncio
import json
from collections import Counter
from datetime import timedelta

from support.controls import add_camera, add_user, open_city

WEEKDAYS = {"zone": "Asia/Shanghai", "windows": [{"days": [1, 2, 3, 4, 5], "start": "08:00", "end": "18:00"}]}


def _body(user, actions=("live:view",), target=("camera", "gate"), **more):
    kind, identifier = target
    return {
        "subject": {"kind": "user", "id": user},
        "object": {"kind": kind, "id": identifier},
        "actions": list(actions),
        **more,
    }


async def _chain(city):
    """traffic-admin lets urban-operator share; he gives on to traffic-operator, and he to job."""
    first = await city.grant("urban-operator", actions=["live:view", "camera:share"])
    second = await city.grant("traffic-operator", actions=["live:view", "camera:share"], by="urban-operator")
    third = await city.grant("job", by="traffic-operator")
    return first, second, third


async def test_what_was_given_on_ends_with_its_parent(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        first, second, third = await _chain(city)
        listed = {
            entry["id"]: entry for entry in (await city.call("traffic-admin", "GET", "/grants"))["items"]
        }
        assert [listed[grant]["parent"] for grant in (first, second, third)] == [None, first, second]
        await city.watch("job")
        assert len(city.services.live) == 1
        revision = city.services.enforcement.revision
        await city.call("traffic-admin", "DELETE", f"/grants/{first}", params={"reason": "项目结束"})
        assert city.services.enforcement.revision == revision + 1
        await city.until(lambda: not len(city.services.live))
        assert (await city.call("traffic-admin", "GET", "/grants"))["items"] == []
        for user in ("urban-operator", "traffic-operator", "job"):
            await city.watch(user, expect=403)
        revoked = await city.records(kind="revoke")
        assert len(revoked) == 3
        assert "项目结束" in revoked[0].content
        assert all(f"its parent {first} was revoked; 项目结束" in event.content for event in revoked[1:])
        assert {event.actor_id for event in revoked} == {"traffic-admin"}


async def test_nobody_gives_on_more_than_he_has(tmp_path):
    async with open_city(tmp_path) as city:
        until = (city.clock.now + timedelta(days=2)).isoformat()
        await city.grant("urban-operator", actions=["live:view", "camera:share"], valid_to=until)
        for beyond in (
            _body("job", ["live:snapshot"], valid_to=until),
            _body("job", ["camera:manage"], valid_to=until),
            _body("job"),
        ):
            problem = await city.call("urban-operator", "POST", "/grants", beyond, 422)
            assert (problem["code"], problem["reason"]) == ("grant_refused", "beyond_giver")
        await city.call("urban-operator", "POST", "/grants", _body("job", valid_to=until))
        # another camera is not his to give at all
        await city.call("urban-operator", "POST", "/grants", _body("job", target=("camera", "bridge")), 403)


async def test_who_shares_by_a_grant_revokes_only_what_came_from_him(tmp_path):
    async with open_city(tmp_path) as city:
        first, second, third = await _chain(city)
        other = await city.grant("auditor")
        denial = await city.grant("urban-admin", effect="deny")
        for grant, reason in ((other, "beyond_giver"), (first, "beyond_giver"), (denial, "not_shareable")):
            for rehearsed in ("", "?dry_run=1"):
                path = f"/grants/{grant}{rehearsed}"
                problem = await city.call("urban-operator", "DELETE", path, expect=422)
                assert (problem["code"], problem["reason"]) == ("grant_refused", reason)
        await city.call("urban-operator", "DELETE", f"/grants/{third}")
        await city.call("urban-operator", "DELETE", f"/grants/{second}")
        await city.watch("traffic-operator", expect=403)


async def test_a_schedule_is_kept_shown_and_held_to(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:  # Monday, 16:00 in Shanghai
        grant = await city.call(
            "traffic-admin", "POST", "/grants", _body("urban-operator", schedule=WEEKDAYS)
        )
        (listed,) = (await city.call("traffic-admin", "GET", "/grants"))["items"]
        assert grant["schedule"] == listed["schedule"] == WEEKDAYS
        await city.watch("urban-operator")
        city.clock.advance(2 * 3600)
        problem = await city.watch("urban-operator", expect=403)
        assert problem["reason"] == "outside_window"
        await city.until(lambda: not len(city.services.live))


async def test_a_schedule_that_is_none_is_refused(tmp_path):
    async with open_city(tmp_path) as city:
        window = WEEKDAYS["windows"][0]
        for wrong in (
            {"zone": "Asia/Shanghai", "windows": []},
            {"zone": "Asia/Shanghai", "windows": [window] * 33},
            {"zone": "Asia/Shanghai", "windows": [{**window, "days": [0]}]},
            {"zone": "Asia/Shanghai", "windows": [{**window, "start": "24:00"}]},
            {"zone": "Asia/Shanghai", "windows": [{**window, "end": "8:00"}]},
            {"windows": [window]},
        ):
            body = _body("urban-operator", schedule=wrong)
            assert (await city.call("traffic-admin", "POST", "/grants", body, 422))["code"] == "invalid_field"
        body = _body("urban-operator", schedule={"zone": "Atlantis/Capital", "windows": [window]})
        problem = await city.call("traffic-admin", "POST", "/grants", body, 422)
        assert (problem["code"], problem["reason"]) == ("grant_refused", "malformed")


async def test_a_tag_is_shared_by_who_may_share_all_that_bear_it(tmp_path):
    async with open_city(tmp_path) as city:
        body = _body("urban-operator", target=("tag", "防汛 重点"))
        await city.call("traffic-admin", "POST", "/grants", body, 422)  # nothing bears it
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"tags": ["防汛 重点"]})
        grant = (await city.call("traffic-admin", "POST", "/grants", body))["id"]
        await city.watch("urban-operator")
        listed = (await city.call("traffic-admin", "GET", "/grants"))["items"]
        assert [entry["id"] for entry in listed] == [grant]
        # another department's administrator can neither see nor revoke it
        assert (await city.call("urban-admin", "GET", "/grants"))["items"] == []
        problem = await city.call("urban-admin", "DELETE", f"/grants/{grant}", expect=422)
        assert problem["reason"] == "beyond_giver"
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")


async def test_what_is_not_there_and_what_is_not_his_look_alike(tmp_path):
    async with open_city(tmp_path) as city:
        answers = []
        for camera in ("gate", "nope"):
            problem = await city.call(
                "urban-admin", "POST", "/grants", _body("urban-operator", target=("camera", camera)), 403
            )
            del problem["request_id"]
            answers.append({key: str(value).replace(camera, "X") for key, value in problem.items()})
            problem = await city.call(
                "urban-admin", "POST", "/grants?dry_run=1", _body("job", target=("camera", camera)), 403
            )
            assert problem["reason"] == "no_matching_grant"
        assert answers[0] == answers[1]
        assert answers[0]["code"] == "access_denied"


async def test_grants_are_filtered_and_paged(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        now = city.clock.now
        current = [await city.grant(user) for user in ("urban-operator", "job", "job")]
        later = await city.grant("job", "bridge", valid_from=(now + timedelta(days=1)).isoformat())
        over = await city.grant("job", "bridge", valid_to=(now + timedelta(hours=1)).isoformat())
        city.clock.advance(7200)

        async def listed(**parameters):
            params = {key: str(value) for key, value in parameters.items()}
            answer = await city.call("traffic-admin", "GET", "/grants", params=params)
            return [entry["id"] for entry in answer["items"]], answer["next_page_token"]

        assert (await listed(subject_kind="user", subject="job"))[0] == sorted([*current[1:], later, over])
        assert (await listed(object_kind="camera", object="bridge"))[0] == sorted([later, over])
        assert (await listed(active="true"))[0] == sorted(current)
        assert (await listed(active="true", subject="urban-operator"))[0] == current[:1]
        assert (await listed(object="nope"))[0] == []
        found, token = [], ""
        while token is not None:
            page, token = await listed(page_size=2, **({"page_token": token} if token else {}))
            found += page
        assert found == sorted([*current, later, over])


async def test_a_grant_lets_in_no_more_at_once_than_it_says(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await add_camera(city, "third")
        grant = await city.grant(
            "urban-operator",
            obligations={"max_concurrent": 2},
            object={"kind": "department", "id": "traffic"},
        )
        await add_user(city, "urban-second", "urban", "operator")
        first = await city.watch("urban-operator", "gate")
        assert first["obligations"]["max_concurrent"] == 2
        await city.watch("urban-operator", "bridge")
        problem = await city.watch("urban-operator", "third", expect=503)
        assert (problem["code"], problem["running"], problem["bound"]) == ("limit_sessions_grant", 2, 2)
        # another grant has its own count
        await city.grant("urban-second", "third")
        await city.watch("urban-second", "third")
        # a place that is given back is taken again; a session that waits for it gets it
        await city.call("urban-operator", "DELETE", f"/sessions/{first['id']}")
        await city.until(lambda: len(city.services.live) == 2)
        opened = await city.watch("urban-operator", "third")
        assert city.services.live.get(opened["id"]).rule == grant
        await city.watch("urban-operator", "gate", expect=503)


async def test_limits_of_max_concurrent(tmp_path):
    async with open_city(tmp_path) as city:
        for number in (0, -1):
            body = _body("urban-operator", obligations={"max_concurrent": number})
            problem = await city.call("traffic-admin", "POST", "/grants", body, 422)
            assert problem["reason"] == "obligation_invalid"
        await city.grant("urban-operator", obligations={"max_concurrent": 1})
        await city.watch("urban-operator")
        assert (await city.watch("urban-operator", expect=503))["code"] == "limit_sessions_grant"


async def test_every_write_answers_its_revision_and_a_check_may_demand_it(tmp_path):
    async with open_city(tmp_path) as city:
        token = city.tokens["traffic-admin"]
        status, headers, _ = await city.request("POST", "/api/v1/grants", token, json=_body("urban-operator"))
        revision = int(headers["X-Custos-Revision"])
        assert (status, revision) == (201, city.services.enforcement.revision)
        _, headers, _ = await city.request("GET", "/api/v1/grants", token)
        assert "X-Custos-Revision" not in headers
        explain = f"/explain?camera=gate&purpose=patrol&min_revision={revision}"
        assert (await city.call("urban-operator", "GET", explain))["decision"]["effect"] == "allow"
        told = await city.call("urban-operator", "GET", f"{explain}0")
        assert told["decision"] | {"revision": 0} == told["decision"] | {
            "effect": "deny", "reason": "stale_revision", "rule": None, "revision": 0,
        }  # fmt: skip
        body = {"camera": "gate", "purpose": {"code": "patrol", "reference": "roster"}}
        for minimum, status in ((str(revision), 201), (f"{revision}0", 403), ("-1", 422), ("x", 422)):
            answered = await city.call(
                "urban-operator", "POST", "/sessions", body, status if status > 400 else None,
                headers={"X-Custos-Min-Revision": minimum},
            )  # fmt: skip
            if status == 403:
                assert answered["reason"] == "stale_revision"


async def test_max_concurrent_holds_under_a_race(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant(
            "x", subject={"kind": "department", "id": "urban"}, obligations={"max_concurrent": 3}
        )

        async def open_one(user):
            body = {"camera": "gate", "purpose": {"code": "patrol", "reference": "roster"}}
            _, _, text = await city.request("POST", "/api/v1/sessions", city.tokens[user], json=body)
            return json.loads(text).get("code", "opened")

        users = ("urban-operator", "urban-admin")
        outcomes = Counter(await asyncio.gather(*(open_one(user) for user in users * 6)))
        assert outcomes == {"opened": 3, "limit_sessions_grant": 9}


async def test_whoever_waits_for_a_grants_place_gets_it(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(obligations={"max_concurrent": 1})
        first = await city.watch("urban-operator")
        waiting = city.tasks.create_task(city.watch("urban-operator", wait_s=9))
        await city.until(lambda: len(city.services.waiting))
        await city.call("urban-operator", "DELETE", f"/sessions/{first['id']}")
        second = await waiting
        assert [session.id for session in city.services.live.all()] == [second["id"]]
