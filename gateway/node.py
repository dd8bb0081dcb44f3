"""One node: which processes it has and what each of them is told. `gateway.supervisor` keeps them running."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import msgspec

from gateway.composition import ControlSettings
from gateway.relay.ingest import IngestSettings
from gateway.relay.settings import RelaySettings, analysis_socket
from gateway.settings import DATABASE_URL, Settings
from gateway.supervised_child import ChildSpec
from gateway.supervisor import (
    NodeSupervisor,
    SupervisorSettings,
    analysis_child,
    control_child,
    relay_child,
    reserve_port,
)

MAX_SOCKET_PATH = 88
"""A Unix socket's path may have 107 bytes (unix(7)); the longest name below the folder has 18."""
MAX_WORKERS = 64
PORTAL = Path(__file__).parent / "portal" / "dist"


@contextmanager
def run_folder(data: Path) -> Iterator[Path]:
    """A folder for the node's sockets, this user's alone: `run` in the data folder, if that fits."""
    folder = data / "run"
    if len(os.fsencode(folder)) <= MAX_SOCKET_PATH:
        folder.mkdir(mode=0o700, exist_ok=True)
        yield folder
        return
    elsewhere = Path(tempfile.mkdtemp(prefix="custos-"))
    try:
        yield elsewhere
    finally:
        rmtree(elsewhere, ignore_errors=True)


@dataclass(frozen=True)
class Ports:
    """Where the workers of a node listen, all at the same; None: not at all."""

    http: int
    rtsp: int | None
    rtmp: int | None


@contextmanager
def reserved_ports(settings: Settings) -> Iterator[Ports]:
    """Hold the node's ports, free ones where the settings say 0. Raises `AddressInUseError`."""
    host = settings.http.host
    with ExitStack() as stack:

        def reserve(port: int | None) -> int | None:
            return None if port is None else stack.enter_context(reserve_port(host, port)).getsockname()[1]

        http = stack.enter_context(reserve_port(host, settings.http.port)).getsockname()[1]
        yield Ports(http, reserve(settings.rtsp_server.port), reserve(settings.rtmp_server.port))


def worker_count(settings: Settings) -> int:
    """As the file says, or one for each core that this process may use."""
    return settings.workers or min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def supervisor(
    settings: Settings,
    run: Path,
    ports: Ports,
    *,
    others: Sequence[ChildSpec] = (),
    drain_seconds: float = 10.0,
) -> NodeSupervisor:
    """The supervisor of control, the relay workers, the analysis process, and `others`."""
    children = [
        *others,
        control_child(msgspec.json.encode(_control(settings, run, ports))),
        *(
            relay_child(number, msgspec.json.encode(_relay(settings, run, ports, number)))
            for number in range(worker_count(settings))
        ),
        *(
            analysis_child(number, analysis_socket(run, number))
            for number in range(settings.analysis_processes)
        ),
    ]
    return NodeSupervisor(
        children, SupervisorSettings(data_folder=Path(settings.data), drain_seconds=drain_seconds)
    )


def _control(settings: Settings, run: Path, ports: Ports) -> ControlSettings:
    return ControlSettings(
        settings=settings,
        run_folder=str(run),
        workers=worker_count(settings),
        rtsp_port=ports.rtsp,
        database_url=os.environ.get(DATABASE_URL),
        portal=str(PORTAL),
    )


def _relay(settings: Settings, run: Path, ports: Ports, number: int) -> RelaySettings:
    return RelaySettings(
        worker=number,
        workers=worker_count(settings),
        host=settings.http.host,
        port=ports.http,
        rtsp_port=ports.rtsp,
        rtmp_port=ports.rtmp,
        tls_certificate=settings.tls.certificate,
        tls_key=settings.tls.key,
        trusted_proxies=settings.http.trusted_proxies,
        run_folder=str(run),
        analysis_processes=settings.analysis_processes,
        log_format=settings.log.format,
        log_level=settings.log.level,
        guard=settings.guard,
        viewer=settings.viewer,
        hls=settings.hls,
        mjpeg=settings.mjpeg,
        ingest=IngestSettings(
            allowed_networks=settings.egress.allowed_networks,
            resolve_timeout_seconds=settings.egress.resolve_timeout_seconds,
            file_folder=settings.egress.file_folder,
            rtsp=settings.rtsp,
        ),
        hub=settings.hub,
        cameras=settings.cameras,
    )
