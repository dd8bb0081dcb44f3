"""RTMP for encoders that publish and cannot do better: `rtmp://host:1935/publish/{camera}?user=...&pass=...`.

RTMP has no encryption here, so the password crosses in clear: for networks of one's own only (the port is
closed unless the configuration opens it). Nobody watches over RTMP.
"""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import cast
from urllib.parse import parse_qs

import structlog

from gateway.relay.control_link import ControlUnavailableError, RefusedError
from gateway.relay.guard import ConnectionGuard, give_up_the_vanished
from gateway.relay.publisher_login import is_login
from gateway.relay.publishers import MAX_BIT_RATE_BPS, SILENCE_SECONDS, Publishers
from streams.errors import LimitExceededError, ProtocolError, StreamError
from streams.sources.bit_rate_limit import MIN_CHARGE_BYTES, BitRateLimit
from streams.sources.rtmp_media import RtmpMedia
from streams.sources.rtsp_connection import LARGE_READ_BYTES
from streams.wire.amf0 import Value, parse_amf0, serialize_amf0
from streams.wire.digest import Credentials
from streams.wire.rtmp import (
    ACKNOWLEDGEMENT,
    AUDIO,
    COMMAND,
    VIDEO,
    RtmpMessage,
    RtmpParser,
    opening_messages,
    serialize_message,
)

APPLICATION = "publish"
MAX_WAITING_COMMANDS = 16
"""Commands sent ahead of our answers; encoders send four."""
MAX_STRANGERS_BIT_RATE_BPS = 1_000_000
"""What may come of whoever has not logged in: a handshake and a few commands."""
MAX_UNSENT_BYTES = 64 * 1024
"""What a peer may leave unread that goes on asking."""
_WINDOW_BYTES = 2_500_000
_STREAM = 1
_GOODBYES = ("deleteStream", "closeStream", "FCUnpublish")
_NS_PER_SECOND = 1_000_000_000

_log = structlog.get_logger(__name__)


class RtmpConnection(asyncio.Protocol):
    """Bytes in, commands queued, media handed on at once. `failure`: why we ended it, if we did."""

    def __init__(
        self,
        guard: ConnectionGuard,
        serve: Callable[["RtmpConnection"], asyncio.Task[None]],
    ) -> None:
        self.remote = ""
        self.media: RtmpMedia | None = None
        self.failure: StreamError | None = None
        self._guard = guard
        self._serve = serve
        self._parser = RtmpParser()
        self._limit = BitRateLimit(MAX_STRANGERS_BIT_RATE_BPS)
        self._acknowledged = 0
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._commands: deque[list[Value]] = deque()
        self._changed = asyncio.Event()

    async def next_command(self) -> list[Value]:
        while not self._commands:
            self._changed.clear()
            await self._changed.wait()
        return self._commands.popleft()

    def answer(self, *values: Value, stream: int = 0) -> None:
        """Send a command. Without effect on a connection that is closing."""
        self._write(serialize_message(COMMAND, serialize_amf0(*values), stream=stream))

    def admit(self) -> None:
        """The encoder has logged in: pictures may come."""
        self._parser.admit()
        self._limit = BitRateLimit(MAX_BIT_RATE_BPS)

    def greet(self) -> None:
        self._write(opening_messages(_WINDOW_BYTES))

    def close(self) -> None:
        """After what is written; a peer that does not read is cut off by the guard's bound."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but inheritance
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.remote = peer[0] if isinstance(peer, tuple) else ""
        if not self._guard.admit(self.remote):
            self._transport.abort()
            return
        give_up_the_vanished(transport, self._guard.settings)
        self._task = self._serve(self)

    def data_received(self, data: bytes) -> None:
        if self._task is None or self.failure is not None:
            return
        received_ns = time.monotonic_ns()
        try:
            self._limit.take(len(data), received_ns)
            for message in self._parser.receive_data(data):
                self._limit.take(MIN_CHARGE_BYTES, received_ns)
                self._take(message, received_ns)
        except StreamError as error:
            self.failure = error
            self._task.cancel()
            return
        if greeting := self._parser.take_greeting():
            self._write(greeting)
        if self._parser.bytes_received - self._acknowledged >= _WINDOW_BYTES // 2:
            self._acknowledged = self._parser.bytes_received
            count = (self._acknowledged & 0xFFFFFFFF).to_bytes(4)
            self._write(serialize_message(ACKNOWLEDGEMENT, count))
        if len(data) >= LARGE_READ_BYTES:
            self._let_others_go_first()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the Protocol's
        if self._task is not None:
            self._guard.release(self.remote)
            self._task.cancel()

    def _take(self, message: RtmpMessage, received_ns: int) -> None:
        if message.kind == COMMAND:
            if len(self._commands) == MAX_WAITING_COMMANDS:
                raise LimitExceededError("too many RTMP commands at once")
            self._commands.append(parse_amf0(message.body))
            self._changed.set()
        elif self.media is not None and message.stream == _STREAM:
            if message.kind == VIDEO:
                self.media.video(message.body, message.timestamp, received_ns)
            elif message.kind == AUDIO:
                self.media.audio(message.body, message.timestamp, received_ns)

    def _let_others_go_first(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()
        else:
            transport.write(data)


class RtmpServer:
    """Serves every connection in a task of its own, until the context ends."""

    def __init__(self, publishers: Publishers, guard: ConnectionGuard) -> None:
        self._publishers = publishers
        self._guard = guard
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[asyncio.Server]:
        """Listen within the context, and end every connection with it. Raises OSError."""
        async with asyncio.TaskGroup() as self._group:
            server = await asyncio.get_running_loop().create_server(
                lambda: RtmpConnection(self._guard, self._start),
                host,
                port,
                family=socket.AF_UNSPEC,
                reuse_port=True,
            )
            try:
                yield server
            finally:
                server.close()
                for task in self._tasks:
                    task.cancel()

    def _start(self, connection: RtmpConnection) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the RTMP server is not running")
        task = self._group.create_task(self._run(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in the task: who is refused with his first bytes has it cancelled before it begins.
        task.add_done_callback(lambda _: connection.close())
        return task

    async def _run(self, connection: RtmpConnection) -> None:
        try:
            async with asyncio.timeout(self._guard.settings.header_seconds):
                camera, given = await _asked(connection)
                await self._refuse_stranger(connection, camera, given)
            connection.admit()
            await self._publish(connection, camera, given)
        except (StreamError, RefusedError, ControlUnavailableError, TimeoutError) as error:
            _log.info("rtmp_refused", remote=connection.remote, error=type(error).__name__)
        except asyncio.CancelledError:
            if connection.failure is None:
                raise
            _log.warning("rtmp_failed", remote=connection.remote, error=connection.failure.code)
        except Exception:  # noqa: BLE001 - one encoder's must not end the others, who share this task group
            _log.exception("rtmp_failed", remote=connection.remote)

    async def _refuse_stranger(self, connection: RtmpConnection, camera: str, given: Credentials) -> None:
        """Return if the login is the camera's own; say no, and raise, in the same words for any other."""
        if not await self._publishers.admits(camera, connection.remote, partial(is_login, given)):
            _say(connection, "NetStream.Publish.BadName", "error", "not a camera and its login")
            raise ProtocolError("wrong login")

    async def _publish(self, connection: RtmpConnection, camera: str, login: Credentials) -> None:
        task = asyncio.current_task()

        def replaced() -> None:
            _say(connection, "NetStream.Unpublish.Success", "status", "another encoder publishes the camera")
            if task is not None:
                connection.failure = ProtocolError("replaced")
                task.cancel()

        async with self._publishers.publishing(
            camera, login, replaced, failure=lambda: connection.failure
        ) as publisher:
            connection.media = RtmpMedia(publisher)
            _log.info("rtmp_publishing", camera=camera, remote=connection.remote)
            _say(connection, "NetStream.Publish.Start", "status", "publishing")
            try:
                await _until_silent(connection, connection.media)
            finally:
                connection.media = None


