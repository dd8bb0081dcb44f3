"""Batches of thumbnails: decided and recorded together, opened one by one, within every limit."""

import pytest
from support.controls import add_camera, add_user, open_city

from gateway.admission import AdmissionSettings
from gateway.messages import Redeemed
from gateway.thumbnails import BATCH_SECONDS, MAX_BATCHES_PER_USER, MAX_CAMERAS

WHY = {"code": "maintenance"}
SNAPSHOT = ("live:snapshot",)


async def begin(city, *cameras, by="urban-operator", expect=200, **more):
    body = {"cameras": list(cameras), "purpose": WHY, **more}
    return await city.call(by, "POST", "/thumbnails", body, expect)


async def open_one(city, batch, camera="gate", by="urban-operator", expect=201):
    return await city.call(by, "POST", f"/thumbnails/{batch}/sessions", {"camera": camera}, expect)


async def batch_records(city):
    return await city.records(kind="thumbnails")


async def take(worker, opened):
    """Redeem a thumbnail's ticket and report its end, as a worker does that has made the picture."""
    answer = await worker.redeem(opened["id"], opened["media"]["ticket"], "thumbnail")
    assert isinstance(answer, Redeemed), answer
    await worker.over(opened["id"], sent=4000)


async def test_one_record_names_every_camera_of_a_batch(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        grant = await city.grant(actions=SNAPSHOT)
        before = len(await city.records())
        answer = await begin(city, "gate", "bridge", "nowhere", "gate")
        assert answer["items"] == [
            {"camera": "gate", "jpeg": None, "problem": None, "reason": None},
            {"camera": "bridge", "jpeg": None, "problem": "access_denied", "reason": "no_matching_grant"},
            {"camera": "nowhere", "jpeg": None, "problem": "access_denied", "reason": "no_matching_grant"},
        ]
        (record,) = (await city.records())[before:]
        assert (record.kind, record.outcome, record.action) == ("thumbnails", "allow", "live:snapshot")
        assert (record.actor_id, record.purpose_code, record.owner_ids) == (
            "urban-operator", "maintenance", ("traffic",),
        )  # fmt: skip
        assert record.content == "thumbnails: 1 allowed, 2 refused"
        assert record.detail == {
            "allowed": ["gate"],
            "rules": [grant],
            "refused": ["bridge", "nowhere"],
            "reasons": ["no_matching_grant", "unknown_resource"],
        }
        worker = await city.worker()
        await take(worker, await open_one(city, answer["batch"]))
        await city.until(lambda: not len(city.services.live))
        assert len(await city.records()) == before + 1


async def test_every_owner_finds_the_one_record(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await add_camera(city, "square", department_id="traffic")
        await city.call("urban-admin", "POST", "/cameras", {
            "id": "park", "name": "park", "department_id": "urban", "url": "rtsp://127.0.0.1/park",
        })  # fmt: skip
        await city.call("root", "POST", "/departments", {"id": "rivers", "name": "rivers"})
        for department in ("traffic", "urban", "rivers"):
            await add_user(city, f"{department}-auditor", department, "auditor")
        await begin(city, "park", "gate", "square", "nowhere", by="auditor")
        (record,) = await batch_records(city)
        assert (record.owner_id, record.owner_ids) == (None, ("traffic", "urban"))
        assert record.detail["refused"] == ["park", "gate", "square", "nowhere"]
        for department, count in (("traffic", 1), ("urban", 1), ("rivers", 0)):
            for owner in ("", f"&owner={department}"):
                path = f"/audit/records?purpose=audit&kind=thumbnails{owner}"
                seen = (await city.call(f"{department}-auditor", "GET", path))["items"]
                assert len(seen) == count, (department, owner)
        for camera, count in (("gate", 1), ("park", 1), ("bridge", 0)):
            path = f"/audit/records?purpose=audit&kind=thumbnails&camera={camera}"
            assert len((await city.call("traffic-auditor", "GET", path))["items"]) == count
        other = "/audit/records?purpose=audit&kind=thumbnails&owner=rivers"
        assert (await city.call("auditor", "GET", other))["items"] == []


async def test_cameras_that_do_not_exist_have_no_owner(tmp_path):
    async with open_city(tmp_path) as city:
        await begin(city, "nowhere")
        (record,) = await batch_records(city)
        assert (record.owner_id, record.owner_ids, record.outcome) == (None, (), "deny")


async def test_no_purpose_no_decision(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(actions=SNAPSHOT)
        for purpose, code in (
            (None, "purpose_required"),
            ({"code": "fun"}, "purpose_unknown"),
            ({"code": "case"}, "purpose_reference_required"),
        ):
            refused = await begin(city, "gate", purpose=purpose, expect=422)
            assert refused["code"] == code
        assert not await batch_records(city)
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"purposes": ["case"]}})
        (item,) = (await begin(city, "gate"))["items"]
        assert (item["problem"], item["reason"]) == ("access_denied", "purpose_not_allowed")


