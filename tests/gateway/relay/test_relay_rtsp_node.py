"""RTSP through a whole node: real control, two workers, a simulated camera, FFmpeg and a client by hand."""

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

import av
import pytest
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras
from support.rtsp_viewer import RtspClient

pytestmark = pytest.mark.slow


@pytest.fixture
async def node(tmp_path):
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(tmp_path, config="workers: 2\n") as node,
    ):
        await furnish(node, cameras)
        yield node


def play(url, pictures, **options):
    with av.open(url, timeout=15, options=options) as container:
        for number, _ in enumerate(container.decode(video=0), start=1):
            if number == pictures:
                return True
    return False


async def last_packet(client):
    """When the last RTP packet came."""
    came = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while True:
            await client.event()
            if client.packets and client.packets[-1].channel == 0:
                came = time.monotonic()
    return came


async def active(node):
    sessions = (await node.call("traffic-admin", "GET", "/sessions"))["items"]
    return [session for session in sessions if session["state"] == "active"]


async def test_rtsp_viewers_are_sessions_like_any(node):
    grant_id = await grant(node, "urban-operator", "north")
    for transport in ("tcp", "udp"):
        session = await node.watch("urban-operator", "north")
        url = session["media"]["rtsp"]
        assert await asyncio.to_thread(play, url, 10, rtsp_transport=transport)
        with pytest.raises(av.FFmpegError):
            await asyncio.to_thread(play, url, 1, rtsp_transport=transport)
    session = await node.watch("urban-operator", "north")
    address = urlsplit(session["media"]["rtsp"])
    login = f"rtsp://{session['id']}:{session['media']['ticket']}@{address.netloc}{address.path}"
    assert await asyncio.to_thread(play, login, 10, rtsp_transport="tcp")
    session = await node.watch("urban-operator", "north")
    url = session["media"]["rtsp"]
    async with RtspClient.connected(urlsplit(url).port) as client, asyncio.TaskGroup() as tasks:
        await client.play(url)
        reading = tasks.create_task(last_packet(client))
        async with asyncio.timeout(10):
            while not any(s["id"] == session["id"] and s["bytes_sent"] for s in await active(node)):
                await asyncio.sleep(0.05)
        await node.call("traffic-admin", "DELETE", f"/grants/{grant_id}?reason=test")
        decided = time.monotonic()
    assert reading.result() - decided < 1.0
    log = node.log.read_text()
    assert session["media"]["ticket"] not in log
