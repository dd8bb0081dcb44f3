"""Clients that hang, drip, crowd or lie at the ports of a node of two workers: gone in time, felt by none."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import pytest
from support.connections import connected
from support.flv_viewer import FlvViewer, Watching
from support.media_protocols import MediaViewer
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 2
PATIENCE_SECONDS = DEADLINE_SECONDS + 4
WORKERS = 2
CONNECTIONS_PER_ADDRESS = 40
PROXY_CLIENT = "203.0.113.9"
HTTP_HEAD = b"POST /api/v1/login HTTP/1.1\r\nHost: a\r\n"
DESCRIBE = b"DESCRIBE rtsp://a/live/0 RTSP/1.0\r\nCSeq: 1\r\n"
HTTP_CLIENTS = {
    "silent": (b"", b""),
    "half a request line": (b"GET /api", b""),
    "dripping header": (b"GET / HTTP/1.1\r\nX-Long: ", b"a"),
    "dripping body": (HTTP_HEAD + b"Content-Length: 1000\r\n\r\n", b" "),
    "dripping chunks": (HTTP_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "body of a media request": (
        b"GET /media/0/live.flv?ticket=x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
        b"",
    ),
    "garbage": (b"\x16\x03\x01garbage\r\n\r\n\xff\xff", b"\xff"),
    "not HTTP": (DESCRIBE + b"\r\n", b""),
}
RTSP_CLIENTS = {
    "silent": (b"", b""),
    "half a request": (DESCRIBE, b""),
    "dripping header": (DESCRIBE + b"X-Long: ", b"a"),
    "dripping body": (DESCRIBE + b"Content-Length: 1000\r\n\r\n", b" "),
    "garbage": (b"\xff\x00garbage" * 8, b""),
    "an overlong URL": (b"DESCRIBE rtsp://a/" + b"a" * 4000 + b" RTSP/1.0\r\nCSeq: 1\r\n\r\n", b""),
    "packets without a login": (b"$\x00\x00\x04abcd" * 100, b"$\x00\x00\x04abcd"),
    "half a packet": (b"$\x00\xff\xffabc", b"a"),
    "OPTIONS without end": (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n" * 1000, b""),
    "not RTSP": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
}


@pytest.fixture
async def city(tmp_path):
    config = (
        f"workers: {WORKERS}\n"
        f"guard: {{header_seconds: {DEADLINE_SECONDS}, body_seconds: {DEADLINE_SECONDS}, "
        f"idle_seconds: {DEADLINE_SECONDS}, max_connections_per_address: {CONNECTIONS_PER_ADDRESS}}}\n"
    )
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(tmp_path, config=config) as node,
    ):
        await furnish(node, cameras)
        await grant(node, "urban-operator", "north")
        yield node


async def until_closed(port, sent, drop):
    """Send, and then drip, until the server closes; what it said."""
    answer = b""
    async with connected(port) as (reader, writer), asyncio.TaskGroup() as tasks:
        writer.write(sent)
        dripping = tasks.create_task(drip(writer, drop))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                answer += data
        dripping.cancel()
    return answer


async def drip(writer, drop):
    while drop:
        await asyncio.sleep(0.1)
        writer.write(drop)
    await asyncio.Event().wait()


async def test_hanging_dripping_and_babbling_clients_are_closed_in_time(city):
    async with Watching() as watching:
        session = await city.watch("urban-operator", "north")
        viewer = watching.start(FlvViewer(session["media"]["flv"]))
        rtsp = (await city.watch("urban-operator", "north"))["media"]["rtsp"]
        rtsp_viewer = watching.start(MediaViewer("rtsp", rtsp))
        await viewer.more()
        await rtsp_viewer.more()
        ports = urlsplit(city.url).port, urlsplit(rtsp).port
        async with asyncio.TaskGroup() as tasks:
            for port, clients in zip(ports, (HTTP_CLIENTS, RTSP_CLIENTS), strict=True):
                for name, (sent, drop) in clients.items():
                    tasks.create_task(_closed_in_time(name, port, sent, drop))
        await viewer.more()
        await rtsp_viewer.more()
        assert viewer.longest_gap < 1
        assert viewer.steps_ms == {40}
    assert "Traceback" not in city.log.read_text()


async def _closed_in_time(name, port, sent, drop):
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await until_closed(port, sent, drop)
    except TimeoutError:
        raise AssertionError(name) from None
    assert b" 200 " not in answer.partition(b"\r\n")[0] or name == "OPTIONS without end", (name, answer)
    assert b" 500 " not in answer, (name, answer)


async def test_one_address_has_so_many_connections_and_then_503(city):
    session = await city.watch("urban-operator", "north")
    rtsp = urlsplit(session["media"]["rtsp"]).port
    async with Watching() as watching:
        viewer = watching.start(FlvViewer(session["media"]["flv"]))
        await viewer.more()
        for port, begin in ((urlsplit(city.url).port, b"HTTP/1.1 503 "), (rtsp, b"RTSP/1.0 503 ")):
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
                reading = []
                for _ in range(WORKERS * CONNECTIONS_PER_ADDRESS + 20):
                    reader, _ = await stack.enter_async_context(connected(port))
                    reading.append(tasks.create_task(_all_of(reader)))
                refused, others = await asyncio.wait(reading, timeout=1)
                assert len(refused) >= 20
                assert all(task.result().startswith(begin) for task in refused)
                await asyncio.wait_for(asyncio.wait(others), PATIENCE_SECONDS)
            await viewer.more()
        assert viewer.longest_gap < 1
    # all places are free again
    await city.call("urban-operator", "GET", "/me")


async def _all_of(reader):
    answer = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            answer += data
    return answer


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_the_ledger_names_the_client_that_a_trusted_proxy_names_and_nobody_else(tmp_path, is_trusted):
    proxies = "127.0.0.0/8" if is_trusted else "192.0.2.0/24"
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(
            tmp_path, config=f"workers: 1\nhttp: {{port: 0, trusted_proxies: [{proxies}]}}\n"
        ) as node,
    ):
        await furnish(node, cameras)
        await grant(node, "urban-operator", "north")
        headers = {
            "Authorization": f"Bearer {node.tokens['urban-operator']}",
            "X-Forwarded-For": f"198.51.100.1, {PROXY_CLIENT}",
            "X-Custos-Remote": "198.51.100.2",
        }
        body = {"camera": "north", "purpose": {"code": "patrol", "reference": "roster"}}
        async with node.http.post(f"{node.url}/api/v1/sessions", json=body, headers=headers) as answer:
            session = await answer.json()
        async with node.http.get(session["media"]["flv"], headers=headers) as answer:
            assert answer.status == 200
            await answer.content.readany()
        expected = PROXY_CLIENT if is_trusted else "127.0.0.1"
        for kind in ("decision", "session_start"):
            query = (
                f"/audit/records?purpose=audit&session={session['id']}&kind={kind}"
                if kind == "session_start"
                else ("/audit/records?purpose=audit&kind=decision")
            )
            items = (await node.call("auditor", "GET", query))["items"]
            mine = [item["record"] for item in items if item["record"]["actor_id"] == "urban-operator"]
            assert {record["remote"] for record in mine} == {expected}, kind
