"""`python -m gateway.bench.cameras`: any number of RTSP cameras in one process, as cheap as they can be.

They share the machine with what is measured, so nothing is done twice: an access unit is packetized once
for all cameras, which send the same bytes at different times. The pictures of one camera are 40 ms apart;
the cameras are spread over these 40 ms, and their keyframes over a GOP. A plain epoll loop, RTSP over TCP
only, no login; `streams.simulator.camera` is the one that behaves like a product.
"""

import resource
import select
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.bench.clip import GOP, PICTURES_PER_SECOND, Clip, read_clip
from gateway.bench.quantile import quantile
from gateway.bench.stamp import DIGITS, find_stamp, serialize_stamp, stamp_nal_unit
from gateway.child import announce_ready, read_settings
from streams.errors import ProtocolError
from streams.media import TIME_BASE_HZ
from streams.wire.packetizer import Packetizer, RtpSender, describe_track
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

_PERIOD_NS: Final = 1_000_000_000 // PICTURES_PER_SECOND
_SLOTS: Final = 40
"""Parts of the period between two pictures; a camera sends in one of them."""
_SLOT_NS: Final = _PERIOD_NS // _SLOTS
_TICKS: Final = TIME_BASE_HZ // PICTURES_PER_SECOND
_PAYLOAD_TYPE: Final = 96
_CONTROL: Final = "trackID=0"
_METHODS: Final = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "TEARDOWN")
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 461: "Unsupported Transport",
                   501: "Not Implemented"}  # fmt: skip
_TRANSPORT: Final = Transport(rtp_channel=0, rtcp_channel=1)
_READ_BYTES: Final = 65536
_EVENTS: Final = 64
_MAX_DELAYS: Final = 20_000
_SESSION: Final = ("Session", str(SessionHeader(id="bench", timeout_seconds=60)))

_Response = tuple[int, Headers, bytes]
"""Status, headers, body."""


@dataclass(frozen=True, kw_only=True)
class BenchCamerasSettings:
    """Camera n of `cameras` is at `rtsp://127.0.0.1:{port}/{n}`.

    `clip`: a file of `gateway.bench.clip`. `report`: where `CamerasReport` is written at the end.
    `stamps_every_unit`: each access unit says when it was sent, in a packet more; else only keyframes do,
    which carry parameter sets in such a packet anyway.
    """

    port: int
    cameras: int
    clip: str
    report: str
    stamps_every_unit: bool


class CamerasReport(msgspec.Struct, frozen=True, kw_only=True):
    """`skipped`: access units that a connection had no room for. `late_ms`: how late they were, p99."""

    sent: int
    skipped: int
    late_ms: float


class SharedUnits:
    """The newest GOP of the endless stream, as bytes in RTSP connections, by position."""

    def __init__(self, clip: Clip, *, stamps_every_unit: bool) -> None:
        self._clip = clip
        self._stamps_every_unit = stamps_every_unit
        sender = RtpSender(payload_type=_PAYLOAD_TYPE, ssrc=1, first_sequence_number=0, timestamp_offset=0)
        self._packetizer = Packetizer(clip.track.codec, sender)
        self._units: deque[tuple[bytearray, int]] = deque(maxlen=GOP)
        self._made = 0
        for _ in range(GOP):
            self.advance()

    def advance(self) -> None:
        """Make the next access unit; the oldest is forgotten."""
        index, self._made = self._made, self._made + 1
        unit = self._clip.units[index % len(self._clip.units)]
        unit = msgspec.structs.replace(unit, pts=index * _TICKS, dts=index * _TICKS)
        before: tuple[bytes, ...] = self._clip.track.parameter_sets if unit.is_random_access else ()
        if self._stamps_every_unit or unit.is_random_access:
            before += (stamp_nal_unit(),)
        data = bytearray().join(
            serialize_interleaved(_TRANSPORT.rtp_channel, packet)
            for packet in self._packetizer.packetize(unit, before)
        )
        self._units.append((data, find_stamp(data)))

    def stamped(self, age: int, now_ns: int) -> bytearray:
        """The access unit that is `age` positions old. The bytes are overwritten by the next call."""
        data, stamp = self._units[GOP - 1 - age]
        if stamp >= 0:
            data[stamp : stamp + DIGITS] = serialize_stamp(now_ns)
        return data


@dataclass(eq=False)
class _Connection:
    """One client. `unsent`: what the socket had no room for. `age`: how far behind the newest unit it is."""

    socket: socket.socket
    parser: RtspParser = field(default_factory=RtspParser)
    unsent: bytes = b""
    slot: int | None = None
    age: int = 0


