"""Tickets: redeemed once, by the right session, in time."""

import asyncio
from datetime import timedelta

import pytest
from support.controls import add_camera, open_city

from gateway.messages import End, Redeemed, Refused
from gateway.sessions import SessionSettings


async def test_a_ticket_starts_its_session_once_under_a_race(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant()
        workers = [await city.worker(number) for number in range(4)]
        opened = await city.watch("urban-operator")
        answers = await asyncio.gather(
            *(workers[i % 4].redeem(opened["id"], opened["media"]["ticket"]) for i in range(20))
        )
        assert sum(isinstance(answer, Redeemed) for answer in answers) == 1
        assert {answer.code for answer in answers if isinstance(answer, Refused)} == {"ticket_invalid"}
        (start,) = await city.records(kind="session_start")
        assert (start.session_id, start.actor_id, start.camera_id) == (opened["id"], "urban-operator", "gate")
        assert (start.unit_name, start.actor_name) == ("urban", "urban-operator 姓名")
        assert (start.purpose_code, start.remote, start.detail) == (
            "patrol",
            "192.0.2.7",
            {"protocol": "flv"},
        )


async def test_what_a_redeemed_session_carries(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(obligations={"watermark": "none", "max_height": 720, "max_duration_seconds": 60})
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        redeemed = await worker.start(opened)
        assert (redeemed.session, redeemed.camera, redeemed.action) == (opened["id"], "gate", "live:view")
        assert redeemed.obligations.max_height == 720
        assert len(redeemed.mark_key) == 32
        assert opened["obligations"] == {
            "watermark": "none", "max_height": 720, "max_duration_seconds": 60, "max_concurrent": None,
        }  # fmt: skip
        assert opened["expires_at"] == "2026-01-05T08:01:00Z"
        assert opened["viewer"] == {"display_name": "urban-operator 姓名", "department": "urban"}
        for name in ("flv", "fmp4", "ws"):
            scheme = "ws" if name == "ws" else "http"
            assert opened["media"][name].startswith(f"{scheme}://custos/media/{opened['id']}/")


@pytest.mark.parametrize(
    ("change", "value"), [("ticket", "wrong"), ("ticket", ""), ("session", "0" * 32), ("session", "")]
)
async def test_a_wrong_ticket_or_session_starts_nothing(tmp_path, change, value):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        asked = {"session": opened["id"], "ticket": opened["media"]["ticket"], change: value}
        answer = await worker.redeem(**asked)
        assert (answer.status, answer.code) == (403, "ticket_invalid")
        assert asked["ticket"] == "" or asked["ticket"] not in answer.detail
        await worker.start(opened)


async def test_a_ticket_of_another_session_starts_nothing(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        one, two = [await city.watch("urban-operator") for _ in range(2)]
        assert isinstance(await worker.redeem(one["id"], two["media"]["ticket"]), Refused)
        await worker.start(one)
        await worker.start(two)


async def test_a_ticket_is_good_until_it_expires(tmp_path):
    async with open_city(tmp_path, sessions=SessionSettings(ticket_seconds=30)) as city:
        await city.grant()
        worker = await city.worker()
        early, late = [await city.watch("urban-operator") for _ in range(2)]
        city.clock.advance(29.999999)
        await worker.start(early)
        city.clock.advance(0.000001)
        assert isinstance(await worker.redeem(late["id"], late["media"]["ticket"]), Refused)
        (end,) = await city.recorded(kind="session_end")
        assert (end.session_id, end.reason, end.detail["bytes_sent"]) == (late["id"], "not_started", 0)


async def test_another_ticket_replaces_the_ticket_and_the_reader(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        session = opened["id"]
        second = await city.call("urban-operator", "POST", f"/sessions/{session}/ticket")
        assert isinstance(await worker.redeem(session, opened["media"]["ticket"]), Refused)
        await worker.start(second)
        worker.sent[session] = 1000
        third = await city.call("urban-operator", "POST", f"/sessions/{session}/ticket")
        assert (await worker.ended(session)).reason == "replaced"
        await worker.settled()
        live = city.services.live.get(session)
        assert (live.state, live.bytes_sent) == ("opened", 1000)
        await worker.start(third)
        await worker.over(session, sent=500)
        (end,) = await city.recorded(kind="session_end")
        assert (end.reason, end.detail["bytes_sent"]) == ("completed", 1500)
        assert len(await city.records(kind="decision", actor_id="urban-operator", outcome="allow")) == 3


async def test_an_old_reader_that_ends_by_itself_does_not_end_the_session_with_a_new_ticket(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        worker.obedient = False
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        renewed = await city.call("urban-operator", "POST", f"/sessions/{opened['id']}/ticket")
        # crossed with control's End: the viewer left, or his connection broke
        await worker.over(opened["id"], "lost", lost=True, sent=10)
        live = city.services.live.get(opened["id"])
        assert (live.state, live.bytes_sent) == ("opened", 10)
        city.clock.advance(20)
        await worker.start(renewed)
        assert live.state == "active"


async def test_a_new_ticket_is_decided_again_and_refused_like_any_use(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        await city.worker()
        opened = await city.watch("urban-operator")
        path = f"/sessions/{opened['id']}/ticket"
        assert (await city.call("traffic-operator", "POST", path, expect=404))["code"] == "not_found"
        await city.call("urban-operator", "POST", "/sessions/nothing/ticket", expect=404)
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        await city.until(lambda: city.services.live.get(opened["id"]) is None)
        await city.call("urban-operator", "POST", path, expect=404)


async def test_a_session_that_is_ending_cannot_be_started_or_renewed(tmp_path):
    async with open_city(tmp_path) as city:
        grant = await city.grant()
        worker = await city.worker()
        worker.obedient = False
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        await worker.ended(opened["id"])
        path = f"/sessions/{opened['id']}/ticket"
        assert (await city.call("urban-operator", "POST", path, expect=409))["code"] == "session_over"
        assert isinstance(await worker.redeem(opened["id"], "x"), Refused)


async def test_without_a_purpose_that_fits_nothing_opens(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        for body, code in (
            ({}, "purpose_required"),
            ({"purpose": None}, "purpose_required"),
            ({"purpose": {}}, "purpose_required"),
            ({"purpose": {"code": ""}}, "purpose_required"),
            ({"purpose": {"code": "curiosity"}}, "purpose_unknown"),
            ({"purpose": {"code": "case"}}, "purpose_reference_required"),
            ({"purpose": {"code": "case", "reference": "  "}}, "purpose_reference_required"),
            ({"purpose": {"code": "patrol", "colour": "red"}}, "invalid_field"),
            ({"purpose": {"code": "case", "reference": "a\0b"}}, "invalid_field"),
            (
                {"purpose": {"code": "patrol", "reference": "roster"}, "action": "camera:manage"},
                "invalid_field",
            ),
            (
                {"purpose": {"code": "patrol", "reference": "roster"}, "action": "ptz:control"},
                "invalid_field",
            ),
        ):
            problem = await city.call("urban-operator", "POST", "/sessions", {"camera": "gate", **body}, 422)
            assert problem["code"] == code, body
        assert await city.records(kind="decision", actor_id="urban-operator") == []
        purpose = {"code": "case", "reference": "鲁A-2026-1", "note": "甲、乙"}
        await city.call("urban-operator", "POST", "/sessions", {"camera": "gate", "purpose": purpose})
        (decision,) = await city.records(kind="decision", actor_id="urban-operator")
        recorded = (decision.purpose_code, decision.purpose_reference, decision.purpose_note)
        assert recorded == ("case", "鲁A-2026-1", "甲、乙")


async def test_a_camera_that_does_not_exist_looks_like_one_that_is_forbidden(tmp_path):
    def told(problem, camera):
        return {k: str(v).replace(camera, "C") for k, v in problem.items() if k != "request_id"}

    async with open_city(tmp_path) as city:
        answers = [
            told(await city.watch("urban-operator", camera, 403), camera) for camera in ("gate", "nope")
        ]
        assert answers[0] == answers[1]
        assert (answers[0]["code"], answers[0]["reason"]) == ("access_denied", "no_matching_grant")
        for path in ("/cameras/{}", "/explain?camera={}"):
            method_answers = []
            for camera in ("gate", "nope"):
                status, _, text = await city.request(
                    "GET", "/api/v1" + path.format(camera), city.tokens["urban-operator"]
                )
                method_answers.append((status, text.replace(camera, "C").partition('"request_id"')[0]))
            assert method_answers[0] == method_answers[1]
        reasons = [record.reason for record in await city.records(kind="decision", actor_id="urban-operator")]
        assert reasons == ["no_matching_grant", "unknown_resource"]


async def test_a_camera_that_is_switched_off_opens_nothing(tmp_path):
    async with open_city(tmp_path) as city:
        await add_camera(city, "off", enabled=False)
        await city.grant(camera="off")
        assert (await city.watch("urban-operator", "off", 409))["code"] == "camera_disabled"
        worker = await city.worker()
        assert (await worker.claim("off")).code == "camera_disabled"


async def test_every_session_is_listed_for_its_owner_and_for_who_may_read_sessions(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        opened = await city.watch("urban-operator")
        for username, seen in (
            ("urban-operator", True), ("traffic-admin", True), ("root", True), ("auditor", True),
            ("urban-admin", False), ("traffic-operator", False), ("job", False),
        ):  # fmt: skip
            listed = [item["id"] for item in (await city.call(username, "GET", "/sessions"))["items"]]
            assert listed == ([opened["id"]] if seen else []), username


async def test_ending_somebody_elses_session_is_a_decision(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        path = f"/sessions/{opened['id']}"
        assert (await city.call("traffic-operator", "DELETE", path, expect=403))["code"] == "access_denied"
        assert not [message for message in worker.received if isinstance(message, End)]
        await city.call("traffic-admin", "DELETE", path)
        (end,) = await city.recorded(kind="session_end")
        assert (end.reason, end.detail["ended_by"]) == ("ended_by_administrator", "traffic-admin")
        assert [record.outcome for record in await city.records(action="session:end")] == ["deny", "allow"]


async def test_a_decision_that_turned_since_the_opening_starts_nothing(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        until = city.clock.now + timedelta(seconds=10)
        await city.grant(valid_to=until.isoformat(), obligations={"max_height": 720})
        opened = await city.watch("urban-operator")
        # the round that would end the session has not come yet
        monkeypatch.setattr(city.services.live, "_sweep", lambda: None)
        city.clock.now = until
        assert isinstance(await worker.redeem(opened["id"], opened["media"]["ticket"]), Refused)
        monkeypatch.undo()
