"""A whole node to be measured, as `custos serve` runs one, furnished and used through its API."""

import asyncio
import secrets
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from gateway.accounts import bootstrap
from gateway.audit.records import AuditKind, parse
from gateway.bench.cameras import BenchCamerasSettings
from gateway.bench.errors import BenchError
from gateway.node import reserved_ports, run_folder, supervisor
from gateway.passwords import Passwords, PasswordSettings
from gateway.settings import Settings, parse_settings
from gateway.store.store import Store, StoreSettings
from gateway.supervised_child import ChildSpec, RestartPolicy
from gateway.supervisor import NodeSupervisor, reserve_port
from gateway.undertakings import FIRST

_MANY = 1_000_000
_BANDWIDTH_BPS = 10**15
_MAX_CONNECTIONS = 65_536
_DRAIN_SECONDS = 60.0
_API_SECONDS = 60
_AT_ONCE = 16
_DEPARTMENT = "bench"
_ADMINISTRATOR, _OWNER, _VIEWER = "root", "owner", "viewer"


@dataclass(frozen=True, kw_only=True)
class BenchNodeSettings:
    """`clip`: what each camera sends. `merge_seconds` 0: no merging. `certificate`: with its key, for TLS."""

    folder: Path
    policies: Path
    clip: Path
    cameras: int
    workers: int
    merge_seconds: float
    stamps_every_unit: bool
    certificate: tuple[Path, Path] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def report(self) -> Path:
        """Where the cameras leave theirs."""
        return self.folder / "cameras.report"


