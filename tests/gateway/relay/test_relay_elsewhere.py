"""A player's connection lands on any worker; his session is on one."""

import asyncio
import json
import socket
import stat

import aiohttp
from support.hls_playlists import parse_playlist
from support.hls_workers import running_workers

from gateway.relay.hls_sessions import HlsSettings
from gateway.relay.settings import relay_http_socket
from streams.mux.hls import SegmenterSettings

QUICK = HlsSettings(segmenter=SegmenterSettings(segment_seconds=1.0))


async def opened(client, relay, number=1):
    """The path of a session's addresses."""
    session = relay.control.ticket(number)
    async with client.get(relay.media(session, "index.m3u8")) as answer:
        assert answer.status == 200
        return f"/media/{session[0]}/" + (await answer.text()).splitlines()[3].rpartition("/")[0]


async def problem(client, url):
    async with client.get(url) as answer:
        assert answer.content_type == "application/problem+json"
        return answer.status, json.loads(await answer.read())["code"]


async def test_any_worker_answers_for_the_one_that_has_the_session(tmp_path, capfd):
    async with running_workers(tmp_path, 2, hls=QUICK) as (one, two), aiohttp.ClientSession() as client:
        path = await opened(client, one)
        assert path.rpartition("/")[2].startswith("0-")
        async with client.get(two.url(f"{path}/live.m3u8")) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
            assert answer.headers.getall("Cache-Control") == ["no-store"]
            playlist = parse_playlist(await answer.text())
        listed = playlist.segments[-1]
        for name in (listed.uri, listed.map, listed.parts[0].uri):
            bodies = []
            for relay in (one, two):
                async with client.get(relay.url(f"{path}/{name}")) as answer:
                    assert answer.status == 200
                    bodies.append(await answer.read())
            assert bodies[0] == bodies[1]
        number, part = playlist.next_part
        async with client.get(two.url(f"{path}/live.m3u8?_HLS_msn={number}&_HLS_part={part}")) as answer:
            assert parse_playlist(await answer.text()).next_part > (number, part)
        assert await problem(client, two.url(f"{path}/segment-999.mp4")) == (404, "not_found")
        assert await problem(client, two.url(f"{path[:-1]}!/live.m3u8")) == (404, "not_found")
        assert not one.control.requests
    logged = capfd.readouterr().out
    assert "/hls/{capability}/{name}" in logged
    assert path.rpartition("/")[2] not in logged


async def test_the_client_s_address_travels_in_the_header_that_only_workers_are_believed(tmp_path, capfd):
    async with running_workers(tmp_path, 2, hls=QUICK) as (one, two), aiohttp.ClientSession() as client:
        path = await opened(client, one)
        forged = {"X-Custos-Remote": "192.0.2.66"}
        for relay in (one, two):
            async with client.get(relay.url(f"{path}/live.m3u8"), headers=forged) as answer:
                assert answer.status == 200
    logged = capfd.readouterr().out
    assert "192.0.2.66" not in logged
    assert logged.count("127.0.0.1") >= 3


async def test_the_socket_is_this_user_s_alone_and_serves_nothing_else(tmp_path):
    async with running_workers(tmp_path, 2, hls=QUICK) as (one, two):
        path = relay_http_socket(tmp_path, 0)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
            session = one.control.ticket(1)
            for target in (
                f"/media/{session[0]}/index.m3u8?ticket={session[1]}",
                f"/media/{session[0]}/live.flv?ticket={session[1]}",
                "/api/v1/me",
            ):
                assert await problem(client, f"http://x{target}") == (404, "not_found")
            assert session[1] in one.control.tickets
        async with aiohttp.ClientSession() as client:
            theirs = await opened(client, two, 2)
        # what belongs to another worker is not passed on a second time
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
            assert await problem(client, f"http://x{theirs}/live.m3u8") == (410, "address_gone")


async def test_a_dead_worker_is_named(tmp_path):
    async with running_workers(tmp_path, 2, hls=QUICK) as (one, two), aiohttp.ClientSession() as client:
        path = await opened(client, two)
        assert (await client.get(one.url(f"{path}/live.m3u8"))).status == 200
        two.worker.stop()
        await two.stopped
        assert await problem(client, one.url(f"{path}/live.m3u8")) == (410, "worker_gone")
        # the file of one that was killed stays behind
        left = relay_http_socket(tmp_path, 1)
        left.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(left))
        assert await problem(client, one.url(f"{path}/live.m3u8")) == (410, "worker_gone")


async def test_no_number_leads_out_of_the_node(tmp_path):
    reached = asyncio.Event()

    async def connected(_, writer):
        reached.set()
        writer.close()

    server = await asyncio.start_unix_server(connected, relay_http_socket(tmp_path, 2))
    async with server, running_workers(tmp_path, 2) as (one, _), aiohttp.ClientSession() as client:
        for worker in ("2", "3", "99"):
            url = one.url(f"/media/{1:032x}/hls/{worker}-{'a' * 32}/live.m3u8")
            assert await problem(client, url) == (404, "not_found")
        assert await problem(client, one.url(f"/media/{1:032x}/hls/1-{'a' * 32}/live.m3u8")) == (
            410,
            "address_gone",
        )
        server.close()
    assert not reached.is_set()
