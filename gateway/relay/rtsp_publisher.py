"""One encoder that publishes a camera over RTSP: ANNOUNCE, SETUP, RECORD (RFC 2326 §10.3, §10.11).

It logs in with its camera's own name and password. Who guesses learns nothing: an unknown camera, a camera
that is pulled, a wrong name and a wrong password are answered alike, and after a few failures not tried.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass

import msgspec
import structlog
from msgspec.structs import replace

from gateway.relay.control_link import ControlUnavailableError, RefusedError
from gateway.relay.publishers import MAX_BIT_RATE_BPS, SILENCE_SECONDS, Publishers
from gateway.relay.rtsp_connection import RtspConnection, discard, status_of
from gateway.relay.rtsp_login import Nonces, authorization_of, challenges, is_about, proves
from streams.errors import (
    LoginRefusedError,
    ProtocolError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.media import TIME_BASE_HZ
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.rtsp_session import Take, TrackReceiver
from streams.sources.rtsp_udp import UdpTrack
from streams.sources.source import Publisher
from streams.wire.audio_depacketizer import AudioDepacketizer, open_audio_depacketizer
from streams.wire.depacketizer import Depacketizer, open_depacketizer
from streams.wire.digest import Credentials, DigestAuthorization
from streams.wire.rtsp import (
    InterleavedPacket,
    RtspRequest,
    SessionHeader,
    Transport,
    TransportOffer,
    UdpTransport,
    parse_transport_offers,
)
from streams.wire.sdp import parse_sdp

PUBLISHER_METHODS = "OPTIONS, ANNOUNCE, SETUP, RECORD, GET_PARAMETER, SET_PARAMETER, TEARDOWN"
SESSION_SECONDS = 60

_NS_PER_SECOND = 1_000_000_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RtspPublishers:
    """What every encoder that comes to this worker needs."""

    publishers: Publishers

    async def serve(
        self, connection: RtspConnection, announce: RtspRequest, camera: str, nonces: Nonces
    ) -> None:
        """Answer ANNOUNCE; if the login is right, and all that follows, until the encoder leaves.

        Raises `ControlUnavailableError` while nothing has been answered.
        """
        login = await self._login(connection, announce, camera, nonces)
        if login is None:
            connection.respond(announce, 401, *challenges(nonces, allows_basic=connection.is_encrypted))
            return
        try:
            tracks = announced_tracks(announce.body)
        except UnsupportedError:
            connection.respond(announce, 415)
            return
        except ProtocolError:
            connection.respond(announce, 400)
            return
        publishing = _Publishing(self.publishers, connection, camera, login, tracks)
        connection.respond(announce, 200)
        try:
            await publishing.run()
        finally:
            publishing.close()

    async def _login(
        self, connection: RtspConnection, request: RtspRequest, camera: str, nonces: Nonces
    ) -> Credentials | None:
        """The camera's login if the request proves it. Raises `ControlUnavailableError`."""
        authorization = authorization_of(request)
        if authorization is None:
            return None
        if isinstance(authorization, DigestAuthorization):
            if not (nonces.use(authorization.nonce) and is_about(authorization, request)):
                return None
        elif not connection.is_encrypted:
            return None
        return await self.publishers.admits(
            camera, connection.remote, lambda expected: proves(authorization, expected, request)
        )


class AnnouncedTrack(msgspec.Struct, frozen=True, kw_only=True):
    """One track of an encoder's description. `payload_type` None: it is received and thrown away."""

    control: str
    clock_rate: int = TIME_BASE_HZ
    payload_type: int | None = None
    video: Depacketizer | None = None
    sound: AudioDepacketizer | None = None


def announced_tracks(description: bytes) -> list[AnnouncedTrack]:
    """All tracks; of those that we can relay, the first video and the first sound are taken.

    Raises UnsupportedError without such a video, ProtocolError for what is no description.
    """
    tracks, refusal = [], UnsupportedError("the encoder offers no video")
    has_video = has_sound = False
    for number, described in enumerate(parse_sdp(description).media):
        track = AnnouncedTrack(control=described.control or str(number))
        try:
            if described.kind == "video" and not has_video:
                payload_type, video = open_depacketizer(described)
                track, has_video = replace(track, payload_type=payload_type, video=video), True
            elif described.kind == "audio" and not has_sound:
                payload_type, sound = open_audio_depacketizer(described)
                rate = sound.clock_rate
                track = replace(track, payload_type=payload_type, sound=sound, clock_rate=rate)
                has_sound = True
        except UnsupportedError as error:
            refusal = error
        tracks.append(track)
    if not has_video:
        raise refusal
    return tracks


