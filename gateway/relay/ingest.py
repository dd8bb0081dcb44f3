"""Which source pulls a camera: our own RTSP client, or for every other scheme a sandboxed child."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from streams.sources.egress import EgressSettings
from streams.sources.rtsp import RtspSource, RtspSourceSettings
from streams.sources.source import CameraAddress, Source


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """`allowed_networks`: where cameras may be, in CIDR notation; empty: nowhere."""

    allowed_networks: tuple[str, ...] = ()
    resolve_timeout_seconds: float = 5.0
    rtsp: RtspSourceSettings = field(default_factory=RtspSourceSettings)


def source_opener(settings: IngestSettings) -> Callable[[CameraAddress], Source]:
    """Raises ValueError for a network that is none."""
    egress = EgressSettings(
        allowed_networks=tuple(map(ipaddress.ip_network, settings.allowed_networks)),
        resolve_timeout_seconds=settings.resolve_timeout_seconds,
    )

    def open_source(address: CameraAddress) -> Source:
        return RtspSource(address, settings.rtsp, egress)

    return open_source
