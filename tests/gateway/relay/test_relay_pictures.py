import json

import aiohttp
import pytest
from support.clip_source import SilentSource
from support.fake_pictures import FakePictures
from support.relay_worker import running_relay

from gateway.messages import End, Redeem, SessionOver, Usage
from gateway.relay.viewer import ViewerSettings
from policies.access import Obligations

GOOD = {"Authorization": "Bearer good", "Origin": "http://portal", "Sec-Fetch-Site": "same-origin"}
SNAPSHOT = "/api/v1/cameras/camera-1/snapshot?purpose=patrol&reference=A-1&note=x"
FRAMES = "/api/v1/frames/camera-1?purpose=patrol&every=0.5&width=320"


def opened(relay):
    return [json.loads(body) for _, path, _, body in relay.control.requests if path == "/api/v1/sessions"]


async def test_a_snapshot_is_one_use_in_the_caller_s_name(tmp_path):
    pictures = FakePictures()
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.url(SNAPSHOT + "&width=640"), headers=GOOD) as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
            assert answer.headers["Cache-Control"] == "no-store"
            body = await answer.read()
        over = await relay.control.wait_for(SessionOver)
    assert body == b"\xff\xd8jpeg of camera-1"
    assert (over.reason, over.lost, over.bytes_sent) == ("completed", False, len(body))
    assert pictures.asked == [("camera-1", 640, 85)]
    assert opened(relay) == [
        {
            "camera": "camera-1",
            "action": "live:snapshot",
            "purpose": {"code": "patrol", "reference": "A-1", "note": "x"},
        }
    ]
    headers = relay.control.requests[-1][2]
    assert {name: headers[name] for name in GOOD} == GOOD
    (redeem,) = [m for m in relay.control.received if isinstance(m, Redeem)]
    assert redeem.protocol == "snapshot"


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (SNAPSHOT, {}, 401, "not_authenticated"),
        ("/api/v1/cameras/camera-1/snapshot", GOOD, 422, "purpose_required"),
        (FRAMES, {}, 401, "not_authenticated"),
        (SNAPSHOT + "&width=15", GOOD, 422, "invalid_field"),
        (SNAPSHOT + "&width=4097", GOOD, 422, "invalid_field"),
        (FRAMES + "0", GOOD, 422, "invalid_field"),
        (FRAMES.replace("every=0.5", "every=0.1"), GOOD, 422, "invalid_field"),
        (FRAMES.replace("every=0.5", "every=nan"), GOOD, 422, "invalid_field"),
    ],
)
async def test_refusals_and_control_s_own_answers(tmp_path, path, headers, status, code):
    path = path.replace("width=3200", "width=99999")
    async with running_relay(tmp_path, runner=FakePictures()) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.url(path), headers=headers) as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
            assert json.loads(await answer.read())["code"] == code
        assert not [m for m in relay.control.received if isinstance(m, Redeem)]


async def test_a_snapshot_of_a_camera_without_a_picture(tmp_path):
    viewer = ViewerSettings(first_picture_seconds=0.1)
    async with (
        running_relay(tmp_path, source=SilentSource, viewer=viewer, runner=FakePictures()) as relay,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(relay.url(SNAPSHOT), headers=GOOD) as answer:
            assert answer.status == 504
        assert (await relay.control.wait_for(SessionOver)).reason == "camera_gone"


async def test_a_snapshot_is_no_larger_than_the_obligation(tmp_path):
    pictures = FakePictures()
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        relay.control.obligations = Obligations(max_height=120)
        for width in ("", "&width=100"):
            async with client.get(relay.url(SNAPSHOT + width), headers=GOOD) as answer:
                assert answer.status == 200
    assert [width for _, width, _ in pictures.asked] == [160, 100]


@pytest.mark.parametrize(("code", "status"), [("busy", 503), ("no_picture", 504), ("quarantined", 504)])
async def test_a_picture_that_cannot_be_made(tmp_path, code, status):
    pictures = FakePictures(error=code)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.url(SNAPSHOT), headers=GOOD) as answer:
            assert answer.status == status
            assert (await answer.json(content_type=None))["detail"] == code
        assert (await relay.control.wait_for(SessionOver)).reason == "failed"
        async with client.ws_connect(relay.url(FRAMES), headers=GOOD | {"Origin": relay.url("")}) as job:
            assert await job.receive_json() == {"type": "end", "reason": "failed", "detail": code, "by": ""}


async def test_frames_over_websocket(tmp_path):
    pictures = FakePictures()
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        headers = {"Authorization": "Bearer good"}
        async with client.ws_connect(relay.url(FRAMES), headers=headers) as job:
            for seq in range(3):
                description = await job.receive_json()
                assert 0 <= description.pop("age_ms") < 5000
                assert description == {
                    "seq": seq,
                    "pts": seq * 180_000,
                    "dropped_since_last": seq % 2,
                    "achieved_period": 2.0 if seq else None,
                }
                assert await job.receive_bytes() == b"%05d" % seq
            usage = await relay.control.wait_for(Usage, lambda m: any(s.bytes_sent for s in m.sessions))
            (session,) = usage.sessions
            relay.control.send(End(session=session.session, reason="revoked"))
            texts = [m.json() async for m in job if m.type is aiohttp.WSMsgType.TEXT]
            assert job.close_code in {4002, 1006}
        over = await relay.control.over(session.session)
    if job.close_code == 4002:
        assert texts[-1]["reason"] == "revoked"
    assert (over.reason, over.lost) == ("revoked", False)
    assert pictures.asked == [("camera-1", 0.5, 320)]
    assert pictures.closed == 1


async def test_frames_as_multipart(tmp_path):
    pictures = FakePictures(count=3)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.url(FRAMES), headers=GOOD) as answer:
            assert answer.content_type == "multipart/x-mixed-replace"
            boundary = f"--{answer.headers['Content-Type'].split('boundary=')[1]}\r\n".encode()
            parts = (await answer.read()).split(boundary)[1:]
        over = await relay.control.wait_for(SessionOver)
    head, body = parts[1].split(b"\r\n\r\n", 1)
    fields = dict(line.split(": ") for line in head.decode().split("\r\n"))
    assert 0 <= int(fields.pop("X-Age-Ms")) < 5000
    assert fields == {
        "Content-Type": "image/jpeg",
        "Content-Length": "5",
        "X-Seq": "1",
        "X-Pts": "180000",
        "X-Dropped-Since-Last": "1",
        "X-Achieved-Period": "2.0",
    }
    assert body == b"00001\r\n"
    assert (over.reason, over.bytes_sent, over.dropped_access_units) == ("camera_gone", 15, 1)


async def test_a_job_that_leaves_is_lost_and_its_subscription_closed(tmp_path):
    pictures = FakePictures(size=10_000)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.url(FRAMES), headers=GOOD) as answer:
            await answer.content.readexactly(50_000)
        assert (await relay.control.wait_for(SessionOver)).lost
        assert pictures.closed == 1


async def test_frames_of_another_site_are_refused(tmp_path):
    async with running_relay(tmp_path, runner=FakePictures()) as relay, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await client.ws_connect(relay.url(FRAMES), headers={"Origin": "http://evil.example"})
        assert refusal.value.status == 403
        assert not opened(relay)
