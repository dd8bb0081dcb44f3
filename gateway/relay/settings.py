"""What one relay worker is told at its start, as JSON on stdin."""

from dataclasses import dataclass, field
from pathlib import Path

from analytics.runner import RunnerSettings
from gateway.relay.control_link import LinkSettings
from gateway.relay.guard import GuardSettings
from gateway.relay.hls_sessions import HlsSettings
from gateway.relay.ingest import IngestSettings
from gateway.relay.mjpeg import MjpegSettings
from gateway.relay.viewer import ViewerSettings
from streams.hub import HubSettings
from streams.supervisor import SupervisorSettings

# HubSettings too: gateway.settings composes it, and may not import the hub itself
__all__ = ["HubSettings", "RelaySettings", "analysis_socket", "link_socket", "relay_http_socket"]


def analysis_socket(run_folder: Path, number: int) -> Path:
    """Where an analysis process listens."""
    return run_folder / f"analysis-{number}.sock"


def link_socket(run_folder: Path, worker: int) -> Path:
    """Where a worker hands the streams that it pulls to the others."""
    return run_folder / f"link-{worker}.sock"


def relay_http_socket(run_folder: Path, worker: int) -> Path:
    """Where a worker takes requests that reached another one, but belong to a session of its own."""
    return run_folder / f"relay-{worker}-http.sock"


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """`worker` numbers the `workers` of a node from 0; `run_folder` holds the sockets of all its processes.

    `lease_seconds`: without word from control for so long, every session ends. `drain_seconds`: at most this
    long after SIGTERM the worker is gone.
    """

    worker: int
    host: str
    port: int
    run_folder: str
    workers: int = 1
    rtsp_port: int | None = None
    rtmp_port: int | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    analysis_processes: int = 1
    log_format: str = "json"
    log_level: str = "info"
    lease_seconds: float = 5.0
    usage_seconds: float = 1.0
    drain_seconds: float = 6.0
    link: LinkSettings = field(default_factory=LinkSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    viewer: ViewerSettings = field(default_factory=ViewerSettings)
    hls: HlsSettings = field(default_factory=HlsSettings)
    mjpeg: MjpegSettings = field(default_factory=MjpegSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    analysis: RunnerSettings = field(default_factory=RunnerSettings)
    cameras: SupervisorSettings = field(default_factory=SupervisorSettings)

    @property
    def analysis_sockets(self) -> list[Path]:
        return [analysis_socket(Path(self.run_folder), number) for number in range(self.analysis_processes)]

    @property
    def relay_http_sockets(self) -> list[Path]:
        """Of all workers of the node, in the order of their numbers."""
        workers = max(self.workers, self.worker + 1)
        return [relay_http_socket(Path(self.run_folder), number) for number in range(workers)]

    @property
    def control_socket(self) -> Path:
        return Path(self.run_folder, "control.sock")

    @property
    def control_http_socket(self) -> Path:
        return Path(self.run_folder, "control-http.sock")
