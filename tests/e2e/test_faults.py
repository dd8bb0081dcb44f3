"""What goes wrong on a node, and who notices: killed processes, a full disk, hostile cameras."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import aiohttp
import pytest
from support.node_processes import ANALYSIS, CONTROL, Viewer, children_of, until
from support.nodes import (
    CAMERA_PASSWORD,
    PacedProducer,
    furnish,
    grant,
    run_cli,
    running_node,
    simulated_cameras,
)

from streams.simulator.camera import Disturbance, Faults, SimulatedCamera, serve_cameras

pytestmark = pytest.mark.slow


@pytest.fixture
async def city(tmp_path):
    async with simulated_cameras(north=PacedProducer()) as cameras, running_node(tmp_path) as node:
        await furnish(node, cameras)
        await grant(node, "urban-operator", "north", "live:view", "live:snapshot")
        yield node


async def test_a_killed_control_is_back_before_a_running_picture_notices(city):
    node = city
    session = await node.watch("urban-operator", "north")
    viewer = Viewer(session["media"]["flv"])
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(viewer.run())
        await viewer.more()
        killed = children_of(node, CONTROL)
        os.kill(killed[0], signal.SIGKILL)

        async def is_back():
            try:
                async with node.http.get(f"{node.url}/readyz") as answer:
                    return answer.status == 200 and children_of(node, CONTROL) not in ([], killed)
            except aiohttp.ClientError:
                return False

        await until(is_back)
        await viewer.more()
        running = await node.call("urban-operator", "GET", "/sessions")
        assert [s["id"] for s in running["items"]] == [session["id"]]
        await node.call("urban-operator", "DELETE", f"/sessions/{session['id']}")
        async with asyncio.timeout(2):
            await viewer.ended.wait()
        reading.cancel()


async def test_a_killed_worker_is_back_and_its_sessions_have_an_end_record(city):
    node = city
    session = await node.watch("urban-operator", "north")
    viewer = Viewer(session["media"]["flv"])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(viewer.run())
        await viewer.more()
        os.kill(viewer.worker(node), signal.SIGKILL)
        await viewer.ended.wait()

    async def is_recorded():
        try:
            query = f"/audit/records?purpose=audit&session={session['id']}&kind=session_end"
            items = (await node.call("auditor", "GET", query))["items"]
        except aiohttp.ClientError:
            return False
        return [item["record"]["reason"] for item in items] == ["worker_lost"]

    await until(is_recorded, seconds=25)
    again = Viewer((await node.watch("urban-operator", "north"))["media"]["flv"])
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(again.run())
        await again.more()
        reading.cancel()


async def test_a_killed_analysis_process_is_replaced(city):
    node = city
    url = f"{node.url}/api/v1/cameras/north/snapshot?purpose=patrol&reference=roster"
    headers = {"Authorization": f"Bearer {node.tokens['urban-operator']}"}

    async def has_picture():
        async with node.http.get(url, headers=headers) as answer:
            return answer.status == 200 and (await answer.read()).startswith(b"\xff\xd8")

    await until(has_picture)
    os.kill(children_of(node, ANALYSIS)[0], signal.SIGKILL)
    await until(has_picture)


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(disturbance=Disturbance.GARBAGE, after_packets=5), "protocol_error"),
        (Faults(disturbance=Disturbance.CLOSE, after_packets=5), "source_unreachable"),
        (Faults(rejects_everyone=True), "source_refused"),
        (Faults(redirect_to="rtsp://127.0.0.1:9/elsewhere"), "source_refused"),
    ],
)
async def test_a_hostile_camera_is_named_and_harms_nobody(tmp_path, faults, error):
    good, bad = (
        SimulatedCamera(
            name=name, producer=PacedProducer(), username="custos", password=CAMERA_PASSWORD, faults=fault
        )
        for name, fault in (("good", Faults()), ("bad", faults))
    )
    async with serve_cameras([good, bad]) as cameras, running_node(tmp_path) as node:
        await furnish(node, cameras)
        for camera in ("good", "bad"):
            await grant(node, "urban-operator", camera)
        viewers = [
            Viewer((await node.watch("urban-operator", camera))["media"]["fmp4"])
            for camera in ("good", "bad")
        ]
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(viewers[0].run())
            hopeless = tasks.create_task(_try(viewers[1]))

            async def is_named():
                camera = (await node.call("traffic-admin", "GET", "/cameras/bad"))["camera"]
                return camera["status"]["error"] == error

            await until(is_named)
            await viewers[0].more(50_000)
            reading.cancel()
            hopeless.cancel()


async def _try(viewer):
    with contextlib.suppress(AssertionError):  # no picture in time: 504
        await viewer.run()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a small disk")
async def test_on_a_full_disk_nobody_looks_on_and_nothing_is_lost(tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", data], check=False).returncode:
        pytest.skip("cannot mount here")
    config = "ledger: {outage_seconds: 3.0}\n"
    try:
        async with (
            simulated_cameras(north=PacedProducer()) as cameras,
            running_node(tmp_path, config=config) as node,
        ):
            await furnish(node, cameras)
            await grant(node, "urban-operator", "north")
            session = await node.watch("urban-operator", "north")
            viewer = Viewer(session["media"]["flv"])
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(viewer.run())
                await viewer.more()
                ballast = data / "ballast"
                _fill(ballast)
                await until(lambda: _is_refused(node))
                async with asyncio.timeout(60):
                    await viewer.ended.wait()
            assert await _is_refused(node)
            async with node.http.get(f"{node.url}/readyz") as answer:
                assert (answer.status, (await answer.json())["code"]) == (503, "store_unavailable")
            ballast.unlink()

            async def is_back():
                return not await _is_refused(node)

            await until(is_back, seconds=10)
            again = Viewer((await node.watch("urban-operator", "north"))["media"]["flv"])
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(again.run())
                await again.more()
                reading.cancel()
            ends = await _records(node, f"session={session['id']}&kind=session_end")
            assert [end["reason"] for end in ends] == ["ledger_unavailable"]
            assert len(await _records(node, "kind=ledger_outage")) == 1
            await node.stop()
            assert (await run_cli("audit", "verify", "--data", str(data)))[0] == 3
            with sqlite3.connect(data / "custos.db") as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        subprocess.run(["umount", "-l", data], check=True)


async def _is_refused(node):
    body = {"camera": "north", "purpose": {"code": "patrol", "reference": "roster"}}
    headers = {"Authorization": f"Bearer {node.tokens['urban-operator']}"}
    async with node.http.post(f"{node.url}/api/v1/sessions", json=body, headers=headers) as answer:
        code = "" if answer.status == 201 else (await answer.json())["code"]
        if code in {"", "limit_sessions_user"}:  # that many fitted into the log's last room
            return False
        assert (answer.status, code) == (503, "store_unavailable")
        return True


async def _records(node, query):
    answer = await node.call("auditor", "GET", f"/audit/records?purpose=audit&{query}")
    return [item["record"] for item in answer["items"]]


def _fill(path: Path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
