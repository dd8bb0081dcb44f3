"""One encoder that publishes a camera over RTSP: ANNOUNCE, SETUP, RECORD (RFC 2326 §10.3, §10.11).

It logs in with its camera's own name and password. Who guesses learns nothing: an unknown camera, a camera
that is pulled, a wrong name and a wrong password are answered alike, and after a few failures not tried.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from gateway.relay.control_link import ControlUnavailableError, RefusedError
from gateway.relay.publishers import Publishers
from gateway.relay.rtsp_connection import RtspConnection, status_of
from gateway.relay.rtsp_login import LoginThrottle, Nonces, authorization_of, challenges, is_about, proves
from gateway.relay.rtsp_ports import PortPair
from streams.errors import ProtocolError, StreamError, UnsupportedError
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.source import Publisher
from streams.wire.audio_depacketizer import AudioDepacketizer, open_audio_depacketizer
from streams.wire.depacketizer import Depacketizer, open_depacketizer
from streams.wire.digest import Credentials, DigestAuthorization
from streams.wire.rtp import parse_rtp
from streams.wire.rtsp import (
    InterleavedPacket,
    RtspRequest,
    SessionHeader,
    TransportOffer,
    parse_transport_offers,
)
from streams.wire.sdp import MediaDescription, parse_sdp

PUBLISHER_METHODS = "OPTIONS, ANNOUNCE, SETUP, RECORD, GET_PARAMETER, SET_PARAMETER, TEARDOWN"
SILENCE_SECONDS = 10.0
"""A publisher without a complete picture for so long is cut."""
SESSION_SECONDS = 60
MAX_BIT_RATE_BPS = 100_000_000

_NS_PER_SECOND = 1_000_000_000
_NOBODY = Credentials(username="", password="")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RtspPublishers:
    """What every encoder that comes to this worker needs."""

    publishers: Publishers
    throttle: LoginThrottle
    silence_seconds: float = SILENCE_SECONDS
    clock_ns: Callable[[], int] = time.monotonic_ns

    async def serve(
        self, connection: RtspConnection, announce: RtspRequest, camera: str, nonces: Nonces
    ) -> None:
        """Answer ANNOUNCE; if the login is right, and all that follows, until the encoder leaves.

        Raises `ControlUnavailableError` while nothing has been answered.
        """
        if not await self._is_welcome(connection, announce, camera, nonces):
            connection.respond(announce, 401, *challenges(nonces, allows_basic=connection.is_encrypted))
            return
        try:
            tracks = choose_tracks(announce.body)
        except UnsupportedError:
            connection.respond(announce, 415)
            return
        except ProtocolError:
            connection.respond(announce, 400)
            return
        publishing = _Publishing(self, connection, camera, tracks)
        connection.respond(announce, 200)
        try:
            await publishing.run()
        finally:
            publishing.close()

    async def _is_welcome(
        self, connection: RtspConnection, request: RtspRequest, camera: str, nonces: Nonces
    ) -> bool:
        """Raises `ControlUnavailableError`."""
        authorization = authorization_of(request)
        if authorization is None:
            return False
        if isinstance(authorization, DigestAuthorization):
            if not (nonces.use(authorization.nonce) and is_about(authorization, request)):
                return False
        elif not connection.is_encrypted:
            return False
        if not self.throttle.is_open(connection.remote, camera):
            _log.warning("publisher_login_throttled", camera=camera, remote=connection.remote)
            return False
        expected, is_known = _NOBODY, False
        with suppress(RefusedError):
            login = await self.publishers.login(camera)
            expected, is_known = Credentials(username=login.username, password=login.password), True
        if proves(authorization, expected, request) and is_known:
            return True
        self.throttle.count(connection.remote, camera)
        _log.warning("publisher_login_failed", camera=camera, remote=connection.remote)
        return False


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """What of an encoder's description is taken: its first video, and its first sound that we can carry."""

    video: MediaDescription
    payload_type: int
    depacketizer: Depacketizer
    sound: MediaDescription | None = None
    sound_payload_type: int = -1
    sound_depacketizer: AudioDepacketizer | None = None


