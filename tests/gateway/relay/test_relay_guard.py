import asyncio
import contextlib
from dataclasses import replace

import pytest
from aiohttp import web

from gateway.relay.guard import ConnectionGuard, GuardSettings, track_request

LONG = GuardSettings(header_seconds=600, body_seconds=600, idle_seconds=600)
"""A test shortens the one deadline that is to close."""
SHORT_SECONDS = 0.15


@contextlib.asynccontextmanager
async def serving(settings):
    streaming = asyncio.Event()

    async def echo(request):
        return web.Response(body=await request.read())

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await streaming.wait()
        await response.write(b"second")
        return response

    app = web.Application(middlewares=[track_request])
    app.router.add_post("/echo", echo)
    app.router.add_get("/echo", echo)
    app.router.add_get("/stream", stream)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=60, shutdown_timeout=0.1)
    await runner.setup()
    guard = ConnectionGuard(settings)
    server = await asyncio.get_running_loop().create_server(guard.before(runner.server), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], streaming
    finally:
        server.close()
        await runner.cleanup()


async def closing(port, data=b"", skip_answer=False):
    """Return when the server closes; the seconds since the data went out."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if skip_answer:
        await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return loop.time() - started


@pytest.mark.parametrize(
    ("data", "deadline"),
    [
        (b"", "header_seconds"),
        (b"GET /ec", "header_seconds"),
        (b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Drip: ", "header_seconds"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", "body_seconds"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "body_seconds"),
    ],
    ids=["silent", "request line", "header", "body", "chunked body"],
)
async def test_what_never_ends_is_closed(data, deadline):
    async with serving(replace(LONG, **{deadline: SHORT_SECONDS})) as (port, _):
        assert await closing(port, data) >= SHORT_SECONDS


async def test_dripping_does_not_extend_the_deadline():
    async with serving(replace(LONG, header_seconds=SHORT_SECONDS)) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def drip():
            for byte in b"GET /echo HTTP/1.1\r\nX-Long: " + b"a" * 4000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(drip())
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 30)
            assert not dripping.done()
            dripping.cancel()
        writer.close()


async def test_an_idle_connection_has_a_deadline_of_its_own():
    async with serving(replace(LONG, idle_seconds=SHORT_SECONDS)) as (port, _):
        request = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
        assert await closing(port, request, skip_answer=True) >= SHORT_SECONDS


async def test_media_outlives_every_deadline():
    async with serving(GuardSettings(header_seconds=0.05, body_seconds=0.05, idle_seconds=0.05)) as (
        port,
        more,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"first")
        asyncio.get_running_loop().call_later(0.3, more.set)
        await asyncio.wait_for(reader.readuntil(b"second"), 5)
        writer.close()


async def test_bound_per_address_and_its_release():
    async with serving(GuardSettings(max_connections_per_address=2)) as (port, _):
        first = await asyncio.open_connection("127.0.0.1", port)
        second = await asyncio.open_connection("127.0.0.1", port)
        for _, writer in (first, second):
            writer.write(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        for reader, _ in (first, second):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        refusal = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert refusal.startswith(b"HTTP/1.1 503")
        assert b"connection_limit" in refusal
        first[1].close()
        await first[1].wait_closed()

        async def accepted():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
            writer.close()
            return answer.startswith(b"HTTP/1.1 200")

        async with asyncio.timeout(5):
            while not await accepted():
                pass
        second[1].close()


async def test_bound_in_total():
    async with serving(GuardSettings(max_connections=1, max_connections_per_address=0)) as (port, _):
        _, first = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"connection_limit" in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        first.close()
