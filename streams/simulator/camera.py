"""Simulated cameras: RTSP 1.0 servers with logins, for the demonstration, the benchmarks and the tests.

One server carries any number of cameras, each under its own path, and speaks what real ones do: OPTIONS,
DESCRIBE, SETUP (interleaved or UDP), PLAY, GET_PARAMETER, TEARDOWN, digest with MD5 or SHA-256, and a session
timeout that it means. A camera may have sound, and a second, smaller stream at `/{name}/sub`. It can also
misbehave as cameras and attackers do: see `Faults`.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import msgspec

from streams.errors import ProtocolError
from streams.simulator.lanes import InterleavedLane, Lane, UdpLane
from streams.simulator.login import Login, is_answered
from streams.simulator.playing import (
    PAYLOAD_TYPE,
    AccessUnitProducer,
    Disturbance,
    Faults,
    PicturePlayer,
    SoundProducer,
    describe_sound,
    play_sound,
)
from streams.wire.digest import Challenge, Credentials
from streams.wire.packetizer import describe_track
from streams.wire.rtsp import (
    Headers,
    RtspParser,
    RtspRequest,
    RtspResponse,
    SessionHeader,
    parse_transport_offers,
    serialize,
)
from streams.wire.sdp import SessionDescription, serialize_sdp

SUB_STREAM: Final = "/sub"

_CONTROL: Final = "trackID=0"
_SOUND_CONTROL: Final = "trackID=1"
_CONTROL_SUFFIXES: Final = tuple(
    prefix + control for control in (_CONTROL, _SOUND_CONTROL) for prefix in ("/", "")
)
_METHODS: Final = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"
__all__ = [
    "AccessUnitProducer",
    "CameraServer",
    "Disturbance",
    "Faults",
    "Login",
    "SimulatedCamera",
    "SoundProducer",
    "serve_cameras",
]

_READ_BYTES: Final = 65536
_GARBAGE: Final = b"\xff\x00garbage" * 8
_HALF_PACKET: Final = b"$\x00\x05\x00half"
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


@dataclass(frozen=True, kw_only=True)
class SimulatedCamera:
    """`name` is its path. Without a `username` it is open. `has_qop`: offers qop=auth (RFC 7616).

    `sub`: what the second stream at `/{name}/sub` shows. `refuses_tcp`, `refuses_udp`: answers such a SETUP
    with 461.
    """

    name: str
    producer: AccessUnitProducer
    sub: AccessUnitProducer | None = None
    sound: SoundProducer | None = None
    refuses_tcp: bool = False
    refuses_udp: bool = False
    username: str | None = None
    password: str = field(default="", repr=False)
    logins: tuple[Login, ...] = (Login.DIGEST_MD5,)
    has_qop: bool = False
    describes_parameter_sets: bool = True
    sends_parameter_sets: bool = True
    faults: Faults = field(default_factory=Faults)


class CameraServer:
    """A running server; made by `serve_cameras`."""

    def __init__(
        self, cameras: Iterable[SimulatedCamera], *, host: str, session_timeout_seconds: float
    ) -> None:
        self.cameras: dict[str, SimulatedCamera] = {}
        for camera in cameras:
            self.cameras[camera.name] = camera
            if camera.sub is not None:
                name = camera.name + SUB_STREAM
                self.cameras[name] = replace(camera, name=name, producer=camera.sub, sub=None)
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
        self._lanes: dict[str, Lane] = {}
        self._tasks = asyncio.TaskGroup()
        self._players: list[asyncio.Task[None]] = []
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
        return [login.challenge(camera.name, self._nonce, has_qop=camera.has_qop) for login in camera.logins]

    def _is_logged_in(self, request: RtspRequest, camera: SimulatedCamera) -> bool:
        if camera.username is None:
            return True
        header = request.header("Authorization")
        if header is None or camera.faults.rejects_everyone:
            return False
        expected = Credentials(username=camera.username, password=camera.password)
        uris = {request.url, *(request.url.removesuffix(suffix) for suffix in _CONTROL_SUFFIXES)}
        return is_answered(self._challenges(camera), header, expected, request.method, uris)

    def _describe(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        media = [describe_track(camera.producer.track, PAYLOAD_TYPE, _CONTROL)]
        if not camera.describes_parameter_sets:
            media[0] = msgspec.structs.replace(media[0], fmtp={PAYLOAD_TYPE: {"packetization-mode": "1"}})
        if camera.sound is not None:
            media.append(describe_sound(camera.sound.track, _SOUND_CONTROL))
        description = SessionDescription(name=camera.name, control="*", media=tuple(media))
        headers = (
            ("Content-Base", request.url.removesuffix("/") + "/"),
            ("Content-Type", "application/sdp"),
        )
        return _response(200, *headers, body=serialize_sdp(description, self._server.host))

    def _set_up(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        control = _SOUND_CONTROL if request.url.rstrip("/").endswith(_SOUND_CONTROL) else _CONTROL
        if control == _SOUND_CONTROL and (camera.sound is None or camera.faults.refuses_sound):
            return _response(404)
        if self._players:
            return _response(455)
        for offer in parse_transport_offers(request.header("Transport") or ""):
            if offer.client_ports is not None and not camera.refuses_udp:
                lane: Lane = UdpLane(self._writer, offer.client_ports)
            elif offer.client_ports is None and not camera.refuses_tcp:
                first = 2 * len(self._lanes)
                lane = InterleavedLane(self._writer, offer.channels or (first, first + 1))
            else:
                continue
            self._lanes[control] = lane
            if self._session is None:
                timeout_seconds = max(1, int(self._server.session_timeout_seconds))
                self._session = SessionHeader(id=secrets.token_hex(8), timeout_seconds=timeout_seconds)
            return _response(200, ("Transport", lane.transport), ("Session", str(self._session)))
        return _response(461)

    def _play(self, request: RtspRequest, camera: SimulatedCamera) -> RtspResponse:
        session = self._session_of(request)
        if session is None or _CONTROL not in self._lanes:
            return _response(454)
        if not self._players:
            self._players.append(self._tasks.create_task(self._send(camera, self._lanes[_CONTROL])))
            sound_lane = self._lanes.get(_SOUND_CONTROL)
            if camera.sound is not None and sound_lane is not None:
                playing = play_sound(camera.sound, sound_lane.send, sound_lane.send_control)
                self._players.append(self._tasks.create_task(playing))
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
        for player in self._players:
            player.cancel()
        self._players.clear()
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    async def _send(self, camera: SimulatedCamera, lane: Lane) -> None:
        self._server.playing[camera.name] += 1
        try:
            pictures = PicturePlayer(
                camera.producer, camera.faults, sends_parameter_sets=camera.sends_parameter_sets
            )
            await pictures.run(lane.send, lane.send_control, self._disturb)
        finally:
            self._server.playing[camera.name] -= 1

    async def _disturb(self, disturbance: Disturbance) -> None:
        if disturbance is Disturbance.CLOSE:
            self._writer.close()
        elif disturbance is Disturbance.GARBAGE:
            self._writer.write(_GARBAGE)
        elif disturbance is Disturbance.HALF_PACKET:
            self._writer.write(_HALF_PACKET)
        await asyncio.Event().wait()


def _response(status: int, *headers: tuple[str, str], body: bytes = b"") -> RtspResponse:
    fields: Headers = headers
    return RtspResponse(status=status, reason=_REASONS[status], headers=fields, body=body)


def _mount(url: str) -> str:
    try:
        path = urlsplit(url).path
    except ValueError:
        return ""
    path = path.strip("/")
    for suffix in _CONTROL_SUFFIXES:
        path = path.removesuffix(suffix)
    return path.rstrip("/")
