"""The real process: `python -m gateway.relay` on uvloop, a simulated RTSP camera, FFmpeg as viewer."""

import asyncio
from pathlib import Path

import aiohttp
import av
import msgspec
import pytest
from support.fake_control import FakeControl
from support.rtsp_cameras import ClipProducer

from gateway.messages import Hello, Usage
from gateway.relay.ingest import IngestSettings
from gateway.relay.settings import RelaySettings
from gateway.supervisor import NodeSupervisor, SupervisorSettings, relay_child, reserve_port
from streams.media import Codec
from streams.simulator.camera import SimulatedCamera, serve_cameras
from streams.sources.source import CameraAddress

ROOT = Path(__file__).parents[3]
PASSWORD = "canary-password"


def count_pictures(url, count):
    with av.open(url, timeout=10) as container:
        for number, _ in enumerate(container.decode(video=0), 1):
            if number == count:
                return number
    return 0


def what_others_see(pid):
    try:
        return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    except FileNotFoundError:
        return b""


@pytest.mark.slow
async def test_the_worker_as_a_process(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    control = FakeControl(tmp_path)
    camera = SimulatedCamera(
        name="gate", producer=ClipProducer(Codec.H264), username="viewer", password=PASSWORD
    )
    with reserve_port("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        settings = RelaySettings(
            worker=3,
            host="127.0.0.1",
            port=port,
            run_folder=str(tmp_path),
            ingest=IngestSettings(allowed_networks=("127.0.0.0/8",)),
        )
        supervisor = NodeSupervisor(
            [relay_child(3, msgspec.json.encode(settings))], SupervisorSettings(data_folder=tmp_path)
        )
        async with control.serve(), serve_cameras([camera]) as cameras, asyncio.TaskGroup() as tasks:
            control.addresses["gate"] = CameraAddress(
                url=cameras.url("gate"), username="viewer", password=PASSWORD
            )
            ready = asyncio.Event()
            running = tasks.create_task(supervisor.run(ready.set))
            hello = await control.wait_for(Hello)
            await ready.wait()
            assert hello.worker == 3
            url = f"http://127.0.0.1:{port}/media/{{}}/live.{{}}?ticket={{}}"
            for number, form in enumerate(("flv", "mp4")):
                session, ticket = control.ticket(number, "gate")
                assert await asyncio.to_thread(count_pictures, url.format(session, form, ticket), 20) == 20
            session, ticket = control.ticket(9, "gate")
            async with (
                aiohttp.ClientSession() as client,
                client.get(url.format(session, "flv", ticket)) as answer,
            ):
                await answer.content.readexactly(1000)
                await control.wait_for(
                    Usage, lambda m: any(s.session == session and s.bytes_sent > 0 for s in m.sessions)
                )
                assert PASSWORD.encode() not in what_others_see(hello.pid)
                supervisor.stop()
                await running
            assert (await control.over(session)).reason == "draining"
            assert cameras.playing["gate"] == 0
    assert not what_others_see(hello.pid)
