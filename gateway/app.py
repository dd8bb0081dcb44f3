"""Control: the one process with the database, the policy index, the ledger's key and the API.

This module is the composition root: it builds every object, opens them in order and closes them in reverse.
`python -m gateway.app` runs it, settings on stdin, ended by SIGTERM.
"""

import asyncio
import contextlib
import ipaddress
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from gateway.access_review import AccessReview
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.analyses import Analyses
from gateway.audit.heads import HEADS_FILE
from gateway.audit.periods import Retention
from gateway.authentication import Authentication
from gateway.authzen import AuthZen
from gateway.camera_test import CameraTests
from gateway.catalogue import Catalogue
from gateway.catalogue_export import CatalogueExport
from gateway.catalogue_import import CatalogueImport
from gateway.catalogue_index import CatalogueIndex
from gateway.catalogue_trees import CatalogueTrees
from gateway.child import announce_ready, read_settings
from gateway.clock import Clock, LedgerClock, system_clock
from gateway.clock_watch import ClockWatch
from gateway.directory import Directory
from gateway.disputes import Disputes
from gateway.duty import Duties
from gateway.enforcement import Enforcement
from gateway.enrolment import Enrolment
from gateway.events import Events
from gateway.freeze import Freeze
from gateway.grants import Grants
from gateway.head_delivery import HeadDelivery
from gateway.keys import InstallationKeys
from gateway.ledger import Ledger
from gateway.ledger_watch import LedgerWatch
from gateway.live import LiveSessions
from gateway.login_failures import FailureKind, LoginFailures
from gateway.logs import configure_logs
from gateway.messages import SUB_STREAM, Drain, PublisherFailed, Redeem, Redeemed, Refused
from gateway.metrics import Metrics
from gateway.passwords import Passwords
from gateway.planned_cameras import Planner
from gateway.policy_feed import PolicyFeed
from gateway.policy_file_acceptance import PolicyFileAcceptance
from gateway.private_socket import private_socket
from gateway.problems import Problem
from gateway.public_ledger import PublicLedger
from gateway.purposes import Purposes, insert_initial
from gateway.rehearsal import Rehearsals
from gateway.roles import Roles
from gateway.sealed_facts import SealedFacts
from gateway.services import Services, WebSettings
from gateway.sessions import ViewerSessions
from gateway.settings import Settings, SettingsError
from gateway.standing import Standings
from gateway.start_up import StartUp, collector_resting
from gateway.store.errors import StoreError
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import read_revision
from gateway.thumbnails import Thumbnails
from gateway.tickets import Tickets
from gateway.undertakings import Undertakings, insert_first
from gateway.waiting import WaitingRoom
from gateway.web import application
from gateway.witnessed import witnessed_ahead
from gateway.workers import RelayWorkers, WorkerEvents
from policies.engine import PolicyEngine
from policies.roles import parse_roles
from streams.sources.egress import EgressSettings
from streams.sources.source import CameraAddress

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 1.0
FORGET_EVENTS_EVERY = 3600
DRAIN_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """`database_url` None: SQLite in the data folder. `portal` None: no built portal.

    `rtsp_port`: where the workers serve RTSP, None if they do not. `workers`: how many there will be.
    """

    settings: Settings
    run_folder: str
    workers: int = 1
    rtsp_port: int | None = None
    database_url: str | None = None
    portal: str | None = None


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
            services, load = await _build(control, store, events, clock)
            await stack.enter_async_context(_listening(services, run_folder, control.portal))
            background = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [
                background.create_task(services.live.run()),
                background.create_task(services.ledger_watch.run()),
                background.create_task(ClockWatch(store, clock).run()),
                background.create_task(_keep_house(services)),
                background.create_task(services.deliveries.run()),
                background.create_task(services.imports.run()),
                background.create_task(services.authentication.failures.run()),
            ]
            await stack.enter_async_context(services.workers.serve(run_folder / "control.sock"))
            try:
                await load()
                yield cls(services)
            finally:
                await _drain(services)
                with contextlib.suppress(StoreError):  # the log has them
                    await services.authentication.failures.flush()
                for task in tasks:
                    task.cancel()


