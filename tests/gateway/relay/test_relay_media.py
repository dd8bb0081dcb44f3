import asyncio
import contextlib
import json
import socket

import aiohttp
import av
import pytest
from support.clip_source import ClipSource, SilentSource
from support.fake_control import MARK_KEY
from support.relay_worker import running_relay
from support.units import encode_clip

from gateway.messages import Claim, End, Redeem, Release, SessionOver, Usage
from gateway.relay.viewer import ViewerSettings
from policies.access import Action, Obligations, Watermark
from streams.errors import SourceUnreachableError
from streams.hub import ReaderSettings
from streams.media import Codec
from streams.mux.mark import find_marks
from streams.supervisor import SupervisorSettings


def play(url, count, **options):
    """What FFmpeg makes of an address: codec, size and pictures."""
    with av.open(url, timeout=10, **options) as container:
        stream = container.streams.video[0]
        frames = []
        for frame in container.decode(stream):
            frames.append(frame)
            if len(frames) == count:
                break
        return stream.codec_context.name, (frames[0].width, frames[0].height), [f.pts for f in frames]


@pytest.mark.parametrize("form", ["live.flv", "live.mp4"])
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
async def test_ffmpeg_plays(tmp_path, form, codec):
    encode_clip(codec)
    async with running_relay(tmp_path, source=lambda: ClipSource(codec)) as relay:
        url = relay.media(relay.control.ticket(1), form)
        name, size, times = await asyncio.to_thread(play, url, 10)
        over = await relay.control.over(f"{1:032x}")
    assert name == {Codec.H264: "h264", Codec.H265: "hevc"}[codec]
    assert size == (320, 240)
    assert times == sorted(set(times))
    assert (over.reason, over.lost) == ("lost", True)
    assert over.bytes_sent > 1000


async def test_one_camera_is_claimed_and_pulled_once_and_released_when_idle(tmp_path):
    sources = []

    def open_source():
        sources.append(ClipSource())
        return sources[-1]

    settings = SupervisorSettings(idle_seconds=0.05)
    async with running_relay(tmp_path, source=open_source, cameras=settings) as relay:
        async with aiohttp.ClientSession() as client, contextlib.AsyncExitStack() as viewers:
            urls = [relay.media(relay.control.ticket(n), "live.flv") for n in range(1, 6)]
            answers = await asyncio.gather(*(viewers.enter_async_context(client.get(url)) for url in urls))
            for answer in answers:
                assert answer.status == 200
                assert await answer.content.readexactly(3) == b"FLV"
            usage = await relay.control.wait_for(
                Usage, lambda m: len(m.sessions) == 5 and m.cameras[0].state == "live"
            )
        await relay.control.wait_for(Release)
    assert len(sources) == 1
    assert [m.stream for m in relay.control.received if isinstance(m, Claim)] == ["camera-1"]
    (camera,) = usage.cameras
    assert (camera.codec, camera.width, camera.height, camera.readers) == ("h264", 320, 240, 5)


async def test_each_viewer_s_keyframes_carry_his_own_mark(tmp_path):
    def marks(url):
        with av.open(url, timeout=10) as container:
            for packet in container.demux(video=0):
                if packet.is_keyframe:
                    data = bytes(packet)
                    break
        nal_units = []
        while data:
            length = int.from_bytes(data[:4])
            nal_units.append(data[4 : 4 + length])
            data = data[4 + length :]
        return find_marks(Codec.H264, nal_units)

    async with running_relay(tmp_path) as relay:
        for number in (1, 2):
            (mark,) = await asyncio.to_thread(marks, relay.media(relay.control.ticket(number), "live.mp4"))
            assert mark.session_id == number.to_bytes(16)
            assert mark.is_authentic(MARK_KEY, "camera-1")


@pytest.mark.parametrize("form", ["live.flv", "live.mp4", "ws", "ws.flv"])
@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 401, "ticket_required"),
        ("?ticket=", 401, "ticket_required"),
        ("?ticket=x", 403, "ticket_invalid"),
    ],
)
async def test_no_media_without_a_good_ticket(tmp_path, form, query, status, code):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        async with client.get(
            relay.url(f"/media/{1:032x}/{form}{query}"), headers=headers if form.startswith("ws") else {}
        ) as answer:
            assert answer.status == status
            assert answer.content_type == "application/problem+json"
            problem = json.loads(await answer.read())
        assert problem["code"] == code
        assert problem["request_id"] == answer.headers["X-Request-Id"]
        assert not [m for m in relay.control.received if isinstance(m, SessionOver | Claim)]


