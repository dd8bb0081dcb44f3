import asyncio
import contextlib
import socket
import ssl

import pytest
from support.certificates import write_certificate
from support.connections import connected

from gateway.relay import listening as module
from gateway.relay.guard import ConnectionGuard, GuardSettings
from gateway.relay.listening import TlsServer, listening
from gateway.relay.tls import Certificate

LIMIT = 3


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self._transport = transport
        option = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option

    def data_received(self, data):
        self._transport.write(data)


@pytest.fixture
def certificate(tmp_path):
    paths = write_certificate(tmp_path)
    client = ssl.create_default_context(cafile=paths[0])
    client.check_hostname = False
    return Certificate(*paths).context, client


@contextlib.asynccontextmanager
async def echoing(context):
    guard = ConnectionGuard(GuardSettings(max_connections_per_address=LIMIT))
    async with listening(Echo, "127.0.0.1", 0, guard, context) as server:
        yield server, server.sockets[0].getsockname()[1]


async def echo(reader, writer):
    writer.write(b"hello")
    async with asyncio.timeout(5):
        return await reader.readexactly(5)


async def is_closed(reader):
    try:
        async with asyncio.timeout(5):
            return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_serves_and_after_close_goes_on_with_those_who_are_there(certificate, is_encrypted):
    context, client = certificate if is_encrypted else (None, None)
    async with echoing(context) as (server, port):
        async with connected(port, tls=client) as (reader, writer):
            assert await echo(reader, writer) == b"hello"
            server.close()
            with pytest.raises(ConnectionError):
                async with connected(port):
                    pass
            assert await echo(reader, writer) == b"hello"
        server.close()


async def test_handshakes_of_one_address_are_bounded_and_their_places_come_free(certificate):
    context, client = certificate
    async with echoing(context) as (_, port), contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(port)) for _ in range(LIMIT)]
        async with connected(port) as (reader, _):
            assert await is_closed(reader)
        for reader, writer in silent:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
            assert b"HTTP" not in answer
        async with connected(port, tls=client) as (reader, writer):
            assert await echo(reader, writer) == b"hello"


async def test_who_has_shaken_hands_leaves_the_place_to_others(certificate):
    context, client = certificate
    async with echoing(context) as (_, port), contextlib.AsyncExitStack() as stack:
        for _ in range(LIMIT + 1):
            reader, writer = await stack.enter_async_context(connected(port, tls=client))
            assert await echo(reader, writer) == b"hello"


class Refusing(asyncio.Protocol):
    """Says no, as to one who is one too many, and waits to be rid of him."""

    def __init__(self, lost):
        self._lost = lost

    def connection_made(self, transport):
        transport.write(b"no")
        transport.close()

    def connection_lost(self, exc):
        self._lost.set()


async def test_who_is_refused_and_never_ends_his_tls_is_dropped(certificate, monkeypatch):
    monkeypatch.setattr(module, "SHUTDOWN_SECONDS", 0.2)
    context, client = certificate
    lost = asyncio.Event()
    guard = ConnectionGuard(GuardSettings())
    async with listening(lambda: Refusing(lost), "127.0.0.1", 0, guard, context) as server:
        port = server.sockets[0].getsockname()[1]

        def shake_hands():
            connection = client.wrap_socket(socket.create_connection(("127.0.0.1", port)))
            assert connection.recv(2) == b"no"
            return connection

        silent = await asyncio.to_thread(shake_hands)
        async with asyncio.timeout(10):
            await lost.wait()
        silent.close()


async def test_a_stalled_handshake_is_closed_and_the_end_of_the_server_ends_the_others(
    certificate, monkeypatch
):
    context, _ = certificate
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.2)
    async with echoing(context) as (_, port), connected(port) as (reader, _):
        assert await is_closed(reader)
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 60)
    async with contextlib.AsyncExitStack() as stack:
        async with echoing(context) as (server, port):
            reader, _ = await stack.enter_async_context(connected(port))
            other, _ = await stack.enter_async_context(connected(port))
            assert isinstance(server, TlsServer)
        for each in (reader, other):
            assert await is_closed(each)


async def test_a_taken_port_is_an_os_error(certificate):
    context, _ = certificate
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        guard = ConnectionGuard(GuardSettings())
        with pytest.raises(OSError, match="in use"):
            async with listening(Echo, "127.0.0.1", taken.getsockname()[1], guard, context):
                pass
