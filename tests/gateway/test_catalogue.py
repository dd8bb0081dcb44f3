"""Cameras: what is registered is what is pulled; what cannot be a camera's address is refused."""

from support.controls import add_camera, open_city

from gateway.messages import Claimed


async def test_a_change_changes_what_is_given_and_no_more(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        for change, address in (
            ({"description": "d"}, ("rtsp://127.0.0.1:8554/gate", "viewer", "camera-password", False)),
            ({"password": "new"}, ("rtsp://127.0.0.1:8554/gate", "viewer", "new", False)),
            ({"username": "u", "allow_basic": True}, ("rtsp://127.0.0.1:8554/gate", "u", "new", True)),
            ({"url": "rtsp://127.0.0.2/y"}, ("rtsp://127.0.0.2/y", "u", "new", True)),
            ({"password": None, "username": None}, ("rtsp://127.0.0.2/y", None, None, True)),
        ):
            await city.call("traffic-admin", "PATCH", "/cameras/gate", change)
            claimed = await worker.claim("gate")
            assert isinstance(claimed, Claimed)
            found = claimed.address
            assert (found.url, found.username, found.password, found.allow_basic) == address
        detail = await city.call("traffic-admin", "GET", "/cameras/gate")
        assert detail["connection"]["has_password"] is False
        assert detail["camera"]["description"] == "d"
        assert (await city.call("root", "GET", "/cameras/gate"))["connection"] is None


_WRONG_URLS = [
    "rtsp://10.0.0.1/x",
    "rtsp://169.254.169.254/x",
    "http://[::1]/x",
    "rtsp://0.0.0.0/x",
    "javascript:alert(1)",
    "rtsp://u:p@127.0.0.1/x",
    "rtsp:///x",
    "x",
    "rtsp://127.0.0.1:0x50/",
    "rtsp://127.0.0.1/\r\nDESCRIBE",
    "ftp://127.0.0.1/",
]


async def test_addresses_that_a_camera_may_not_have(tmp_path):
    async with open_city(tmp_path) as city:
        for url in _WRONG_URLS:
            body = {"name": "c", "department_id": "traffic", "url": url}
            assert (await city.call("traffic-admin", "POST", "/cameras", body, 422))[
                "code"
            ] == "invalid_field"
            await city.call("traffic-admin", "PATCH", "/cameras/gate", {"url": url}, 422)


async def test_what_the_caller_may_do_is_listed(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(purposes=["maintenance"], actions=["live:view", "live:snapshot"])
        listed = (await city.call("urban-operator", "GET", "/cameras"))["items"]
        assert [(item["id"], item["actions"]) for item in listed] == [
            ("gate", ["live:snapshot", "live:view"])
        ]
        listed = (await city.call("traffic-admin", "GET", "/cameras"))["items"]
        assert listed[0]["actions"] == ["camera:manage", "camera:share"]
        assert (await city.call("root", "GET", "/cameras"))["items"][0]["actions"] == []


async def test_a_camera_that_was_deleted_is_gone_and_its_name_is_free(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        await city.call("traffic-admin", "DELETE", "/cameras/gate")
        await city.call("traffic-admin", "DELETE", "/cameras/gate", expect=403)
        await city.call("traffic-admin", "GET", "/cameras/gate", expect=404)
        assert (await city.call("urban-operator", "GET", "/cameras"))["total"] == 0
        await add_camera(city, "gate")
        assert (await city.call("root", "GET", "/cameras"))["total"] == 2


async def test_of_two_with_one_id_one_is_registered(tmp_path):
    import asyncio

    async with open_city(tmp_path) as city:
        body = {"id": "x", "name": "c", "department_id": "traffic", "url": "rtsp://127.0.0.1/x"}
        token = city.tokens["traffic-admin"]
        answers = await asyncio.gather(
            *(city.request("POST", "/api/v1/cameras", token, json=body) for _ in range(5))
        )
        assert sorted(status for status, _, _ in answers) == [201, 409, 409, 409, 409]
