"""HLS and MJPEG of a node of two workers: connections land anywhere, a revocation reaches all addresses."""

import asyncio
import contextlib
import io
from itertools import pairwise

import aiohttp
import av
import pytest
from support.hls_playlists import parse_playlist
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras

pytestmark = pytest.mark.slow


@pytest.fixture
async def city(tmp_path):
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(tmp_path, config="workers: 2\n") as node,
    ):
        await furnish(node, cameras)
        await grant(node, "urban-operator", "north")
        yield node


def pictures(url, count):
    """The times of so many pictures, in seconds, that FFmpeg's HLS player shows."""
    with av.open(url, timeout=15) as container:
        times = []
        for frame in container.decode(container.streams.video[0]):
            times.append(float(frame.time))
            if len(times) == count:
                break
    return times


async def test_hls_works_whichever_worker_the_connections_reach(city):
    """One node for both: its start takes longer than the tests."""
    session = await city.watch("urban-operator", "north")
    times = await asyncio.to_thread(pictures, session["media"]["hls"], 60)
    assert len(times) == 60
    assert {round(after - before, 3) for before, after in pairwise(times)} == {0.04}
    await _answer_every_connection_until_the_end(city)
    await _show_the_same_camera_to_an_old_wall(city)


async def _answer_every_connection_until_the_end(city):
    session = await city.watch("urban-operator", "north")
    # a connection for each request: they land on either worker
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
        async with client.get(session["media"]["hls"]) as answer:
            assert answer.status == 200
            base = f"{city.url}/media/{session['id']}/{(await answer.text()).splitlines()[3]}"
        number = part = None
        for _ in range(12):
            query = "" if number is None else f"?_HLS_msn={number}&_HLS_part={part}"
            async with client.get(base + query) as answer:
                assert answer.status == 200
                playlist = parse_playlist(await answer.text())
            number, part = playlist.next_part
        folder = base.rpartition("/")[0]
        segment = playlist.segments[-1]
        bodies = set()
        for _ in range(8):
            async with client.get(f"{folder}/{segment.uri}") as answer:
                assert answer.status == 200
                bodies.add(await answer.read())
        assert len(bodies) == 1
        running = (await city.call("urban-operator", "GET", "/sessions"))["items"]
        assert (session["id"], "hls", True) in [
            (s["id"], s["protocol"], s["bytes_sent"] > 0) for s in running
        ]
        await city.call("urban-operator", "DELETE", f"/sessions/{session['id']}")
        statuses = [200]
        async with asyncio.timeout(30):
            while 200 in statuses:
                statuses = []
                for name in ("live.m3u8", segment.uri, segment.map, segment.parts[0].uri):
                    async with client.get(f"{folder}/{name}") as answer:
                        statuses.append(answer.status)
        assert statuses == [410] * 4
    log = city.log.read_text()
    assert folder.rpartition("/")[2] not in log
    assert session["media"]["ticket"] not in log


async def _show_the_same_camera_to_an_old_wall(city):
    session = await city.watch("urban-operator", "north")
    async with city.http.get(session["media"]["mjpeg"] + "&fps=2&width=160") as answer:
        assert answer.status == 200
        parts = aiohttp.MultipartReader.from_response(answer)
        for _ in range(2):
            jpeg = await (await parts.next()).read()
            with av.open(io.BytesIO(bytes(jpeg))) as image:
                (frame,) = image.decode(video=0)
            assert (frame.width, frame.height) == (160, 120)
        await city.call("urban-operator", "DELETE", f"/sessions/{session['id']}")
        async with asyncio.timeout(5):
            with contextlib.suppress(aiohttp.ClientError):
                while await answer.content.readany():
                    pass