async def test_a_ticket_opens_once_and_only_its_own_session(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        _, ticket = relay.control.ticket(1)
        async with client.get(relay.media((f"{2:032x}", ticket), "live.flv")) as answer:
            assert answer.status == 403
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.flv")) as answer:
            assert answer.status == 200
            async with client.get(relay.media(session, "live.flv")) as second:
                assert second.status == 403


@pytest.mark.parametrize(
    "options",
    [
        {"action": Action.LIVE_SNAPSHOT},
        {"obligations": Obligations(watermark=Watermark.BURNED_IN)},
        {"obligations": Obligations(max_height=239)},
    ],
)
async def test_what_the_worker_cannot_keep_is_refused_and_ended(tmp_path, options):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1, **options)
        async with client.get(relay.media(session, "live.flv")) as answer:
            assert answer.status in {403, 503}
        assert (await relay.control.over(session[0])).reason == "failed"


async def test_a_picture_of_the_largest_allowed_height_is_shown(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1, obligations=Obligations(max_height=240))
        async with client.get(relay.media(session, "live.flv")) as answer:
            assert await answer.content.readexactly(3) == b"FLV"
        session = relay.control.ticket(2, obligations=Obligations(max_height=239))
        async with client.ws_connect(relay.media(session, "ws")) as viewer:
            assert (await viewer.receive_json())["reason"] == "failed"


@pytest.mark.parametrize("source", [SilentSource, lambda: SilentSource(SourceUnreachableError("x"))])
async def test_a_camera_without_a_picture_is_given_up(tmp_path, source):
    viewer = ViewerSettings(first_picture_seconds=0.1)
    async with (
        running_relay(tmp_path, source=source, viewer=viewer) as relay,
        aiohttp.ClientSession() as client,
    ):
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.flv")) as answer:
            assert answer.status == 504
            assert (await answer.json(content_type=None))["code"] == "camera_unavailable"
        over = await relay.control.over(session[0])
        assert (over.reason, over.lost) == ("camera_gone", False)
        session = relay.control.ticket(2)
        async with client.ws_connect(relay.media(session, "ws")) as viewer:
            assert (await viewer.receive_json())["reason"] == "camera_gone"


