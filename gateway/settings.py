"""The configuration file: YAML once parsed into frozen dataclasses, every key known, every type checked.

Each component declares its own settings; this module only composes them. `config/custos.yaml` documents
every key with its default, and a test compares the two. Secrets are not configuration: the database's
address, which may hold a password, comes from the environment variable `CUSTOS_DATABASE_URL`.
"""

import dataclasses
import ipaddress
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from gateway.account_entries import AccountSettings
from gateway.admission import AdmissionSettings
from gateway.analyses import AnalysisSettings
from gateway.audit.removed_records import MIN_RETENTION_YEARS
from gateway.authentication import LoginSettings
from gateway.bounded_fetch import FetchError, parse_address
from gateway.events import EventSettings
from gateway.jobs import MAX_KEY_DAYS
from gateway.passwords import PasswordSettings
from gateway.relay.guard import GuardSettings
from gateway.relay.hls_sessions import HlsSettings
from gateway.relay.mjpeg import MjpegSettings
from gateway.relay.settings import HubSettings
from gateway.relay.viewer import ViewerSettings
from gateway.sessions import SessionSettings
from streams.mux.hls import MIN_SEGMENTS
from streams.sources.rtsp import RtspSourceSettings
from streams.supervisor import SupervisorSettings

MAX_CONFIG_BYTES = 256 * 1024
DATABASE_URL = "CUSTOS_DATABASE_URL"


class SettingsError(Exception):
    """The configuration is wrong; the message names the key. Nothing was started."""

    code = "configuration_invalid"


@dataclass(frozen=True)
class HttpSettings:
    """`public_url`: how viewers reach this gateway, if not directly, such as `https://video.example.gov`."""

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True)
class RtspServerSettings:
    """RTSP for viewers and for encoders that publish, on the host of `http`. `port` None: not at all."""

    port: int | None = 8554


@dataclass(frozen=True)
class RtmpServerSettings:
    """RTMP for encoders that publish, on the host of `http`. `port` None: not at all."""

    port: int | None = None


@dataclass(frozen=True)
class TlsSettings:
    """Both or none: PEM files of the certificate with its chain, and of its key."""

    certificate: str | None = None
    key: str | None = None


PATROL_ROWS_PER_SECOND = (1.0, 10_000.0)
"""The least and the most: what a patrol reads is read beside everything else."""


@dataclass(frozen=True)
class LedgerSettings:
    """A signed head is published after so many seconds or records, whichever comes first.

    `outage_seconds`: if the ledger cannot be written for so long, every picture ends. `deliveries`: where
    each published head is posted to, by the department's id. `witnesses`: asked at the start for heads.
    `patrol_rows_per_second`: so many rows that decide are held against their seals.
    """

    publish_seconds: float = 60.0
    publish_records: int = 1000
    outage_seconds: float = 30.0
    retention_years: int = MIN_RETENTION_YEARS
    deliveries: dict[str, str] = dataclasses.field(default_factory=dict)
    witnesses: tuple[str, ...] = ()
    patrol_rows_per_second: float = 300.0


@dataclass(frozen=True)
class EgressFileSettings:
    """Where cameras may be, in CIDR notation. Empty: nowhere."""

    allowed_networks: tuple[str, ...] = ()
    resolve_timeout_seconds: float = 5.0
    file_folder: str | None = None


@dataclass(frozen=True)
class LogSettings:
    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class Settings:
    """The whole file. Relative paths are relative to the file's own folder."""

    data: str = "data"
    policies: str = "policies.yaml"
    workers: int = 0
    analysis_processes: int = 1
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    rtsp_server: RtspServerSettings = RtspServerSettings()
    rtmp_server: RtmpServerSettings = RtmpServerSettings()
    ledger: LedgerSettings = LedgerSettings()
    login: LoginSettings = LoginSettings()
    passwords: PasswordSettings = PasswordSettings()
    accounts: AccountSettings = AccountSettings()
    sessions: SessionSettings = SessionSettings()
    admission: AdmissionSettings = AdmissionSettings()
    analyses: AnalysisSettings = AnalysisSettings()
    events: EventSettings = EventSettings()
    egress: EgressFileSettings = EgressFileSettings()
    rtsp: RtspSourceSettings = RtspSourceSettings()
    cameras: SupervisorSettings = SupervisorSettings()
    hub: HubSettings = HubSettings()
    viewer: ViewerSettings = ViewerSettings()
    hls: HlsSettings = HlsSettings()
    mjpeg: MjpegSettings = MjpegSettings()
    guard: GuardSettings = GuardSettings()
    log: LogSettings = LogSettings()


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file. Raises SettingsError."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise SettingsError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = yaml.safe_load(raw)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    try:
        settings = parse_settings({} if document is None else document)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    base = path.resolve().parent
    tls = TlsSettings(
        *(str(base / path) if path else None for path in (settings.tls.certificate, settings.tls.key))
    )
    return dataclasses.replace(
        settings, data=str(base / settings.data), policies=str(base / settings.policies), tls=tls
    )


