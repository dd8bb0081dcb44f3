"""The smallest RTMP 1.0 server that libav will play from: handshake, three commands, then FLV tags."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_HANDSHAKE_BYTES = 1536
_COMMAND, _VIDEO, _SET_CHUNK_SIZE = 20, 9, 1
_CHUNK_BYTES = 128


def _string(text: str) -> bytes:
    return b"\x02" + struct.pack(">H", len(text)) + text.encode()


def _number(value: float) -> bytes:
    return b"\x00" + struct.pack(">d", value)


def _object(**members: str) -> bytes:
    body = b"".join(
        struct.pack(">H", len(name)) + name.encode() + _string(value) for name, value in members.items()
    )
    return b"\x03" + body + b"\x00\x00\x09"


def _message(kind: int, body: bytes, *, timestamp: int = 0, stream: int = 0) -> bytes:
    """One message in chunks of the default size, all on chunk stream 3."""
    header = b"\x03" + timestamp.to_bytes(3, "big") + len(body).to_bytes(3, "big") + bytes((kind,))
    first = header + stream.to_bytes(4, "little") + body[:_CHUNK_BYTES]
    rest = [b"\xc3" + body[at : at + _CHUNK_BYTES] for at in range(_CHUNK_BYTES, len(body), _CHUNK_BYTES)]
    return first + b"".join(rest)


async def _read_messages(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    chunk_bytes = _CHUNK_BYTES
    headers: dict[int, tuple[int, int]] = {}
    bodies: dict[int, bytes] = {}
    while True:
        (basic,) = await reader.readexactly(1)
        fmt, chunk_stream = basic >> 6, basic & 0x3F
        header = await reader.readexactly((11, 7, 3, 0)[fmt])
        if fmt < 2:
            headers[chunk_stream] = int.from_bytes(header[3:6], "big"), header[6]
        length, kind = headers[chunk_stream]
        body = bodies.pop(chunk_stream, b"")
        body += await reader.readexactly(min(chunk_bytes, length - len(body)))
        if len(body) < length:
            bodies[chunk_stream] = body
        elif kind == _SET_CHUNK_SIZE:
            chunk_bytes = int.from_bytes(body, "big")
        else:
            yield kind, body


def _flv_video_tags(clip: bytes) -> list[tuple[int, bytes]]:
    """Time stamp in ms and body of each video tag of an FLV file."""
    tags = []
    position = 13
    while position + 11 <= len(clip):
        size = int.from_bytes(clip[position + 1 : position + 4], "big")
        if clip[position] == _VIDEO:
            timestamp = int.from_bytes(clip[position + 4 : position + 7], "big")
            tags.append((timestamp, clip[position + 11 : position + 11 + size]))
        position += 11 + size + 4
    return tags


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clip: bytes, seen: list[bytes]
) -> None:
    hello = await reader.readexactly(1 + _HANDSHAKE_BYTES)
    writer.write(b"\x03" + bytes(_HANDSHAKE_BYTES) + hello[1:])
    await reader.readexactly(_HANDSHAKE_BYTES)
    async for kind, body in _read_messages(reader):
        if kind != _COMMAND:
            continue
        seen.append(body)
        name_end = 3 + int.from_bytes(body[1:3], "big")
        transaction = body[name_end : name_end + 9]
        match body[3:name_end].decode():
            case "connect":
                status = _object(level="status", code="NetConnection.Connect.Success")
                writer.write(_message(_COMMAND, _string("_result") + transaction + b"\x05" + status))
            case "createStream":
                writer.write(_message(_COMMAND, _string("_result") + transaction + b"\x05" + _number(1)))
            case "play":
                status = _object(level="status", code="NetStream.Play.Start")
                writer.write(
                    _message(_COMMAND, _string("onStatus") + _number(0) + b"\x05" + status, stream=1)
                )
                for timestamp, tag in _flv_video_tags(clip):
                    writer.write(_message(_VIDEO, tag, timestamp=timestamp, stream=1))


@asynccontextmanager
async def serve_rtmp(clip: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve an FLV clip once to whoever plays anything; yields the port and the commands received."""
    seen: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _answer(reader, writer, clip, seen)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen
