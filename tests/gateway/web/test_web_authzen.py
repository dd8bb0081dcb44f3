"""AuthZEN over HTTP: its shapes, status codes and addresses, by the specification's own words."""

import json

from support.controls import open_city

CAMERA = {"type": "camera", "id": "gate"}
VIEW = {"name": "live:view"}


def _user(identifier):
    return {"type": "user", "id": identifier}


async def _post(city, username, path, body, expect=200, **headers):
    status, sent, text = await city.request(
        "POST", f"/access/v1/{path}", city.tokens[username], data=json.dumps(body), headers=headers
    )
    assert status == expect, (status, text)
    kind = "application/json" if status == 200 else "application/problem+json"
    assert sent["Content-Type"].partition(";")[0] == kind
    return json.loads(text)


async def _evaluate(city, username, subject, resource=CAMERA, expect=200, action=VIEW, **context):
    body = {"subject": _user(subject), "action": action, "resource": resource}
    return await _post(
        city, username, "evaluation", {**body, "context": context} if context else body, expect
    )


async def test_an_evaluation_answers_decision_and_why(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant(
            purposes=["patrol"],
            valid_to="2026-01-06T00:00:00Z",
            obligations={"max_duration_seconds": 60},
        )
        answer = await _evaluate(city, "urban-operator", "urban-operator", purpose="patrol")
        assert answer["decision"] is True
        assert answer["context"]["reason"] == "granted"
        assert answer["context"]["obligations"]["max_duration_seconds"] == 60
        assert answer["context"]["expires_at"] == "2026-01-06T00:00:00Z"
        assert answer["context"]["revision"] == city.services.enforcement.revision
        assert "rule" not in answer["context"]
        told = await _evaluate(city, "traffic-admin", "urban-operator", purpose="patrol")
        assert told["context"]["rule"] == grant
        wrong = await _evaluate(city, "urban-operator", "urban-operator", purpose="emergency")
        assert wrong["decision"] is False
        assert set(wrong["context"]) == {"reason", "revision"}
        assert wrong["context"]["reason"] == "purpose_not_allowed"


async def test_questions_about_others_are_for_who_shares_and_who_audits(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        for username, resource, expect in (
            ("traffic-admin", CAMERA, 200),
            ("traffic-admin", {"type": "department", "id": "traffic"}, 200),
            ("traffic-admin", {"type": "department", "id": "urban"}, 403),
            ("auditor", CAMERA, 200),
            ("auditor", {"type": "camera", "id": "no-such"}, 403),
            ("urban-admin", CAMERA, 403),
            ("urban-admin", {"type": "camera", "id": "no-such"}, 403),
            ("root", CAMERA, 403),
            ("traffic-operator", CAMERA, 403),
            ("job", CAMERA, 403),
        ):
            answer = await _evaluate(city, username, "urban-operator", resource, expect)
            if expect == 403:
                assert answer["code"] == "access_denied"


async def test_what_does_not_exist_is_denied_like_what_is_not_granted(tmp_path):
    async with open_city(tmp_path) as city:
        hidden = await _evaluate(city, "urban-operator", "urban-operator")
        for resource in (
            {"type": "camera", "id": "no-such"},
            {"type": "camera", "id": ""},
            {"type": "camera", "id": "\0'; --"},
            {"type": "group", "id": "no-such"},
            {"type": "tag", "id": "no-such"},
            {"type": "department", "id": "no-such"},
        ):
            assert await _evaluate(city, "urban-operator", "urban-operator", resource) == hidden
        stranger = await _evaluate(city, "auditor", "no-such-person")
        assert stranger == await _evaluate(city, "auditor", "traffic-operator")
        for resource, action, reason in (
            ({"type": "installation", "id": ""}, VIEW, "unknown_type"),
            ({"type": "account", "id": "gate"}, VIEW, "unknown_type"),
            (CAMERA, {"name": "can_read"}, "unknown_action"),
        ):
            answer = await _evaluate(city, "auditor", "urban-operator", resource, action=action)
            assert answer["decision"] is False
            assert answer["context"]["reason"] == reason


SHAPELESS = (
    {},
    [],
    {"subject": _user("urban-operator"), "resource": CAMERA},
    {"subject": {"type": "user"}, "action": VIEW, "resource": CAMERA},
    {"subject": _user("urban-operator"), "action": VIEW, "resource": "gate"},
    {"subject": _user(7), "action": VIEW, "resource": CAMERA},
    {"subject": _user("x" * 257), "action": VIEW, "resource": CAMERA},
    {"subject": _user("a"), "action": VIEW, "resource": CAMERA, "context": {"at": "2026-01-05T08:00:00Z"}},
    {"subject": _user("a"), "action": VIEW, "resource": CAMERA, "context": {"min_revision": -1}},
    {"subject": _user("a"), "action": VIEW, "resource": CAMERA, "context": {"purpose": 7}},
)


async def test_a_request_without_its_shape_is_a_bad_request(tmp_path):
    async with open_city(tmp_path) as city:
        for body in SHAPELESS:
            for path in ("evaluation", "evaluations"):
                assert (await _post(city, "urban-operator", path, body, 400))["code"] == "bad_request"


async def test_unknown_fields_and_the_callers_own_clock_are_ignored(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        body = {
            "subject": {**_user("urban-operator"), "properties": {"ip_address": "192.0.2.1"}},
            "action": {**VIEW, "properties": {"method": "GET"}},
            "resource": {**CAMERA, "properties": {"name": "x"}},
            "context": {"time": "1985-10-26T01:22-07:00", "more": [1, {"a": None}]},
            "extra": True,
        }
        assert (await _post(city, "urban-operator", "evaluation", body))["decision"] is True
        assert (await _post(city, "urban-operator", "evaluations", body))["decision"] is True
        longest = {**body, "subject": _user("x" * 256)}
        assert (await _post(city, "auditor", "evaluation", longest))["decision"] is False


async def test_a_check_may_demand_a_revision(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        now = city.services.enforcement.revision
        assert (await _evaluate(city, "urban-operator", "urban-operator", min_revision=now))["decision"]
        late = await _evaluate(city, "urban-operator", "urban-operator", min_revision=now + 1)
        assert late == {"decision": False, "context": {"reason": "stale_revision", "revision": now}}


async def test_a_question_leaves_no_record(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        before = await city.records()
        await _evaluate(city, "urban-operator", "urban-operator")
        await _evaluate(city, "traffic-admin", "urban-operator")
        assert await city.records() == before


async def test_the_callers_request_id_comes_back(tmp_path):
    async with open_city(tmp_path) as city:
        given = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
        for path, body, expected in (
            ("evaluation", {"subject": _user("auditor"), "action": VIEW, "resource": CAMERA}, 200),
            ("evaluation", {}, 400),
        ):
            status, headers, _ = await city.request(
                "POST",
                f"/access/v1/{path}",
                city.tokens["auditor"],
                data=json.dumps(body),
                headers={"X-Request-ID": given},
            )
            assert (status, headers["X-Request-ID"]) == (expected, given)


async def test_the_metadata_says_where_everything_is(tmp_path):
    async with open_city(tmp_path) as city:
        status, headers, text = await city.request(
            "GET", "/.well-known/authzen-configuration", headers={"Host": "custos.example:8080"}
        )
        found = json.loads(text)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        base = found.pop("policy_decision_point")
        assert base == "http://custos.example:8080"
        paths = {url.removeprefix(base) for url in found.values()}
        assert all(url.startswith(base) for url in found.values())
        for path in paths:
            status, _, _ = await city.request("POST", path, city.tokens["auditor"], data="{}")
            assert status == 400
        assert paths == {
            "/access/v1/evaluation",
            "/access/v1/evaluations",
            "/access/v1/search/subject",
            "/access/v1/search/resource",
            "/access/v1/search/action",
        }