async def _asked(connection: RtmpConnection) -> tuple[str, Credentials]:
    """Answer what comes before `publish`; return the camera, and the login given with it."""
    is_connected = False
    while True:
        name, given, *arguments = (*await connection.next_command(), None, None)
        number = given if isinstance(given, float) else 0.0
        match name:
            case "connect" if not is_connected:
                _accept(connection, number, arguments[0])
                is_connected = True
            case "createStream" if is_connected:
                connection.answer("_result", number, None, float(_STREAM))
            case "publish" if is_connected:
                return _stream_name(arguments[1] if len(arguments) > 1 else None)
            case "play":
                _say(connection, "NetStream.Play.Failed", "error", "nobody watches over RTMP")
                raise ProtocolError("nobody watches over RTMP")
            case "deleteStream" | "closeStream":
                raise ProtocolError("the encoder left")
            case "connect":
                raise ProtocolError("connected twice")
            case _:
                pass  # releaseStream, FCPublish and the like: nobody waits for an answer


def _accept(connection: RtmpConnection, number: float, properties: Value) -> None:
    application = properties.get("app") if isinstance(properties, dict) else None
    if not isinstance(application, str) or application.strip("/") != APPLICATION:
        raise ProtocolError("no such RTMP application")
    connection.greet()
    connection.answer(
        "_result",
        number,
        {"fmsVer": "FMS/3,0,1,123", "capabilities": 31.0},
        {"level": "status", "code": "NetConnection.Connect.Success", "description": "welcome"},
    )


def _stream_name(value: Value) -> tuple[str, Credentials]:
    """`{camera}?user=...&pass=...`, as OBS and FFmpeg send what stands behind the application."""
    if not isinstance(value, str):
        raise ProtocolError("publish without a name")
    camera, _, query = value.partition("?")
    try:
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise ProtocolError("too many fields behind the camera's name") from None
    username, password = fields.get("user", [""])[0], fields.get("pass", [""])[0]
    return camera, Credentials(username=username, password=password)


def _say(connection: RtmpConnection, code: str, level: str, description: str) -> None:
    status: dict[str, Value] = {"level": level, "code": code, "description": description}
    connection.answer("onStatus", 0.0, None, status, stream=_STREAM)


async def _until_silent(connection: RtmpConnection, media: RtmpMedia) -> None:
    """Return when the encoder says goodbye or sends no picture for `SILENCE_SECONDS`."""
    began_ns, silence_ns = time.monotonic_ns(), int(SILENCE_SECONDS * _NS_PER_SECOND)
    while (left_ns := max(began_ns, media.last_unit_ns) + silence_ns - time.monotonic_ns()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_ns / _NS_PER_SECOND):
                command = await connection.next_command()
                if command and command[0] in _GOODBYES:
                    return