async def _build(
    control: ControlSettings, store: Store, events: WorkerEvents, clock: Clock
) -> tuple[Services, Callable[[], Awaitable[None]]]:
    """The services, and what reads into them all that decisions and listings need."""
    settings = control.settings
    keys = InstallationKeys.open(Path(settings.data))
    policies_text = _read_text(settings.policies)
    known_roles = dict(parse_roles(policies_text))
    named = settings.admission.roles.keys() | settings.admission.priorities.roles.keys()
    for name in named - known_roles.keys():
        raise SettingsError(f"admission: {name}: {settings.policies} has no such role")
    engine = PolicyEngine(known_roles)
    feed = PolicyFeed(engine)
    async with store.read() as conn:
        start_up = StartUp(await read_revision(conn))
    enforcement = Enforcement(engine, known_roles, store, clock)
    roles = Roles(enforcement, feed, engine, known_roles)
    policy_file = PolicyFileAcceptance(store, enforcement, feed, engine, known_roles, policies_text)
    freeze = Freeze(
        store,
        enforcement,
        feed,
        Path(settings.data) / HEADS_FILE,
        partial(witnessed_ahead, store, settings.ledger.witnesses),
        clock,
    )
    workers = RelayWorkers(events, control.workers)
    passwords = Passwords(settings.passwords)
    live = LiveSessions(
        start_up, store, enforcement, workers, feed.causes, settings.sessions.lost_seconds, clock
    )
    feed.listeners.append(live.policy_changed)
    authentication = Authentication(store, passwords, keys, known_roles, settings.login, clock)
    authentication.ended_listeners.append(live.end_user)
    admission = Admission(settings.admission)
    waiting = WaitingRoom(settings.admission.waiting)
    live.listeners.append(waiting.session_over)
    sessions = ViewerSessions(
        store,
        enforcement,
        admission,
        waiting,
        live,
        workers,
        workers.bit_rate,
        settings.sessions,
        clock,
    )
    await sessions.load()
    happenings = Events(store, settings.events, clock)
    analyses = Analyses(store, enforcement, sessions, live, workers, happenings, settings.analyses)
    live.ending_listeners.append(analyses.session_ending)
    await analyses.load()
    purposes = Purposes(store, enforcement)
    undertakings = Undertakings(store, enforcement)
    await undertakings.load()
    duties = Duties(store, enforcement, authentication, undertakings, live, clock)
    index = CatalogueIndex(engine.ordinal)
    directory = Directory(store, enforcement, index)
    catalogue = Catalogue(
        enforcement,
        feed,
        index,
        keys,
        _egress(settings),
        _file_folder(settings),
        live.end_camera,
        workers.camera_moved,
    )
    imports = CatalogueImport(
        store,
        enforcement,
        feed,
        Planner(keys, _egress(settings), _file_folder(settings)),
        index.set_many,
        live.end_camera,
        workers.camera_moved,
    )
    ledger_watch = LedgerWatch(store, live, settings.ledger.outage_seconds, clock, time.monotonic)
    deliveries = HeadDelivery(settings.ledger.deliveries)
    store.on_published(deliveries.offer)
    metrics = Metrics(live, workers, analyses, admission, waiting, ledger_watch, deliveries)
    live.listeners.append(metrics.session_over)
    tickets = Tickets(store, enforcement, live, workers, clock, keys.mark_key)
    _connect(events, start_up, tickets, live, analyses, catalogue, directory, authentication.failures)

    async def load() -> None:
        found = SealedFacts(store.seals)
        async with store.read() as conn:
            await roles.load(conn, found)
        await feed.load(store, found)
        await freeze.settle(found)
        await policy_file.load()
        start_up.finish()
        live.policy_changed()
        for worker in workers.numbers():
            analyses.place(worker)
        async with store.read() as conn:
            await index.load(conn)

    grants = Grants(store, enforcement, feed, purposes, Rehearsals(store, enforcement, live), clock)
    services = Services(
        start_up=start_up,
        store=store,
        authentication=authentication,
        enrolment=Enrolment(store, enforcement, authentication, keys, clock),
        enforcement=enforcement,
        directory=directory,
        catalogue=catalogue,
        trees=CatalogueTrees(store, enforcement, feed),
        index=index,
        imports=imports,
        exports=CatalogueExport(store, enforcement),
        accounts=Accounts(enforcement, feed, passwords, duties, settings.accounts, clock),
        duties=duties,
        grants=grants,
        disputes=Disputes(store, enforcement, feed, grants),
        review=AccessReview(store, enforcement, purposes),
        authzen=AuthZen(enforcement, directory),
        purposes=purposes,
        undertakings=undertakings,
        sessions=sessions,
        live=live,
        thumbnails=Thumbnails(store, enforcement, sessions, clock),
        camera_tests=CameraTests(enforcement),
        standings=Standings(store, enforcement, live, clock),
        waiting=waiting,
        workers=workers,
        analyses=analyses,
        events=happenings,
        ledger=Ledger(store, enforcement),
        ledger_watch=ledger_watch,
        public_ledger=PublicLedger(store, enforcement),
        retention=Retention(store, settings.ledger.retention_years),
        deliveries=deliveries,
        metrics=metrics,
        roles=roles,
        policy_file=policy_file,
        freeze=freeze,
        web=WebSettings(
            public_url=settings.http.public_url,
            has_tls=settings.tls.certificate is not None,
            rtsp_port=control.rtsp_port,
        ),
    )
    return services, load


