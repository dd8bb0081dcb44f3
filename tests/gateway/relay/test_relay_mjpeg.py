import json

import aiohttp
import pytest
from support.clip_source import SilentSource
from support.fake_pictures import FakePictures
from support.relay_worker import running_relay

from gateway.messages import End, Redeem, SessionOver
from gateway.relay.mjpeg import MjpegSettings
from gateway.relay.viewer import ViewerSettings
from policies.access import Action, Obligations


async def test_pictures_come_as_multipart_until_the_camera_is_gone(tmp_path):
    pictures = FakePictures(count=3)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.mjpeg") + "&fps=0.5&width=320") as answer:
            assert answer.status == 200
            assert answer.content_type == "multipart/x-mixed-replace"
            assert answer.headers["Cache-Control"] == "no-store"
            boundary = f"--{answer.headers['Content-Type'].split('boundary=')[1]}\r\n".encode()
            parts = (await answer.read()).split(boundary)[1:]
        over = await relay.control.over(session[0])
        (redeem,) = (m for m in relay.control.received if isinstance(m, Redeem))
    assert [part.split(b"\r\n\r\n", 1)[1] for part in parts] == [b"%05d\r\n" % n for n in range(3)]
    assert all(b"Content-Type: image/jpeg\r\n" in part for part in parts)
    assert (over.reason, over.bytes_sent) == ("camera_gone", 15)
    assert redeem.protocol == "mjpeg"
    assert pictures.asked == [("camera-1", 2.0, 320)]


@pytest.mark.parametrize("query", ["fps=0.09", "fps=2.01", "fps=nan", "fps=x", "width=15", "width=100000"])
async def test_what_is_out_of_bounds_uses_no_ticket(tmp_path, query):
    async with running_relay(tmp_path, runner=FakePictures()) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.get(f"{relay.media(session, 'live.mjpeg')}&{query}") as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (422, "invalid_field")
        assert session[1] in relay.control.tickets


@pytest.mark.parametrize("fps", ["0.1", "2"])
async def test_the_bounds_themselves_are_allowed(tmp_path, fps):
    pictures = FakePictures(count=1)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.media(relay.control.ticket(1), "live.mjpeg") + f"&fps={fps}") as answer:
            assert answer.status == 200
    assert [every for _, every, _ in pictures.asked] == [1 / float(fps)]


async def test_no_picture_without_a_good_ticket(tmp_path):
    async with running_relay(tmp_path, runner=FakePictures()) as relay, aiohttp.ClientSession() as client:
        for query, status in (("", 401), ("?ticket=", 401), ("?ticket=x", 403)):
            async with client.get(relay.url(f"/media/{1:032x}/live.mjpeg{query}")) as answer:
                assert answer.status == status
        session = relay.control.ticket(1, action=Action.FRAMES_CONSUME)
        async with client.get(relay.media(session, "live.mjpeg")) as answer:
            assert answer.status == 403
        assert not relay.control.requests


async def test_the_picture_is_no_larger_than_the_obligation(tmp_path):
    pictures = FakePictures(count=1)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1, obligations=Obligations(max_height=120))
        async with client.get(relay.media(session, "live.mjpeg")) as answer:
            await answer.read()
    assert [width for _, _, width in pictures.asked] == [160]


async def test_one_more_than_there_are_places_is_refused_and_keeps_his_ticket(tmp_path):
    pictures = FakePictures()
    settings = MjpegSettings(viewers=1)
    async with (
        running_relay(tmp_path, runner=pictures, mjpeg=settings) as relay,
        aiohttp.ClientSession() as client,
    ):
        first, second = relay.control.ticket(1), relay.control.ticket(2)
        async with client.get(relay.media(first, "live.mjpeg")) as answer:
            assert answer.status == 200
            async with client.get(relay.media(second, "live.mjpeg")) as refused:
                assert refused.status == 503
                assert json.loads(await refused.read())["code"] == "limit_mjpeg"
            assert second[1] in relay.control.tickets
        await relay.control.wait_for(SessionOver)
        async with client.get(relay.media(second, "live.mjpeg")) as answer:
            assert answer.status == 200


async def test_a_revocation_ends_it(tmp_path):
    pictures = FakePictures(size=10_000)
    async with running_relay(tmp_path, runner=pictures) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.mjpeg")) as answer:
            await answer.content.readexactly(20_000)
            relay.control.send(End(session=session[0], reason="revoked"))
            over = await relay.control.over(session[0])
        assert (over.reason, over.lost) == ("revoked", False)
        assert pictures.closed == 1


async def test_a_camera_without_a_picture(tmp_path):
    viewer = ViewerSettings(first_picture_seconds=0.1)
    async with (
        running_relay(tmp_path, source=SilentSource, runner=FakePictures(), viewer=viewer) as relay,
        aiohttp.ClientSession() as client,
    ):
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.mjpeg")) as answer:
            assert answer.status == 504
        assert (await relay.control.over(session[0])).reason == "camera_gone"
