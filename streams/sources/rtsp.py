"""RTSP cameras: our own client (RFC 2326), video only, interleaved in the one TCP connection.

Why not libavformat: it follows redirects to any host and replays the password there. This client connects
once, to the checked address, and whatever URLs the camera names are paths on that connection.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urlsplit, urlunsplit

from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.media import AccessUnit
from streams.sources.egress import EgressSettings, check_url, resolve
from streams.sources.rtsp_connection import RtspConnection, RtspRequester, discard
from streams.sources.source import CameraAddress, Publisher
from streams.wire.depacketizer import Depacketizer, open_depacketizer
from streams.wire.rtp import parse_rtp
from streams.wire.rtsp import (
    MAX_URL_BYTES,
    InterleavedPacket,
    RtspResponse,
    Transport,
    parse_session,
    parse_transport,
)
from streams.wire.sdp import SessionDescription, parse_sdp

MIN_KEEPALIVE_SECONDS: Final = 0.5
"""A camera that claims a session timeout of a second or less is asked twice a second."""

_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspSourceSettings:
    """`silence_seconds`: without a complete picture for so long, the camera counts as unreachable.

    `keepalive_seconds`: at the latest; half of the camera's session timeout if that is sooner.
    """

    connect_timeout_seconds: float = 5.0
    response_timeout_seconds: float = 10.0
    silence_seconds: float = 10.0
    keepalive_seconds: float = 30.0
    teardown_timeout_seconds: float = 1.0


class RtspSource:
    """Pulls one camera. `depacketizer`: of the current or last run, for its counters; None before."""

    def __init__(
        self,
        address: CameraAddress,
        settings: RtspSourceSettings,
        egress: EgressSettings,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.depacketizer: Depacketizer | None = None
        self._address = address
        self._settings = settings
        self._egress = egress
        self._clock_ns = clock_ns

    async def run(self, publisher: Publisher) -> None:
        """Pull until cancelled, then say TEARDOWN.

        Raises UnsupportedError, SourceRefusedError, SourceUnreachableError or ProtocolError, and whatever
        StreamError the publisher raises. Never returns.
        """
        endpoint = check_url(self._address.url, self._egress)
        if endpoint.scheme != "rtsp":
            raise UnsupportedError("this source speaks rtsp:// only")
        ip_address, port = await resolve(endpoint.host, endpoint.port, self._egress)
        connection = await RtspConnection.open(
            ip_address,
            port,
            timeout_seconds=self._settings.connect_timeout_seconds,
            clock_ns=self._clock_ns,
        )
        try:
            await self._pull(connection, publisher)
        finally:
            connection.abort()

    async def _pull(self, connection: RtspConnection, publisher: Publisher) -> None:
        requester = RtspRequester(
            connection, self._address, timeout_seconds=self._settings.response_timeout_seconds
        )
        url = self._address.url
        options = await requester.request("OPTIONS", url)
        description = await requester.request("DESCRIBE", url, ("Accept", "application/sdp"))
        base = confine_url(_content_base(description) or url, url)
        presentation = parse_sdp(description.body)
        control, payload_type, self.depacketizer = _choose_video(presentation)
        wanted = Transport(rtp_channel=0, rtcp_channel=1)
        answer = await requester.request("SETUP", control_url(base, control, url), ("Transport", str(wanted)))
        session = _RtspSession(requester, control_url(base, presentation.control, url), options, answer)
        receiver = _Receiver(
            publisher, self.depacketizer, payload_type, session.transport.rtp_channel, self._clock_ns()
        )
        connection.deliver = receiver.deliver
        try:
            await session.play()
            await self._stay(connection, session, receiver)
        finally:
            connection.deliver = discard
            await session.tear_down(timeout_seconds=self._settings.teardown_timeout_seconds)

    async def _stay(
        self, connection: RtspConnection, session: "_RtspSession", receiver: "_Receiver"
    ) -> NoReturn:
        """Keep the session alive until the connection ends or the pictures stop."""
        latest_seconds = max(session.timeout_seconds / 2, MIN_KEEPALIVE_SECONDS)
        interval_ns = int(min(self._settings.keepalive_seconds, latest_seconds) * _NANOSECONDS)
        silence_ns = int(self._settings.silence_seconds * _NANOSECONDS)
        keepalive_ns = self._clock_ns() + interval_ns
        while True:
            wake_ns = min(keepalive_ns, receiver.last_unit_ns + silence_ns)
            wait_ns = max(wake_ns - self._clock_ns(), 0)
            await connection.wait_until_ended(timeout_seconds=wait_ns / _NANOSECONDS)
            now_ns = self._clock_ns()
            if now_ns - receiver.last_unit_ns >= silence_ns:
                raise SourceUnreachableError("the camera sends no pictures")
            if now_ns >= keepalive_ns:
                keepalive_ns = now_ns + interval_ns
                # Cameras exist that refuse their keepalive, or never answer it, and go on sending pictures.
                with suppress(StreamError):
                    await session.keep_alive()


class _RtspSession:
    """What SETUP opened: one track, controlled by the presentation's URL."""

    def __init__(
        self, requester: RtspRequester, url: str, options: RtspResponse, setup: RtspResponse
    ) -> None:
        transport = parse_transport(setup.header("Transport") or "")
        if transport is None:
            raise UnsupportedError("the camera does not send video over its RTSP connection")
        session = parse_session(setup.header("Session") or "")
        self.transport = transport
        self.timeout_seconds = session.timeout_seconds
        self._requester = requester
        self._url = url
        self._header = ("Session", session.id)
        methods = {method.strip() for method in (options.header("Public") or "").split(",")}
        self._keepalive_method = "GET_PARAMETER" if "GET_PARAMETER" in methods else "OPTIONS"

    async def play(self) -> None:
        await self._requester.request("PLAY", self._url, self._header, ("Range", "npt=0.000-"))

    async def keep_alive(self) -> None:
        await self._requester.request(self._keepalive_method, self._url, self._header)

    async def tear_down(self, *, timeout_seconds: float) -> None:
        """As far as the camera lets us: the connection is closed afterwards in any case."""
        with suppress(StreamError, TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._requester.request("TEARDOWN", self._url, self._header)


class _Receiver:
    """The hot path: from interleaved packets to the publisher, all of it synchronous."""

    def __init__(
        self, publisher: Publisher, depacketizer: Depacketizer, payload_type: int, channel: int, now_ns: int
    ) -> None:
        self.last_unit_ns = now_ns
        self._publisher = publisher
        self._depacketizer = depacketizer
        self._payload_type = payload_type
        self._channel = channel

    def deliver(self, interleaved: InterleavedPacket, received_ns: int) -> None:
        if interleaved.channel != self._channel:
            return  # RTCP
        packet = parse_rtp(interleaved.payload)
        if packet.payload_type != self._payload_type:
            return
        for event in self._depacketizer.receive(packet, received_ns):
            if isinstance(event, AccessUnit):
                self.last_unit_ns = received_ns
                self._publisher.publish(event)
            else:
                self._publisher.configure(event)


def _choose_video(presentation: SessionDescription) -> tuple[str | None, int, Depacketizer]:
    """The first video track that we can relay: its control URL, payload type and depacketizer."""
    refusal = UnsupportedError("the camera offers no video")
    for media in presentation.media:
        if media.kind == "video":
            try:
                return media.control, *open_depacketizer(media)
            except UnsupportedError as error:
                refusal = error
    raise refusal


def _content_base(description: RtspResponse) -> str | None:
    return description.header("Content-Base") or description.header("Content-Location")


def confine_url(url: str, origin: str) -> str:
    """The path and query of `url` at the scheme, host and port of `origin`.

    Cameras behind address translation name an address of their own; others name a stranger's. Nothing is
    ever sent there. Raises ProtocolError for what is no URL.
    """
    try:
        path, query = urlsplit(url)[2:4]
        scheme, netloc = urlsplit(origin)[:2]
    except ValueError:
        raise ProtocolError("the camera names a malformed URL") from None
    confined = urlunsplit((scheme, netloc, path, query, ""))
    if not confined.isascii() or not confined.isprintable() or " " in confined:
        raise ProtocolError("the camera names a malformed URL")
    if len(confined) > MAX_URL_BYTES:
        raise LimitExceededError("the camera names an endless URL")
    return confined


def control_url(base: str, control: str | None, origin: str) -> str:
    """Where a track or the presentation is controlled (RFC 2326 §C.1.1), confined to `origin`'s host.

    A relative control is appended, query or not, as every camera and player does; RFC 3986 would replace
    the base's last segment. Raises ProtocolError.
    """
    if control is None or control == "*":
        return base
    if "://" in control:
        return confine_url(control, origin)
    separator = "" if base.endswith("/") or control.startswith(("/", "?")) else "/"
    return confine_url(base + separator + control, origin)
