"""Failures of whoever has not logged in: one record per source and minute, so that nobody fills the disk.

What is counted costs no write, and its memory is bounded: at most MAX_SOURCES sources of a minute have a
record of their own, all others share one. The log has each single failure.
"""

import asyncio
import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from gateway.audit.records import AuditEvent, AuditKind, DetailValue, Outcome
from gateway.clock import Clock
from gateway.store.errors import StoreError
from gateway.store.store import Store

log = structlog.get_logger(__name__)

MAX_SOURCES = 64
"""With a record of their own in a minute."""
MAX_NAMES = 8
MAX_NAME_CHARS = 64
_WINDOW = timedelta(minutes=1)
_IPV6_PREFIX = 64
"""What one subscriber gets (RFC 6177): within it an attacker has as many addresses as he likes."""
_UNKNOWN = "unknown"
_CHECK_SECONDS = 1.0


class FailureKind(StrEnum):
    PASSWORD = "password"  # noqa: S105 - a kind of failure
    CODE_MISSING = "code_missing"
    """The password was right, the second factor's code was not given: also the first half of a log-in."""
    CODE = "code"
    THROTTLED = "throttled"
    """Refused before it was tried."""
    TOKEN = "token"  # noqa: S105 - a kind of failure
    TICKET = "ticket"
    PUBLISHER = "publisher"
    """An encoder's login, over RTSP or RTMP."""
    KEY_EXPIRED = "key_expired"
    """A job's right key, too late."""
    NETWORK = "network"
    """A job's right key or token, from outside its networks."""


@dataclass(slots=True)
class _Tally:
    kinds: Counter[FailureKind] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)
    has_more_names: bool = False

    def add(self, kind: FailureKind, name: str) -> None:
        self.kinds[kind] += 1
        name = name[:MAX_NAME_CHARS]
        if name and name not in self.names:
            if len(self.names) < MAX_NAMES:
                self.names.append(name)
            else:
                self.has_more_names = True


@dataclass(slots=True)
class _Minute:
    since: datetime
    until: datetime
    sources: dict[str, _Tally] = field(default_factory=dict)
    others: _Tally | None = None

    def tally(self, source: str) -> _Tally:
        if source in self.sources or len(self.sources) < MAX_SOURCES:
            return self.sources.setdefault(source, _Tally())
        self.others = self.others or _Tally()
        return self.others


class LoginFailures:
    """`run` lives as long as control does; `flush` at its end. Without both, nothing is ever recorded."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._minute: _Minute | None = None
        self._unwritten: list[AuditEvent] = []
        self._writing = asyncio.Lock()

    def count(self, kind: FailureKind, remote: str, name: str = "") -> None:
        """`remote`: the client's address. `name`: what it called itself, if it did."""
        source = source_of(remote)
        log.info("login_failed", kind=kind.value, source=source)
        now = self._clock()
        if self._minute is None:
            self._minute = _Minute(now, now)
        self._minute.until = max(self._minute.until, now)
        self._minute.tally(source).add(kind, name)

    async def run(self) -> None:
        """Record each minute when it is over, until cancelled. What cannot be written is tried again."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            if self._unwritten or self._is_over():
                try:
                    await self.flush()
                except StoreError as error:
                    log.error("login_failures_not_recorded", code=error.code)

    async def flush(self) -> None:
        """Record what was counted. Raises StoreError: then it is kept, and later failures with it."""
        async with self._writing:
            if not self._unwritten and self._minute is not None:
                self._unwritten = _events(self._minute)
                self._minute = None
            if self._unwritten:
                await self._store.record(*self._unwritten)
                self._unwritten = []

    def _is_over(self) -> bool:
        """Also when the clock was set back."""
        return self._minute is not None and not timedelta(0) <= self._clock() - self._minute.since < _WINDOW


def source_of(remote: str) -> str:
    """An IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return _UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), _IPV6_PREFIX), strict=False))


def _events(minute: _Minute) -> list[AuditEvent]:
    events = [_event(minute, tally, source) for source, tally in minute.sources.items()]
    if minute.others is not None:
        events.append(_event(minute, minute.others, None))
    return events


def _event(minute: _Minute, tally: _Tally, source: str | None) -> AuditEvent:
    """The names that were tried stand where an actor's name stands, which an erasure can reach."""
    kinds = {kind.value: count for kind, count in sorted(tally.kinds.items())}
    detail: dict[str, DetailValue] = {
        "since": minute.since.isoformat(),
        "until": minute.until.isoformat(),
        "failures": tally.kinds.total(),
        "more_names": tally.has_more_names,
        **kinds,
    }
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return AuditEvent(
        kind=AuditKind.LOGIN_FAILURES,
        outcome=Outcome.DENY,
        content=f"not logged in: {counts}",
        reason="other_sources" if source is None else None,
        actor_name=", ".join(tally.names) or None,
        remote=source,
        detail=detail,
    )
