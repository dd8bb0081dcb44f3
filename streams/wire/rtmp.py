"""RTMP 1.0 (Adobe, December 2012) from its server's side: bytes in, messages out; no socket, no clock.

A connection begins with a handshake (§5.2), here the simple one, which every encoder accepts. Then messages
come cut into chunks (§5.3), those of several chunk streams interleaved.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from streams.errors import LimitExceededError, ProtocolError
from streams.media import MAX_ACCESS_UNIT_BYTES

MAX_MESSAGE_BYTES: Final = MAX_ACCESS_UNIT_BYTES + 64
MAX_STRANGERS_MESSAGE_BYTES: Final = 16 * 1024
"""Of whoever has not logged in: commands, of which the longest real ones have less than a kilobyte."""
MAX_BUFFERED_MESSAGES: Final = 2
"""Incomplete messages of one connection, all chunk streams together, in messages of the largest size."""
MIN_CHUNK_BYTES: Final = 128
"""The chunk size that every connection begins with; nobody needs a smaller one (§5.4.1)."""
MAX_CHUNK_STREAMS: Final = 32
"""Encoders use about five."""
MAX_STRANGERS_CHUNK_STREAMS: Final = 8
"""Of whoever has not logged in: commands go over two or three."""
HANDSHAKE_BYTES: Final = 1536

SET_CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, USER_CONTROL, WINDOW_SIZE, SET_BANDWIDTH = 1, 2, 3, 4, 5, 6
AUDIO, VIDEO, DATA, COMMAND = 8, 9, 18, 20

_VERSION: Final = 3
_SENT_CHUNK_BYTES: Final = 4096
_EXTENDED: Final = 0xFFFFFF
_TIMESTAMP_MASK: Final = 0xFFFFFFFF
_HEADER_BYTES: Final = (11, 7, 3, 0)
_TWO_BYTE_ID, _THREE_BYTE_ID = 0, 1
_FIRST_LONG_ID: Final = 64


class RtmpMessage(msgspec.Struct, frozen=True, gc=False):
    """`timestamp`: ms, 32 bits. `stream`: the message stream that `createStream` made; 0: the connection."""

    kind: int
    stream: int
    timestamp: int
    body: bytes


class _ChunkStream:
    """What a chunk header may leave out because the previous one of the same chunk stream said it."""

    def __init__(self) -> None:
        self.kind = self.stream = self.length = self.timestamp = self.delta = 0
        self.extended = b""
        self.has_header = False
        self.body = bytearray()


class RtmpParser:
    """What a publisher sends. After an error the connection is beyond repair: close it.

    `bytes_received`: for acknowledgements (§5.4.3). Who sends is a stranger until `admit`.
    """

    def __init__(self) -> None:
        self.bytes_received = 0
        self._max_message_bytes = MAX_STRANGERS_MESSAGE_BYTES
        self._max_chunk_streams = MAX_STRANGERS_CHUNK_STREAMS
        self._buffer = bytearray()
        self._chunk_bytes = MIN_CHUNK_BYTES
        self._streams: dict[int, _ChunkStream] = {}
        self._buffered = 0
        self._greeting = b""
        self._handshakes = 0

    def admit(self) -> None:
        """The publisher has logged in: what may come from now on is an encoder's, no longer a stranger's."""
        self._max_message_bytes = MAX_MESSAGE_BYTES
        self._max_chunk_streams = MAX_CHUNK_STREAMS

    def take_greeting(self) -> bytes:
        """S0, S1 and S2 (§5.2.2), once; empty before and after."""
        greeting, self._greeting = self._greeting, b""
        return greeting

    def receive_data(self, data: bytes) -> Iterator[RtmpMessage]:
        """Yield the messages that `data` completes; iterate to the end, since parsing happens on the way.

        Chunk sizes and aborts are heeded already. Raises ProtocolError and nothing else.
        """
        self.bytes_received += len(data)
        self._buffer += data
        position = self._shake_hands() if self._handshakes < 2 else 0  # noqa: PLR2004 - C0 with C1, then C2
        while self._handshakes == 2:  # noqa: PLR2004
            chunk = self._parse_chunk(position)
            if chunk is None:
                break
            position, message = chunk
            if message is not None:
                yield message
        del self._buffer[:position]

    def _shake_hands(self) -> int:
        buffer = self._buffer
        position = 0
        if self._handshakes == 0:
            if buffer and buffer[0] != _VERSION:
                raise ProtocolError("not RTMP")
            if len(buffer) < 1 + HANDSHAKE_BYTES:
                return 0
            position = 1 + HANDSHAKE_BYTES
            # S1 may hold anything; S2 echoes C1.
            self._greeting = bytes((_VERSION,)) + bytes(HANDSHAKE_BYTES) + bytes(buffer[1:position])
            self._handshakes = 1
        if len(buffer) - position >= HANDSHAKE_BYTES:
            position += HANDSHAKE_BYTES
            self._handshakes = 2
        return position

    def _parse_chunk(self, position: int) -> tuple[int, RtmpMessage | None] | None:
        """Take one chunk: where the next begins, and the message that it completes; None for half a chunk."""
        buffer = self._buffer
        header = self._basic_header(position)
        if header is None:
            return None
        kind, chunk_stream, position = header
        stream = self._streams.get(chunk_stream)
        if stream is None:
            if len(self._streams) == self._max_chunk_streams:
                raise LimitExceededError("too many RTMP chunk streams")
            stream = _ChunkStream()
        start = position + _HEADER_BYTES[kind]
        if start > len(buffer):
            return None
        fields = bytes(buffer[position:start])
        extended = b""
        if int.from_bytes(fields[:3]) == _EXTENDED if kind < 3 else stream.extended:  # noqa: PLR2004
            extended = bytes(buffer[start : start + 4])
            # Encoders with an old librtmp leave it out where a chunk continues another (§5.3.1.3).
            if kind < 3 or stream.extended.startswith(extended):  # noqa: PLR2004
                if len(extended) < 4:  # noqa: PLR2004
                    return None
                start += 4
        length = int.from_bytes(fields[3:6]) if kind < 2 else stream.length  # noqa: PLR2004
        if length > self._max_message_bytes:
            raise LimitExceededError("an RTMP message is too large")
        missing = length - len(stream.body) if kind == 3 or not stream.body else length  # noqa: PLR2004
        end = start + min(self._chunk_bytes, missing)
        if end > len(buffer):
            return None
        self._streams[chunk_stream] = stream
        self._take_header(stream, kind, fields, extended)
        return end, self._take_body(stream, bytes(buffer[start:end]))

    def _basic_header(self, position: int) -> tuple[int, int, int] | None:
        """Header type, chunk stream, and where the message header begins (§5.3.1.1)."""
        buffer = self._buffer
        if position >= len(buffer):
            return None
        kind, chunk_stream = buffer[position] >> 6, buffer[position] & 0x3F
        more = {_TWO_BYTE_ID: 1, _THREE_BYTE_ID: 2}.get(chunk_stream, 0)
        if position + 1 + more > len(buffer):
            return None
        if more:
            chunk_stream = _FIRST_LONG_ID + int.from_bytes(
                buffer[position + 1 : position + 1 + more], "little"
            )
        return kind, chunk_stream, position + 1 + more

    def _take_header(self, stream: _ChunkStream, kind: int, fields: bytes, extended: bytes) -> None:
        """§5.3.1.2. A header in the middle of a message begins a new one in its place."""
        if kind == 3:  # noqa: PLR2004
            if not stream.has_header:
                raise ProtocolError("an RTMP chunk without a header to continue")
            if not stream.body:
                stream.timestamp = (stream.timestamp + stream.delta) & _TIMESTAMP_MASK
            return
        if kind > 0 and not stream.has_header:
            raise ProtocolError("an RTMP chunk without a header to continue")
        self._buffered -= len(stream.body)
        stream.body.clear()
        stream.extended = extended
        value = int.from_bytes(extended or fields[:3])
        if kind == 0:
            # A chunk without a header after this one means as much again (§5.3.1.2.4).
            stream.timestamp = stream.delta = value
            stream.stream = int.from_bytes(fields[7:11], "little")
        else:
            stream.delta = value
            stream.timestamp = (stream.timestamp + value) & _TIMESTAMP_MASK
        if kind < 2:  # noqa: PLR2004
            stream.length, stream.kind = int.from_bytes(fields[3:6]), fields[6]
        stream.has_header = True

    def _take_body(self, stream: _ChunkStream, data: bytes) -> RtmpMessage | None:
        self._buffered += len(data)
        if self._buffered > MAX_BUFFERED_MESSAGES * self._max_message_bytes:
            raise LimitExceededError("too many incomplete RTMP messages")
        stream.body += data
        if len(stream.body) < stream.length:
            return None
        body = bytes(stream.body)
        self._buffered -= len(body)
        stream.body.clear()
        if stream.kind == SET_CHUNK_SIZE:
            self._set_chunk_size(body)
        elif stream.kind == ABORT:
            self._abort(int.from_bytes(body[:4]))
        return RtmpMessage(stream.kind, stream.stream, stream.timestamp, body)

    def _set_chunk_size(self, body: bytes) -> None:
        size = int.from_bytes(body[:4]) & 0x7FFFFFFF
        if size < MIN_CHUNK_BYTES:
            raise LimitExceededError("RTMP chunks are too small")
        # A message is never larger, so neither need a chunk be (§5.4.1).
        self._chunk_bytes = min(size, MAX_MESSAGE_BYTES)

    def _abort(self, chunk_stream: int) -> None:
        stream = self._streams.get(chunk_stream)
        if stream is not None:
            self._buffered -= len(stream.body)
            stream.body.clear()


def serialize_message(kind: int, body: bytes, *, stream: int = 0) -> bytes:
    """One message of ours, on chunk stream 2 if it controls the protocol, else on 3 (§5.4, §7.1).

    Valid after `opening_messages`, which announce the chunk size.
    """
    chunk_stream = 2 if kind < AUDIO else 3
    return _chunks(chunk_stream, kind, stream, body, _SENT_CHUNK_BYTES)


def opening_messages(window_bytes: int) -> bytes:
    """What a server says before its first answer: window, bandwidth, its own chunk size (§5.4)."""
    window = window_bytes.to_bytes(4)
    return (
        _chunks(2, WINDOW_SIZE, 0, window, MIN_CHUNK_BYTES)
        + _chunks(2, SET_BANDWIDTH, 0, window + b"\x02", MIN_CHUNK_BYTES)
        + _chunks(2, SET_CHUNK_SIZE, 0, _SENT_CHUNK_BYTES.to_bytes(4), MIN_CHUNK_BYTES)
    )


def _chunks(chunk_stream: int, kind: int, stream: int, body: bytes, chunk_bytes: int) -> bytes:
    header = bytes((chunk_stream,)) + bytes(3) + len(body).to_bytes(3) + bytes((kind,))
    pieces = [header + stream.to_bytes(4, "little") + body[:chunk_bytes]]
    pieces += [
        bytes((0xC0 | chunk_stream,)) + body[at : at + chunk_bytes]
        for at in range(chunk_bytes, len(body), chunk_bytes)
    ]
    return b"".join(pieces)
