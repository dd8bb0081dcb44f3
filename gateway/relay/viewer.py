"""A viewer's socket as the hub's reader sees it: shared, already framed bytes straight to the transport.

aiohttp writes the answer's header and, on WebSocket, answers pings; every byte of media goes around it with a
plain `transport.write`.
"""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from dataclasses import dataclass, field

import msgspec

from gateway.relay.sessions import OverReason, ViewerSession
from streams.hub import BoundedReader, ReaderFailedError, ReaderSettings, ReaderTransport, Stream
from streams.mux import Marker

_SIOCOUTQ = termios.TIOCOUTQ
"""Bytes of a TCP socket that the peer has not acknowledged (tcp(7)); the same number as TIOCOUTQ."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_TEXT_MESSAGE = 0x81
_CLOSE_MESSAGE = 0x88
_SHORT_PAYLOAD = 126
_END_CODES = {
    "ended": 4000,
    "ended_by_administrator": 4001,
    "revoked": 4002,
    "expired": 4003,
    "slow": 4004,
    "camera_gone": 4005,
    "lease_lost": 4006,
    "draining": 4007,
    "replaced": 4008,
    "preempted": 4009,
    "disputed": 4010,
    "unconfirmed": 4011,
    "duty_over": 4012,
    "logged_in_elsewhere": 4013,
    "ledger_unavailable": 4014,
    "worker_lost": 4015,
    "failed": 4016,
    "completed": 4017,
    "not_started": 4018,
    "lost": 4019,
}
_OTHER_END_CODE = 4099
_BACKLOG_CHECK_SECONDS = 0.02
MAX_DETAIL_CHARACTERS = 1000
MAX_CLOSE_REASON_BYTES = 123
"""A control frame's payload is at most 125 bytes, two of them the code (RFC 6455 §5.5)."""


@dataclass(frozen=True, kw_only=True)
class ViewerSettings:
    """`send_buffer_bytes` bounds what the kernel holds for a viewer: autotuned, it would hide half a minute.

    `first_picture_seconds`: how long a viewer waits for a camera that is not there yet.
    `end_message_seconds`: how long a WebSocket viewer may take to read why it is ended.
    """

    send_buffer_bytes: int = 128 * 1024
    first_picture_seconds: float = 10.0
    end_message_seconds: float = 0.25
    websocket_heartbeat_seconds: float = 20.0
    reader: ReaderSettings = field(default_factory=ReaderSettings)


class ViewerSocket:
    """A `ReaderTransport` that counts what the kernel still holds."""

    def __init__(self, transport: asyncio.Transport, settings: ViewerSettings) -> None:
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
        self.plain_write = transport.write

    def write(self, data: bytes) -> None:
        """Raises ReaderFailedError("lost") if the connection is closed."""
        try:
            self.plain_write(data)
        except RuntimeError:
            # uvloop's answer to a write between the end of a connection and the news of it
            raise ReaderFailedError(OverReason.LOST) from None

    def write_marked(self, head: bytes, tail: bytes) -> None:
        """Raises ReaderFailedError("lost") if the connection is closed."""
        try:
            self._transport.writelines((head, tail))
        except RuntimeError:
            raise ReaderFailedError(OverReason.LOST) from None

    def backlog_bytes(self) -> int:
        if self._transport.is_closing():
            return 0
        (unacknowledged,) = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), _SIOCOUTQ, b"\0\0\0\0"))
        return self._transport.get_write_buffer_size() + int(unacknowledged)

    @property
    def can_be_told(self) -> bool:
        """Whether a last message would go out now: the viewer is there, and reads."""
        return not self._transport.is_closing() and self._transport.get_write_buffer_size() == 0

    async def settle(self, seconds: float) -> None:
        """Return when the peer has everything, after `seconds` at most."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # Nobody tells when a peer acknowledges.
        while self.backlog_bytes() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_BACKLOG_CHECK_SECONDS)

    def discard(self) -> None:
        """Reset the connection: nothing that is queued, here or in the kernel, is sent any more."""
        if not self._transport.is_closing():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()


async def end_websocket(viewer: ViewerSocket, session: ViewerSession, seconds: float) -> None:
    """Say why, if the viewer reads at all; then reset the connection, after `seconds` at most."""
    if viewer.can_be_told:
        viewer.write(end_messages(session))
        await viewer.settle(seconds)
    viewer.discard()


class ViewerReader(BoundedReader):
    """A session's bounded reader. When the stream ends it, the session ends.

    `announces_medium`: on WebSocket, a text message names the media type before each initialization segment.
    """

    def __init__(
        self,
        session: ViewerSession,
        stream: Stream,
        transport: ReaderTransport,
        settings: ViewerSettings,
        *,
        announces_medium: bool = False,
    ) -> None:
        marker = Marker(session.mark_key, bytes.fromhex(session.id), session.camera)
        super().__init__(transport, marker, settings.reader, time.monotonic_ns, self._end_session)
        session.counts = lambda: (self.bytes_sent, self.dropped_access_units)
        self._session = session
        self._stream = stream
        self._announces_medium = announces_medium

    def start(self, init: bytes, mime: str) -> None:
        """Raises ReaderFailedError if the picture, new or changed, is more than the session may see."""
        if not self._session.may_see(self._stream.track):
            raise ReaderFailedError(OverReason.FAILED)
        if self._announces_medium:
            self._send(text_message({"type": "media", "mime": mime}))
        super().start(init, mime)

    def _end_session(self, reason: str) -> None:
        self._session.end(reason, lost=reason == OverReason.LOST)


def text_message(content: object) -> bytes:
    """An unmasked WebSocket text message (RFC 6455 §5.2) of JSON."""
    return _message(_TEXT_MESSAGE, msgspec.json.encode(content))


def end_messages(session: ViewerSession) -> bytes:
    """What a WebSocket viewer is told last: why it ended and who ended it.

    First as a text message, then in the closing one: a code of 4000 to 4099, and both in words (RFC 6455
    §5.5.1), cut to what fits.
    """
    code = _END_CODES.get(session.reason, _OTHER_END_CODE)
    told = {
        "type": "end",
        "reason": session.reason,
        "detail": session.detail[:MAX_DETAIL_CHARACTERS],
        "by": session.by[:MAX_DETAIL_CHARACTERS],
    }
    words = session.why.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore").encode()
    return text_message(told) + _message(_CLOSE_MESSAGE, code.to_bytes(2) + words)


def _message(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < _SHORT_PAYLOAD:
        return bytes((kind, size)) + payload
    return bytes((kind, _SHORT_PAYLOAD)) + size.to_bytes(2) + payload