def choose_tracks(description: bytes) -> Tracks:
    """Raises UnsupportedError without a video that we can relay, ProtocolError for what is no description."""
    media = parse_sdp(description).media
    refusal = UnsupportedError("the encoder offers no video")
    sound: MediaDescription | None = None
    sound_payload_type, sound_depacketizer = -1, None
    for described in media:
        if described.kind == "audio":
            with suppress(UnsupportedError):
                sound_payload_type, sound_depacketizer = open_audio_depacketizer(described)
                sound = described
                break
    for described in media:
        if described.kind != "video":
            continue
        try:
            payload_type, depacketizer = open_depacketizer(described)
        except UnsupportedError as error:
            refusal = error
            continue
        return Tracks(
            video=described,
            payload_type=payload_type,
            depacketizer=depacketizer,
            sound=sound,
            sound_payload_type=sound_payload_type,
            sound_depacketizer=sound_depacketizer,
        )
    raise refusal


class _Publishing:
    """The RTSP session of one encoder. `takers`: who takes the packets of each interleaved channel."""

    def __init__(
        self, publishers: RtspPublishers, connection: RtspConnection, camera: str, tracks: Tracks
    ) -> None:
        self._publishers = publishers
        self._connection = connection
        self._camera = camera
        self._tracks = tracks
        self._header = SessionHeader(id=secrets.token_hex(8), timeout_seconds=SESSION_SECONDS)
        self._channels: dict[str, tuple[int, int]] = {}
        self._ports: dict[str, PortPair] = {}
        self._takers: dict[int, Callable[[bytes], object]] = {}
        self._receiver: MediaReceiver | None = None
        self._limit = BitRateLimit(MAX_BIT_RATE_BPS)
        self._received_ns = 0

    async def run(self) -> None:
        """Until TEARDOWN or silence."""
        while (request := await self._connection.next_request()) is not None:
            match request.method:
                case "SETUP":
                    self._set_up(request)
                case "RECORD" if self._is_set_up():
                    try:
                        await self._record(request)
                    except (RefusedError, ControlUnavailableError) as error:
                        self._connection.respond(request, status_of(error))
                    return
                case "TEARDOWN":
                    self._connection.respond(request, 200)
                    return
                case _:
                    self._answer(request)

    def close(self) -> None:
        self._connection.has_media = False
        for pair in self._ports.values():
            pair.close()

    def _is_set_up(self) -> bool:
        return "video" in self._channels or "video" in self._ports

    def _answer(self, request: RtspRequest) -> None:
        match request.method:
            case "OPTIONS":
                self._connection.respond(request, 200, ("Public", PUBLISHER_METHODS))
            case "GET_PARAMETER" | "SET_PARAMETER":
                self._connection.respond(request, 200, ("Session", str(self._header)))
            case "RECORD" | "ANNOUNCE" | "SETUP":
                self._connection.respond(request, 455)
            case _:
                self._connection.respond(request, 501)

    def _set_up(self, request: RtspRequest) -> None:
        kind = self._kind_of(request.url)
        if kind is None:
            self._connection.respond(request, 404)
            return
        offers = parse_transport_offers(request.header("Transport") or "")
        accepted = next(filter(None, (self._accept(kind, offer) for offer in offers)), None)
        if accepted is None:
            self._connection.respond(request, 461)
        else:
            self._connection.respond(request, 200, ("Transport", accepted), ("Session", str(self._header)))

    def _kind_of(self, url: str) -> str | None:
        """Which of the announced tracks a SETUP means; also "other": one that is announced and not taken."""
        for described, kind in ((self._tracks.video, "video"), (self._tracks.sound, "audio")):
            if described is not None and described.control and url.endswith(described.control):
                return kind
        return "other" if "/publish/" in url else None

    def _accept(self, kind: str, offer: TransportOffer) -> str | None:
        """The Transport header that agrees to the offer."""
        if offer.client_ports is None:
            lowest = 2 * len(self._channels)
            channels = offer.channels or (lowest, lowest + 1)
            taken = {number for own, pair in self._channels.items() if own != kind for number in pair}
            if self._ports or taken & set(channels):
                return None
            self._channels[kind] = channels
            return f"RTP/AVP/TCP;unicast;interleaved={channels[0]}-{channels[1]};mode=record"
        if self._channels or kind in self._ports:
            return None
        local = self._connection.transport.get_extra_info("sockname")[0]
        try:
            pair = PortPair.open(local, self._connection.remote, offer.client_ports)
        except OSError:
            return None
        self._ports[kind] = pair
        client, server = offer.client_ports, pair.ports
        return (
            f"RTP/AVP;unicast;client_port={client[0]}-{client[1]};server_port={server[0]}-{server[1]}"
            ";mode=record"
        )

    async def _record(self, request: RtspRequest) -> None:
        over = asyncio.get_running_loop().create_future()

        def replaced() -> None:
            _log.info("publisher_replaced", camera=self._camera, remote=self._connection.remote)
            if not over.done():
                over.set_result(None)
            self._connection.wake()

        async with self._publishers.publishers.publishing(self._camera, replaced) as publisher:
            self._receive(publisher)
            self._connection.has_media = True
            self._connection.respond(request, 200, ("Session", str(self._header)))
            _log.info("publisher_started", camera=self._camera, remote=self._connection.remote)
            try:
                await self._stay(over)
            finally:
                self._connection.has_media = False
                _log.info(
                    "publisher_ended",
                    camera=self._camera,
                    error=None if self._connection.failure is None else self._connection.failure.code,
                )

    async def _stay(self, over: asyncio.Future[None]) -> None:
        """Answer the encoder until it leaves, is replaced, or sends no pictures any more."""
        assert self._receiver is not None  # noqa: S101 - _record has made it
        silence_ns = int(self._publishers.silence_seconds * _NS_PER_SECOND)
        while True:
            left_ns = self._receiver.last_unit_ns + silence_ns - self._publishers.clock_ns()
            if left_ns <= 0:
                self._connection.abort()
                return
            try:
                async with asyncio.timeout(left_ns / _NS_PER_SECOND):
                    request = await self._connection.next_request(over)
            except TimeoutError:
                continue
            if request is None:
                self._connection.abort()
                return
            if request.method == "TEARDOWN":
                self._connection.respond(request, 200)
                return
            self._answer(request)

    def _receive(self, publisher: Publisher) -> None:
        now_ns = self._publishers.clock_ns()
        self._receiver = receiver = MediaReceiver(publisher, self._tracks.depacketizer, now_ns)
        if self._tracks.sound_depacketizer is not None and (
            "audio" in self._channels or "audio" in self._ports
        ):
            receiver.add_sound(self._tracks.sound_depacketizer)
        takers: dict[str, tuple[Callable[[bytes], object], Callable[[bytes], object]]] = {
            "video": (self._take_video, receiver.take_video_control),
            "audio": (self._take_sound, receiver.take_sound_control),
        }
        for kind, (rtp, rtcp) in takers.items():
            if (channels := self._channels.get(kind)) is not None:
                self._takers |= {channels[0]: rtp, channels[1]: rtcp}
            if (pair := self._ports.get(kind)) is not None:
                pair.listen(self._from_network(rtp), self._from_network(rtcp))
        self._connection.deliver = self._deliver

    def _deliver(self, packet: InterleavedPacket, received_ns: int) -> None:
        self._limit.take(len(packet.payload), received_ns)
        taker = self._takers.get(packet.channel)
        if taker is not None:
            self._received_ns = received_ns
            taker(packet.payload)

    def _from_network(self, take: Callable[[bytes], object]) -> Callable[[bytes], None]:
        def taken(datagram: bytes) -> None:
            self._received_ns = self._publishers.clock_ns()
            try:
                self._limit.take(len(datagram), self._received_ns)
                take(datagram)
            except StreamError as error:
                self._connection.fail(error)

        return taken

    def _take_video(self, data: bytes) -> None:
        packet = parse_rtp(data)
        if packet.payload_type == self._tracks.payload_type and self._receiver is not None:
            self._receiver.take_video(packet, self._received_ns)

    def _take_sound(self, data: bytes) -> None:
        packet = parse_rtp(data)
        if packet.payload_type == self._tracks.sound_payload_type and self._receiver is not None:
            self._receiver.take_sound(packet, self._received_ns)
