"""What route handlers may use: built by the composition root, handed to every call."""

from dataclasses import dataclass

from yarl import URL

from gateway.access_review import AccessReview
from gateway.accounts import Accounts
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
from gateway.directory import Directory
from gateway.disputes import Disputes
from gateway.duty import Duties
from gateway.enforcement import Enforcement
from gateway.enrolment import Enrolment
from gateway.events import Events
from gateway.freeze import Freeze
from gateway.grants import Grants
from gateway.head_delivery import HeadDelivery
from gateway.import_news import ImportNews
from gateway.ledger import Ledger
from gateway.ledger_watch import LedgerWatch
from gateway.live import LiveSessions
from gateway.metrics import Metrics
from gateway.policy_file_acceptance import PolicyFileAcceptance
from gateway.public_ledger import PublicLedger
from gateway.purposes import Purposes
from gateway.reservations import Reservations
from gateway.roles import Roles
from gateway.seal_patrol import SealPatrol
from gateway.sessions import ViewerSessions
from gateway.standing import Standings
from gateway.start_up import StartUp
from gateway.store.store import Store
from gateway.thumbnails import Thumbnails
from gateway.tickets import Tickets
from gateway.undertakings import Undertakings
from gateway.waiting import WaitingRoom
from gateway.workers import RelayWorkers


@dataclass(frozen=True)
class WebSettings:
    """`has_tls`: the workers' ports are encrypted. `rtsp_port` None: they serve no RTSP."""

    public_url: str | None = None
    has_tls: bool = False
    rtsp_port: int | None = None

    @property
    def is_https(self) -> bool:
        return self.has_tls if self.public_url is None else self.public_url.startswith("https://")

    def base_url(self, host: str) -> str:
        """Of the API and the media; `host`: the request's, with its port."""
        return self.public_url or f"{'https' if self.has_tls else 'http'}://{host}"

    def rtsp_url(self, host: str) -> str | None:
        if self.rtsp_port is None:
            return None
        hostname = URL(self.base_url(host)).host_subcomponent
        return f"{'rtsps' if self.has_tls else 'rtsp'}://{hostname}:{self.rtsp_port}"


@dataclass(frozen=True, kw_only=True)
class Services:
    start_up: StartUp
    store: Store
    authentication: Authentication
    enrolment: Enrolment
    enforcement: Enforcement
    directory: Directory
    catalogue: Catalogue
    trees: CatalogueTrees
    index: CatalogueIndex
    imports: CatalogueImport
    import_news: ImportNews
    exports: CatalogueExport
    accounts: Accounts
    duties: Duties
    grants: Grants
    disputes: Disputes
    review: AccessReview
    authzen: AuthZen
    purposes: Purposes
    undertakings: Undertakings
    sessions: ViewerSessions
    tickets: Tickets
    live: LiveSessions
    thumbnails: Thumbnails
    camera_tests: CameraTests
    standings: Standings
    waiting: WaitingRoom
    reservations: Reservations
    workers: RelayWorkers
    analyses: Analyses
    events: Events
    ledger: Ledger
    ledger_watch: LedgerWatch
    public_ledger: PublicLedger
    retention: Retention
    deliveries: HeadDelivery
    metrics: Metrics
    roles: Roles
    policy_file: PolicyFileAcceptance
    freeze: Freeze
    patrol: SealPatrol
    web: WebSettings
