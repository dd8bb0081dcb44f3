"""RTSP for viewers, request by request: tickets, digests, transports, ends, and clients that misbehave."""

import asyncio
import contextlib
import socket
import struct
from itertools import pairwise

import pytest
from support.rtsp_viewer import RtspClient, SoundSource, digest_header, running_rtsp

from gateway.messages import End, Redeem, Streaming
from gateway.relay.guard import GuardSettings
from gateway.relay.rtsp_connection import MAX_CLIENT_BIT_RATE_BPS, MAX_WAITING_REQUESTS
from gateway.relay.viewer import ViewerSettings
from policies.access import Action, Obligations
from streams.hub import ReaderSettings
from streams.media import Codec
from streams.mux.mark import find_marks
from streams.wire.depacketizer import open_depacketizer
from streams.wire.digest import Algorithm
from streams.wire.rtp import parse_rtp
from streams.wire.sdp import parse_sdp

BYE, SENDER_REPORT = 203, 200


def quiet():
    return SoundSource(Codec.H264, None)


async def test_a_viewer_gets_an_answer_that_says_where_the_packets_begin(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay:
        async with RtspClient.connected(relay.rtsp_port) as client:
            played = await client.play(relay.address(relay.control.ticket(1)))
            first = parse_rtp((await client.packets_on(0, 1))[0])
        over = await relay.control.over(f"{1:032x}")
    assert f"seq={first.sequence_number};rtptime={first.timestamp}" in played.header("RTP-Info")
    assert "ticket" not in played.header("RTP-Info")
    assert (over.reason, over.lost) == ("lost", True)


async def test_the_keyframes_carry_the_viewer_s_mark(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        address = relay.address(relay.control.ticket(1))
        described = await client.request("DESCRIBE", address)
        _, depacketizer = open_depacketizer(parse_sdp(described.body).media[0])
        await client.play(address)
        units = []
        for payload in await client.packets_on(0, 100):
            units += depacketizer.receive(parse_rtp(payload), 0)
    found = [mark for unit in units[1:] for mark in find_marks(Codec.H264, unit.nal_units)]
    assert found
    assert {mark.session_id for mark in found} == {bytes.fromhex(f"{1:032x}")}


@pytest.mark.parametrize("wrong", ["another", "other session's", "none of ours"])
async def test_a_wrong_ticket_opens_nothing(tmp_path, wrong):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        session, _ = relay.control.ticket(1)
        ticket = relay.control.ticket(2)[1] if wrong == "other session's" else wrong.replace(" ", "-")
        answer = await client.request("DESCRIBE", relay.address((session, ticket)))
        assert answer.status == 403
        assert (await client.request("OPTIONS", "*")).status == 200


async def test_a_used_ticket_opens_nothing(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay:
        address = relay.address(relay.control.ticket(1))
        async with RtspClient.connected(relay.rtsp_port) as client:
            await client.play(address)
            await relay.control.wait_for(Streaming)
        async with RtspClient.connected(relay.rtsp_port) as client:
            assert (await client.request("DESCRIBE", address)).status == 403


async def test_a_ticket_of_another_action_shows_nothing(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        ticket = relay.control.ticket(1, action=Action.FRAMES_CONSUME)
        assert (await client.request("DESCRIBE", relay.address(ticket))).status == 403


async def test_an_obligation_that_cannot_be_kept_shows_nothing(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        ticket = relay.control.ticket(1, obligations=Obligations(max_height=120))
        assert (await client.request("DESCRIBE", relay.address(ticket))).status == 503
        assert (await relay.control.over(ticket[0])).bytes_sent == 0


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_a_digest_with_the_ticket_opens_the_session_once(tmp_path, algorithm):
    async with running_rtsp(tmp_path, source=quiet) as relay:
        session, ticket = relay.control.ticket(1)
        url = f"rtsp://127.0.0.1:{relay.rtsp_port}/live/{session}"
        async with RtspClient.connected(relay.rtsp_port) as client:
            challenged = await client.request("DESCRIBE", url)
            assert challenged.status == 401
            value = digest_header(challenged, (session, ticket), "DESCRIBE", url, algorithm)
            assert (await client.request("DESCRIBE", url, ("Authorization", value))).status == 200
            proof = (await relay.control.wait_for(Redeem)).digest
            assert (proof.algorithm, proof.method, proof.uri) == (str(algorithm), "DESCRIBE", url)
        async with RtspClient.connected(relay.rtsp_port) as client:
            replayed = await client.request("DESCRIBE", url, ("Authorization", value))
            assert replayed.status == 401
        assert sum(isinstance(m, Redeem) for m in relay.control.received) == 1


async def test_a_nonce_is_good_once_and_for_its_own_url_and_user(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        session, ticket = relay.control.ticket(1)
        other, _ = relay.control.ticket(2)
        url = f"rtsp://127.0.0.1:{relay.rtsp_port}/live/{session}"
        for user, secret, signed in (
            (session, "wrong", url),
            (other, ticket, url),
            (session, ticket, url.replace(session, other)),
        ):
            challenged = await client.request("DESCRIBE", url)
            value = digest_header(challenged, (user, secret), "DESCRIBE", signed, Algorithm.MD5)
            assert (await client.request("DESCRIBE", url, ("Authorization", value))).status == 401
        challenged = await client.request("DESCRIBE", url)
        wrong = digest_header(challenged, (session, "wrong"), "DESCRIBE", url, Algorithm.MD5)
        right = digest_header(challenged, (session, ticket), "DESCRIBE", url, Algorithm.MD5)
        assert (await client.request("DESCRIBE", url, ("Authorization", wrong))).status == 401
        stale = await client.request("DESCRIBE", url, ("Authorization", right))
        assert stale.status == 401
        assert "stale=true" in stale.header("WWW-Authenticate")
        for garbage in ("Digest", "Basic eDp5", 'Digest username="x"', "Digest " + "a=1," * 40):
            assert (await client.request("DESCRIBE", url, ("Authorization", garbage))).status == 401


async def test_a_second_connection_takes_the_first_one_s_place(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay:
        address = relay.address(relay.control.ticket(1))
        async with (
            RtspClient.connected(relay.rtsp_port) as first,
            RtspClient.connected(relay.rtsp_port) as second,
        ):
            assert (await first.request("DESCRIBE", address)).status == 200
            assert (await second.request("DESCRIBE", address)).status == 200
            await first.until_closed()
            assert (await second.request("GET_PARAMETER", address)).status == 200
            assert (await relay.control.over(f"{1:032x}")).reason == "replaced"


async def test_other_channels_and_only_the_picture(tmp_path):
    async with running_rtsp(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        transport = "RTP/AVP/TCP;unicast;interleaved=10-11"
        await client.play(relay.address(relay.control.ticket(1)), transport=transport)
        packets = [parse_rtp(payload) for payload in await client.packets_on(10, 60)]
        assert {packet.channel for packet in client.packets} <= {10, 11}
    sequence = [packet.sequence_number for packet in packets]
    assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(sequence))
    assert {packet.payload_type for packet in packets} == {96}


async def test_picture_and_sound_on_swapped_channels(tmp_path):
    async with running_rtsp(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        described = await client.request("DESCRIBE", relay.address(relay.control.ticket(1)))
        base = described.header("Content-Base")
        assert (await client.set_up(base, transport="RTP/AVP/TCP;interleaved=2-3")).status == 200
        taken = await client.set_up(base, track="track1", transport="RTP/AVP/TCP;interleaved=3-4")
        assert taken.status == 461
        assert (
            await client.set_up(base, track="track1", transport="RTP/AVP/TCP;interleaved=0-1")
        ).status == 200
        assert (await client.request("PLAY", base)).status == 200
        assert {parse_rtp(p).payload_type for p in await client.packets_on(2, 20)} == {96}
        assert {parse_rtp(p).payload_type for p in await client.packets_on(0, 20)} == {97}


async def test_methods_out_of_place(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        address = relay.address(relay.control.ticket(1))
        assert (await client.request("PLAY", address)).status == 454
        assert (await client.request("HACK", address)).status == 501
        assert (await client.request("DESCRIBE", "rtsp://h/other")).status == 404
        assert (await client.request("DESCRIBE", "rtsp://[h/live/x?ticket=t")).status == 400
        described = await client.request("DESCRIBE", address)
        base = described.header("Content-Base")
        assert "ticket" not in base
        assert (await client.request("PLAY", base)).status == 455
        assert (await client.set_up(base, track="track1")).status == 404
        assert (await client.set_up(base, track="track7")).status == 404
        for transport in ("RTP/AVP;multicast", "RTP/SAVP/TCP", "RTP/AVP;client_port=80-81", ""):
            assert (await client.set_up(base, transport=transport)).status == 461
        assert (await client.set_up(base)).status == 200
        assert (await client.request("GET_PARAMETER", base, ("Session", "other"))).status == 454
        assert (await client.request("PAUSE", base)).status == 501
        assert (await client.request("PLAY", base)).status == 200
        assert (await client.request("PLAY", base)).status == 200
        assert (await client.set_up(base)).status == 455
        assert (await client.request("TEARDOWN", base)).status == 200
        over = await relay.control.over(f"{1:032x}")
        assert (over.reason, over.lost) == ("completed", False)
        client.session = None
        assert (await client.request("GET_PARAMETER", base)).status == 454


async def test_a_session_that_ends_says_goodbye_and_nothing_after(tmp_path):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        session, ticket = relay.control.ticket(1)
        await client.play(relay.address((session, ticket)))
        await client.packets_on(0, 5)
        relay.control.send(End(session=session, reason="revoked"))
        async with asyncio.timeout(30):
            await client.until_closed()
        assert client.packets[-1].channel == 1
        goodbye = client.packets[-1].payload
        assert goodbye[1] == BYE
        assert goodbye[9 : 9 + goodbye[8]] == b"revoked"
        assert (await relay.control.over(session)).reason == "revoked"


async def test_sender_reports_tie_pictures_and_sound_to_one_clock(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.relay.rtsp_viewer.REPORT_SECONDS", 0.05)
    async with running_rtsp(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        described = await client.request("DESCRIBE", relay.address(relay.control.ticket(1)))
        base = described.header("Content-Base")
        await client.set_up(base)
        await client.set_up(base, track="track1", transport="RTP/AVP/TCP;interleaved=2-3")
        await client.request("PLAY", base)
        video, sound = await client.packets_on(1, 3), await client.packets_on(3, 3)
        pictures = [parse_rtp(p) for p in await client.packets_on(0, 1)]
    for packet in (*video, *sound):
        assert packet[1] == SENDER_REPORT
    _, ntp, rtp, packets, _ = struct.unpack(">IQIII", video[-1][4:28])
    _, sound_ntp, sound_rtp, _, _ = struct.unpack(">IQIII", sound[-1][4:28])
    assert video[-1][4:8] == pictures[0].ssrc.to_bytes(4)
    assert packets > 0
    assert abs(ntp - sound_ntp) < 1 << 32
    assert abs(rtp / 90_000 - sound_rtp / 48_000) < 2


async def test_over_udp_packets_go_to_the_client_until_it_is_silent_for_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.relay.rtsp_viewer.REPORT_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as rtp:
        rtp.setblocking(False)
        rtp.bind(("127.0.0.1", 0))
        port = rtp.getsockname()[1]
        async with running_rtsp(tmp_path, source=quiet) as relay:
            async with RtspClient.connected(relay.rtsp_port) as client:
                # A destination that is not the client's own address is ignored.
                transport = f"RTP/AVP;unicast;destination=192.0.2.1;client_port={port}-{port + 1}"
                session, ticket = relay.control.ticket(1)
                await client.play(relay.address((session, ticket)), transport=transport)
                async with asyncio.timeout(5):
                    packets = [parse_rtp(await loop.sock_recv(rtp, 2048)) for _ in range(20)]
                assert client.packets == []
                monkeypatch.setattr("gateway.relay.rtsp_viewer.SESSION_SECONDS", 0.1)
                await client.until_closed()
                over = await relay.control.over(session)
    assert {packet.payload_type for packet in packets} == {96}
    assert (over.reason, over.lost) == ("lost", True)
    assert over.bytes_sent > 0


async def test_a_viewer_that_does_not_read_is_ended_as_slow_and_the_other_sees_no_gap(tmp_path):
    settings = ViewerSettings(
        send_buffer_bytes=8192, reader=ReaderSettings(max_backlog_bytes=100_000, stuck_seconds=0.2)
    )
    source = lambda: SoundSource(Codec.H264, None, pause_seconds=0.005, repeat=20)  # noqa: E731
    async with running_rtsp(tmp_path, source=source, viewer=settings) as relay:
        async with (
            RtspClient.connected(relay.rtsp_port) as slow,
            RtspClient.connected(relay.rtsp_port) as reading,
        ):
            await slow.play(relay.address(relay.control.ticket(1)))
            await reading.play(relay.address(relay.control.ticket(2)))
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(reading.until_closed())
                over = await relay.control.over(f"{1:032x}")
                task.cancel()
        sequence = [parse_rtp(p.payload).sequence_number for p in reading.packets if p.channel == 0]
    assert over.reason == "slow"
    assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(sequence))


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x01\x02", b"GET / HTTP/1.1\r\n\r\n", b"OPTIONS * RTSP/1.0\r\nbroken\r\n\r\n", b"A" * 70_000],
    ids=["bytes", "http", "header", "endless"],
)
async def test_garbage_ends_the_connection_and_no_other(tmp_path, garbage):
    async with running_rtsp(tmp_path, source=quiet) as relay:
        async with (
            RtspClient.connected(relay.rtsp_port) as viewer,
            RtspClient.connected(relay.rtsp_port) as client,
        ):
            await viewer.play(relay.address(relay.control.ticket(1)))
            client.send(garbage)
            await client.until_closed()
            await viewer.packets_on(0, 10)


@pytest.mark.parametrize(
    ("count", "survives"), [(MAX_WAITING_REQUESTS, True), (MAX_WAITING_REQUESTS + 1, False)]
)
async def test_requests_that_do_not_wait_for_answers_are_bounded(tmp_path, count, survives):
    async with running_rtsp(tmp_path, source=quiet) as relay, RtspClient.connected(relay.rtsp_port) as client:
        client.send(b"OPTIONS * RTSP/1.0\r\n\r\n" * count)
        if survives:
            async with asyncio.timeout(5):
                assert [(await client.event()).status for _ in range(count)] == [200] * count
        else:
            await client.until_closed()


@pytest.mark.parametrize("sent", [b"$\0\0\0", b"\r\n"], ids=["empty packets", "empty lines"])
async def test_a_flood_of_nothing_is_cut_off(tmp_path, sent):
    async with (
        running_rtsp(tmp_path, source=quiet) as relay,
        RtspClient.connected(relay.rtsp_port) as viewer,
        RtspClient.connected(relay.rtsp_port) as client,
    ):
        await viewer.play(relay.address(relay.control.ticket(1)))
        client.send(sent * (MAX_CLIENT_BIT_RATE_BPS // 8))
        await client.until_closed()
        await viewer.packets_on(0, 10)


@pytest.mark.parametrize("sent", [b"", b"OPTIONS * RT"], ids=["silent", "dripping"])
async def test_clients_that_say_nothing_are_cut(tmp_path, sent):
    guard = GuardSettings(header_seconds=0.1, idle_seconds=0.2)
    async with running_rtsp(tmp_path, source=quiet, guard=guard) as relay:
        async with RtspClient.connected(relay.rtsp_port) as client:
            client.send(sent)
            await client.until_closed()
        async with RtspClient.connected(relay.rtsp_port) as client:
            assert (await client.request("OPTIONS", "*")).status == 200
            await client.until_closed()


async def test_connections_of_one_address_are_bounded(tmp_path):
    guard = GuardSettings(max_connections_per_address=2)
    async with running_rtsp(tmp_path, source=quiet, guard=guard) as relay:
        async with contextlib.AsyncExitStack() as clients:
            for _ in range(2):
                client = await clients.enter_async_context(RtspClient.connected(relay.rtsp_port))
                assert (await client.request("OPTIONS", "*")).status == 200
            async with RtspClient.connected(relay.rtsp_port) as third:
                assert (await third.event()).status == 503
                await third.until_closed()
