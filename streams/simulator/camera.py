"""Simulated cameras: RTSP 1.0 servers with logins, for the demonstration, the benchmarks and the tests.

One server carries any number of cameras, each under its own path, and speaks what real ones do over TCP:
OPTIONS, DESCRIBE, SETUP (interleaved only), PLAY, GET_PARAMETER, TEARDOWN, digest with MD5 or SHA-256, and a
session timeout that it means. It can also misbehave as cameras and attackers do: see `Faults`.
"""

import asyncio
import hmac
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from streams.errors import ProtocolError
from streams.media import AccessUnit, Track
from streams.wire.digest import (
    Algorithm,
    BasicChallenge,
    Challenge,
    Credentials,
    DigestChallenge,
    digest_ha1,
    parse_authorization,
    verify_digest,
)
from streams.wire.packetizer import PACKETIZERS, RtpSender, describe_track
from streams.wire.rtsp import (
    Headers,
    RtspParser,
    RtspRequest,
    RtspResponse,
    SessionHeader,
    Transport,
    parse_transport,
    serialize,
    serialize_interleaved,
)
from streams.wire.sdp import SessionDescription, serialize_sdp

_PAYLOAD_TYPE: Final = 96
_CONTROL: Final = "trackID=0"
_METHODS: Final = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"
_READ_BYTES: Final = 65536
_GARBAGE: Final = b"\xff\x00garbage" * 8
_REASONS: Final = {
    200: "OK",
    302: "Moved Temporarily",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
}


class AccessUnitProducer(Protocol):
    """What a simulated camera sees. The producer keeps the pace: it yields access units in real time."""

    @property
    def track(self) -> Track: ...

    def open(self) -> AsyncGenerator[AccessUnit, None]:
        """One subscription, starting with a random access point; the subscriber closes it (`aclose`)."""


class Login(StrEnum):
    """What a camera challenges with."""

    DIGEST_MD5 = "digest-md5"
    DIGEST_SHA256 = "digest-sha256"
    BASIC = "basic"


