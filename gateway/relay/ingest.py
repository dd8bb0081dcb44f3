"""Which source pulls a camera: our own RTSP client, or for every other scheme a confined child."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from streams.sources.egress import EgressSettings
from streams.sources.pyav import PyavSettings, PyavSource
from streams.sources.pyav_process import DemuxerSettings
from streams.sources.rtsp import RtspSource, RtspSourceSettings
from streams.sources.source import CameraAddress, Source


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """`allowed_networks`: where cameras may be, in CIDR notation; empty: nowhere.

    `file_folder`: where `file:` addresses may point; None: nowhere.
    """

    allowed_networks: tuple[str, ...] = ()
    resolve_timeout_seconds: float = 5.0
    file_folder: str | None = None
    rtsp: RtspSourceSettings = field(default_factory=RtspSourceSettings)
    demuxer: DemuxerSettings = field(default_factory=DemuxerSettings)


def source_opener(settings: IngestSettings) -> Callable[[CameraAddress], Source]:
    """Raises ValueError for a network that is none."""
    egress = EgressSettings(
        allowed_networks=tuple(map(ipaddress.ip_network, settings.allowed_networks)),
        resolve_timeout_seconds=settings.resolve_timeout_seconds,
    )
    others = PyavSettings(
        egress=egress,
        demuxer=settings.demuxer,
        max_bit_rate_bps=settings.rtsp.max_bit_rate_bps,
        file_folder=Path(settings.file_folder) if settings.file_folder is not None else None,
    )

    def open_source(address: CameraAddress) -> Source:
        if address.url.lower().startswith(("rtsp:", "rtsp+udp:")):
            return RtspSource(address, settings.rtsp, egress)
        return PyavSource(address, others)

    return open_source
