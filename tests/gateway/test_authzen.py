"""AuthZEN's semantics: defaults, short circuits, and searches that equal asking one by one."""

import msgspec
import pytest
from support.controls import add_camera, open_city

import gateway.authzen
from gateway.authzen_entities import (
    MAX_EVALUATIONS,
    MAX_TOKEN,
    ActionSearch,
    Evaluation,
    Evaluations,
    ResourceSearch,
    SubjectSearch,
)
from gateway.problems import Problem
from policies.access import Action

VIEW = {"name": "live:view"}
READ = {"name": "camera:read"}
EVERYBODY = (
    "traffic-admin",
    "urban-admin",
    "traffic-operator",
    "urban-operator",
    "auditor",
    "security",
    "job",
)


def _user(identifier):
    return {"type": "user", "id": identifier}


def _camera(identifier):
    return {"type": "camera", "id": identifier}


def _permitted(city, caller, subject, action, resource, **context):
    asked = {"subject": _user(subject), "action": action, "resource": resource, "context": context}
    return city.services.authzen.evaluate(caller, msgspec.convert(asked, Evaluation)).decision


def _decisions(city, caller, evaluations, **around):
    asked = msgspec.convert({"evaluations": evaluations, **around}, Evaluations)
    return city.services.authzen.evaluate_all(caller, asked)


async def _pages(ask, shape, limit=None, **asked):
    """All results of a search, page by page."""
    found, token = [], ""
    while True:
        page = {"token": token, **({} if limit is None else {"limit": limit})}
        answer = ask(msgspec.convert({**asked, "page": page}, shape))
        answer = answer if isinstance(answer, msgspec.Struct) else await answer
        assert answer.page.count == len(answer.results)
        assert limit is None or len(answer.results) <= limit
        found += answer.results
        token = answer.page.next_token
        if not token:
            return found


async def _subjects(city, caller, action, resource, limit=None, **context):
    def ask(asked):
        return city.services.authzen.subjects(caller, asked)

    found = await _pages(
        ask, SubjectSearch, limit, subject={"type": "user"}, action=action, resource=resource, context=context
    )
    return [one.id for one in found]


async def _resources(city, caller, subject, action, kind="camera", limit=None, **context):
    def ask(asked):
        return city.services.authzen.resources(caller, asked)

    found = await _pages(
        ask,
        ResourceSearch,
        limit,
        subject=_user(subject),
        action=action,
        resource={"type": kind},
        context=context,
    )
    assert {one.type for one in found} <= {kind}
    return [one.id for one in found]


async def test_what_a_question_lacks_is_taken_from_around_it(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(purposes=["patrol"])
        answer = _decisions(
            city,
            "urban-operator",
            [
                {"resource": _camera("gate")},
                {"resource": _camera("bridge")},
                {"resource": _camera("gate"), "action": {"name": "live:snapshot"}},
                {"resource": _camera("gate"), "context": {"purpose": "emergency"}},
                {"resource": _camera("gate"), "context": {}},
                {"resource": _camera("gate"), "subject": _user("traffic-operator")},
            ],
            subject=_user("urban-operator"),
            action=VIEW,
            context={"purpose": "patrol"},
        )
        assert answer.decision is None
        assert [one.decision for one in answer.evaluations] == [True, False, False, False, False, False]
        error = answer.evaluations[-1].context.error
        assert (error.status, answer.evaluations[-1].context.reason) == (403, "access_denied")
        with pytest.raises(Problem, match="bad_request"):
            _decisions(city, "urban-operator", [{"resource": _camera("gate")}], action=VIEW)


async def test_short_circuits_end_with_the_answer_that_decides(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        around = {"subject": _user("urban-operator"), "action": VIEW}
        gate, bridge = {"resource": _camera("gate")}, {"resource": _camera("bridge")}
        for semantic, questions, expected in (
            ("execute_all", [bridge, gate, bridge], [False, True, False]),
            ("deny_on_first_deny", [gate, bridge, gate], [True, False]),
            ("deny_on_first_deny", [gate, gate], [True, True]),
            ("permit_on_first_permit", [bridge, gate, bridge], [False, True]),
            ("permit_on_first_permit", [bridge], [False]),
        ):
            options = {"evaluations_semantic": semantic, "another": 1}
            answer = _decisions(city, "urban-operator", questions, options=options, **around)
            assert [one.decision for one in answer.evaluations] == expected
        others = {"resource": _camera("gate"), "subject": _user("auditor")}
        options = {"evaluations_semantic": "deny_on_first_deny"}
        answer = _decisions(city, "urban-operator", [others, gate], options=options, **around)
        assert [one.decision for one in answer.evaluations] == [False]
        assert _decisions(city, "urban-operator", [], resource=_camera("gate"), **around).decision is True


def test_the_count_of_questions_is_bounded():
    question = {"subject": _user("a"), "action": VIEW, "resource": _camera("gate")}
    assert msgspec.convert({"evaluations": [question] * MAX_EVALUATIONS}, Evaluations)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"evaluations": [question] * (MAX_EVALUATIONS + 1)}, Evaluations)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"options": {"evaluations_semantic": "whatever"}}, Evaluations)


