"""The composition root's parts list: every object of control is built here, once, and handed what it uses.

In the order of what needs what: deciding, watching, then all that the API offers.
"""

import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.access_review import AccessReview
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.analyses import Analyses
from gateway.audit.periods import Retention
from gateway.authentication import Authentication
from gateway.authzen import AuthZen
from gateway.camera_test import CameraTests
from gateway.catalogue import Catalogue
from gateway.catalogue_export import CatalogueExport
from gateway.catalogue_import import CatalogueImport
from gateway.catalogue_index import CatalogueIndex
from gateway.catalogue_trees import CatalogueTrees
from gateway.clock import Clock
from gateway.directory import Directory
from gateway.disputes import Disputes
from gateway.duty import Duties
from gateway.enforcement import Enforcement
from gateway.enrolment import Enrolment
from gateway.events import Events
from gateway.freeze import Freeze
from gateway.grants import Grants
from gateway.head_delivery import HeadDelivery
from gateway.import_check import ImportCheck
from gateway.import_news import ImportNews
from gateway.keys import InstallationKeys
from gateway.ledger import Ledger
from gateway.ledger_watch import LedgerWatch
from gateway.live import LiveSessions
from gateway.login_failures import FailureKind, LoginFailures
from gateway.messages import PublisherFailed, Redeem, Redeemed, Refused, camera_of
from gateway.metrics import Metrics
from gateway.passwords import Passwords
from gateway.planned_cameras import Planner
from gateway.policy_feed import PolicyFeed
from gateway.policy_file_acceptance import PolicyFileAcceptance
from gateway.problems import Problem
from gateway.public_ledger import PublicLedger
from gateway.purposes import Purposes
from gateway.reading_apart import cameras_of
from gateway.rehearsal import Rehearsals
from gateway.reservations import Reservations
from gateway.roles import Roles
from gateway.seal_patrol import SealPatrol
from gateway.sealed_facts import SealedFacts
from gateway.services import Services, WebSettings
from gateway.sessions import ViewerSessions
from gateway.settings import Settings, SettingsError
from gateway.standing import Standings
from gateway.start_up import StartUp
from gateway.store.store import Store
from gateway.store.unit import read_revision
from gateway.thumbnails import Thumbnails
from gateway.tickets import Tickets
from gateway.undertakings import Undertakings
from gateway.waiting import WaitingRoom
from gateway.witnessed import witnessed_ahead
from gateway.workers import RelayWorkers, WorkerEvents
from policies.engine import PolicyEngine
from policies.roles import Role, parse_roles
from streams.sources.egress import EgressSettings
from streams.sources.source import CameraAddress


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


@dataclass(frozen=True, kw_only=True)
class _Deciding:
    """What says yes or no, and what it reads."""

    start_up: StartUp
    engine: PolicyEngine
    feed: PolicyFeed
    enforcement: Enforcement
    roles: Roles
    known_roles: dict[str, Role]
    policy_file: PolicyFileAcceptance
    freeze: Freeze


@dataclass(frozen=True, kw_only=True)
class _Watching:
    """What looks now, and on what terms."""

    live: LiveSessions
    admission: Admission
    waiting: WaitingRoom
    sessions: ViewerSessions
    events: Events
    analyses: Analyses


async def build(
    control: ControlSettings, store: Store, events: WorkerEvents, clock: Clock
) -> tuple[Services, Callable[[], Awaitable[None]]]:
    """The services, and what reads into them all that decisions and listings need."""
    settings = control.settings
    keys = InstallationKeys.open(Path(settings.data))
    workers = RelayWorkers(events, control.workers)
    deciding = await _deciding(settings, store, clock)
    watching = await _watching(settings, store, deciding, workers, clock)
    enforcement, feed, live = deciding.enforcement, deciding.feed, watching.live
    passwords = Passwords(settings.passwords)
    authentication = Authentication(store, passwords, keys, deciding.known_roles, settings.login, clock)
    authentication.ended_listeners.append(live.end_user)
    purposes = Purposes(store, enforcement)
    undertakings = Undertakings(store, enforcement)
    await undertakings.load()
    duties = Duties(store, enforcement, authentication, undertakings, live, clock)
    index = CatalogueIndex(deciding.engine.ordinals)
    directory = Directory(store, enforcement, index)
    egress, file_folder = _egress(settings), _file_folder(settings)
    catalogue = Catalogue(
        enforcement, feed, index, keys, egress, file_folder, live.end_cameras, workers.cameras_moved
    )
    import_news = ImportNews(store, feed, index, live.end_cameras, workers.cameras_moved)
    import_check = ImportCheck(store, enforcement, Planner(keys, egress, file_folder))
    ledger_watch = LedgerWatch(store, live, settings.ledger.outage_seconds, clock, time.monotonic)
    deliveries = HeadDelivery(settings.ledger.deliveries)
    store.on_published(deliveries.offer)
    metrics = Metrics(
        live, workers, watching.analyses, watching.admission, watching.waiting, ledger_watch, deliveries
    )
    live.listeners.append(metrics.session_over)
    tickets = Tickets(
        store, enforcement, live, workers, clock, keys.mark_key, settings.sessions.ticket_seconds
    )
    _connect(events, deciding.start_up, tickets, watching, catalogue, directory, authentication.failures)
    grants = Grants(store, enforcement, feed, purposes, Rehearsals(store, enforcement, live), clock)
    services = Services(
        start_up=deciding.start_up,
        store=store,
        authentication=authentication,
        enrolment=Enrolment(store, enforcement, authentication, keys, clock),
        enforcement=enforcement,
        directory=directory,
        catalogue=catalogue,
        trees=CatalogueTrees(store, enforcement, feed),
        index=index,
        imports=CatalogueImport(enforcement, import_check, import_news),
        import_news=import_news,
        exports=CatalogueExport(store, enforcement),
        accounts=Accounts(enforcement, feed, passwords, authentication, duties, settings.accounts, clock),
        duties=duties,
        grants=grants,
        disputes=Disputes(store, enforcement, feed, grants),
        review=AccessReview(store, enforcement, purposes),
        authzen=AuthZen(enforcement, directory),
        purposes=purposes,
        undertakings=undertakings,
        sessions=watching.sessions,
        tickets=tickets,
        live=live,
        thumbnails=Thumbnails(store, enforcement, watching.sessions, clock),
        camera_tests=CameraTests(enforcement),
        standings=Standings(store, enforcement, live, clock),
        waiting=watching.waiting,
        reservations=Reservations(store, live, watching.waiting, workers.bit_rate),
        workers=workers,
        analyses=watching.analyses,
        events=watching.events,
        ledger=Ledger(store, enforcement),
        ledger_watch=ledger_watch,
        public_ledger=PublicLedger(store, enforcement),
        retention=Retention(store, settings.ledger.retention_years),
        deliveries=deliveries,
        metrics=metrics,
        roles=deciding.roles,
        policy_file=deciding.policy_file,
        freeze=deciding.freeze,
        patrol=SealPatrol(
            store, feed, deciding.roles, deciding.freeze, settings.ledger.patrol_rows_per_second
        ),
        web=WebSettings(
            public_url=settings.http.public_url,
            has_tls=settings.tls.certificate is not None,
            rtsp_port=control.rtsp_port,
        ),
    )
    return services, partial(_load, services, deciding, control)


