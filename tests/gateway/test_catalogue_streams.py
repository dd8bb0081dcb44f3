"""A camera's second stream, and cameras that are published instead of pulled."""

import pytest
from support.controls import open_city

from gateway.messages import SUB_STREAM, Redeemed


async def test_a_session_shows_the_stream_that_it_was_opened_for(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        assert (await city.watch("urban-operator", expect=422, stream="sub"))["code"] == "no_sub_stream"
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sub_url": "rtsp://127.0.0.1/gate/sub"})
        opened = await city.watch("urban-operator", stream="sub")
        redeemed = await worker.redeem(opened["id"], opened["media"]["ticket"])
        assert isinstance(redeemed, Redeemed)
        assert (redeemed.camera, redeemed.stream) == ("gate", "gate" + SUB_STREAM)
        main = await worker.start(await city.watch("urban-operator"))
        assert main.stream == "gate"
        (entry, _) = (await city.call("urban-operator", "GET", "/sessions"))["items"]
        assert (entry["camera"], entry["stream"]) == ("gate", "sub")
        assert (await city.call("traffic-admin", "GET", "/cameras/gate"))["camera"]["has_sub_stream"]


async def test_a_stream_that_does_not_exist_is_refused(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.watch("urban-operator", expect=422, stream="third")


async def test_the_second_address_is_checked_like_the_first(tmp_path):
    async with open_city(tmp_path) as city:
        answer = await city.call(
            "traffic-admin", "PATCH", "/cameras/gate", {"sub_url": "rtsp://10.0.0.1/x"}, 422
        )
        assert answer["detail"].startswith("sub_url: ")


@pytest.mark.parametrize(
    ("login", "named"),
    [
        ({}, "username"),
        ({"username": "encoder"}, "password"),
        ({"username": "encoder", "password": "x" * 11}, "password"),
    ],
)
async def test_a_camera_that_publishes_needs_a_login(tmp_path, login, named):
    async with open_city(tmp_path) as city:
        body = {"name": "c", "department_id": "traffic", "url": "push:", **login}
        answer = await city.call("traffic-admin", "POST", "/cameras", body, 422)
        assert answer["detail"].startswith(named)
        complete = {**body, "id": "encoder", "username": "encoder", "password": "x" * 12}
        await city.call("traffic-admin", "POST", "/cameras", complete)
        answer = await city.call("traffic-admin", "PATCH", "/cameras/encoder", {"password": "short"}, 422)
        assert answer["detail"].startswith("password")
        await city.call("traffic-admin", "PATCH", "/cameras/encoder", {"username": None}, 422)
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"url": "push:", "password": None}, 422)