class Disturbance(StrEnum):
    """What happens to a playing session after a number of packets."""

    GARBAGE = "garbage"
    SILENCE = "silence"
    CLOSE = "close"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How a camera misbehaves. `redirect_to`: answers DESCRIBE with 302 to this URL, before any login."""

    redirect_to: str | None = None
    rejects_everyone: bool = False
    disturbance: Disturbance | None = None
    after_packets: int = 0


@dataclass(frozen=True, kw_only=True)
class SimulatedCamera:
    """`name` is its path. Without a `username` it is open. `has_qop`: offers qop=auth (RFC 7616)."""

    name: str
    producer: AccessUnitProducer
    username: str | None = None
    password: str = field(default="", repr=False)
    logins: tuple[Login, ...] = (Login.DIGEST_MD5,)
    has_qop: bool = False
    describes_parameter_sets: bool = True
    sends_parameter_sets: bool = True
    faults: Faults = Faults()


class CameraServer:
    """A running server; made by `serve_cameras`."""

    def __init__(
        self, cameras: Iterable[SimulatedCamera], *, host: str, session_timeout_seconds: float
    ) -> None:
        self.cameras = {camera.name: camera for camera in cameras}
        self.host = host
        self.port = 0
        self.session_timeout_seconds = session_timeout_seconds
        self.playing: Counter[str] = Counter()
        """How many clients play each camera now."""
        self.requests: Counter[str] = Counter()
        """How many requests came, by method."""

    def url(self, name: str) -> str:
        return f"rtsp://{self.host}:{self.port}/{name}"


@asynccontextmanager
async def serve_cameras(
    cameras: Iterable[SimulatedCamera],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    session_timeout_seconds: float = 60,
) -> AsyncIterator[CameraServer]:
    """Serve until the block ends, then end every connection. Raises OSError if the port is taken."""
    camera_server = CameraServer(cameras, host=host, session_timeout_seconds=session_timeout_seconds)
    connections: set[asyncio.Task[None]] = set()
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = tasks.create_task(_Connection(camera_server, reader, writer).run())
            connections.add(task)
            task.add_done_callback(connections.discard)

        try:
            async with await asyncio.start_server(accept, host, port) as listener:
                camera_server.port = listener.sockets[0].getsockname()[1]
                yield camera_server
        except Exception as error:  # noqa: BLE001 (raised below: the group would wrap what is not its own)
            failure = error
        finally:
            for task in connections:
                task.cancel()
    if failure is not None:
        raise failure


class _Connection:
    """One client: its login, at most one RTSP session, and the task that plays it."""

    def __init__(
        self, server: CameraServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._nonce = secrets.token_hex(16)
        self._session: SessionHeader | None = None
        self._transport: Transport | None = None
        self._tasks = asyncio.TaskGroup()
        self._player: asyncio.Task[None] | None = None
        self._handlers: dict[str, Callable[[RtspRequest, SimulatedCamera], RtspResponse]] = {
            "DESCRIBE": self._describe,
            "SETUP": self._set_up,
            "PLAY": self._play,
            "GET_PARAMETER": self._get_parameter,
            "TEARDOWN": self._tear_down,
        }

    async def run(self) -> None:
        try:
            async with self._tasks:
                try:
                    await self._receive()
                finally:
                    self._stop()
        except* (ConnectionError, TimeoutError):
            pass  # the client left, or was idle beyond the session timeout
        finally:
            self._writer.transport.abort()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    async def _receive(self) -> None:
        parser = RtspParser()
        while True:
            async with asyncio.timeout(self._server.session_timeout_seconds):
                data = await self._reader.read(_READ_BYTES)
            if not data:
                return
            try:
                for event in parser.receive_data(data):
                    if isinstance(event, RtspRequest):
                        self._writer.write(serialize(self._respond(event)))
            except ProtocolError:
                self._writer.write(serialize(_response(400)))
                return
            await self._writer.drain()

    def _respond(self, request: RtspRequest) -> RtspResponse:
        self._server.requests[request.method] += 1
        response = self._answer(request)
        cseq = request.header("CSeq") or "0"
        return msgspec.structs.replace(response, headers=(("CSeq", cseq), *response.headers))

    def _answer(self, request: RtspRequest) -> RtspResponse:
        if request.method == "OPTIONS":
            return _response(200, ("Public", _METHODS))
        handler = self._handlers.get(request.method)
        if handler is None:
            return _response(501)
        camera = self._server.cameras.get(_mount(request.url))
        if camera is None:
            return _response(404)
        if camera.faults.redirect_to is not None:
            return _response(302, ("Location", camera.faults.redirect_to))
        if not self._is_logged_in(request, camera):
            challenges = (("WWW-Authenticate", str(challenge)) for challenge in self._challenges(camera))
            return _response(401, *challenges)
        return handler(request, camera)

    def _challenges(self, camera: SimulatedCamera) -> list[Challenge]:
        return [self._challenge(camera, login) for login in camera.logins]

    def _challenge(self, camera: SimulatedCamera, login: Login) -> Challenge:
        if login is Login.BASIC:
            return BasicChallenge(realm=camera.name)
        algorithm = Algorithm.SHA256 if login is Login.DIGEST_SHA256 else Algorithm.MD5
        return DigestChallenge(
            realm=camera.name,
            nonce=self._nonce,
            algorithm=algorithm,
            # Cameras that know only RFC 2069 do not name MD5.
            names_algorithm=algorithm is not Algorithm.MD5 or camera.has_qop,
            has_qop=camera.has_qop,
        )

    def _is_logged_in(self, request: RtspRequest, camera: SimulatedCamera) -> bool:
        if camera.username is None:
            return True
        header = request.header("Authorization")
        if header is None or camera.faults.rejects_everyone:
            return False
        try:
            answer = parse_authorization(header)
        except ProtocolError:
            return False
        expected = Credentials(username=camera.username, password=camera.password)
        if isinstance(answer, Credentials):
            return Login.BASIC in camera.logins and hmac.compare_digest(
                f"{answer.username}:{answer.password}".encode(),
                f"{expected.username}:{expected.password}".encode(),
            )
        uris = {request.url, request.url.removesuffix(_CONTROL), request.url.removesuffix("/" + _CONTROL)}
        return any(
            isinstance(challenge, DigestChallenge)
            and hmac.compare_digest(answer.username.encode(), expected.username.encode())
            and verify_digest(
                answer,
                challenge,
                digest_ha1(challenge.algorithm, expected, challenge.realm),
                request.method,
                uris,
            )
            for challenge in self._challenges(camera)
        )

    def _describe(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        media = describe_track(camera.producer.track, _PAYLOAD_TYPE, _CONTROL)
        if not camera.describes_parameter_sets:
            media = msgspec.structs.replace(media, fmtp={_PAYLOAD_TYPE: {"packetization-mode": "1"}})
        description = SessionDescription(name=camera.name, control="*", media=(media,))
        headers = (
            ("Content-Base", request.url.removesuffix("/") + "/"),
            ("Content-Type", "application/sdp"),
        )
        return _response(200, *headers, body=serialize_sdp(description, self._server.host))

    def _set_up(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        del camera
        transport = parse_transport(request.header("Transport") or "")
        if transport is None:
            return _response(461)
        if self._player is not None:
            return _response(455)
        self._transport = transport
        if self._session is None:
            timeout_seconds = max(1, int(self._server.session_timeout_seconds))
            self._session = SessionHeader(id=secrets.token_hex(8), timeout_seconds=timeout_seconds)
        return _response(200, ("Transport", str(transport)), ("Session", str(self._session)))

    def _play(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        session, transport = self._session_of(request), self._transport
        if session is None or transport is None:
            return _response(454)
        if self._player is None:
            self._player = self._tasks.create_task(self._send(camera, transport))
        return _response(200, ("Session", session.id), ("Range", "npt=0.000-"))

    def _get_parameter(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        del camera
        session = self._session_of(request)
        return _response(454) if session is None else _response(200, ("Session", session.id))

    def _tear_down(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        del camera
        if self._session_of(request) is None:
            return _response(454)
        self._stop()
        self._session = None
        return _response(200)

    def _session_of(self, request: RtspRequest) -> SessionHeader | None:
        identifier = (request.header("Session") or "").partition(";")[0].strip()
        return self._session if self._session is not None and self._session.id == identifier else None

    def _stop(self) -> None:
        if self._player is not None:
            self._player.cancel()
            self._player = None

    async def _send(self, camera: SimulatedCamera, transport: Transport) -> None:
        self._server.playing[camera.name] += 1
        try:
            await self._send_access_units(camera, transport)
        finally:
            self._server.playing[camera.name] -= 1

    async def _send_access_units(self, camera: SimulatedCamera, transport: Transport) -> None:
        track = camera.producer.track
        sender = RtpSender(
            payload_type=_PAYLOAD_TYPE,
            ssrc=secrets.randbits(32),
            first_sequence_number=secrets.randbits(16),
            timestamp_offset=secrets.randbits(32),
        )
        packetizer = PACKETIZERS[track.codec](sender)
        sent = 0
        async with aclosing(camera.producer.open()) as units:
            async for unit in units:
                with_sets = unit.is_random_access and camera.sends_parameter_sets
                packets = packetizer.packetize(unit, track.parameter_sets if with_sets else ())
                if camera.faults.disturbance is not None:
                    packets = packets[: camera.faults.after_packets - sent]
                sent += len(packets)
                self._writer.write(
                    b"".join(serialize_interleaved(transport.rtp_channel, packet) for packet in packets)
                )
                await self._writer.drain()
                if camera.faults.disturbance is not None and sent == camera.faults.after_packets:
                    await self._disturb(camera.faults.disturbance)

    async def _disturb(self, disturbance: Disturbance) -> None:
        if disturbance is Disturbance.CLOSE:
            self._writer.close()
        elif disturbance is Disturbance.GARBAGE:
            self._writer.write(_GARBAGE)
        await asyncio.Event().wait()


def _response(status: int, *headers: tuple[str, str], body: bytes = b"") -> RtspResponse:
    fields: Headers = headers
    return RtspResponse(status=status, reason=_REASONS[status], headers=fields, body=body)


def _mount(url: str) -> str:
    try:
        path = urlsplit(url).path
    except ValueError:
        return ""
    return path.strip("/").removesuffix(_CONTROL).rstrip("/")