async def _deciding(settings: Settings, store: Store, clock: Clock) -> _Deciding:
    """Raises RolesError, SettingsError or OSError for the file of the policies."""
    text = _read_text(settings.policies)
    known_roles = dict(parse_roles(text))
    named = settings.admission.roles.keys() | settings.admission.priorities.roles.keys()
    for name in named - known_roles.keys():
        raise SettingsError(f"admission: {name}: {settings.policies} has no such role")
    engine = PolicyEngine(known_roles)
    feed = PolicyFeed(engine)
    async with store.read() as conn:
        start_up = StartUp(await read_revision(conn))
    enforcement = Enforcement(engine, known_roles, store, clock)
    return _Deciding(
        start_up=start_up,
        engine=engine,
        feed=feed,
        enforcement=enforcement,
        roles=Roles(enforcement, feed, engine, known_roles),
        known_roles=known_roles,
        policy_file=PolicyFileAcceptance(store, enforcement, feed, engine, known_roles, text),
        freeze=Freeze(
            store,
            enforcement,
            feed,
            Path(settings.data),
            partial(witnessed_ahead, store, settings.ledger.witnesses),
            clock,
        ),
    )


async def _watching(
    settings: Settings, store: Store, deciding: _Deciding, workers: RelayWorkers, clock: Clock
) -> _Watching:
    """With what the database says is not over."""
    enforcement, feed = deciding.enforcement, deciding.feed
    live = LiveSessions(
        deciding.start_up, store, enforcement, workers, feed.causes, settings.sessions.lost_seconds, clock
    )
    feed.listeners.append(live.policy_changed)
    admission = Admission(settings.admission)
    waiting = WaitingRoom(settings.admission.waiting, settings.admission.sessions_per_user)
    live.listeners.append(waiting.session_over)
    sessions = ViewerSessions(
        store, enforcement, admission, waiting, live, workers.bit_rate, settings.sessions, clock
    )
    await sessions.load()
    events = Events(store, settings.events, clock)
    analyses = Analyses(store, enforcement, sessions, live, workers, events, settings.analyses)
    live.ending_listeners.append(analyses.session_ending)
    await analyses.load()
    return _Watching(
        live=live, admission=admission, waiting=waiting, sessions=sessions, events=events, analyses=analyses
    )


async def _load(services: Services, deciding: _Deciding, control: ControlSettings) -> None:
    """Read the policy, with which decisions begin, and then what listings need."""
    store, settings = services.store, control.settings
    found = SealedFacts(store.seals)
    async with cameras_of(store, Path(settings.data), control.database_url, settings.log) as cameras:
        async with store.read() as conn:
            await services.roles.load(conn, found)
        await deciding.feed.load(store, cameras, found)
        await services.freeze.settle(found)
        await services.policy_file.load()
        services.start_up.finish()
        services.live.policy_changed()
        for worker in services.workers.numbers():
            services.analyses.place(worker)
        await services.index.fill(cameras.listing())
        await services.index.speed_up(cameras.pairs())


def _connect(
    events: WorkerEvents,
    start_up: StartUp,
    tickets: Tickets,
    watching: _Watching,
    catalogue: Catalogue,
    directory: Directory,
    failures: LoginFailures,
) -> None:
    live, analyses = watching.live, watching.analyses

    async def address(stream: str) -> CameraAddress:
        camera_id = camera_of(stream)
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


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _file_folder(settings: Settings) -> Path | None:
    return Path(settings.egress.file_folder) if settings.egress.file_folder else None


def _egress(settings: Settings) -> EgressSettings:
    return EgressSettings(
        allowed_networks=tuple(map(ipaddress.ip_network, settings.egress.allowed_networks)),
        resolve_timeout_seconds=settings.egress.resolve_timeout_seconds,
    )
