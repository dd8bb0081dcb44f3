"""Control: the one process with the database, the policy index, the ledger's key and the API.

The composition root: what `gateway.composition` builds is opened here in order and closed in reverse.
`python -m gateway.app` runs it, settings on stdin, ended by SIGTERM.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from gateway.child import announce_and_beat, read_settings
from gateway.clock import Clock, LedgerClock, system_clock
from gateway.clock_watch import ClockWatch
from gateway.composition import ControlSettings, build
from gateway.logs import configure_logs
from gateway.messages import Drain
from gateway.private_socket import private_socket
from gateway.purposes import insert_initial
from gateway.services import Services
from gateway.start_up import collector_resting
from gateway.store.errors import StoreError
from gateway.store.store import Store, StoreSettings
from gateway.undertakings import insert_first
from gateway.web import application
from gateway.workers import WorkerEvents

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 1.0
RESERVE_EVERY = 5
FORGET_EVENTS_EVERY = 3600
DRAIN_SECONDS = 3.0


class Control:
    """Build with `open`; then `services` are ready and the sockets listen until the context ends."""

    def __init__(self, services: Services) -> None:
        self.services = services

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        control: ControlSettings,
        wall: Clock = system_clock,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> AsyncIterator["Control"]:
        """Raises KeyFileError, RolesError, SettingsError, StoreError or OSError when it cannot be opened.

        The sockets are there before the policy is in memory, which takes its time in a large city: until
        then running pictures go on and the API answers `starting`. A failure of that comes in a group.
        """
        run_folder = Path(control.run_folder)
        async with contextlib.AsyncExitStack() as stack:
            clock = LedgerClock(wall, monotonic_ns)
            store = await stack.enter_async_context(
                Store.open(
                    _store_settings(control),
                    clock=clock.micros,
                    on_head=lambda signed: clock.not_before(signed.head.signed_at),
                )
            )
            await insert_initial(store)
            await insert_first(store)
            events = WorkerEvents()
            services, load = await build(control, store, events, clock)
            await stack.enter_async_context(_listening(services, run_folder, control.portal))
            background = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [
                background.create_task(services.live.run()),
                background.create_task(services.ledger_watch.run()),
                background.create_task(ClockWatch(store, clock).run()),
                background.create_task(_keep_house(services)),
                background.create_task(services.deliveries.run()),
                background.create_task(services.import_news.run()),
                background.create_task(services.authentication.failures.run()),
            ]
            await stack.enter_async_context(services.workers.serve(run_folder / "control.sock"))
            try:
                await load()
                tasks.append(background.create_task(services.patrol.run()))
                yield cls(services)
            finally:
                await _drain(services)
                with contextlib.suppress(StoreError):  # the log has them
                    await services.authentication.failures.flush()
                for task in tasks:
                    task.cancel()


@contextlib.asynccontextmanager
async def _listening(services: Services, run_folder: Path, portal: str | None) -> AsyncIterator[None]:
    """The API on a Unix socket that only this user may open: relay workers are its only clients."""
    app = application(services, Path(portal) if portal else None)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    async with private_socket(run_folder / "control-http.sock") as name:
        await web.UnixSite(runner, name).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _keep_house(services: Services) -> None:
    """Once a second: write what ended; at times: reserve what is measured, forget old events.

    A failing store is tried again.
    """
    rounds = 0
    while True:
        try:
            await services.analyses.settle()
            await services.duties.settle()
            if rounds % RESERVE_EVERY == 0:
                await services.reservations.settle()
            if rounds % FORGET_EVENTS_EVERY == 0:
                await services.events.forget_old()
                await services.retention.apply()
        except StoreError as error:
            log.error("housekeeping_failed", code=error.code)
        rounds += 1
        await asyncio.sleep(HOUSEKEEPING_SECONDS)


async def _drain(services: Services) -> None:
    """Workers stop first and have reported; whatever is left is told, and its end recorded."""
    services.waiting.close()
    for worker in services.workers.numbers():
        services.workers.send(worker, Drain(reason="draining"))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await services.live.drain()


def _store_settings(control: ControlSettings) -> StoreSettings:
    settings = control.settings
    return StoreSettings(
        data_folder=Path(settings.data),
        url=control.database_url,
        publish_seconds=settings.ledger.publish_seconds,
        publish_records=settings.ledger.publish_records,
    )


async def run(control: ControlSettings, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM; one that comes while the policy is read ends the reading."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    start = asyncio.timeout(None)

    def give_up() -> None:
        stopping.set()
        start.reschedule(loop.time())

    async with contextlib.AsyncExitStack() as stack:
        try:
            async with start:
                loop.add_signal_handler(signal.SIGTERM, give_up)
                with collector_resting():
                    await stack.enter_async_context(Control.open(control))
                loop.add_signal_handler(signal.SIGTERM, stopping.set)
        except TimeoutError:
            if not start.expired():
                raise
            return
        on_ready()
        await stopping.wait()


def main() -> None:
    control = read_settings(ControlSettings)
    configure_logs(control.settings.log.format, control.settings.log.level, "control")
    uvloop.run(run(control, announce_and_beat))


if __name__ == "__main__":
    main()