class BenchNode:
    """A running node, used as one viewer's client would; made by `running_node`."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http
        self._tokens: dict[str, str] = {}

    async def open_session(self, camera: int) -> str:
        """Declare a purpose, get a session: the address of its HTTP-FLV, with the ticket."""
        body = {"camera": f"camera-{camera}", "purpose": {"code": "patrol", "reference": "roster"}}
        answer = await self._call(_VIEWER, "POST", "/sessions", body)
        flv = urlsplit(answer["media"]["flv"])
        return f"{self.url}{flv.path}?{flv.query}"

    async def furnish(self, password: str, camera_port: int, cameras: int) -> None:
        """A department with its cameras, who owns them, and a viewer with a grant."""
        root = (await self._login(_ADMINISTRATOR, password))["department"]["id"]
        department = {"id": _DEPARTMENT, "name": "Bench", "parent_id": root}
        await self._call(_ADMINISTRATOR, "POST", "/departments", department)
        for username, role in ((_OWNER, "department-administrator"), (_VIEWER, "operator")):
            user = {
                "id": username, "username": username, "display_name": username, "password": password,
                "department_id": _DEPARTMENT, "roles": [role],
            }  # fmt: skip
            await self._call(_ADMINISTRATOR, "POST", "/users", user)
            await self._login(username, password)
        await self._call(_VIEWER, "POST", "/undertaking/accept", {"version": FIRST.version})
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number in range(cameras):
                group.create_task(self._create_camera(number, camera_port, slots))
        grant = {
            "subject": {"kind": "user", "id": _VIEWER},
            "object": {"kind": "department", "id": _DEPARTMENT},
            "actions": ["live:view"],
            "reason": "benchmark",
        }
        await self._call(_OWNER, "POST", "/grants", grant)

    async def _create_camera(self, number: int, port: int, slots: asyncio.Semaphore) -> None:
        camera = {
            "id": f"camera-{number}", "name": f"Camera {number}", "department_id": _DEPARTMENT,
            "url": f"rtsp://127.0.0.1:{port}/{number}",
        }  # fmt: skip
        async with slots:
            await self._call(_OWNER, "POST", "/cameras", camera)

    async def _login(self, username: str, password: str) -> dict[str, Any]:
        answer = await self._call(None, "POST", "/login", {"username": username, "password": password})
        self._tokens[username] = answer["token"]
        user: dict[str, Any] = answer["user"]
        return user

    async def _call(
        self, username: str | None, method: str, path: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        headers = {} if username is None else {"Authorization": f"Bearer {self._tokens[username]}"}
        url = f"{self.url}/api/v1{path}"
        try:
            async with self._http.request(method, url, json=body, headers=headers) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BenchError(f"{method} {path}: {type(error).__name__}") from error
        if response.status >= 400:  # noqa: PLR2004 - RFC 9110 §15.5
            raise BenchError(f"{method} {path}: {answer.get('code')}: {answer.get('detail')}")
        return answer


@asynccontextmanager
async def running_node(bench: BenchNodeSettings) -> AsyncIterator[BenchNode]:
    """Start cameras and node, furnish it; at the end of the block all of it is drained and gone.

    Raises BenchError, NodeError or SettingsError, also for Ctrl-C.
    """
    settings = node_settings(bench)
    await asyncio.to_thread(bench.data.mkdir, mode=0o700, parents=True)
    password = secrets.token_urlsafe(18)
    await _bootstrap(bench.data, password)
    with (
        reserve_port("127.0.0.1", 0) as camera_port,
        reserved_ports(settings) as ports,
        run_folder(bench.data) as run,
    ):
        cameras = camera_port.getsockname()[1]
        node = supervisor(
            settings, run, ports, others=[_cameras_child(bench, cameras)], drain_seconds=_DRAIN_SECONDS
        )
        scheme, trust = "http", None
        if bench.certificate is not None:
            scheme, trust = "https", ssl.create_default_context(cafile=str(bench.certificate[0]))
        async with (
            _kept_running(node),
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_API_SECONDS),
                connector=aiohttp.TCPConnector(ssl=trust or True, limit=_AT_ONCE),
            ) as http,
        ):
            running = BenchNode(f"{scheme}://127.0.0.1:{ports.http}", http)
            await running.furnish(password, cameras, bench.cameras)
            yield running


@asynccontextmanager
async def _kept_running(node: NodeSupervisor) -> AsyncIterator[None]:
    is_over = False
    started = asyncio.Event()

    async def run() -> None:
        await node.run(started.set)
        if not is_over:
            raise BenchError("interrupted")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(run())
        try:
            await started.wait()
            yield
        finally:
            is_over = True
            if not running.done():
                node.stop()


def node_settings(bench: BenchNodeSettings) -> Settings:
    """As a file of settings would say it. Raises SettingsError."""
    document: dict[str, Any] = {
        "data": str(bench.data),
        "policies": str(bench.policies),
        "workers": bench.workers,
        "http": {"host": "127.0.0.1", "port": 0},
        "rtsp_server": {"port": None},
        "egress": {"allowed_networks": ["127.0.0.0/8"]},
        "admission": {
            "sessions_total": _MANY,
            "sessions_per_user": _MANY,
            "bandwidth_bps": _BANDWIDTH_BPS,
        },
        "guard": {"max_connections": _MAX_CONNECTIONS, "max_connections_per_address": 0},
        "hub": {"merge_seconds": bench.merge_seconds, "merge_above_load": 0.0},
        "login": {"second_factor": "nobody"},
        "log": {"format": "console", "level": "error"},
    }
    if bench.certificate is not None:
        certificate, key = bench.certificate
        document["tls"] = {"certificate": str(certificate), "key": str(key)}
    return parse_settings(document)


def dropped_access_units(data: Path, viewers: int) -> int | None:
    """What all end records say, in the data folder of a node that has ended; None if some are missing."""
    with closing(sqlite3.connect(f"file:{data / 'custos.db'}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT leaf, disclosures FROM audit_records WHERE kind = ?", (AuditKind.SESSION_END.value,)
        ).fetchall()
    dropped = [parse(*row).event.detail.get("dropped_access_units", 0) for row in rows]
    if len(dropped) < viewers:
        return None
    return sum(count for count in dropped if isinstance(count, int))


async def _bootstrap(data: Path, password: str) -> None:
    async with Store.open(StoreSettings(data_folder=data)) as store:
        password_hash = await Passwords(PasswordSettings()).hash(password)
        await bootstrap(store, password_hash, _ADMINISTRATOR, "City")


def _cameras_child(bench: BenchNodeSettings, port: int) -> ChildSpec:
    settings = BenchCamerasSettings(
        port=port,
        cameras=bench.cameras,
        clip=str(bench.clip),
        report=str(bench.report),
        stamps_every_unit=bench.stamps_every_unit,
    )
    return ChildSpec(
        name="cameras",
        argv=(sys.executable, "-m", "gateway.bench.cameras"),
        settings=msgspec.json.encode(settings),
        start_order=0,
        stop_order=2,
        restart=RestartPolicy(max_deaths=1),
    )
