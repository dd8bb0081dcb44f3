"""A node with a certificate: everything over TLS, and nothing for who does not shake hands."""

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

import aiohttp
import av
import pytest
from support.certificates import write_certificate
from support.connections import connected
from support.flv_viewer import Watching
from support.media_protocols import PROTOCOLS, MediaViewer, ask
from support.nodes import (
    PASSWORD,
    ROOT,
    PacedProducer,
    furnish,
    grant,
    run_cli,
    running_node,
    simulated_cameras,
)

from gateway.relay.tls import HANDSHAKE_SECONDS

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 15
CONNECTIONS_PER_ADDRESS = 20
"""Of each of the two workers."""
MANY = 2 * CONNECTIONS_PER_ADDRESS + 30
CLIENT_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""A TLS record of a handshake that promises 512 bytes (RFC 8446 §5.1)."""


@pytest.fixture
async def city(tmp_path):
    certificate, key = write_certificate(tmp_path)
    guard = f"guard: {{max_connections_per_address: {CONNECTIONS_PER_ADDRESS}}}\n"
    config = f"workers: 2\n{guard}tls: {{certificate: {certificate}, key: {key}}}\n"
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(tmp_path, config=config) as node,
    ):
        node.tls = ssl.create_default_context(cafile=certificate)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=node.tls)) as node.http:
            await furnish(node, cameras)
            await grant(node, "urban-operator", "north")
            yield node


async def test_everything_works_over_tls_and_nothing_without(city):
    """One node for all: its start takes longer than the tests."""
    assert city.url.startswith("https://")
    await _portal_and_api(city)
    async with Watching() as watching:
        viewers = []
        for protocol in PROTOCOLS:
            session = await city.watch("urban-operator", "north")
            url = session["media"][protocol]
            assert urlsplit(url).scheme in {"https", "wss", "rtsps"}
            viewers.append(watching.start(MediaViewer(protocol, url, city.tls)))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await viewers[-1].shown.wait()
            assert (await ask(city.http, protocol, url, city.tls)).status == 403
        session = await city.watch("urban-operator", "north")
        assert await asyncio.to_thread(_pictures_of_ffmpeg, session["media"]["rtsp"], 10) == 10
        ports = urlsplit(city.url).port, urlsplit(session["media"]["rtsp"]).port
        await _plain_text_is_refused(ports)
        await _stalled_handshakes_are_closed(ports)
        for viewer in viewers:
            await viewer.more()
        await city.call("urban-operator", "GET", "/me")
        assert await city.stop() == 0
    assert "Traceback" not in city.log.read_text()


async def _portal_and_api(city):
    async with city.http.get(f"{city.url}/") as answer:
        assert answer.status == 200
    body = {"username": "traffic-operator", "password": PASSWORD, "cookie": True}
    async with city.http.post(f"{city.url}/api/v1/login", json=body) as answer:
        assert answer.status == 200
        (cookie,) = answer.headers.getall("Set-Cookie")
    attributes = {part.strip().lower() for part in cookie.split(";")}
    assert {"secure", "httponly", "samesite=strict"} <= attributes
    headers = {"Cookie": cookie.partition(";")[0]}
    async with city.http.get(f"{city.url}/api/v1/me", headers=headers) as answer:
        assert answer.status == 200


def _pictures_of_ffmpeg(url, count):
    options = {"rtsp_transport": "tcp", "tls_verify": "0"}
    with av.open(url, options=options, timeout=PATIENCE_SECONDS) as container:
        for number, _ in enumerate(container.decode(video=0), 1):
            if number == count:
                return number
    return 0


async def _plain_text_is_refused(ports):
    for port, request in zip(
        ports, (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"), strict=True
    ):
        answer = await _until_closed(port, request)
        assert b"HTTP" not in answer
        assert b"RTSP" not in answer


async def _stalled_handshakes_are_closed(ports):
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(HANDSHAKE_SECONDS + 5), asyncio.TaskGroup() as tasks:
        for port in ports:
            for sent in (b"", CLIENT_HELLO_BEGINS):
                tasks.create_task(_until_closed(port, sent))
            tasks.create_task(_until_closed(port, CLIENT_HELLO_BEGINS, drip=True))
    assert asyncio.get_running_loop().time() - started > 1


async def _until_closed(port, sent, *, drip=False):
    """What the peer says until it closes."""
    async with connected(port) as (reader, writer), asyncio.TaskGroup() as tasks:
        writer.write(sent)
        dripping = tasks.create_task(_drip(writer)) if drip else None
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
        if dripping is not None:
            dripping.cancel()
    return answer


async def _drip(writer):
    while True:
        await asyncio.sleep(0.2)
        writer.write(b"\0")


async def test_one_address_cannot_hold_the_port_with_handshakes(city):
    """As many as it may have connections; the others are closed at once."""
    port = urlsplit(city.url).port
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        waiting = []
        for _ in range(MANY):
            reader, _ = await stack.enter_async_context(connected(port))
            waiting.append(tasks.create_task(_closed(reader)))
        closed, _ = await asyncio.wait(waiting, timeout=2)
        for task in waiting:
            task.cancel()
    assert len(closed) >= MANY - 2 * CONNECTIONS_PER_ADDRESS


async def _closed(reader):
    with contextlib.suppress(ConnectionError):
        await reader.read()


@pytest.mark.parametrize("what", ["missing", "not a certificate", "another's key", "a key with a password"])
async def test_a_bad_certificate_is_told_in_one_line(tmp_path, what):
    certificate, key = write_certificate(tmp_path, password=b"x" if what == "a key with a password" else None)
    if what == "missing":
        certificate.unlink()
    elif what == "not a certificate":
        certificate.write_text("hello")
    elif what == "another's key":
        other = tmp_path / "other"
        other.mkdir()
        _, key = write_certificate(other)
    path = tmp_path / "custos.yaml"
    policies = ROOT / "config" / "policies.yaml"
    path.write_text(f"policies: {policies}\ntls: {{certificate: {certificate}, key: {key}}}\n")
    for command in ("check-config", "serve"):
        code, out, error = await run_cli(command, "--config", str(path))
        assert (code, out) == (2, "")
        assert "tls_invalid" in error
        assert "Traceback" not in error
        assert len(error.splitlines()) == 1, error