class BenchCameras:
    """The whole server. One use; `run` returns after `stop`."""

    def __init__(self, settings: BenchCamerasSettings, clip: Clip) -> None:
        self._settings = settings
        media = describe_track(clip.track, _PAYLOAD_TYPE, _CONTROL)
        description = SessionDescription(name="bench", control="*", media=(media,))
        self._sdp = serialize_sdp(description, "127.0.0.1")
        self._units = SharedUnits(clip, stamps_every_unit=settings.stamps_every_unit)
        self._connections: dict[int, _Connection] = {}
        self._playing: list[list[_Connection]] = [[] for _ in range(_SLOTS)]
        self._epoll = select.epoll()
        self._sent = self._skipped = 0
        self._late_ns: deque[int] = deque(maxlen=_MAX_DELAYS)
        self._stopping = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stopping = True

    def run(self) -> CamerasReport:
        """Serve until `stop`. Raises OSError if the port is taken."""
        with socket.create_server(
            ("127.0.0.1", self._settings.port), backlog=4096, reuse_port=True
        ) as server:
            self._server = server
            server.setblocking(False)
            self._epoll.register(server, select.EPOLLIN)
            announce_ready()
            try:
                self._play(time.monotonic_ns())
            finally:
                for connection in tuple(self._connections.values()):
                    self._close(connection)
                self._epoll.close()
        return CamerasReport(
            sent=self._sent,
            skipped=self._skipped,
            late_ms=quantile(self._late_ns, 0.99) / 1e6 if self._late_ns else 0.0,
        )

    def _play(self, due_ns: int) -> None:
        while not self._stopping:
            for slot in range(_SLOTS):
                if playing := self._playing[slot]:
                    self._serve_until(due_ns + slot * _SLOT_NS)
                    now_ns = time.monotonic_ns()
                    self._late_ns.append(now_ns - due_ns - slot * _SLOT_NS)
                    for connection in tuple(playing):
                        self._send_unit(connection)
            due_ns += _PERIOD_NS
            self._serve_until(due_ns)
            self._units.advance()

    def _serve_until(self, moment_ns: int) -> None:
        """Answer requests until then, at least once."""
        while True:
            left = max(0, moment_ns - time.monotonic_ns())
            for descriptor, _ in self._epoll.poll(left / 1e9, _EVENTS):
                if descriptor == self._server.fileno():
                    self._accept()
                elif (connection := self._connections.get(descriptor)) is not None:
                    self._receive(connection)
            if self._stopping or time.monotonic_ns() >= moment_ns:
                return

    def _send_unit(self, connection: _Connection) -> None:
        try:
            if connection.unsent:
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
            if connection.unsent:
                self._skipped += 1
                return
            data = self._units.stamped(connection.age, time.monotonic_ns())
            sent = connection.socket.send(data)
        except BlockingIOError:
            self._skipped += 1
        except OSError:
            self._close(connection)
        else:
            self._sent += 1
            if sent < len(data):
                connection.unsent = bytes(data[sent:])

    def _accept(self) -> None:
        client, _ = self._server.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[client.fileno()] = _Connection(client)
        self._epoll.register(client, select.EPOLLIN)

    def _close(self, connection: _Connection) -> None:
        if self._connections.pop(connection.socket.fileno(), None) is not None:
            self._stop_playing(connection)
            connection.socket.close()

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
            for event in connection.parser.receive_data(data):
                if isinstance(event, RtspRequest):
                    self._answer(connection, event)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            data = b""
        if not data:
            self._close(connection)

    def _answer(self, connection: _Connection, request: RtspRequest) -> None:
        status, headers, body = self._response(connection, request)
        response = RtspResponse(
            status=status,
            reason=_REASONS[status],
            headers=(("CSeq", request.header("CSeq") or "0"), *headers),
            body=body,
        )
        data = serialize(response)
        if connection.unsent:  # between two packets, not within one
            connection.unsent += data
        else:
            connection.unsent = data[connection.socket.send(data) :]

    def _response(self, connection: _Connection, request: RtspRequest) -> _Response:
        camera = self._camera(request.url)
        if request.method == "OPTIONS":
            return 200, (("Public", ", ".join(_METHODS)),), b""
        if camera is None:
            return 404, (), b""
        match request.method:
            case "DESCRIBE":
                base = ("Content-Base", request.url.removesuffix("/") + "/")
                return 200, (base, ("Content-Type", "application/sdp")), self._sdp
            case "SETUP":
                return _set_up(request)
            case "PLAY":
                self._start_playing(connection, camera)
                return 200, (_SESSION, ("Range", "npt=0.000-")), b""
            case "TEARDOWN":
                self._stop_playing(connection)
            case _:
                pass
        return (200 if request.method in _METHODS else 501), (_SESSION,), b""

    def _start_playing(self, connection: _Connection, camera: int) -> None:
        if connection.slot is None:
            connection.slot = camera % _SLOTS
            connection.age = camera * GOP // self._settings.cameras
            self._playing[connection.slot].append(connection)

    def _stop_playing(self, connection: _Connection) -> None:
        if connection.slot is not None:
            self._playing[connection.slot].remove(connection)
            connection.slot = None

    def _camera(self, url: str) -> int | None:
        name = urlsplit(url).path.strip("/").removesuffix(_CONTROL).rstrip("/")
        is_one = name.isascii() and name.isdigit() and int(name) < self._settings.cameras
        return int(name) if is_one else None


def _set_up(request: RtspRequest) -> _Response:
    try:
        transport = parse_transport(request.header("Transport") or "")
    except ProtocolError:
        return 400, (), b""
    if transport != _TRANSPORT:
        return 461, (), b""
    return 200, (("Transport", str(_TRANSPORT)), _SESSION), b""


def main() -> None:
    settings = read_settings(BenchCamerasSettings)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    cameras = BenchCameras(settings, read_clip(Path(settings.clip)))
    signal.signal(signal.SIGTERM, cameras.stop)
    report = cameras.run()
    Path(settings.report).write_bytes(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