async def test_a_search_for_subjects_equals_asking_about_each(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.grant(user="traffic-operator", purposes=["patrol"])
        await city.grant(user="job", actions=["frames:consume"])
        root = (await city.login("root"))["user"]["id"]
        for action in (VIEW, READ, {"name": "camera:share"}):
            for context in ({}, {"purpose": "patrol"}, {"purpose": "emergency"}):
                for camera in ("gate", "bridge"):
                    wanted = sorted(
                        one
                        for one in (root, *EVERYBODY)
                        if _permitted(city, "auditor", one, action, _camera(camera), **context)
                    )
                    for caller in ("auditor", "traffic-admin"):
                        for limit in (1, 2, None):
                            found = await _subjects(city, caller, action, _camera(camera), limit, **context)
                            assert found == wanted
        assert await _subjects(city, "urban-operator", VIEW, _camera("gate")) == ["urban-operator"]
        assert await _subjects(city, "urban-admin", VIEW, _camera("gate")) == []
        for action, resource in (
            (VIEW, _camera("no-such")),
            ({"name": "x"}, _camera("gate")),
            (VIEW, {"type": "x", "id": "x"}),
        ):
            assert await _subjects(city, "auditor", action, resource) == []


async def test_a_search_for_cameras_equals_asking_about_each(tmp_path):
    async with open_city(tmp_path) as city:
        cameras = ["gate", "bridge", *(f"c{index}" for index in range(9))]
        for camera in cameras[2:]:
            await add_camera(city, camera)
        for camera in cameras[::2]:
            await city.grant(camera=camera, purposes=["patrol"] if camera < "c5" else None)
        for subject in EVERYBODY:
            for action in (VIEW, READ):
                for context in ({}, {"purpose": "patrol"}):
                    wanted = {
                        one
                        for one in cameras
                        if _permitted(city, "auditor", subject, action, _camera(one), **context)
                    }
                    for caller in {"auditor", "traffic-admin", subject}:
                        for limit in (1, 4, None):
                            found = await _resources(
                                city, caller, subject, action, "camera", limit, **context
                            )
                            assert len(found) == len(set(found))
                            assert set(found) == wanted
        assert await _resources(city, "urban-admin", "urban-operator", VIEW) == []
        assert await _resources(city, "auditor", "no-such", VIEW) == []
        assert await _resources(city, "auditor", "urban-operator", VIEW, "account") == []
        with pytest.raises(Problem, match="bad_request"):
            await _resources(city, "auditor", "urban-operator", VIEW, "tag")


async def test_departments_and_groups_are_found_where_something_is_granted_on_them(tmp_path):
    async with open_city(tmp_path) as city:
        body = {"id": "squares", "name": "squares", "department_id": "traffic"}
        await city.call("traffic-admin", "POST", "/groups", body)
        await add_camera(city, "c1", groups=["squares"])
        for kind, name in (("department", "traffic"), ("group", "squares")):
            await city.grant(object={"kind": kind, "id": name})
            for caller in ("auditor", "urban-operator"):
                assert await _resources(city, caller, "urban-operator", VIEW, kind) == [name]
        assert await _resources(city, "traffic-admin", "urban-operator", VIEW, "department") == ["traffic"]
        assert await _resources(city, "urban-admin", "urban-operator", VIEW, "department") == []
        assert await _resources(city, "auditor", "traffic-operator", VIEW, "group") == []


async def test_actions_are_those_that_an_evaluation_permits(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(actions=["live:view", "live:snapshot"])

        async def found(caller, subject, camera, limit=None):
            results = await _pages(
                lambda asked: city.services.authzen.actions(caller, asked),
                ActionSearch,
                limit,
                subject=_user(subject),
                resource=_camera(camera),
            )
            return [one.name for one in results]

        for limit in (1, 3, None):
            assert await found("urban-operator", "urban-operator", "gate", limit) == [
                "live:snapshot",
                "live:view",
            ]
        of_office = await found("auditor", "traffic-admin", "gate")
        assert of_office == sorted(
            action
            for action in Action
            if _permitted(city, "auditor", "traffic-admin", {"name": action.value}, _camera("gate"))
        )
        assert "camera:share" in of_office
        assert await found("urban-operator", "urban-operator", "bridge") == []
        with pytest.raises(Problem, match="access_denied"):
            await found("urban-operator", "traffic-operator", "gate")


async def test_a_token_is_good_for_its_own_search_and_run(tmp_path):
    async with open_city(tmp_path) as city:
        for camera in ("gate", "bridge"):
            await city.grant(camera=camera)

        async def search(token, action=VIEW, limit=1):
            asked = {
                "subject": _user("urban-operator"),
                "action": action,
                "resource": {"type": "camera"},
                "page": {"token": token, "limit": limit},
            }
            return await city.services.authzen.resources(
                "urban-operator", msgspec.convert(asked, ResourceSearch)
            )

        first = await search("")
        token = first.page.next_token
        nothing = await search("", limit=0)
        assert (nothing.results, bool(nothing.page.next_token)) == ([], True)
        assert (await search(nothing.page.next_token)).results == first.results
        second = await search(token, limit=10**9)
        assert sorted(one.id for one in (*first.results, *second.results)) == ["bridge", "gate"]
        assert second.page.next_token == ""
        await city.call("traffic-admin", "DELETE", f"/cameras/{first.results[0].id}")
        assert (await search(token)).results == second.results
        for bad, action in ((token, READ), (token[:-4], VIEW), ("%%%", VIEW), ("e30=", VIEW), ("é", VIEW)):
            with pytest.raises(Problem, match="bad_request"):
                await search(bad, action)
        with pytest.raises(msgspec.ValidationError):
            await search("x" * (MAX_TOKEN + 1))
        with pytest.raises(Problem, match="bad_request"):
            await search("x" * MAX_TOKEN)
    async with open_city(tmp_path) as city:
        with pytest.raises(Problem, match="bad_request"):
            await search(token)


async def test_a_search_decides_so_many_at_a_time_and_still_finds_all(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway.authzen, "MAX_DECISIONS_PER_PAGE", 2)
    async with open_city(tmp_path) as city:
        for index in range(7):
            await add_camera(city, f"c{index}")
            await city.grant(camera=f"c{index}", purposes=["emergency" if index % 3 else "patrol"])
        found = await _resources(city, "urban-operator", "urban-operator", VIEW, purpose="patrol")
        assert found == ["c0", "c3", "c6"]
        assert await _subjects(city, "auditor", VIEW, _camera("c0"), purpose="patrol") == ["urban-operator"]
