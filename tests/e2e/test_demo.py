"""`custos demo`: what it prints, what it keeps, how it ends; motion becomes an event; a job reads frames."""

import asyncio
import json
import shutil
import signal
import subprocess
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
from support.demos import interrupt, start_demo

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]


async def logged_in(demo, username):
    """A client of the API as somebody of the demonstration."""
    http = aiohttp.ClientSession(demo.url, timeout=aiohttp.ClientTimeout(total=60))
    body = {"username": username, "password": demo.accounts[username][0]}
    async with http.post("/api/v1/login", json=body) as answer:
        assert answer.status == 200
        http.headers["Authorization"] = f"Bearer {(await answer.json())['token']}"
    return http


def processes_of(folder):
    """Command lines of processes that mention the folder, or work for a node on it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def ignores_interrupts(process):
    status = Path("/proc", process, "status").read_text()
    ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    return bool(ignored >> (signal.SIGINT - 1) & 1)


def test_it_says_where_it_is_and_who_may_log_in(demo):
    assert demo.url.startswith("http://127.0.0.1:")
    roles = sorted(role for _, role, _ in demo.accounts.values())
    assert roles == sorted(
        ["system-administrator", "department-administrator", "department-administrator"]
        + ["operator", "operator", "security-administrator", "auditor", "job"]
    )
    assert len({password for password, _, _ in demo.accounts.values()}) == len(demo.accounts)
    assert len(demo.cameras) >= 6
    assert len({camera["department"] for camera in demo.cameras}) >= 3
    operators = [department for _, role, department in demo.accounts.values() if role == "operator"]
    assert len(set(operators)) == 2
    assert demo.public_key == (demo.folder / "ledger.pub").read_text().strip()


def test_a_clip_has_its_ground_truth_beside_it(demo):
    clips = sorted((demo.folder / "clips").glob("*.mp4"))
    assert len(clips) >= 6
    for clip in clips:
        assert json.loads(clip.with_suffix(".json").read_text())["pictures"]


@pytest.mark.parametrize("username", ["traffic-operator", "urban-operator"])
async def test_operators_see_some_of_the_other_departments_cameras_not_all(demo, username):
    async with await logged_in(demo, username) as http, http.get("/api/v1/cameras") as answer:
        visible = {(c["id"], c["department"]["name"]) for c in (await answer.json())["items"]}
    own = demo.accounts[username][2]
    foreign = {camera for camera, department in visible if department != own}
    assert foreign
    assert len(visible) < len(demo.cameras)


async def test_motion_becomes_an_event(demo):
    async with await logged_in(demo, "analysis-job") as http:
        async with asyncio.timeout(60):
            while True:
                async with http.get("/api/v1/events") as answer:
                    events = (await answer.json())["items"]
                if events:
                    break
                await asyncio.sleep(0.5)
        event = events[0]
        assert event["kind"] == "motion"
        assert event["camera"] in {"crossroads-day", "market"}
        assert len(event["region"]) >= 3
        assert all(0 <= value <= 1 for point in event["region"] for value in point)
        async with http.get("/api/v1/events?camera=highway") as answer:
            assert (await answer.json())["items"] == []


async def test_events_are_streamed_to_who_may_see_the_camera(demo):
    async with await logged_in(demo, "urban-operator") as http, http.get("/api/v1/events/stream") as answer:
        assert answer.content_type == "text/event-stream"
        async with asyncio.timeout(60):
            async for line in answer.content:
                if line.startswith(b"data: "):
                    break
        assert json.loads(line.removeprefix(b"data: "))["kind"] == "motion"


async def test_a_job_reads_sampled_frames_of_what_it_was_granted(demo):
    async with await logged_in(demo, "analysis-job") as http:
        url = "/api/v1/frames/market?every=1&width=320&purpose=analysis"
        async with http.ws_connect(url) as socket:
            header = await socket.receive_json(timeout=30)
            picture = await socket.receive_bytes(timeout=30)
        assert {"seq", "pts", "age_ms", "dropped_since_last", "achieved_period"} <= set(header)
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (180, 320, 3)
        async with http.get("/api/v1/frames/highway?every=1&purpose=analysis") as refused:
            assert refused.status == 403


async def test_a_snapshot_is_a_use_like_any_other(demo):
    async with await logged_in(demo, "urban-operator") as http:
        async with http.get("/api/v1/cameras/market/snapshot?purpose=patrol&reference=roster") as answer:
            assert answer.status == 200
            assert answer.content_type == "image/jpeg"
            assert cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR) is not None
        async with http.get("/api/v1/cameras/market/snapshot") as answer:
            assert answer.status == 422
        async with http.get("/api/v1/cameras/highway/snapshot?purpose=patrol&reference=roster") as answer:
            assert answer.status == 403
    async with await logged_in(demo, "auditor") as http:
        async with http.get("/api/v1/audit/records?purpose=audit&camera=market&kind=session_end") as answer:
            records = [item["record"] for item in (await answer.json())["items"]]
    assert any(r["action"] == "live:snapshot" and r["reason"] == "completed" for r in records)


async def test_administrators_see_no_picture_without_a_grant(demo):
    for username in ("admin", "auditor"):
        async with await logged_in(demo, username) as http:
            body = {"camera": "market", "purpose": {"code": "patrol", "reference": "roster"}}
            async with http.post("/api/v1/sessions", json=body) as answer:
                assert answer.status == 403, username


def test_a_second_start_keeps_everything_and_ctrl_c_leaves_nothing(demo, tmp_path):
    folder = tmp_path / "again"
    folder.mkdir(mode=0o700)
    shutil.copytree(demo.folder / "clips", folder / "clips")
    first = start_demo(folder)
    assert all(password for password, _, _ in first.accounts.values())
    assert interrupt(first)[0] == 0
    assert processes_of(folder) == []
    second = start_demo(folder)
    assert {password for password, _, _ in second.accounts.values()} == {None}
    assert second.cameras == first.cameras
    assert second.public_key == first.public_key
    login = {"username": "auditor", "password": first.accounts["auditor"][0]}
    assert asyncio.run(_can_log_in(second.url, login))
    children = subprocess.run(
        ["pgrep", "-P", str(second.process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert len(children) >= 4
    for child in children:
        assert ignores_interrupts(child)
    assert interrupt(second)[0] == 0
    assert not any(Path("/proc", child).exists() for child in children)


async def _can_log_in(url, login):
    async with aiohttp.ClientSession(url) as http, http.post("/api/v1/login", json=login) as answer:
        return answer.status == 200