async def test_a_batch_and_its_pictures_have_sizes(tmp_path):
    async with open_city(tmp_path) as city:
        most = [f"c{number}" for number in range(MAX_CAMERAS)]
        assert len((await begin(city, *most, width=320))["items"]) == MAX_CAMERAS
        (record,) = await batch_records(city)
        assert record.detail["refused"] == most
        for cameras, more in (
            ((*most, "x"), {}),
            ((), {}),
            (("x",), {"width": 321}),
            (("x",), {"width": 15}),
        ):
            assert (await begin(city, *cameras, **more, expect=422))["code"] == "invalid_field"


async def test_a_picture_is_opened_once_by_who_asked_and_in_time(tmp_path):
    async with open_city(tmp_path) as city:
        for camera in ("gate", "bridge"):
            await city.grant(actions=SNAPSHOT, camera=camera)
        batch = (await begin(city, "gate", "bridge"))["batch"]
        for who, camera in (("traffic-operator", "gate"), ("urban-operator", "nowhere")):
            assert (await open_one(city, batch, camera, who, expect=410))["code"] == "thumbnails_over"
        await open_one(city, batch)
        await open_one(city, batch, expect=410)
        city.clock.advance(BATCH_SECONDS)
        await open_one(city, batch, "bridge", expect=410)


async def test_what_is_revoked_is_not_opened_and_ends_when_it_is(tmp_path):
    async with open_city(tmp_path) as city:
        grants = [await city.grant(actions=SNAPSHOT, camera=camera) for camera in ("gate", "bridge")]
        worker = await city.worker()
        batch = (await begin(city, "gate", "bridge"))["batch"]
        opened = await open_one(city, batch)
        assert isinstance(await worker.redeem(opened["id"], opened["media"]["ticket"]), Redeemed)
        for grant in grants:
            await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        assert (await worker.ended(opened["id"])).reason == "revoked"
        refused = await open_one(city, batch, "bridge", expect=403)
        assert refused["reason"] == "no_matching_grant"


async def test_pictures_under_way_count_as_sessions(tmp_path):
    settings = AdmissionSettings(sessions_per_user=1)
    async with open_city(tmp_path, admission=settings) as city:
        for camera in ("gate", "bridge"):
            await city.grant(actions=("live:snapshot", "live:view"), camera=camera)
        worker = await city.worker()
        batch = (await begin(city, "gate", "bridge"))["batch"]
        opened = await open_one(city, batch)
        assert (await city.watch("urban-operator", purpose="maintenance", expect=503))["code"] == (
            "limit_sessions_user"
        )
        assert (await open_one(city, batch, "bridge", expect=503))["code"] == "limit_sessions_user"
        await take(worker, opened)
        await city.until(lambda: not len(city.services.live))
        await city.watch("urban-operator", purpose="maintenance")


@pytest.mark.parametrize("batches", [MAX_BATCHES_PER_USER, MAX_BATCHES_PER_USER + 1])
async def test_the_oldest_of_too_many_batches_is_given_up(tmp_path, batches):
    async with open_city(tmp_path) as city:
        await city.grant(actions=SNAPSHOT)
        first, *_ = [(await begin(city, "gate"))["batch"] for _ in range(batches)]
        await open_one(city, first, expect=201 if batches == MAX_BATCHES_PER_USER else 410)
