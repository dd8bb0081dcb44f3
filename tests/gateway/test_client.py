import asyncio

import pyotp
import pytest
from support.controls import PASSWORD, open_city
from support.tcp_control import tcp_control

from gateway import client as module
from gateway.client import ApiClient, ApiError, read_password


async def test_asks_as_a_person_and_logs_out(tmp_path):
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        async with ApiClient.open(url, "traffic-admin", PASSWORD) as client:
            me = await client.request("GET", "/me")
            assert me["username"] == "traffic-admin"
            page = await client.request("GET", "/cameras", params={"page_size": "1"})
            assert page["total"] == 2
            downloaded = b"".join([piece async for piece in client.download("/cameras")])
            assert downloaded.startswith(b"{")
        assert await city.records(kind="logout", actor_id="traffic-admin")


async def test_a_second_factor_is_asked_on_the_terminal_or_read_from_the_environment(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        offered = await city.call("auditor", "POST", "/me/second-factor", {})
        app = pyotp.TOTP(offered["secret"])
        await city.call("auditor", "POST", "/me/second-factor/confirm", {"code": app.at(city.clock())})
        with pytest.raises(ApiError) as refused:  # no terminal
            async with ApiClient.open(url, "auditor", PASSWORD):
                pass
        assert refused.value.code == "second_factor_required"
        city.clock.advance(30)
        monkeypatch.setenv("CUSTOS_TOTP", app.at(city.clock()))
        async with ApiClient.open(url, "auditor", PASSWORD) as client:
            assert (await client.request("GET", "/me"))["second_factor"]
        monkeypatch.delenv("CUSTOS_TOTP")
        city.clock.advance(30)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("getpass.getpass", lambda _: app.at(city.clock()))
        async with ApiClient.open(url, "auditor", PASSWORD) as client:
            assert (await client.request("GET", "/me"))["second_factor"]


async def test_a_refusal_has_the_problems_code(tmp_path):
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        with pytest.raises(ApiError) as wrong:
            async with ApiClient.open(url, "root", "not the password"):
                pass
        assert wrong.value.code == "invalid_credentials"
        assert "not the password" not in str(wrong.value)
        async with ApiClient.open(url, "traffic-operator", PASSWORD) as client:
            with pytest.raises(ApiError) as denied:
                await client.request("DELETE", "/cameras/gate")
            assert denied.value.code == "access_denied"
            assert denied.value.document["status"] == 403


@pytest.mark.parametrize(
    "url", ["", "gateway", "ftp://127.0.0.1", "http://", "http://a:b@127.0.0.1", "http://[", "http://h?x=1"]
)
async def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ApiError) as refused:
        async with ApiClient.open(url, "root", PASSWORD):
            pass
    assert refused.value.code == "url_invalid"


async def test_nobody_answers():
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    with pytest.raises(ApiError) as refused:
        async with ApiClient.open(f"http://127.0.0.1:{port}", "root", PASSWORD):
            pass
    assert refused.value.code == "gateway_unreachable"


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"token": 1}'])
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
async def test_something_else_answers(body, status):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ApiError) as refused:
            async with ApiClient.open(f"http://127.0.0.1:{port}", "root", PASSWORD):
                pass
    assert refused.value.code == "answer_invalid"


async def test_an_answer_has_a_limit(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city, tcp_control(city) as url:
        async with ApiClient.open(url, "traffic-admin", PASSWORD) as client:
            monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 10)
            with pytest.raises(ApiError) as refused:
                await client.request("GET", "/cameras")
            assert refused.value.code == "answer_invalid"


def test_a_password_is_never_an_argument(tmp_path, monkeypatch):
    file = tmp_path / "password"
    file.write_text("from the file 密码\nnot this\n")
    monkeypatch.setenv("CUSTOS_PASSWORD", "from the environment")
    assert read_password(file) == "from the file 密码"
    assert read_password(None) == "from the environment"
    monkeypatch.delenv("CUSTOS_PASSWORD")
    file.write_bytes(b"\xff\xff")
    for source in (None, file, tmp_path / "missing"):
        with pytest.raises(ApiError) as refused:
            read_password(source)
        assert refused.value.code == "password_missing"
