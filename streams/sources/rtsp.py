"""RTSP cameras: our own client (RFC 2326), pictures and sound, interleaved in the connection or over UDP.

Why not libavformat: it follows redirects to any host and replays the password there. This client connects
once, to the checked address, and whatever URLs the camera names are paths on that connection.

`rtsp:` asks for the packets in the one TCP connection first, `rtsp+udp:` for datagrams first; a camera that
refuses the one (461) is asked for the other.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from streams.errors import SourceUnreachableError, StreamError, UnsupportedError
from streams.media import TIME_BASE_HZ
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.egress import EgressSettings, check_url, resolve
from streams.sources.rtsp_connection import RtspConnection, RtspRequester, TransportRefusedError
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.rtsp_session import (
    Delivery,
    InterleavedDelivery,
    RtspSession,
    TrackReceiver,
    UdpDelivery,
)
from streams.sources.rtsp_url import confine_url, control_url
from streams.sources.source import CameraAddress, StreamPublisher
from streams.wire.audio_depacketizer import AudioDepacketizer, open_audio_depacketizer
from streams.wire.depacketizer import Depacketizer, open_depacketizer
from streams.wire.rtsp import RtspResponse
from streams.wire.sdp import SessionDescription, parse_sdp

MIN_KEEPALIVE_SECONDS: Final = 0.5
"""A camera that claims a session timeout of a second or less is asked twice a second."""
TCP_SCHEME: Final = "rtsp"
UDP_SCHEME: Final = "rtsp+udp"

_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspSourceSettings:
    """`silence_seconds`: without a complete picture for so long, the camera counts as unreachable.

    `keepalive_seconds`: at the latest; half of the camera's session timeout if that is sooner.
    `max_bit_rate_bps`: what a camera may send, averaged over a second.
    """

    connect_timeout_seconds: float = 3.0
    response_timeout_seconds: float = 8.0
    silence_seconds: float = 8.0
    keepalive_seconds: float = 30.0
    teardown_timeout_seconds: float = 1.0
    max_bit_rate_bps: int = 100_000_000


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

    @property
    def lost_packets(self) -> int:
        """Packets of the pictures that never came, or came damaged, in the current or last run."""
        video = self.depacketizer
        return 0 if video is None else video.lost_packets + video.malformed_payloads

    async def run(self, publisher: StreamPublisher) -> None:
        """Pull until cancelled, then say TEARDOWN.

        Raises UnsupportedError, SourceRefusedError, SourceUnreachableError or ProtocolError, and whatever
        StreamError the publisher raises. Never returns.
        """
        endpoint = check_url(self._address.url, self._egress)
        if endpoint.scheme not in (TCP_SCHEME, UDP_SCHEME):
            raise UnsupportedError("this source speaks rtsp:// only")
        ip_address, port = await resolve(endpoint.host, endpoint.port, self._egress)
        limit = BitRateLimit(self._settings.max_bit_rate_bps)
        connection = await RtspConnection.open(
            ip_address,
            port,
            limit,
            timeout_seconds=self._settings.connect_timeout_seconds,
            clock_ns=self._clock_ns,
        )
        deliveries: list[Delivery] = [
            InterleavedDelivery(connection),
            UdpDelivery(connection, ip_address, limit, self._clock_ns),
        ]
        if endpoint.scheme == UDP_SCHEME:
            deliveries.reverse()
        try:
            url = TCP_SCHEME + self._address.url[len(endpoint.scheme) :]
            await self._pull(connection, deliveries, url, publisher)
        finally:
            for delivery in deliveries:
                delivery.close()
            connection.abort()

    async def _pull(
        self, connection: RtspConnection, deliveries: list[Delivery], url: str, publisher: StreamPublisher
    ) -> None:
        requester = RtspRequester(
            connection, self._address, timeout_seconds=self._settings.response_timeout_seconds
        )
        options = await requester.request("OPTIONS", url)
        description = await requester.request("DESCRIBE", url, ("Accept", "application/sdp"))
        base = confine_url(_content_base(description) or url, url)
        presentation = parse_sdp(description.body)
        control, payload_type, self.depacketizer = _choose_video(presentation)
        session = RtspSession(requester, control_url(base, presentation.control, url), options)
        receiver = MediaReceiver(publisher, self.depacketizer, self._clock_ns())
        video = TrackReceiver(
            payload_type=payload_type,
            clock_rate=TIME_BASE_HZ,
            take_packet=receiver.take_video,
            take_control=receiver.take_video_control,
            codec=self.depacketizer.codec,
        )
        try:
            delivery = await _set_up_video(deliveries, session, control_url(base, control, url), video)
            await _set_up_sound(delivery, session, presentation, receiver, base, url)
            delivery.start(receiver)
            publisher.offer_turns(delivery.reading)
            await session.play()
            # Nobody sends pictures before: how long the answers took says nothing of the camera.
            receiver.last_unit_ns = self._clock_ns()
            await self._stay(connection, session, receiver)
        finally:
            publisher.offer_turns(None)
            for each in deliveries:
                each.close()
            await session.tear_down(timeout_seconds=self._settings.teardown_timeout_seconds)

    async def _stay(
        self, connection: RtspConnection, session: RtspSession, receiver: MediaReceiver
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
            left_ns = receiver.last_unit_ns + silence_ns - now_ns
            if left_ns <= 0:
                raise SourceUnreachableError("the camera sends no pictures")
            if now_ns >= keepalive_ns:
                keepalive_ns = now_ns + interval_ns
                # Cameras exist that refuse their keepalive, or never answer it, and go on sending pictures.
                with suppress(StreamError, TimeoutError):
                    async with asyncio.timeout(left_ns / _NANOSECONDS):
                        await session.keep_alive()


async def _set_up_video(
    deliveries: list[Delivery], session: RtspSession, url: str, video: TrackReceiver
) -> Delivery:
    """Ask for the pictures in one way and then the other; returns the way that the camera takes."""
    first, second = deliveries
    try:
        await first.set_up(session, url, video)
    except TransportRefusedError:
        await second.set_up(session, url, video)
        return second
    return first


async def _set_up_sound(
    delivery: Delivery,
    session: RtspSession,
    presentation: SessionDescription,
    receiver: MediaReceiver,
    base: str,
    url: str,
) -> None:
    """Ask for the sound, if there is some that we can relay; without it the pictures go on alone."""
    chosen = _choose_sound(presentation)
    if chosen is None:
        return
    control, payload_type, depacketizer = chosen
    sound = TrackReceiver(
        payload_type=payload_type,
        clock_rate=depacketizer.clock_rate,
        take_packet=receiver.take_sound,
        take_control=receiver.take_sound_control,
    )
    with suppress(StreamError):
        await delivery.set_up(session, control_url(base, control, url), sound)
        receiver.add_sound(depacketizer)


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


def _choose_sound(presentation: SessionDescription) -> tuple[str | None, int, AudioDepacketizer] | None:
    for media in presentation.media:
        if media.kind == "audio":
            with suppress(UnsupportedError):
                return media.control, *open_audio_depacketizer(media)
    return None


def _content_base(description: RtspResponse) -> str | None:
    return description.header("Content-Base") or description.header("Content-Location")
