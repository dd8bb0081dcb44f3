"""Bare TCP connections of clients that do not behave."""

import asyncio
import contextlib
from contextlib import asynccontextmanager


@asynccontextmanager
async def connected(port, *, tls=None):
    """(reader, writer); reset at the end."""
    name = None if tls is None else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
