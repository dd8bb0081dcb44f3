"""Merged writes through the whole worker: players take them as they take single ones."""

import asyncio
from itertools import pairwise

import aiohttp
import av
import pytest
from support.relay_worker import running_relay

from gateway.messages import Usage
from gateway.relay.viewer import ViewerSettings
from streams.hub import HubSettings

MERGED = HubSettings(merge_seconds=0.1, merge_above_load=0)
COUNT = 30


def play(url: str) -> list[int]:
    """The DTS of COUNT pictures, all of them decoded."""
    with av.open(url, timeout=10) as container:
        stream = container.streams.video[0]
        found, decoded = [], 0
        for packet in container.demux(stream):
            decoded += len(packet.decode())
            if decoded:
                found.append(packet.dts)
            if len(found) == COUNT:
                break
        assert decoded == COUNT
        return found


@pytest.mark.parametrize("form", ["live.flv", "live.mp4"])
async def test_ffmpeg_plays_what_was_merged(tmp_path, form):
    async with running_relay(tmp_path, hub=MERGED) as relay:
        dts = await asyncio.to_thread(play, relay.media(relay.control.ticket(1), form))
    steps = {later - earlier for earlier, later in pairwise(dts)}
    assert len(steps) == 1


async def test_a_websocket_message_is_a_whole_group(tmp_path):
    async with running_relay(tmp_path, hub=MERGED) as relay, aiohttp.ClientSession() as client:
        async with client.ws_connect(relay.media(relay.control.ticket(1), "ws")) as viewer:
            assert (await viewer.receive_json())["type"] == "media"
            await viewer.receive_bytes()
            pictures = 1
            async with asyncio.timeout(10):
                while pictures == 1:
                    boxes = boxes_of(await viewer.receive_bytes())
                    pictures = len(boxes) // 2
                    assert boxes == [b"moof", b"mdat"] * pictures


def boxes_of(data: bytes) -> list[bytes]:
    kinds = []
    while data:
        kinds.append(data[4:8])
        data = data[int.from_bytes(data[:4]) :]
    return kinds


async def test_control_is_told_a_cameras_fault_and_losses(tmp_path):
    class Losing:
        lost_packets = 7

        async def run(self, publisher):
            await asyncio.Event().wait()

    impatient = ViewerSettings(first_picture_seconds=0.5)
    async with (
        running_relay(tmp_path, source=Losing, viewer=impatient) as relay,
        aiohttp.ClientSession() as client,
    ):
        session = relay.control.ticket(1)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(client.get(relay.media(session, "live.flv")))
            usage = await relay.control.wait_for(Usage, lambda message: bool(message.cameras))
            (await asking).close()
    assert [(camera.lost_packets, camera.fault) for camera in usage.cameras] == [(7, None)]
