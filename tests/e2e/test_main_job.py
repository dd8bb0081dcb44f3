"""The main job, end to end: real processes, real cameras over RTSP, FFmpeg as the viewer."""

import asyncio
import json
import sqlite3
import time

import av
import pytest
from support.nodes import (
    CAMERA_PASSWORD,
    PASSWORD,
    PacedProducer,
    furnish,
    grant,
    run_cli,
    running_node,
    simulated_cameras,
)

from streams.media import Codec

pytestmark = pytest.mark.slow


@pytest.fixture
async def city(tmp_path):
    """A furnished node with one H.264 and one H.265 camera."""
    async with (
        simulated_cameras(north=PacedProducer(), south=PacedProducer(Codec.H265)) as cameras,
        running_node(tmp_path) as node,
    ):
        await furnish(node, cameras)
        yield node, cameras


def probe(url, pictures=10):
    """What FFmpeg sees: codec, size, and the PTS of some decoded pictures in seconds."""
    with av.open(url, timeout=15) as container:
        stream = container.streams.video[0]
        seen = []
        for frame in container.decode(stream):
            seen.append(float(frame.time))
            if len(seen) == pictures:
                return stream.codec_context.name, (frame.width, frame.height), seen
    raise AssertionError(f"only {len(seen)} pictures")


async def test_ffmpeg_plays_what_was_granted(city):
    node, _ = city
    await grant(node, "urban-operator", "north")
    await grant(node, "urban-operator", "south")
    for camera, container, codec in (
        ("north", "flv", "h264"),
        ("north", "fmp4", "h264"),
        ("south", "flv", "hevc"),
        ("south", "fmp4", "hevc"),
    ):
        session = await node.watch("urban-operator", camera)
        name, size, times = await asyncio.to_thread(probe, session["media"][container])
        assert name == codec
        assert size == (320, 240)
        assert times == sorted(times)


async def test_without_a_grant_a_purpose_or_a_ticket_there_is_no_picture(city):
    node, _ = city
    forbidden = await node.call(
        "urban-operator",
        "POST",
        "/sessions",
        {"camera": "north", "purpose": {"code": "patrol", "reference": "roster"}},
        expect=403,
    )
    assert (forbidden["code"], forbidden["reason"]) == ("access_denied", "no_matching_grant")
    await grant(node, "urban-operator", "north")
    missing = await node.call("urban-operator", "POST", "/sessions", {"camera": "north"}, expect=422)
    assert missing["code"] == "purpose_required"
    session = await node.watch("urban-operator", "north")
    address = session["media"]["flv"]
    bare = address.partition("?")[0]
    for url, status in ((bare, 401), (f"{bare}?ticket=wrong", 403)):
        async with node.http.get(url) as answer:
            assert answer.status == status
    async with node.http.get(address) as first:
        assert first.status == 200
        assert (await first.content.readexactly(3)) == b"FLV"
        async with node.http.get(address) as second:
            assert second.status == 403


async def test_one_camera_connection_serves_all_viewers(city):
    node, cameras = city
    await grant(node, "urban-operator", "north")
    async with asyncio.TaskGroup() as viewers:
        for _ in range(4):
            session = await node.watch("urban-operator", "north")
            viewers.create_task(asyncio.to_thread(probe, session["media"]["flv"]))
    assert cameras.requests["PLAY"] == 1


