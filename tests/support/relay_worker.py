"""A relay worker in this process, on a free port, with a fake control and clips for cameras."""

import asyncio
import contextlib
from dataclasses import dataclass

from support.clip_source import ClipSource
from support.fake_control import FakeControl

from gateway.relay.settings import RelaySettings
from gateway.relay.viewer import ViewerSettings
from gateway.relay.worker import RelayWorker


@dataclass
class RunningRelay:
    control: FakeControl
    worker: RelayWorker
    port: int
    stopped: asyncio.Task[None]

    async def until_ready(self) -> None:
        async with asyncio.timeout(5):
            while not self.worker.is_ready:
                await asyncio.sleep(0.005)

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def media(self, session: tuple[str, str], form: str, scheme: str = "http") -> str:
        session_id, ticket = session
        return self.url(f"/media/{session_id}/{form}?ticket={ticket}", scheme)


@contextlib.asynccontextmanager
async def running_relay(folder, *, source=ClipSource, runner=None, **settings):
    """`source` makes each camera's source, `runner` replaces the analysis; `settings`: `RelaySettings`."""
    control = FakeControl(folder)
    settings.setdefault("viewer", ViewerSettings(first_picture_seconds=2.0))
    relay_settings = RelaySettings(
        **{"worker": 0, "host": "127.0.0.1", "port": 0, "run_folder": str(folder), "usage_seconds": 0.05}
        | settings
    )
    worker = RelayWorker(relay_settings, lambda _address: source(), runner)
    ready = asyncio.get_running_loop().create_future()
    async with control.serve(), asyncio.TaskGroup() as tasks:
        stopped = tasks.create_task(worker.run(ready.set_result))
        relay = RunningRelay(control, worker, await ready, stopped)
        await relay.until_ready()
        try:
            yield relay
        finally:
            worker.stop()
