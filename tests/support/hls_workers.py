"""Several relay workers of one node in this process, each on a port of its own, with one fake control."""

import asyncio
import contextlib

from support.clip_source import ClipSource
from support.fake_control import FakeControl
from support.relay_worker import RunningRelay

from gateway.relay.settings import RelaySettings
from gateway.relay.worker import RelayWorker


@contextlib.asynccontextmanager
async def running_workers(folder, count, **settings):
    """Yields `RunningRelay`s. Their control pushes to the last that connected only."""
    control = FakeControl(folder)
    async with control.serve(), asyncio.TaskGroup() as tasks:
        relays = []
        for number in range(count):
            relay_settings = RelaySettings(
                worker=number,
                workers=count,
                host="127.0.0.1",
                port=0,
                run_folder=str(folder),
                usage_seconds=0.05,
                **settings,
            )
            worker = RelayWorker(relay_settings, lambda _address: ClipSource())
            ready = asyncio.get_running_loop().create_future()
            stopped = tasks.create_task(worker.run(ready.set_result))
            relays.append(RunningRelay(control, worker, await ready, stopped))
            await relays[-1].until_ready()
        try:
            yield relays
        finally:
            for relay in relays:
                relay.worker.stop()
