import asyncio
import contextlib
import json
import os

import aiohttp
import pytest
from support.relay_worker import running_relay

from gateway.relay.guard import GuardSettings


async def test_request_and_answer_pass_unchanged(tmp_path):
    body = os.urandom(900_000)
    headers = {
        "Authorization": "Bearer t",
        "Content-Type": "text/csv",
        "Content-Encoding": "gzip",
        "X-A": "1",
    }
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        path = "/api/v1/cameras/a%2Fb?q=%E4%B8%AD&status=207"
        async with client.put(relay.url(path), data=body, headers=headers) as answer:
            echoed = await answer.read()
        method, raw_path, received, sent = relay.control.requests[-1]
    assert (answer.status, echoed) == (207, body)
    assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert answer.headers["X-Control"] == "yes"
    assert (method, raw_path, sent) == ("PUT", path, body)
    assert {name: received[name] for name in headers} == headers
    assert received["Host"] == f"127.0.0.1:{relay.port}"
    assert received["Content-Length"] == str(len(body))


async def test_chunked_bodies_and_bodies_that_are_not_there(tmp_path):
    async def chunks():
        yield b"one"
        yield b"two"

    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        async with client.post(relay.url("/x"), data=chunks()) as answer:
            assert await answer.read() == b"onetwo"
        async with client.head(relay.url("/x")) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with client.delete(relay.url("/x?status=204")) as answer:
            assert (answer.status, await answer.read()) == (204, b"")
        async with client.get(relay.url("/x?status=302"), allow_redirects=False) as answer:
            assert answer.status == 302


async def test_the_caller_s_address_and_the_request_s_id_are_the_worker_s(tmp_path):
    forged = {
        "X-Custos-Remote": "6.6.6.6",
        "x-request-id": "forged-forged",
        "Connection": "X-Secret-Hop, close",
        "X-Secret-Hop": "1",
        "TE": "trailers",
    }
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.url("/x"), headers=forged) as answer:
            assert answer.status == 200
        headers = {name.lower(): value for name, value in relay.control.requests[-1][2].items()}
    assert headers["x-custos-remote"] == "127.0.0.1"
    assert headers["x-request-id"] != "forged-forged"
    assert not {"x-secret-hop", "te"} & set(headers)


async def test_events_stream_and_their_end_reaches_control(tmp_path):
    async with running_relay(tmp_path) as relay:
        async with aiohttp.ClientSession() as client, client.get(relay.url("/events")) as answer:
            assert await answer.content.readline() == b"data: first\n"
        async with asyncio.timeout(5):
            await relay.control.forget_sse.wait()


async def test_without_control_there_is_a_problem_document(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        (tmp_path / "control-http.sock").rename(tmp_path / "elsewhere")
        async with client.get(relay.url("/api/v1/cameras?token=canary")) as answer:
            problem = await answer.json(content_type="application/problem+json")
        (tmp_path / "elsewhere").rename(tmp_path / "control-http.sock")
    assert (answer.status, problem["code"]) == (503, "control_unavailable")
    assert "canary" not in json.dumps(problem)
    assert problem["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "start",
    [
        b"GET http://evil.example/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //evil.example/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01garbage\r\n\r\n",
    ],
)
async def test_strange_requests_reach_control_as_paths_or_not_at_all(tmp_path, start):
    async with running_relay(tmp_path, guard=GuardSettings(header_seconds=1, idle_seconds=1)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(start)
        line = await asyncio.wait_for(reader.readline(), 5)
        status = int(line.split()[1])
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        paths = [path for _, path, _, _ in relay.control.requests]
    assert status in {200, 400, 404}
    assert all(path.startswith("/") for path in paths)


async def test_a_stalled_upload_is_cut_and_control_is_told(tmp_path):
    async with running_relay(tmp_path, guard=GuardSettings(body_seconds=0.2)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert not relay.control.requests
