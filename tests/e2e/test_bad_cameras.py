"""Cameras that fail in every way at once, on a node of two workers: named, forgiven, and alone in it."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from support.disturbed_camera import DisturbedProducer
from support.flv_viewer import FlvViewer, Watching
from support.node_processes import until
from support.nodes import CAMERA_PASSWORD, furnish, grant, running_node

from streams.simulator.camera import Disturbance, Faults, SimulatedCamera, serve_cameras

pytestmark = pytest.mark.slow

HEALTHY = ("north", "south")
FLOOD_BYTES = 1_000_000  # 200 Mbit/s at 25 pictures a second
GARBAGE_AFTER_PACKETS = 150
DETECTED_SECONDS = 10
FROZEN_SECONDS = 30
RECOVERED_SECONDS = 5
REPORT_SECONDS = 1.5
"""What a state takes until it is read: workers report once a second."""
LONGEST_GAP_SECONDS = 1.0


@asynccontextmanager
async def city(folder, producers, faults=None):
    cameras = [
        SimulatedCamera(
            name=name,
            producer=producer,
            username="custos",
            password=CAMERA_PASSWORD,
            faults=(faults or {}).get(name, Faults()),
        )
        for name, producer in producers.items()
    ]
    async with serve_cameras(cameras) as server, running_node(folder, config="workers: 2\n") as node:
        await furnish(node, server)
        for name in producers:
            await grant(node, "urban-operator", name)
        yield node, server


async def status_of(node, camera):
    return (await node.call("traffic-admin", "GET", f"/cameras/{camera}"))["camera"]["status"]


async def takes_until(seconds, node, camera, **expected):
    """Seconds until the camera's status is as expected."""
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def is_so():
        status = await status_of(node, camera)
        return all(status[name] == value for name, value in expected.items())

    try:
        await until(is_so, seconds + REPORT_SECONDS)
    except TimeoutError:
        raise AssertionError((camera, expected, await status_of(node, camera))) from None
    return loop.time() - started


async def test_bad_cameras_are_named_forgiven_and_hurt_no_healthy_one(tmp_path, record_testsuite_property):
    names = (*HEALTHY, "garbage", "stalled", "flood", "jump", "frozen")
    producers = {name: DisturbedProducer() for name in names}
    faults = {"garbage": Faults(disturbance=Disturbance.GARBAGE, after_packets=GARBAGE_AFTER_PACKETS)}
    async with city(tmp_path, producers, faults) as (node, server), Watching() as watching:
        viewers = {
            name: watching.start(FlvViewer((await node.watch("urban-operator", name))["media"]["flv"]))
            for name in names
        }
        for viewer in viewers.values():
            await viewer.more()
        jumped = producers["jump"]
        producers["stalled"].stalled = True
        producers["flood"].padding_bytes = FLOOD_BYTES
        producers["frozen"].frozen = True
        jumped.jump()
        async with asyncio.TaskGroup() as tasks:
            detected = {
                name: tasks.create_task(takes_until(seconds, node, name, **expected))
                for name, seconds, expected in (
                    ("garbage", DETECTED_SECONDS, {"error": "protocol_error"}),
                    ("stalled", DETECTED_SECONDS, {"error": "source_unreachable"}),
                    ("flood", DETECTED_SECONDS, {"error": "limit_exceeded"}),
                    ("jump", DETECTED_SECONDS, {"fault": "timestamp_jump", "state": "live"}),
                    ("frozen", FROZEN_SECONDS, {"fault": "frozen", "state": "live"}),
                )
            }
        await viewers["jump"].more()
        producers["stalled"].stalled = producers["frozen"].frozen = False
        producers["flood"].padding_bytes = 0
        server.cameras["garbage"] = replace(server.cameras["garbage"], faults=Faults())
        async with asyncio.TaskGroup() as tasks:
            recovered = {
                name: tasks.create_task(
                    takes_until(RECOVERED_SECONDS, node, name, state="live", error=None, fault=None)
                )
                for name in ("garbage", "stalled", "flood", "frozen")
            }
        for viewer in viewers.values():
            await viewer.more()
        for name in HEALTHY:
            assert viewers[name].longest_gap < LONGEST_GAP_SECONDS
            assert viewers[name].steps_ms == {40}
        record_testsuite_property(
            "bad_cameras",
            {
                "detected_s": {name: round(task.result(), 1) for name, task in detected.items()},
                "recovered_s": {name: round(task.result(), 1) for name, task in recovered.items()},
                "healthy_gap_median_ms": round(1000 * max(viewers[name].median_gap for name in HEALTHY)),
                "healthy_gap_max_ms": round(1000 * max(viewers[name].longest_gap for name in HEALTHY)),
            },
        )