async def test_a_camera_that_control_refuses(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        relay.control.addresses.clear()
        async with client.get(relay.media(session, "live.flv")) as answer:
            assert answer.status == 404
        assert (await relay.control.over(session[0])).reason == "failed"


async def test_websocket_names_the_medium_then_sends_it(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.ws_connect(relay.media(session, "ws"), compress=15) as viewer:
            assert not viewer.compress
            media = await viewer.receive_json()
            init, first = await viewer.receive_bytes(), await viewer.receive_bytes()
            await viewer.ping()
            relay.control.send(End(session=session[0], reason="revoked", detail="by test", by="交通运输局"))
            async for message in viewer:
                if message.type is aiohttp.WSMsgType.TEXT:
                    end = json.loads(message.data)
        assert media["type"] == "media"
        assert media["mime"].startswith('video/mp4; codecs="avc1.')
        assert init[4:8] == b"ftyp"
        assert first[4:8] == b"moof"
        assert end == {"type": "end", "reason": "revoked", "detail": "by test", "by": "交通运输局"}
        assert 4000 <= viewer.close_code < 4100
        over = await relay.control.over(session[0])
        assert (over.reason, over.lost) == ("revoked", False)


async def test_flv_over_websocket_is_binary_only_until_the_end(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.ws_connect(relay.media(session, "ws.flv")) as viewer:
            init, first = await viewer.receive_bytes(), await viewer.receive_bytes()
            relay.control.send(End(session=session[0], reason="revoked"))
            texts = [m.json() async for m in viewer if m.type is aiohttp.WSMsgType.TEXT]
        (redeem,) = (m for m in relay.control.received if isinstance(m, Redeem))
    assert init.startswith(b"FLV")
    assert first[0] == 9
    assert texts == [{"type": "end", "reason": "revoked", "detail": "", "by": ""}]
    assert redeem.protocol == "ws-flv"


@pytest.mark.parametrize(("query", "tag"), [("", b"\x90hvc1"), ("&hevc=12", b"\x1c\x00")])
async def test_flv_names_h265_as_asked(tmp_path, query, tag):
    encode_clip(Codec.H265)
    async with (
        running_relay(tmp_path, source=lambda: ClipSource(Codec.H265)) as relay,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(relay.media(relay.control.ticket(1), "live.flv") + query) as answer:
            header = await answer.content.readexactly(9 + 4 + 11 + len(tag))
        assert header.endswith(tag)
        async with client.ws_connect(relay.media(relay.control.ticket(2), "ws.flv") + query) as viewer:
            assert (await viewer.receive_bytes()).startswith(header)
        session = relay.control.ticket(3)
        async with client.get(relay.media(session, "live.flv") + "&hevc=7") as answer:
            assert answer.status == 422
        assert session[1] in relay.control.tickets


async def test_websocket_closed_by_the_viewer_is_lost(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.ws_connect(relay.media(session, "ws")) as viewer:
            await viewer.receive()
        assert (await relay.control.over(session[0])).lost


async def test_websocket_of_another_site_is_refused_before_its_ticket_is_used(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        url = relay.media(session, "ws")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await client.ws_connect(url, headers={"Origin": "http://evil.example"})
        assert refusal.value.status == 403
        async with client.get(url) as answer:
            assert answer.status == 426
        assert not [m for m in relay.control.received if isinstance(m, Redeem)]
        async with client.ws_connect(url, headers={"Origin": f"http://127.0.0.1:{relay.port}"}):
            pass


async def stalled_viewer(relay, session, receive_buffer=4096):
    """A socket that asks for media and never reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", relay.port))
    path = f"/media/{session[0]}/live.flv?ticket={session[1]}"
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return sock


async def test_a_slow_viewer_is_ended_and_others_do_not_notice(tmp_path):
    viewer = ViewerSettings(
        send_buffer_bytes=8192,
        reader=ReaderSettings(max_backlog_bytes=50_000, max_age_seconds=0.3, stuck_seconds=0.3),
    )
    fast_source = lambda: ClipSource(pause_seconds=0.002)  # noqa: E731
    async with running_relay(tmp_path, source=fast_source, viewer=viewer) as relay:
        slow, quick = relay.control.ticket(1), relay.control.ticket(2)
        sock = await stalled_viewer(relay, slow)
        async with aiohttp.ClientSession() as client, client.get(relay.media(quick, "live.flv")) as answer:
            async with asyncio.timeout(10):
                while not any(isinstance(m, SessionOver) for m in relay.control.received):
                    await answer.content.readany()
            over = await relay.control.over(slow[0])
            assert (over.reason, over.lost) == ("slow", False)
            assert over.dropped_access_units > 0
            assert not [
                m for m in relay.control.received if isinstance(m, SessionOver) and m.session == quick[0]
            ]
        sock.close()


async def test_a_revocation_discards_what_is_queued(tmp_path):
    async with running_relay(tmp_path, source=lambda: ClipSource(repeat=50)) as relay:
        session = relay.control.ticket(1)
        sock = await stalled_viewer(relay, session)
        await relay.control.wait_for(
            Usage, lambda m: any(s.session == session[0] and s.bytes_sent > 300_000 for s in m.sessions)
        )
        relay.control.send(End(session=session[0], reason="revoked"))
        over = await relay.control.over(session[0])
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
                received += len(data)
        sock.close()
    assert over.reason == "revoked"
    # what the peer's own kernel had acknowledged cannot be taken back; the rest is gone
    assert received < over.bytes_sent / 2


async def test_http_1_0_gets_the_plain_container(tmp_path):
    async with running_relay(tmp_path) as relay:
        session_id, ticket = relay.control.ticket(1)
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(f"GET /media/{session_id}/live.flv?ticket={ticket} HTTP/1.0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head
        assert await reader.readexactly(3) == b"FLV"
        writer.close()


async def test_head_does_not_use_a_ticket(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.head(relay.media(session, "live.flv")) as answer:
            assert answer.status == 405
        assert session[1] in relay.control.tickets


async def test_tickets_are_not_logged(tmp_path, capfd):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.flv")) as answer:
            await answer.content.readexactly(3)
        await relay.control.over(session[0])
        async with client.get(relay.media((session[0], "canary-ticket"), "live.flv")) as answer:
            text = await answer.text()
    captured = capfd.readouterr()
    for secret in (session[1], "canary-ticket"):
        assert secret not in captured.out + captured.err + text
