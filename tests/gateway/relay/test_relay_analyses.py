"""With a real analysis process: pictures that decode, motion that is found, and what survives what."""

import asyncio
import contextlib

import aiohttp
import cv2
import numpy as np
import pytest
from support.relay_worker import running_relay

from gateway.messages import (
    AnalysisEvent,
    AnalysisState,
    Claim,
    Hello,
    Release,
    SessionOver,
    StartAnalysis,
    StopAnalysis,
)
from gateway.relay.settings import analysis_socket
from gateway.supervisor import analysis_child
from streams.supervisor import SupervisorSettings

GOOD = {"Authorization": "Bearer good"}


@contextlib.asynccontextmanager
async def analysis_process(folder):
    spec = analysis_child(0, analysis_socket(folder, 0))
    process = await asyncio.create_subprocess_exec(*spec.argv)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def start(analysis="a-1", camera="camera-1", **options):
    return StartAnalysis(
        **{
            "analysis": analysis,
            "session": "5" * 32,
            "camera": camera,
            "analyser": "motion",
            "parameters": {"warm_up_samples": 1},
            "period_seconds": 0.2,
        }
        | options
    )


async def test_snapshot_and_frames_are_real_pictures(tmp_path):
    async with (
        analysis_process(tmp_path),
        running_relay(tmp_path) as relay,
        aiohttp.ClientSession() as client,
    ):
        relay.control.ticket(1)
        url = relay.url("/api/v1/cameras/camera-1/snapshot?purpose=patrol&width=160")
        async with client.get(url, headers=GOOD) as answer:
            assert answer.status == 200
            picture = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (120, 160, 3)
        url = relay.url("/api/v1/frames/camera-1?purpose=patrol&every=0.2&width=320")
        async with client.ws_connect(url, headers=GOOD) as job:
            first, jpeg, second = [await job.receive() for _ in range(3)]
        assert first.json()["seq"] < second.json()["seq"]
        assert cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)


@pytest.mark.slow
async def test_motion_becomes_events_until_the_analysis_is_stopped(tmp_path):
    cameras = SupervisorSettings(idle_seconds=0.05)
    async with analysis_process(tmp_path), running_relay(tmp_path, cameras=cameras) as relay:
        relay.control.ticket(1)
        relay.control.send(start())
        relay.control.send(start())
        event = await relay.control.wait_for(AnalysisEvent)
        state = await relay.control.wait_for(
            AnalysisState, lambda m: m.achieved_period_seconds is not None or m.error is not None
        )
        relay.control.send(StopAnalysis(analysis="a-1"))
        await relay.control.wait_for(Release)
        claims = [m for m in relay.control.received if isinstance(m, Claim)]
    assert (event.analysis, event.camera, event.kind) == ("a-1", "camera-1", "motion")
    assert event.started_at > 1_600_000_000_000_000
    assert all(0 <= coordinate <= 1 for point in event.region for coordinate in point)
    assert state.error is None
    assert len(claims) == 1


async def test_an_analysis_of_a_camera_that_is_refused_says_so(tmp_path):
    async with running_relay(tmp_path) as relay:
        relay.control.send(start(camera="nobody"))
        assert (await relay.control.wait_for(AnalysisState)).error == "not_found"


async def test_without_a_lease_analyses_stop_and_control_starts_them_again(tmp_path):
    cameras = SupervisorSettings(idle_seconds=0.05)
    async with running_relay(tmp_path, cameras=cameras, lease_seconds=1.0) as relay:
        relay.control.ticket(1)
        relay.control.send(start())
        await relay.control.wait_for(Claim)
        relay.control.received.clear()
        relay.control.leases = False
        await relay.control.wait_for(Hello)
        relay.control.leases = True
        await relay.until_ready()
        relay.control.send(start())
        await relay.control.wait_for(Claim)


async def test_the_process_dies_and_pictures_go_on(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        relay.control.ticket(1)
        url = relay.url("/api/v1/cameras/camera-1/snapshot?purpose=patrol")
        for _ in range(2):
            async with analysis_process(tmp_path), client.get(url, headers=GOOD) as answer:
                assert answer.status == 200
        assert await relay.control.wait_for(SessionOver)