def _connect(
    events: WorkerEvents,
    start_up: StartUp,
    tickets: Tickets,
    live: LiveSessions,
    analyses: Analyses,
    catalogue: Catalogue,
    directory: Directory,
    failures: LoginFailures,
) -> None:
    async def address(stream: str) -> CameraAddress:
        camera_id = stream.removesuffix(SUB_STREAM)
        row = await directory.camera_row(camera_id)
        if row is None or not row.enabled:
            raise Problem("camera_disabled", camera_id)
        return catalogue.address_of(row, sub=stream != camera_id)

    async def redeem(worker: int, request: Redeem) -> Redeemed | Refused:
        start_up.require_over()
        answer = await tickets.redeem(worker, request)
        if isinstance(answer, Refused):
            failures.count(FailureKind.TICKET, request.remote)
        return answer

    def publisher_failed(report: PublisherFailed) -> None:
        failures.count(FailureKind.PUBLISHER, report.remote, report.camera)

    def place(worker: int) -> None:
        if start_up.is_over:
            analyses.place(worker)

    events.may_renew = start_up.may_renew
    events.decided_revision = lambda: live.decided_revision
    events.redeem = redeem
    events.publisher_failed = publisher_failed
    events.streaming = tickets.use_up
    events.address = address
    events.hello = live.adopt
    events.gone = live.worker_gone
    events.usage = live.report_usage
    events.over = live.report_over
    events.analysis_event = analyses.take
    events.analysis_state = analyses.report
    events.placed = place


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
    """Once a second: write what ended; once an hour: forget old events. A failing store is tried again."""
    rounds = 0
    while True:
        try:
            await services.analyses.settle()
            await services.duties.settle()
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


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _file_folder(settings: Settings) -> Path | None:
    return Path(settings.egress.file_folder) if settings.egress.file_folder else None


def _egress(settings: Settings) -> EgressSettings:
    return EgressSettings(
        allowed_networks=tuple(map(ipaddress.ip_network, settings.egress.allowed_networks)),
        resolve_timeout_seconds=settings.egress.resolve_timeout_seconds,
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
    uvloop.run(run(control, announce_ready))


if __name__ == "__main__":
    main()