class _Publishing:
    """The RTSP session of one encoder. `channels`, `ports`: how each track comes that was set up."""

    def __init__(
        self,
        publishers: Publishers,
        connection: RtspConnection,
        camera: str,
        login: Credentials,
        tracks: list[AnnouncedTrack],
    ) -> None:
        self._publishers = publishers
        self._connection = connection
        self._camera = camera
        self._login = login
        self._tracks = tracks
        self._header = SessionHeader(id=secrets.token_hex(8), timeout_seconds=SESSION_SECONDS)
        self._channels: dict[int, tuple[int, int]] = {}
        self._ports: dict[int, tuple[UdpTrack, tuple[int, int]]] = {}
        self._takers: dict[int, Take] = {}
        self._limit = BitRateLimit(MAX_BIT_RATE_BPS)

    async def run(self) -> None:
        """Until TEARDOWN or silence."""
        while (request := await self._connection.next_request()) is not None:
            match request.method:
                case "SETUP":
                    await self._set_up(request)
                case "RECORD" if self._has_video():
                    try:
                        await self._record(request)
                    except (RefusedError, ControlUnavailableError) as error:
                        self._connection.respond(request, status_of(error))
                    except LoginRefusedError:
                        self._connection.respond(request, 401)
                    return
                case "TEARDOWN":
                    self._connection.respond(request, 200)
                    return
                case _:
                    self._answer(request)

    def close(self) -> None:
        self._connection.deliver = discard
        self._connection.has_media = False
        for track, _ in self._ports.values():
            track.close()

    def _has_video(self) -> bool:
        return any(self._tracks[index].video is not None for index in (*self._channels, *self._ports))

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

    async def _set_up(self, request: RtspRequest) -> None:
        index = next((i for i, t in enumerate(self._tracks) if request.url.endswith(t.control)), None)
        if index is None:
            self._connection.respond(request, 404)
            return
        for offer in parse_transport_offers(request.header("Transport") or ""):
            accepted = await self._accept(index, offer)
            if accepted is not None:
                headers = ("Transport", accepted), ("Session", str(self._header))
                self._connection.respond(request, 200, *headers)
                return
        self._connection.respond(request, 461)

    async def _accept(self, index: int, offer: TransportOffer) -> str | None:
        """The Transport header that agrees to the offer; all tracks come the same way."""
        if offer.client_ports is None:
            channels = offer.channels or (2 * index, 2 * index + 1)
            taken = {number for own, pair in self._channels.items() if own != index for number in pair}
            if self._ports or taken & set(channels):
                return None
            self._channels[index] = channels
            return f"{Transport(rtp_channel=channels[0], rtcp_channel=channels[1])};mode=record"
        if self._channels or index in self._ports:
            return None
        rate = self._tracks[index].clock_rate
        track = UdpTrack(self._connection.remote, rate, self._limit, self._fail)
        try:
            await track.open(self._connection.transport.get_extra_info("sockname")[0])
        except SourceUnreachableError:
            return None
        self._ports[index] = track, offer.client_ports
        ports = track.rtp_port, track.rtp_port + 1
        return f"{UdpTransport(client_ports=offer.client_ports, server_ports=ports)};mode=record"

    async def _record(self, request: RtspRequest) -> None:
        over = asyncio.get_running_loop().create_future()

        def replaced() -> None:
            if not over.done():
                over.set_result(None)
            self._connection.wake()

        log = _log.bind(camera=self._camera, remote=self._connection.remote)
        async with self._publishers.publishing(
            self._camera,
            self._login,
            replaced,
            failure=lambda: self._connection.failure,
            lost_packets=self._lost_packets,
        ) as publisher:
            receiver = self._receive(publisher)
            self._connection.has_media = True
            self._connection.respond(request, 200, ("Session", str(self._header)))
            log.info("publisher_started")
            reason = "lost"
            try:
                reason = await self._stay(receiver, over)
            finally:
                failure = self._connection.failure
                log.info("publisher_ended", reason=reason if failure is None else failure.code)

    async def _stay(self, receiver: MediaReceiver, over: asyncio.Future[None]) -> str:
        """Answer the encoder until it leaves, is replaced, or sends no pictures any more. Returns why."""
        silence_ns = int(SILENCE_SECONDS * _NS_PER_SECOND)
        while (left_ns := receiver.last_unit_ns + silence_ns - time.monotonic_ns()) > 0:
            try:
                async with asyncio.timeout(left_ns / _NS_PER_SECOND):
                    request = await self._connection.next_request(over)
            except TimeoutError:
                continue
            if request is None:
                self._connection.abort()
                return "replaced"
            if request.method == "TEARDOWN":
                self._connection.respond(request, 200)
                return "completed"
            self._answer(request)
        self._connection.abort()
        return "silent"

    def _lost_packets(self) -> int:
        return sum(
            track.video.lost_packets + track.video.malformed_payloads
            for track in self._tracks
            if track.video is not None
        )

    def _receive(self, publisher: Publisher) -> MediaReceiver:
        """Let what comes in go to the publisher."""
        video = next(track.video for track in self._tracks if track.video is not None)
        receiver = MediaReceiver(publisher, video, time.monotonic_ns())
        for index in (*self._channels, *self._ports):
            track = self._tracks[index]
            if track.sound is not None:
                receiver.add_sound(track.sound)
            take = receiver.take_video if track.video is not None else receiver.take_sound
            control = receiver.take_video_control if track.video is not None else receiver.take_sound_control
            if track.payload_type is not None:
                self._connect(
                    index,
                    TrackReceiver(
                        payload_type=track.payload_type,
                        clock_rate=track.clock_rate,
                        take_packet=take,
                        take_control=control,
                    ),
                )
        self._connection.deliver, self._connection.limit = self._deliver, self._limit
        return receiver

    def _connect(self, index: int, receiver: TrackReceiver) -> None:
        if (channels := self._channels.get(index)) is not None:
            self._takers[channels[0]] = receiver.take_interleaved
            self._takers[channels[1]] = lambda data, _ns: receiver.take_control(data)
        else:
            track, client_ports = self._ports[index]
            track.take_packet, track.take_control = receiver.take_own, receiver.take_control
            track.start(client_ports)

    def _deliver(self, packet: InterleavedPacket, received_ns: int) -> None:
        if (take := self._takers.get(packet.channel)) is not None:
            take(packet.payload, received_ns)

    def _fail(self, error: Exception) -> None:
        """What went wrong with a datagram."""
        if not isinstance(error, StreamError):
            _log.error("publisher_failed", camera=self._camera, exc_info=error)
            error = StreamError("a bug of ours")
        self._connection.fail(error)
