"""Who can see this camera, what can this person see, and why: complete, paged, in words."""

from datetime import timedelta

from support.controls import add_camera, add_user, open_city

from gateway.explanations import MAX_TOLD, Question, tell
from policies.access import (
    Action,
    Decision,
    Effect,
    Explanation,
    Object,
    ObjectKind,
    Reason,
    RuleMatch,
    Subject,
    SubjectKind,
)


async def _all(city, user, path, size, **params):
    found, token, total = [], None, None
    while True:
        query = {key: str(value) for key, value in {"page_size": size, **params}.items()}
        if token is not None:
            query["page_token"] = token
        answer = await city.call(user, "GET", path, params=query)
        found += answer["items"]
        assert total in {None, answer["total"]}
        total, token = answer["total"], answer["next_page_token"]
        if token is None:
            assert len(found) == total
            return found


async def test_who_can_see_a_camera_equals_asking_one_by_one(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        users = ["traffic-operator", "urban-operator", "job"]
        for number in range(7):
            users.append(f"urban-{number}")
            await add_user(city, users[-1], "urban", login=False)
        some = await city.grant(purposes=["case"])
        shared = await city.grant("x", subject={"kind": "department", "id": "urban"})
        await city.grant("urban-3", effect="deny")
        await city.grant("job", actions=["live:snapshot"])
        users.append("urban-admin")
        enforcement = city.services.enforcement
        for action in (Action.LIVE_VIEW, Action.LIVE_SNAPSHOT):
            wanted = sorted(u for u in users if enforcement.is_allowed_for_some_purpose(u, "gate", action))
            for size in (1, 3, 500):
                found = await _all(city, "traffic-admin", "/cameras/gate/viewers", size, action=action.value)
                assert [viewer["id"] for viewer in found] == wanted
        found = await _all(city, "auditor", "/cameras/gate/viewers", 50)
        assert {viewer["rule"] for viewer in found} == {shared}
        assert found[0]["department"] == {"id": "urban", "name": "urban"}
        # for some purpose only: the rule that would serve it
        await city.call("traffic-admin", "DELETE", f"/grants/{shared}")
        (viewer,) = await _all(city, "traffic-admin", "/cameras/gate/viewers", 50)
        assert (viewer["id"], viewer["rule"]) == ("urban-operator", some)
        for user in ("urban-admin", "urban-operator", "root"):
            await city.call(user, "GET", "/cameras/gate/viewers", expect=403)
        await city.call("urban-admin", "GET", "/cameras/nope/viewers", expect=403)


async def test_what_a_person_can_see_is_complete_and_paged(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        for number in range(5):
            await add_camera(city, f"c{number}")
        await city.grant("urban-operator", object={"kind": "department", "id": "traffic"})
        await city.grant("urban-operator", "c3", effect="deny")
        await city.grant("urban-operator", "c1", actions=["live:snapshot"], purposes=["case"])
        wanted = {"gate", "bridge", "c0", "c1", "c2", "c4"}
        for who in ("urban-operator", "urban-admin", "root", "auditor"):
            for size in (1, 4, 500):
                found = await _all(city, who, "/users/urban-operator/cameras", size)
                assert {camera["id"] for camera in found} == wanted
                assert len(found) == len(wanted)
        actions = {camera["id"]: camera["actions"] for camera in found}
        assert (actions["c1"], actions["c0"]) == (["live:snapshot", "live:view"], ["live:view"])
        found = await _all(city, "auditor", "/users/urban-operator/cameras", 50, action="live:snapshot")
        assert [camera["id"] for camera in found] == ["c1"]
        await city.call("traffic-admin", "GET", "/users/urban-operator/cameras", expect=403)
        await city.call("auditor", "GET", "/users/nobody/cameras", expect=404)
        path = "/users/urban-operator/cameras?page_token=nope"
        assert (await city.call("auditor", "GET", path, expect=422))["code"] == "invalid_field"


async def test_a_page_goes_on_where_it_was_when_a_camera_vanishes(tmp_path):
    async with open_city(tmp_path) as city:
        for number in range(4):
            await add_camera(city, f"c{number}")
        await city.grant("job", object={"kind": "department", "id": "traffic"})
        path = "/users/job/cameras"
        first = await city.call("auditor", "GET", path, params={"page_size": "3"})
        await city.call("traffic-admin", "DELETE", f"/cameras/{first['items'][-1]['id']}")
        params = {"page_size": "3", "page_token": first["next_page_token"]}
        second = await city.call("auditor", "GET", path, params=params)
        seen = [camera["id"] for camera in first["items"] + second["items"]]
        assert sorted(seen) == ["bridge", "c0", "c1", "c2", "c3", "gate"]
        assert second["total"] == 5


async def test_the_text_says_why_in_both_languages(tmp_path):
    async with open_city(tmp_path) as city:
        now = city.clock.now
        over = await city.grant(valid_to=(now + timedelta(minutes=1)).isoformat())
        later = await city.grant(valid_from=(now + timedelta(days=30)).isoformat())
        other = await city.grant(purposes=["case", "emergency"])
        night = {"zone": "Asia/Shanghai", "windows": [{"days": [6, 7], "start": "22:00", "end": "06:00"}]}
        hours = await city.grant(schedule=night)
        city.clock.advance(120)
        path = "/explain?camera=gate&purpose=patrol"
        told = await city.call("urban-operator", "GET", path)
        zh, en = told["text"]["zh"].split("\n"), told["text"]["en"].split("\n")
        assert (
            en[0]
            == 'urban-operator 姓名 may not watch live camera gate 摄像机 for the purpose "Routine patrol".'
        )
        assert zh[0] == "urban-operator 姓名不可以对摄像机“gate 摄像机”观看实时画面（事由：日常巡查）。"
        by = "given by traffic-admin 姓名, to user urban-operator 姓名, on camera gate 摄像机"
        purposes = "it is for other purposes (allowed: Case work, Emergency response)"
        weekend = "Sat/Sun 22:00-06:00 Asia/Shanghai"
        assert set(en[2:]) == {
            f"Grant {over} ({by}) does not apply: it expired on 2026-01-05 08:01 UTC.",
            f"Grant {later} ({by}) does not apply: it is not valid before 2026-02-04 08:00 UTC.",
            f"Grant {other} ({by}) does not apply: {purposes}.",
            f"Grant {hours} ({by}) does not apply: this is outside its hours ({weekend}).",
        }
        assert any("周六/周日 22:00-06:00" in line for line in zh)
        assert any("允许：案件办理、突发事件处置" in line for line in zh)
        assert len(zh) == len(en) == 6
        grant = await city.grant()
        denial = await city.grant(effect="deny", valid_from=(now + timedelta(hours=1)).isoformat())
        told = (await city.call("urban-operator", "GET", path))["text"]["en"].split("\n")
        assert told[0].endswith('for the purpose "Routine patrol", until 2026-01-05 09:00 UTC.')
        assert told[1] == f"Grant {grant} ({by}) allows it."
        city.clock.advance(3600)
        told = (await city.call("urban-operator", "GET", path))["text"]["en"].split("\n")
        assert told[1] == f"Grant {denial} ({by}) denies it; a denial outweighs every permission."
        assert f"Grant {grant} ({by}) alone would allow it." in told


async def test_the_text_names_the_owners_purposes_where_they_are_in_the_way(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        terms = {"sharing": {"purposes": ["case", "emergency"]}}
        await city.call("traffic-admin", "PATCH", "/cameras/gate", terms)
        path = "/explain?camera=gate&purpose=maintenance"
        told = await city.call("urban-operator", "GET", path)
        assert told["decision"]["reason"] == "purpose_not_allowed"
        assert sorted(told["owner_purposes"]) == ["case", "emergency"]
        en = told["text"]["en"].split("\n")
        listed = "(allowed: Case work, Emergency response)"
        assert en[1] == f"The owner lets nobody look at this camera for this purpose {listed}."
        assert en[2].startswith(f"Grant {grant} ")
        assert en[2].endswith(f"does not apply: the owner lets nobody look for this purpose {listed}.")
        assert "允许：案件办理、突发事件处置" in told["text"]["zh"]
        allowed = await city.call("urban-operator", "GET", "/explain?camera=gate&purpose=case")
        assert allowed["decision"]["effect"] == "allow"
        assert allowed["owner_purposes"] is None


async def test_the_text_tells_nobody_of_a_camera_that_he_may_not_know(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"purposes": ["case"]}})
        texts = [
            (await city.call("job", "GET", f"/explain?camera={camera}"))["text"]["en"].replace(camera, "X")
            for camera in ("gate", "nope")
        ]
        assert (
            texts[0]
            == texts[1]
            == (
                "job 姓名 may not watch live camera X without a declared purpose.\n"
                "No grant, no role and no sharing covers it."
            )
        )
        await city.call("job", "GET", "/explain?camera=gate&principal=urban-operator", expect=403)


def _told(reason, rules=0):
    match = RuleMatch(
        rule="g",
        effect=Effect.ALLOW,
        subject=Subject(SubjectKind.USER, "u"),
        object=Object(ObjectKind.CAMERA, "c"),
        reason=Reason.GRANT_EXPIRED,
    )
    decision = Decision(effect=Effect.DENY, reason=reason, rule=None, revision=1)
    explanation = Explanation(decision=decision, matching=(), near_misses=(match,) * rules)
    return tell(Question(user="u", camera="c", action=Action.LIVE_VIEW), explanation, {})


def test_a_role_and_a_sharing_have_their_words():
    question = Question(user="u", camera="c", action=Action.LIVE_VIEW)
    for reason, rule, zh, en in (
        (Reason.ROLE, "role:auditor", "依据：角色“auditor”。", "The role auditor allows it."),
        (
            Reason.SHARED,
            "sharing:c",
            "依据：所属单位的无条件共享。",
            "The owner's unconditional sharing allows it.",
        ),
        (Reason.GRANTED, "gone", "依据：规则gone。", "Rule gone allows it."),
    ):
        decision = Decision(effect=Effect.ALLOW, reason=reason, rule=rule, revision=1)
        told = tell(question, Explanation(decision=decision, matching=(), near_misses=()), {})
        assert (told.zh.split("\n")[1], told.en.split("\n")[1]) == (zh, en)


def test_every_reason_has_its_words():
    for reason in Reason:
        told = _told(reason)
        assert len({told.zh, told.en}) == 2
        assert all(len(text.split("\n")) == 2 for text in (told.zh, told.en))


def test_limits_of_what_is_told():
    assert len(_told(Reason.GRANT_EXPIRED, MAX_TOLD).en.split("\n")) == 2 + MAX_TOLD
    lines = _told(Reason.GRANT_EXPIRED, MAX_TOLD + 1).en.split("\n")
    assert (len(lines), lines[-1]) == (3 + MAX_TOLD, "1 more rules are not told.")


def test_what_people_typed_is_no_template():
    question = Question(user="{0} {x}", camera="{action.__class__}", action=Action.LIVE_VIEW)
    decision = Decision(effect=Effect.DENY, reason=Reason.SHARED, rule="role:{x}", revision=1)
    told = tell(question, Explanation(decision=decision, matching=(), near_misses=()), {})
    assert "{0} {x} may not watch live camera {action.__class__}" in told.en
