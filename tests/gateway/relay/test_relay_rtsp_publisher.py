"""RTSP for encoders that publish, with FFmpeg as the encoder."""

import asyncio
import base64
import contextlib
import ssl
import sys
from pathlib import Path

import av
import pytest
from support import rtsp_publisher
from support.certificates import write_certificate
from support.rtmp_publisher import publish
from support.rtsp_viewer import RtspClient, digest_header, running_rtsp
from support.units import encode_clip

from gateway.messages import PUSH_URL, PublisherFailed, PublisherLogin
from gateway.relay.guard import ConnectionGuard, GuardSettings
from gateway.relay.publisher_login import MAX_FAILURES
from gateway.relay.rtmp_server import RtmpServer
from streams.media import Codec
from streams.mux.rtp import describe_rtp
from streams.sources.rtsp_session import MAX_MALFORMED_PACKETS_PER_SECOND
from streams.sources.source import CameraAddress
from streams.wire.digest import Algorithm
from streams.wire.rtsp import serialize_interleaved
from streams.wire.sdp import serialize_media

LOGIN = "encoder", "s3cret"


@contextlib.asynccontextmanager
async def pushed(folder, camera="camera-1", **settings):
    async with running_rtsp(folder, **settings) as relay:
        relay.control.addresses[camera] = CameraAddress(url=PUSH_URL)
        relay.control.logins[camera] = LOGIN
        yield relay