async def last_byte(node, url):
    """Read a stream to its end; when the last byte came."""
    arrived = time.monotonic()
    async with node.http.get(url) as answer:
        try:
            async for _ in answer.content.iter_any():
                arrived = time.monotonic()
        except (ConnectionError, OSError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            if type(error).__name__ != "ClientPayloadError":
                raise
    return arrived


@pytest.mark.parametrize("cause", ["grant deleted", "user disabled", "camera deleted"])
async def test_running_pictures_end_within_a_second(city, cause):
    node, _ = city
    grant_id = await grant(node, "urban-operator", "north")
    session = await node.watch("urban-operator", "north")
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(last_byte(node, session["media"]["flv"]))
        while not any(s["state"] == "active" and s["bytes_sent"] for s in await _sessions(node)):
            await asyncio.sleep(0.05)
        if cause == "grant deleted":
            await node.call("traffic-admin", "DELETE", f"/grants/{grant_id}?reason=test")
        elif cause == "user disabled":
            await node.call("root", "PATCH", "/users/urban-operator", {"enabled": False})
        else:
            await node.call("traffic-admin", "DELETE", "/cameras/north")
        decided = time.monotonic()
    assert reading.result() - decided < 1.0


async def _sessions(node):
    return (await node.call("traffic-admin", "GET", "/sessions"))["items"]


async def test_the_ledger_proves_who_looked_and_an_alteration_is_found(city, tmp_path):
    node, _ = city
    await grant(node, "urban-operator", "north")
    session = await node.watch("urban-operator", "north")
    await asyncio.to_thread(probe, session["media"]["flv"])
    await node.call(
        "urban-operator",
        "POST",
        "/sessions",
        {"camera": "south", "purpose": {"code": "patrol", "reference": "roster"}},
        expect=403,
    )
    records = await _records_of(node, session["id"])
    assert [record["kind"] for record in records] == ["session_start", "session_end"]
    for record in records:
        assert record["unit_name"] == "urban"
        assert record["actor_name"] == "urban-operator 姓名"
        assert record["purpose_code"] == "patrol"
    assert records[1]["detail"]["bytes_sent"] > 1000

    data = tmp_path / "data"
    export = tmp_path / "ledger.jsonl"
    export.write_text(await node.call("auditor", "GET", "/audit/export?purpose=audit"))
    head = tmp_path / "head.jsonl"
    key = (data / "ledger.pub").read_text().strip()
    await node.stop()
    heads = (data / "heads.jsonl").read_text().splitlines()
    head.write_text(heads[-1] + "\n")

    assert (await run_cli("audit", "verify", "--data", str(data)))[0] == 3
    assert (await run_cli("audit", "verify", "--data", str(data), "--head", str(head)))[0] == 0
    assert (await run_cli("audit", "verify", "--export", str(export), "--key", key))[0] == 3
    with sqlite3.connect(data / "custos.db") as database:
        database.execute(
            "UPDATE audit_records SET actor_name = 'nobody' WHERE session_id = ?", (session["id"],)
        )
    code, out, _ = await run_cli("audit", "verify", "--data", str(data), "--head", str(head))
    assert code == 1, out


async def _records_of(node, session_id):
    async with asyncio.timeout(10):
        while True:
            page = await node.call("auditor", "GET", f"/audit/records?purpose=audit&session={session_id}")
            if any(item["record"]["kind"] == "session_end" for item in page["items"]):
                return [item["record"] for item in reversed(page["items"])]
            # the slot of the lost connection is kept for a while
            await node.call("urban-operator", "DELETE", f"/sessions/{session_id}", expect=None) if any(
                s["id"] == session_id for s in await _sessions(node)
            ) else None
            await asyncio.sleep(0.1)


async def test_sigterm_ends_sessions_with_a_record_and_leaves_no_process(city, tmp_path):
    node, _ = city
    await grant(node, "urban-operator", "north")
    session = await node.watch("urban-operator", "north")
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(last_byte(node, session["media"]["fmp4"]))
        while not any(s["state"] == "active" for s in await _sessions(node)):
            await asyncio.sleep(0.05)
        assert await node.stop() == 0
    assert reading.done()
    with sqlite3.connect(tmp_path / "data" / "custos.db") as database:
        reasons = database.execute(
            "SELECT end_reason FROM viewer_sessions WHERE id = ?", (session["id"],)
        ).fetchall()
    assert reasons == [("draining",)]


async def test_no_secret_is_in_logs_or_answers(city):
    node, _ = city
    await grant(node, "urban-operator", "north")
    session = await node.watch("urban-operator", "north")
    await asyncio.to_thread(probe, session["media"]["flv"])
    answer = await node.call("traffic-admin", "GET", "/cameras/north")
    await node.stop()
    log = node.log.read_text()
    for secret in (CAMERA_PASSWORD, PASSWORD, session["media"]["ticket"], *node.tokens.values()):
        assert secret not in log
        assert secret not in str(answer)
    raw = (node.folder / "data" / "custos.db").read_bytes()
    for secret in (CAMERA_PASSWORD, PASSWORD, session["media"]["ticket"], *node.tokens.values()):
        assert secret.encode() not in raw


async def test_a_new_camera_password_is_used_at_once_and_viewers_stay(tmp_path):
    async with simulated_cameras(north=PacedProducer()) as cameras, running_node(tmp_path) as node:
        await furnish(node, cameras)
        await grant(node, "urban-operator", "north")
        await node.call("traffic-admin", "PATCH", "/cameras/north", {"password": "wrong"})
        session = await node.watch("urban-operator", "north")
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(asyncio.to_thread(probe, session["media"]["flv"]))
            async with asyncio.timeout(10):
                while (await _status(node))["error"] != "source_refused":
                    await asyncio.sleep(0.05)
            await node.call("traffic-admin", "PATCH", "/cameras/north", {"password": CAMERA_PASSWORD})
        assert watching.result()[0] == "h264"


async def _status(node):
    return (await node.call("traffic-admin", "GET", "/cameras/north"))["camera"]["status"]


def record(url, path, pictures=60):
    """Save a stream as a viewer's player does: remuxed into MP4, not encoded again."""
    with av.open(url, timeout=15) as source, av.open(str(path), "w") as clip:
        stream = source.streams.video[0]
        copy = clip.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if number == pictures:
                break
            if packet.dts is not None:
                packet.stream = copy
                clip.mux(packet)


@pytest.mark.parametrize("camera", ["north", "south"])
async def test_a_leaked_recording_names_its_session(city, tmp_path, camera):
    node, _ = city
    await grant(node, "urban-operator", camera)
    session = await node.watch("urban-operator", camera)
    await asyncio.to_thread(record, session["media"]["fmp4"], tmp_path / "leak.mp4")
    code, out, error = await run_cli(
        "trace", str(tmp_path / "leak.mp4"), "--data", str(tmp_path / "data"), "--json"
    )
    assert code == 0, error
    (found,) = map(json.loads, out.splitlines())
    assert found["session"] == session["id"]
    assert found["authentic"] == found["keyframes"] >= 2
    assert (found["viewer"], found["camera"]) == ("urban-operator 姓名", camera)