def parse_settings(document: object) -> Settings:
    """Raises SettingsError with the path of the key that is unknown or wrong."""
    _refuse_unknown(document, Settings, "")
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from None
    _check(settings)
    return settings


def _refuse_unknown(value: object, shape: Any, path: str) -> None:
    if not dataclasses.is_dataclass(shape):
        return
    if not isinstance(value, dict):
        raise SettingsError(f"{path or 'the file'}: expected keys and values")
    hints = typing.get_type_hints(shape)
    for key, inner in value.items():
        if key not in hints:
            known = ", ".join(sorted(hints))
            raise SettingsError(f"{path}{key}: unknown key; known here: {known}")
        _refuse_unknown(inner, _plain(hints[key]), f"{path}{key}.")


def _plain(hint: Any) -> Any:
    """The dataclass within an optional one."""
    if typing.get_origin(hint) in {types.UnionType, typing.Union}:
        return next((part for part in typing.get_args(hint) if dataclasses.is_dataclass(part)), hint)
    return hint


def _check(settings: Settings) -> None:
    """What types cannot say."""
    if not 0 <= settings.workers <= 64:  # noqa: PLR2004 - a machine with more cores runs several nodes
        raise SettingsError("workers: 0 to 64")
    if not 1 <= settings.analysis_processes <= 64:  # noqa: PLR2004 - likewise
        raise SettingsError("analysis_processes: 1 to 64")
    ports = {
        "http": settings.http.port,
        "rtsp_server": settings.rtsp_server.port,
        "rtmp_server": settings.rtmp_server.port,
    }
    for name, port in ports.items():
        if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004 - RFC 9293
            raise SettingsError(f"{name}.port: 0 to 65535")
    if (settings.tls.certificate is None) != (settings.tls.key is None):
        raise SettingsError("tls: a certificate and its key, or neither")
    public = settings.http.public_url
    if public is not None and urlsplit(public).scheme not in {"http", "https"}:
        raise SettingsError("http.public_url: an http or https address")
    _refuse_no_networks(settings.egress.allowed_networks, "egress.allowed_networks")
    _refuse_no_networks(settings.http.trusted_proxies, "http.trusted_proxies")
    for path in ("passwords.concurrent", "passwords.passes", "passwords.memory_kib", "login.window_seconds"):
        name, _, key = path.partition(".")
        if getattr(getattr(settings, name), key) < 1:
            raise SettingsError(f"{path}: at least 1")
    if not 1 <= settings.accounts.key_days <= MAX_KEY_DAYS:
        raise SettingsError(f"accounts.key_days: 1 to {MAX_KEY_DAYS}")
    if settings.hls.segmenter.segments < MIN_SEGMENTS:
        raise SettingsError(f"hls.segmenter.segments: at least {MIN_SEGMENTS}")
    _check_ledger(settings.ledger)
    for section in dataclasses.fields(settings):
        _refuse_negative(getattr(settings, section.name), section.name)


def _check_ledger(ledger: LedgerSettings) -> None:
    if ledger.retention_years < MIN_RETENTION_YEARS:
        raise SettingsError(f"ledger.retention_years: at least {MIN_RETENTION_YEARS}")
    least, most = PATROL_ROWS_PER_SECOND
    if not least <= ledger.patrol_rows_per_second <= most:
        raise SettingsError(f"ledger.patrol_rows_per_second: {least:.0f} to {most:.0f}")
    for address in (*ledger.deliveries.values(), *ledger.witnesses):
        try:
            parse_address(address)
        except FetchError as error:
            raise SettingsError(f"ledger: {address}: {error}") from None


def _refuse_no_networks(networks: tuple[str, ...], path: str) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SettingsError(f"{path}: {error}") from None


def _refuse_negative(value: object, path: str) -> None:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _refuse_negative(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < math.inf:
        raise SettingsError(f"{path}: must be a number that is not negative")
