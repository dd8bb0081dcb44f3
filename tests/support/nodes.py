"""A whole node for end-to-end tests: `custos serve` in processes of its own, with simulated cameras."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
from support.units import FRAME_TICKS, encode_clip

from streams.media import TIME_BASE_HZ, Codec
from streams.simulator.camera import SimulatedCamera, serve_cameras

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a-long-enough-password"
CAMERA_PASSWORD = "camera-canary-7f3a"


class PacedProducer:
    """A clip, again and again, 25 pictures a second."""

    def __init__(self, codec=Codec.H264, **clip):
        self.track, self.units = encode_clip(codec, **clip)

    async def open(self):
        loop = asyncio.get_running_loop()
        started = loop.time()
        sent = 0
        while True:
            for unit in self.units:
                await asyncio.sleep(started + sent / 25 - loop.time())
                ticks = TIME_BASE_HZ + sent * FRAME_TICKS
                yield msgspec.structs.replace(unit, pts=ticks, dts=ticks)
                sent += 1


@dataclass
class Node:
    """A running node. `call` speaks to its API as somebody who has logged in."""

    url: str
    folder: Path
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    log: Path
    tokens: dict[str, str] = field(default_factory=dict)

    async def login(self, username, password=PASSWORD):
        answer = await self.call(None, "POST", "/login", {"username": username, "password": password})
        self.tokens[username] = answer["token"]
        if answer["user"]["kind"] == "person":
            version = (await self.call(username, "GET", "/undertaking"))["version"]
            await self.call(username, "POST", "/undertaking/accept", {"version": version})
        return answer

    async def call(self, username, method, path, body=None, expect=None):
        """The JSON answer; `expect` is the status (any success without it)."""
        headers = {"Authorization": f"Bearer {self.tokens[username]}"} if username else {}
        async with self.http.request(
            method, f"{self.url}/api/v1{path}", json=body, headers=headers
        ) as answer:
            text = await answer.text()
            if expect is None:
                assert answer.status < 400, (method, path, answer.status, text)
            else:
                assert answer.status == expect, (method, path, answer.status, text)
            is_json = answer.content_type in {"application/json", "application/problem+json"}
            return json.loads(text) if is_json else text

    async def watch(self, username, camera, purpose="patrol", **more):
        body = {"camera": camera, "purpose": {"code": purpose, "reference": "roster"}, **more}
        return await self.call(username, "POST", "/sessions", body)

    async def stop(self):
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


async def run_cli(*arguments, stdin=b""):
    """`custos ...` to its end: (exit code, stdout, stderr)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running_node(folder: Path, *, bootstrap=True, config="", environment=None):
    """Start a node on a free port with an administrator `root`; end it at the end of the block."""
    path = folder / "custos.yaml"
    path.write_text(
        f"data: {folder / 'data'}\npolicies: {ROOT / 'config' / 'policies.yaml'}\n"
        f"http: {{port: 0}}\nrtsp_server: {{port: 0}}\n"
        f"egress: {{allowed_networks: [127.0.0.0/8]}}\npasswords: {{memory_kib: 1024, passes: 1}}\n"
        f"login: {{second_factor: nobody}}\n{config}"
    )
    if bootstrap:
        arguments = (
            "user",
            "bootstrap",
            "root",
            "--department",
            "City",
            "--config",
            str(path),
            "--password-stdin",
        )
        code, _, error = await run_cli(*arguments, stdin=PASSWORD.encode() + b"\n")
        assert code == 0, error
    log = folder / "node.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(path), cwd=ROOT,
            stdout=output, stderr=output, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        url = await _address(log, process)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            yield Node(url, folder, process, http, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(20):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _address(log, process):
    marker = "listening on "
    async with asyncio.timeout(60):
        while process.returncode is None:
            for line in log.read_text().splitlines():
                if line.startswith(marker):
                    return line.removeprefix(marker).strip()
            await asyncio.sleep(0.05)
    raise AssertionError(log.read_text())


@asynccontextmanager
async def simulated_cameras(**producers):
    """An RTSP server with one camera per name, digest login `custos` and `CAMERA_PASSWORD`."""
    cameras = [
        SimulatedCamera(name=name, producer=producer, username="custos", password=CAMERA_PASSWORD)
        for name, producer in producers.items()
    ]
    async with serve_cameras(cameras) as server:
        yield server


_PARTICULARS = {
    "processing": "counts vehicles 车流统计", "recipients": ["urban"], "result_days": 30,
    "networks": ["127.0.0.0/8"],
}  # fmt: skip


async def furnish(node, server):
    """Two departments, their administrators and operators, and the server's cameras, all of `traffic`."""
    root = (await node.login("root"))["user"]["department"]["id"]
    for department in ("traffic", "urban"):
        await node.call(
            "root", "POST", "/departments", {"id": department, "name": department, "parent_id": root}
        )
    for username, department, role in (
        ("traffic-admin", "traffic", "department-administrator"),
        ("urban-operator", "urban", "operator"),
        ("traffic-operator", "traffic", "operator"),
        ("auditor", root, "auditor"),
        ("job", "urban", "job"),
    ):
        body = {
            "id": username, "username": username, "display_name": f"{username} 姓名", "password": PASSWORD,
            "department_id": department, "roles": [role],
        }  # fmt: skip
        if role == "job":
            del body["password"]
            body |= {"kind": "job", "job": {**_PARTICULARS, "responsible_id": "urban-operator"}}
        created = await node.call("root", "POST", "/users", body)
        await node.login(username, created["password"] or PASSWORD)
    for name in server.cameras:
        body = {
            "id": name, "name": f"{name} 摄像机", "department_id": "traffic", "url": server.url(name),
            "username": "custos", "password": CAMERA_PASSWORD,
        }  # fmt: skip
        await node.call("traffic-admin", "POST", "/cameras", body)


async def grant(node, user, camera, *actions, **more):
    """`traffic-admin` grants; returns the grant's id."""
    body = {
        "subject": {"kind": "user", "id": user},
        "object": {"kind": "camera", "id": camera},
        "actions": list(actions or ("live:view",)),
        **more,
    }
    return (await node.call("traffic-admin", "POST", "/grants", body))["id"]
