"""Messages over a Unix socket between control and a relay worker, as asyncio streams.

On the wire: a 4-byte big-endian length, then one message of `gateway.messages` as MessagePack. Sending never
waits: a peer that lets `MAX_BACKLOG_BYTES` pile up is as good as dead, and the channel to it is closed.
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import msgspec

from gateway.messages import MAX_MESSAGE_BYTES

MAX_BACKLOG_BYTES = 2 * MAX_MESSAGE_BYTES
"""Unsent bytes after which the peer counts as stuck: twice the largest message."""

_LENGTH = struct.Struct(">I")

Incoming = TypeVar("Incoming")
Outgoing = TypeVar("Outgoing", bound=msgspec.Struct)


class ChannelError(Exception):
    """The channel is closed, the peer is stuck, or what it sent is no message of ours."""


def serialize(message: msgspec.Struct) -> bytes:
    """Raise `ChannelError` if the message is longer than `MAX_MESSAGE_BYTES`."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise ChannelError(f"a {type(message).__name__} of {len(body)} bytes is over the limit")
    return _LENGTH.pack(len(body)) + body


class Channel(Generic[Incoming, Outgoing]):
    """One end of a connection; iterate it for what arrives, `send` from anywhere on the loop."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: msgspec.msgpack.Decoder[Incoming],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder

    def send(self, message: Outgoing) -> None:
        """Queue a message. Raises `ChannelError` if the channel is closed or the peer does not read."""
        transport = self._writer.transport
        if transport.is_closing():
            raise ChannelError("the channel is closed")
        data = serialize(message)
        if transport.get_write_buffer_size() + len(data) > MAX_BACKLOG_BYTES:
            self.abort()
            raise ChannelError("the peer does not read")
        self._writer.write(data)

    async def receive(self) -> Incoming | None:
        """Return the next message, or None at the end. Raises `ChannelError` for anything that is not one."""
        try:
            head = await self._reader.readexactly(_LENGTH.size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise ChannelError("the connection ended within a length") from None
            return None
        except ConnectionError:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > MAX_MESSAGE_BYTES:
            raise ChannelError(f"a message of {length} bytes is over the limit")
        try:
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ChannelError("the connection ended within a message") from None
        except msgspec.MsgspecError as error:
            raise ChannelError(f"not a message: {error}") from None

    async def __aiter__(self) -> AsyncIterator[Incoming]:
        while (message := await self.receive()) is not None:
            yield message

    async def flush(self) -> None:
        """Wait until all that was sent is with the kernel. Raises `ConnectionError` if the peer is gone."""
        transport = self._writer.transport
        if transport.is_closing():
            raise ConnectionResetError("the channel is closed")
        transport.set_write_buffer_limits(high=0)
        await self._writer.drain()
        transport.set_write_buffer_limits()

    def abort(self) -> None:
        """Close at once; what is queued is dropped, and whoever iterates gets to the end."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Close and wait; what is still queued is sent unless the peer is gone."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
