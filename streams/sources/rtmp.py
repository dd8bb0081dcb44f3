"""RTMP for a child without a network: the parent connects to the checked address, the child to the parent.

libav's RTMP opens its own TCP connection, so it gets a tunnel on loopback that takes exactly one client; the
sandbox lets the child connect to nothing else, and nothing resolves a name a second time.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from streams.errors import SourceUnreachableError, UnsupportedError
from streams.sources.egress import EgressSettings, check_url, resolve
from streams.sources.pyav_order import RtmpInput
from streams.sources.source import CameraAddress

CHUNK_BYTES = 64 * 1024
_UNSAFE_IN_USERINFO = frozenset("@/?#: %")


class Tunnel:
    """One connection from this machine to the camera; made by `open_tunnel`."""

    def __init__(
        self, listener: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._reader = reader
        self._writer = writer

    async def run(self, _: object) -> None:
        """Accept the child and copy both ways until one side ends; the child's standard input is not used."""
        accepted, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self._listener.close()
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, self._writer))
                tasks.create_task(_copy(self._reader, writer))
        finally:
            await _close(writer)


@asynccontextmanager
async def open_tunnel(
    address: CameraAddress, egress: EgressSettings, *, timeout_seconds: float
) -> AsyncIterator[Tunnel]:
    """Connect to the camera's checked address and listen for the child.

    Raises `UnsupportedError` or `SourceUnreachableError`.
    """
    endpoint = check_url(address.url, egress)
    host, port = await resolve(endpoint.host, endpoint.port, egress)
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
    except OSError as error:  # TimeoutError is an OSError
        raise SourceUnreachableError(f"no connection to the camera ({type(error).__name__})") from None
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
            listener.setblocking(False)
            yield Tunnel(listener, reader, writer)
    finally:
        await _close(writer)


def rtmp_input(address: CameraAddress, tunnel_port: int) -> RtmpInput:
    """Describe the camera's stream to the child: through the tunnel, yet under the camera's own name.

    Everything before the path's last part names the application, as media servers have it. Raises
    `UnsupportedError` for an address without both, and for a credential that libav's RTMP cannot carry.
    """
    parts = urlsplit(address.url)
    application, _, stream = parts.path.strip("/").rpartition("/")
    if not application or not stream:
        raise UnsupportedError("an RTMP address names an application and a stream")
    credential = ""
    if address.username is not None:
        if _UNSAFE_IN_USERINFO & {*address.username, *(address.password or "")}:
            raise UnsupportedError("the user name or password holds a character that RTMP cannot carry")
        credential = f"{address.username}:{address.password or ''}@"
    return RtmpInput(
        url=f"rtmp://{credential}127.0.0.1:{tunnel_port}/{application}/{stream}",
        tunnel_port=tunnel_port,
        options={
            "rtmp_live": "live",
            "rtmp_app": application,
            "rtmp_playpath": f"{stream}?{parts.query}" if parts.query else stream,
            "rtmp_tcurl": f"rtmp://{parts.netloc}/{application}",
        },
    )


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
