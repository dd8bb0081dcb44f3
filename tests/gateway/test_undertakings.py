"""The undertaking: accepted once per version by each person for himself; without it no picture."""

import hashlib

import pytest
from support.controls import add_user, open_city

from gateway.undertakings import FIRST, MAX_UNDERTAKING_CHARS

NEXT = {"text": {"zh": "第二版", "en": "The second"}}


async def test_no_undertaking_no_picture(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await add_user(city, "new-operator", "urban", "operator", undertakes=False)
        await city.grant("new-operator")
        asked = await city.call("new-operator", "GET", "/undertaking")
        assert (asked["version"], asked["accepted"]) == (1, False)
        assert asked["text"] == {"zh": FIRST.text.zh, "en": FIRST.text.en}
        problem = await city.watch("new-operator", expect=403)
        assert (problem["code"], problem["detail"]) == ("undertaking_required", "version 1")
        (denied,) = await city.records(kind="decision", action="live:view")
        assert (denied.outcome, denied.reason, denied.rule) == ("deny", "undertaking_required", None)
        assert denied.purpose_code == "patrol"
        await city.accept_undertaking("new-operator")
        assert (await city.call("new-operator", "GET", "/undertaking"))["accepted"] is True
        await city.watch("new-operator")


async def test_who_may_not_look_at_all_is_told_so_first(tmp_path):
    async with open_city(tmp_path) as city:
        await add_user(city, "new-operator", "urban", "operator", undertakes=False)
        problem = await city.watch("new-operator", expect=403)
        assert (problem["code"], problem["reason"]) == ("access_denied", "no_matching_grant")


async def test_another_version_is_accepted_anew_and_what_runs_runs_on(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        opened = await city.watch("urban-operator")
        worker = await city.worker()
        await worker.start(opened)
        assert await city.call("security", "POST", "/undertakings", NEXT, 201) == {"version": 2, **NEXT}
        assert (await city.watch("urban-operator", expect=403))["detail"] == "version 2"
        ticket = f"/sessions/{opened['id']}/ticket"
        assert (await city.call("urban-operator", "POST", ticket, expect=403))[
            "code"
        ] == "undertaking_required"
        assert city.services.live.get(opened["id"]).ending is None
        for version in (1, 3):
            problem = await city.call(
                "urban-operator", "POST", "/undertaking/accept", {"version": version}, 409
            )
            assert (problem["code"], problem["detail"]) == ("undertaking_outdated", "version 2")
        await city.accept_undertaking("urban-operator")
        await city.watch("urban-operator")
        await city.call("urban-operator", "POST", ticket)


async def test_who_accepted_what_is_in_the_ledger_once(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call("security", "POST", "/undertakings", NEXT)
        first, second = await city.records(kind="undertaking_published")
        assert (first.actor_id, second.actor_id) == (None, "security")
        for _ in range(2):
            await city.accept_undertaking("urban-operator")
        *_, accepted = accepts = await city.records(kind="undertaking_accepted", actor_id="urban-operator")
        assert [record.detail["version"] for record in accepts] == [1, 2]
        for record in (second, accepted):
            for language, text in NEXT["text"].items():
                assert record.detail[f"sha256_{language}"] == hashlib.sha256(text.encode()).hexdigest()
        assert (accepted.actor_name, accepted.unit_name) == ("urban-operator 姓名", "urban")


async def test_a_job_cannot_accept_for_the_person_who_answers_for_it(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call("job", "POST", "/undertaking/accept", {"version": 1}, 403)


async def test_only_security_administrators_publish(tmp_path):
    async with open_city(tmp_path) as city:
        for username in ("root", "traffic-admin", "auditor"):
            await city.call(username, "POST", "/undertakings", NEXT, 403)
        assert (await city.call("root", "GET", "/undertaking"))["version"] == 1


@pytest.mark.parametrize(
    ("length", "status"), [(0, 422), (1, 201), (MAX_UNDERTAKING_CHARS, 201), (MAX_UNDERTAKING_CHARS + 1, 422)]
)
async def test_a_wording_has_an_end(tmp_path, length, status):
    async with open_city(tmp_path) as city:
        body = {"text": {"zh": "文" * length, "en": "x"}}
        await city.call("security", "POST", "/undertakings", body, status)


async def test_a_restart_asks_for_the_newest(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.call("security", "POST", "/undertakings", NEXT)
        clock = city.clock
    async with open_city(tmp_path, clock=clock) as city:
        assert (await city.watch("urban-operator", expect=403))["detail"] == "version 2"
