"""A city is imported while people watch: no picture is missing, no session ends, and new ones open."""

import asyncio
import io
import json

import aiohttp
import pytest
from support.catalogue_files import csv_file, new_cameras
from support.flv_viewer import FlvViewer, Watching
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras

from gateway.settings import DATABASE_URL

pytestmark = pytest.mark.slow

CAMERAS = 20_000
VIEWERS = 6
MAX_NEWCOMERS = 40
LIMITS = f"admission: {{sessions_per_user: {2 * VIEWERS + MAX_NEWCOMERS}}}\n"


async def _import(node, content):
    headers = {"Authorization": f"Bearer {node.tokens['traffic-admin']}", "Content-Type": "text/csv"}
    async with node.http.post(
        f"{node.url}/api/v1/cameras/import",
        data=io.BytesIO(content),
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=300),
    ) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return json.loads(text)


async def test_viewers_watch_without_a_gap_while_a_city_is_imported(tmp_path, database_url, monkeypatch):
    if database_url is not None:
        monkeypatch.setenv(DATABASE_URL, database_url)
    content = csv_file(*new_cameras(CAMERAS), tags="夜间;重点", place="人民路与中山路交叉口")
    async with (
        simulated_cameras(north=PacedProducer(), south=PacedProducer()) as cameras,
        running_node(tmp_path, config="workers: 2\n" + LIMITS) as node,
        Watching() as watching,
    ):
        await furnish(node, cameras)

        async def open_viewer(camera):
            session = await node.watch("urban-operator", camera)
            viewer = watching.start(FlvViewer(session["media"]["flv"]))
            await viewer.more(seconds=60)
            return viewer

        for camera in ("north", "south"):
            await grant(node, "urban-operator", camera)
        viewers = [await open_viewer(camera) for camera in ("north", "south") for _ in range(VIEWERS)]
        before = [len(viewer.timestamps) for viewer in viewers]

        async with asyncio.TaskGroup() as tasks:
            importing = tasks.create_task(_import(node, content))
            newcomers = []
            while not importing.done() and len(newcomers) < MAX_NEWCOMERS:
                newcomers.append((await open_viewer("north"), importing.done()))
        assert importing.result()["created"] == CAMERAS
        # whoever came before the answer saw pictures before it
        assert not newcomers[0][1]

        everybody = viewers + [viewer for viewer, _ in newcomers]
        for viewer in everybody:
            await viewer.more(25)
            assert not viewer.ended.is_set()
            # 25 pictures a second: one that is missing, or out of its order, is another step
            assert viewer.steps_ms == {40}
        assert all(len(viewer.timestamps) > count + 25 for viewer, count in zip(viewers, before, strict=True))
        sessions = (await node.call("urban-operator", "GET", "/sessions?page_size=500"))["items"]
        assert len(sessions) == len(everybody)
        assert {session["state"] for session in sessions} == {"active"}
        assert (await node.call("traffic-admin", "GET", "/cameras"))["total"] == CAMERAS + 2
