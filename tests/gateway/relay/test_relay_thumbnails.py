"""Thumbnails and tests of connections through a real worker before a real control; cameras are clips."""

import asyncio
import base64
import contextlib
import json

import aiohttp
import pytest
from support.clip_source import ClipSource, SilentSource
from support.controls import PATIENCE_SECONDS, add_camera, open_city
from support.fake_pictures import FakePictures

from analytics.runner import PictureUnavailableError
from gateway.relay import camera_tests, thumbnails
from gateway.relay.settings import RelaySettings
from gateway.relay.worker import RelayWorker
from streams.errors import SourceRefusedError
from streams.sources.source import CameraAddress

WHY = {"code": "maintenance"}
CAMERAS = ("gate", "bridge")


class Pictures(FakePictures):
    """As many at once as the test lets through; a camera named `broken` has none."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most = 0

    async def jpeg(self, camera_id, stream, width, quality):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            if camera_id.startswith("broken"):
                raise PictureUnavailableError("no_picture")
            return await super().jpeg(camera_id, stream, width, quality)
        finally:
            self.under_way -= 1


def source_of(address: CameraAddress):
    if "dark" in address.url:
        return SilentSource()
    return SilentSource(SourceRefusedError("401")) if "locked" in address.url else ClipSource()


@contextlib.asynccontextmanager
async def relayed_city(folder, **settings):
    """(city, pictures, ask): `ask` is a POST as somebody to the worker's port."""
    pictures = Pictures()
    relay = RelaySettings(worker=0, host="127.0.0.1", port=0, run_folder=str(folder), usage_seconds=0.05)
    async with open_city(folder, **settings) as city, asyncio.TaskGroup() as tasks:
        worker = pictures.worker = RelayWorker(relay, source_of, pictures)
        ready = asyncio.get_running_loop().create_future()
        tasks.create_task(worker.run(ready.set_result))
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            port = await ready
            await city.until(lambda: worker.is_ready)

            async def ask(by, path, body=b""):
                headers = {"Authorization": f"Bearer {city.tokens[by]}"} if by else {}
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                url = f"http://127.0.0.1:{port}/api/v1{path}"
                async with client.post(url, headers=headers, data=data) as answer:
                    return answer.status, json.loads(await answer.read())

            try:
                yield city, pictures, ask
            finally:
                worker.stop()


async def test_a_batch_has_a_picture_or_a_problem_for_each_camera(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "PICTURE_SECONDS", 0.2)
    async with relayed_city(tmp_path) as (city, pictures, ask):
        for camera in ("dark", "broken", "off"):
            await add_camera(city, camera, enabled=camera != "off")
        for camera in (*CAMERAS, "dark", "broken", "off"):
            limits = {"obligations": {"max_height": 24}} if camera == "bridge" else {}
            await city.grant(camera=camera, actions=["live:snapshot"], **limits)
        asked = ["gate", "bridge", "dark", "broken", "off", "nowhere"]
        status, answer = await ask(
            "urban-operator", "/thumbnails", {"cameras": asked, "purpose": WHY, "width": 200}
        )
        assert status == 200
        jpegs = [base64.b64decode(item["jpeg"]) if item["jpeg"] else None for item in answer["items"]]
        assert jpegs == [b"\xff\xd8jpeg of gate", b"\xff\xd8jpeg of bridge", None, None, None, None]
        assert [item["problem"] for item in answer["items"]] == [
            None, None, "camera_unavailable", "camera_unavailable", "camera_disabled", "access_denied",
        ]  # fmt: skip
        widths = {camera: width for camera, width, _ in pictures.asked}
        assert widths["gate"] == 200
        assert widths["bridge"] < 200
        await city.until(lambda: not len(city.services.live))
        (record,) = await city.records(kind="thumbnails")
        assert record.detail["allowed"] == asked[:-1]
        assert not await city.records(kind="session_start")
        assert not await city.records(kind="session_end")


async def test_few_are_under_way_at_once_and_a_limit_of_few_is_enough(tmp_path):
    async with relayed_city(tmp_path) as (city, pictures, ask):
        names = [f"c{number}" for number in range(10)]
        for camera in names:
            await add_camera(city, camera)
            await city.grant(camera=camera, actions=["live:snapshot"])
        pictures.gate.clear()
        asking = city.tasks.create_task(
            ask("urban-operator", "/thumbnails", {"cameras": names, "purpose": WHY})
        )
        await city.until(lambda: pictures.under_way == thumbnails.AT_ONCE_PER_BATCH)
        assert len(city.services.live) == thumbnails.AT_ONCE_PER_BATCH
        pictures.gate.set()
        _, answer = await asking
        assert all(item["jpeg"] for item in answer["items"])
        assert pictures.most == thumbnails.AT_ONCE_PER_BATCH