@contextlib.asynccontextmanager
async def encoding(*arguments):
    """Yields the encoder's process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(rtsp_publisher.__file__)),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), 5)
        if process.returncode is None:
            process.kill()
            await process.wait()


def watch(url, count):
    """What kinds of streams FFmpeg finds, once it has decoded some of each."""
    with av.open(url, timeout=10, options={"rtsp_transport": "tcp"}) as container:
        kinds = {stream.type: stream.codec_context.name for stream in container.streams}
        pictures, heard = 0, "audio" not in kinds
        for packet in container.demux():
            if packet.stream.type == "video":
                pictures += len(packet.decode())
            else:
                heard = heard or bool(packet.decode())
            if pictures >= count and heard:
                return kinds
    return None


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize(("codec", "sound"), [("h264", "aac"), ("h265", ""), ("h264", "pcm_alaw")])
async def test_ffmpeg_publishes_and_another_watches(tmp_path, transport, codec, sound):
    async with pushed(tmp_path) as relay:
        async with encoding(relay.publishing("camera-1", LOGIN), codec, transport, *([sound] * bool(sound))):
            await relay.control.wait_for(PublisherLogin)
            kinds = await asyncio.to_thread(watch, relay.address(relay.control.ticket(1)), 10)
    assert kinds["video"] == {"h264": "h264", "h265": "hevc"}[codec]
    assert kinds.get("audio", "") == sound


@pytest.mark.parametrize("camera", ["camera-1", "nowhere"])
async def test_wrong_passwords_and_unknown_cameras_are_refused_alike(tmp_path, camera):
    async with (
        pushed(tmp_path) as relay,
        encoding(relay.publishing(camera, ("encoder", "wrong")), "h264", "tcp") as encoder,
    ):
        _, error = await asyncio.wait_for(encoder.communicate(), 10)
        told = await relay.control.wait_for(PublisherFailed)
        assert (told.camera, told.remote) == (camera, "127.0.0.1")
    assert b"401" in error or b"Unauthorized" in error
    assert encoder.returncode != 0


def announcement(codec=Codec.H264):
    track, _ = encode_clip(codec)
    return f"v=0\r\ns=-\r\nt=0 0\r\n{serialize_media(describe_rtp(track))}".encode()


async def announce(client, url, login, *, algorithm=Algorithm.MD5, body=None):
    """ANNOUNCE without and then with a login; returns both answers."""
    body = announcement() if body is None else body
    challenged = await client.request("ANNOUNCE", url, body=body)
    value = digest_header(challenged, login, "ANNOUNCE", url, algorithm)
    return challenged, await client.request("ANNOUNCE", url, ("Authorization", value), body=body)


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_a_login_is_asked_for_and_believed(tmp_path, algorithm):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        challenged, accepted = await announce(
            client, relay.publishing("camera-1"), LOGIN, algorithm=algorithm
        )
    assert (challenged.status, accepted.status) == (401, 200)
    assert not any(value.startswith("Basic") for value in challenged.header_values("WWW-Authenticate"))


async def test_who_guesses_learns_nothing_and_is_stopped(tmp_path):
    async with pushed(tmp_path) as relay:
        answers = []
        for camera, login in (("camera-1", (LOGIN[0], "no")), ("camera-1", ("x", LOGIN[1])), ("gone", LOGIN)):
            async with RtspClient.connected(relay.rtsp_port) as client:
                _, refused = await announce(client, relay.publishing(camera), login)
                names = [(n, v.partition("nonce")[0]) for n, v in refused.headers if n != "CSeq"]
                answers.append((refused.status, refused.body, names))
        assert answers[0] == answers[1] == answers[2]
        assert answers[0][0] == 401
        async with RtspClient.connected(relay.rtsp_port) as client:
            for _ in range(MAX_FAILURES - 2):
                await announce(client, relay.publishing("camera-1"), (LOGIN[0], "no"))
            asked = sum(isinstance(m, PublisherLogin) for m in relay.control.received)
            _, refused = await announce(client, relay.publishing("camera-1"), LOGIN)
            assert refused.status == 401
        assert sum(isinstance(m, PublisherLogin) for m in relay.control.received) == asked


async def test_who_guessed_over_rtsp_is_stopped_over_rtmp_too(tmp_path):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        for _ in range(MAX_FAILURES):
            await announce(client, relay.publishing("camera-1"), (LOGIN[0], "no"))
        server = RtmpServer(relay.worker._publishers, ConnectionGuard(GuardSettings()))
        async with server.serving("127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            assert not await publish(port, login=LOGIN, camera="camera-1", pictures=5)
        assert sum(isinstance(m, PublisherLogin) for m in relay.control.received) == MAX_FAILURES


async def test_a_password_in_clear_is_not_taken_without_encryption(tmp_path):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        basic = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
        url = relay.publishing("camera-1")
        answer = await client.request("ANNOUNCE", url, ("Authorization", basic), body=announcement())
        assert answer.status == 401
    assert not any(isinstance(m, PublisherLogin) for m in relay.control.received)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"garbage", 400),
        (b"v=0\r\n", 415),
        (b"v=0\r\nm=audio 0 RTP/AVP 8\r\n", 415),
        (b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n", 415),
    ],
)
async def test_what_cannot_be_relayed_is_refused(tmp_path, body, status):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        _, answer = await announce(client, relay.publishing("camera-1"), LOGIN, body=body)
        assert answer.status == status


async def recording(client, relay, login=LOGIN):
    """From ANNOUNCE to RECORD by hand."""
    url = relay.publishing("camera-1")
    assert (await announce(client, url, login))[1].status == 200
    assert (await client.request("RECORD", url)).status == 455
    transport = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record")
    assert (await client.request("SETUP", f"{url}/nothing", transport)).status == 404
    answer = await client.request("SETUP", f"{url}/track0", transport)
    assert answer.status == 200
    assert "mode=record" in answer.header("Transport")
    return await client.request("RECORD", url)


async def test_a_silent_encoder_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.relay.rtsp_publisher.SILENCE_SECONDS", 0.2)
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        assert (await recording(client, relay)).status == 200
        await client.until_closed()


async def test_an_encoder_that_sends_garbage_is_cut(tmp_path):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        assert (await recording(client, relay)).status == 200
        client.send(serialize_interleaved(0, b"no RTP") * (MAX_MALFORMED_PACKETS_PER_SECOND + 1))
        await client.until_closed()


async def test_an_odd_packet_now_and_then_does_not_end_an_encoder(tmp_path):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        assert (await recording(client, relay)).status == 200
        client.send(serialize_interleaved(0, b"") * MAX_MALFORMED_PACKETS_PER_SECOND)
        assert (await client.request("GET_PARAMETER", "*")).status == 200


async def test_a_newer_encoder_takes_the_older_one_s_place(tmp_path):
    async with (
        pushed(tmp_path) as relay,
        RtspClient.connected(relay.rtsp_port) as older,
        RtspClient.connected(relay.rtsp_port) as newer,
    ):
        assert (await recording(older, relay)).status == 200
        assert (await recording(newer, relay)).status == 200
        await older.until_closed()
        assert (await newer.request("GET_PARAMETER", "*")).status == 200
        assert (await newer.request("TEARDOWN", "*")).status == 200


async def test_a_camera_that_cannot_be_claimed_is_not_published(tmp_path):
    async with pushed(tmp_path) as relay, RtspClient.connected(relay.rtsp_port) as client:
        relay.control.refusals["camera-1"] = "not_found"
        assert (await recording(client, relay)).status == 404


async def test_a_password_in_clear_is_taken_with_encryption(tmp_path):
    certificate, key = map(str, write_certificate(tmp_path))
    trusting = ssl.create_default_context(cafile=certificate)
    basic = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
    async with (
        pushed(tmp_path, tls_certificate=certificate, tls_key=key) as relay,
        RtspClient.connected(relay.rtsp_port, trusting) as client,
    ):
        url = relay.publishing("camera-1")
        challenged = await client.request("ANNOUNCE", url, body=announcement())
        assert any(value.startswith("Basic") for value in challenged.header_values("WWW-Authenticate"))
        answer = await client.request("ANNOUNCE", url, ("Authorization", basic), body=announcement())
        assert answer.status == 200