async def test_what_takes_too_long_is_late(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "BATCH_SECONDS", 0.5)
    async with relayed_city(tmp_path) as (city, pictures, ask):
        await city.grant(actions=["live:snapshot"])
        pictures.gate.clear()
        _, answer = await ask("urban-operator", "/thumbnails", {"cameras": ["gate"], "purpose": WHY})
        assert [(item["jpeg"], item["problem"]) for item in answer["items"]] == [(None, "thumbnail_late")]


async def test_a_revocation_meanwhile_withholds_the_picture(tmp_path):
    async with relayed_city(tmp_path) as (city, pictures, ask):
        grant = await city.grant(actions=["live:snapshot"])
        pictures.gate.clear()
        asking = city.tasks.create_task(
            ask("urban-operator", "/thumbnails", {"cameras": ["gate"], "purpose": WHY})
        )
        await city.until(lambda: pictures.under_way)
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        running = pictures.worker._sessions._running.values()
        await city.until(lambda: all(session.over.done() for session in running))
        pictures.gate.set()
        _, answer = await asking
        assert [(item["jpeg"], item["problem"]) for item in answer["items"]] == [(None, "session_over")]


@pytest.mark.parametrize(
    ("by", "body", "status", "code"),
    [
        (None, {"cameras": ["gate"], "purpose": WHY}, 401, "not_authenticated"),
        ("urban-operator", {"cameras": ["gate"]}, 422, "purpose_required"),
        ("urban-operator", {"cameras": ["gate"], "purpose": WHY, "width": 321}, 422, "invalid_field"),
        ("urban-operator", b" " * thumbnails.MAX_QUESTION_BYTES, 400, "bad_request"),
        ("urban-operator", b" " * (thumbnails.MAX_QUESTION_BYTES + 1), 413, "body_too_large"),
    ],
)
async def test_what_is_refused_as_a_whole(tmp_path, by, body, status, code):
    async with relayed_city(tmp_path) as (_, pictures, ask):
        answered, problem = await ask(by, "/thumbnails", body)
        assert (answered, problem["code"]) == (status, code)
        assert not pictures.asked


async def test_a_connection_is_measured_and_no_picture_made(tmp_path, monkeypatch):
    monkeypatch.setattr(camera_tests, "MEASURE_SECONDS", 0.3)
    async with relayed_city(tmp_path) as (city, pictures, ask):
        status, found = await ask("traffic-admin", "/cameras/gate/test")
        assert status == 200
        assert (found["reachable"], found["codec"], found["audio"], found["error"]) == (
            True,
            "h264",
            None,
            None,
        )
        assert found["width"] > 0
        assert found["height"] > 0
        assert found["frame_rate"] == pytest.approx(25, abs=1)
        assert found["bit_rate_bps"] > 1000
        assert not pictures.asked
        (record,) = await city.records(kind="camera_tested")
        assert (record.actor_id, record.camera_id, record.action) == (
            "traffic-admin",
            "gate",
            "camera:manage",
        )


async def test_a_camera_that_cannot_be_reached_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(camera_tests, "TEST_SECONDS", 0.5)
    async with relayed_city(tmp_path) as (city, _, ask):
        for camera, error in (
            ("dark", "no_picture"),
            ("locked", "source_refused"),
            ("off", "camera_disabled"),
        ):
            await add_camera(city, camera, enabled=camera != "off")
            status, found = await ask("traffic-admin", f"/cameras/{camera}/test")
            assert (status, found["reachable"], found["error"]) == (200, False, error)


async def test_who_does_not_manage_a_camera_cannot_test_it(tmp_path):
    async with relayed_city(tmp_path) as (city, _, ask):
        await city.grant(actions=["live:view", "live:snapshot"])
        for by, status in ((None, 401), ("urban-operator", 403), ("root", 403), ("urban-admin", 403)):
            assert (await ask(by, "/cameras/gate/test"))[0] == status
        assert (await ask("traffic-admin", "/cameras/gate%2Fsub/test"))[0] == 403
        assert not await city.records(kind="camera_tested")


async def test_a_worker_tests_so_many_connections_at_once_and_no_more(tmp_path):
    async with relayed_city(tmp_path) as (city, _, ask):
        names = [f"dark{number}" for number in range(camera_tests.TESTS_AT_ONCE)]
        for camera in names:
            await add_camera(city, camera)
        async with asyncio.TaskGroup() as tasks:
            testing = [tasks.create_task(ask("traffic-admin", f"/cameras/{camera}/test")) for camera in names]
            await city.recorded(len(names), kind="camera_tested")
            status, problem = await ask("traffic-admin", "/cameras/gate/test")
            assert (status, problem["code"]) == (503, "test_busy")
            for task in testing:
                task.cancel()
