import asyncio
import itertools

import av
import pytest
from support.rtsp_cameras import PASSWORD, ClipProducer, serve_tcp

from streams.media import AudioCodec, Codec
from streams.simulator.camera import Login, SimulatedCamera, serve_cameras
from streams.simulator.sound import ToneProducer
from streams.wire.rtsp import RtspParser, RtspRequest, RtspResponse, serialize

H264 = ClipProducer(Codec.H264)


def play_with_ffmpeg(url, pictures, transport="tcp"):
    """Decode so many pictures, as any player would; in a thread."""
    options = {"rtsp_transport": transport, "timeout": "5000000"}
    with av.open(url, options=options, timeout=(5, 5)) as container:
        (stream,) = container.streams
        stream.codec_context.thread_count = 1
        sizes = []
        for frame in container.decode(stream):
            sizes.append((frame.width, frame.height))
            if len(sizes) == pictures:
                return stream.codec_context.name, sizes
    return stream.codec_context.name, sizes


@pytest.mark.parametrize(("codec", "name"), [(Codec.H264, "h264"), (Codec.H265, "hevc")])
@pytest.mark.parametrize("has_qop", [False, True])
async def test_ffmpeg_plays_it(codec, name, has_qop):
    camera = SimulatedCamera(
        name="street/1",
        producer=ClipProducer(codec),
        username="viewer",
        password="secret",
        has_qop=has_qop,
    )
    async with serve_cameras([camera]) as server:
        url = server.url("street/1").replace("://", "://viewer:secret@")
        codec_name, sizes = await asyncio.to_thread(play_with_ffmpeg, url, 30)
    assert codec_name == name
    assert sizes == [(320, 240)] * 30


@pytest.mark.slow
async def test_ffmpeg_plays_it_over_udp():
    camera = SimulatedCamera(name="a", producer=ClipProducer(Codec.H264, interval_seconds=0.02))
    async with serve_cameras([camera]) as server:
        _, sizes = await asyncio.to_thread(play_with_ffmpeg, server.url("a"), 10, "udp")
    assert sizes == [(320, 240)] * 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "name"),
    [(AudioCodec.AAC, "aac"), (AudioCodec.PCMA, "pcm_alaw"), (AudioCodec.PCMU, "pcm_mulaw")],
)
async def test_ffmpeg_hears_it(codec, name):
    def listen(url):
        options = {"rtsp_transport": "tcp", "timeout": "5000000"}
        with av.open(url, options=options, timeout=(5, 5)) as container:
            (stream,) = container.streams.audio
            frames = itertools.islice(container.decode(stream), 10)
            loudness = max(abs(frame.to_ndarray().astype(float)).max() for frame in frames)
            return stream.codec_context.name, stream.codec_context.sample_rate, loudness

    tone = ToneProducer(codec)
    producer = ClipProducer(Codec.H264, interval_seconds=0.04)
    camera = SimulatedCamera(name="a", producer=producer, sound=tone)
    async with serve_cameras([camera]) as server:
        heard, rate, loudness = await asyncio.to_thread(listen, server.url("a"))
    assert (heard, rate) == (name, tone.track.sample_rate)
    assert loudness > 0.1


async def test_ffmpeg_is_refused_with_a_wrong_password():
    camera = SimulatedCamera(name="a", producer=H264, username="viewer", password="secret")
    async with serve_cameras([camera]) as server:
        url = server.url("a").replace("://", "://viewer:wrong@")
        with pytest.raises(av.HTTPUnauthorizedError):
            await asyncio.to_thread(play_with_ffmpeg, url, 1)


async def test_several_clients_play_several_cameras():
    cameras = [SimulatedCamera(name=name, producer=ClipProducer(Codec.H264)) for name in "ab"]
    async with serve_cameras(cameras) as server, asyncio.TaskGroup() as tasks:
        players = [
            tasks.create_task(asyncio.to_thread(play_with_ffmpeg, server.url(name), 5)) for name in "aab"
        ]
    assert all(len(player.result()[1]) == 5 for player in players)
    assert [camera.producer.subscriptions for camera in cameras] == [2, 1]


class Client:
    """Speaks RTSP by hand."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.parser = RtspParser()

    async def request(self, method, url, *headers):
        request = RtspRequest(method=method, url=url, headers=(("CSeq", "9"), *headers))
        self.writer.write(serialize(request))
        while data := await self.reader.read(65536):
            for event in self.parser.receive_data(data):
                if isinstance(event, RtspResponse):
                    return event
        raise ConnectionError


async def conversation(server):
    reader, writer = await asyncio.open_connection(server.host, server.port)
    return Client(reader, writer)


async def close(client):
    client.writer.close()
    await client.writer.wait_closed()


async def test_states_and_refusals():
    camera = SimulatedCamera(name="a", producer=H264)
    async with serve_cameras([camera]) as server, asyncio.timeout(10):
        client = await conversation(server)
        url = server.url("a")

        async def status(method, url, *headers):
            return (await client.request(method, url, *headers)).status

        assert await status("OPTIONS", "*") == 200
        assert await status("ANNOUNCE", url) == 501
        assert await status("DESCRIBE", server.url("b")) == 404
        assert await status("DESCRIBE", "rtsp://[") == 404
        assert await status("PLAY", url) == 454
        assert await status("SETUP", url, ("Transport", "RTP/AVP;unicast;client_port=1-2")) == 461
        setup = await client.request("SETUP", url, ("Transport", "RTP/AVP/TCP;interleaved=0-1"))
        assert setup.status == 200
        assert setup.cseq == 9
        session = ("Session", setup.header("Session").partition(";")[0])
        assert await status("PLAY", url, ("Session", "other")) == 454
        assert await status("GET_PARAMETER", url, session) == 200
        assert await status("PLAY", url, session) == 200
        assert await status("SETUP", url, ("Transport", "RTP/AVP/TCP;interleaved=0-1")) == 455
        assert await status("TEARDOWN", url, session) == 200
        assert await status("TEARDOWN", url, session) == 454
        await close(client)


@pytest.mark.parametrize("value", [None, "Basic !", "Basic dmlld2VyOnNlY3JldA==", "Digest x=1", "Bearer x"])
async def test_what_is_no_proof(value):
    camera = SimulatedCamera(
        name="a",
        producer=H264,
        username="viewer",
        password="secret",
        logins=(Login.DIGEST_SHA256, Login.DIGEST_MD5),
    )
    async with serve_cameras([camera]) as server, asyncio.timeout(10):
        client = await conversation(server)
        headers = () if value is None else (("Authorization", value),)
        response = await client.request("DESCRIBE", server.url("a"), *headers)
        assert response.status == 401
        assert [challenge.split()[0] for challenge in response.header_values("WWW-Authenticate")] == [
            "Digest",
            "Digest",
        ]
        await close(client)


async def test_garbage_is_answered_with_400_and_the_end():
    async with serve_cameras([]) as server, asyncio.timeout(10):
        client = await conversation(server)
        client.writer.write(b"\x00\x00")
        assert b" 400 " in await client.reader.read()
        await close(client)


async def test_an_idle_client_is_disconnected():
    async with serve_cameras([], session_timeout_seconds=0.05) as server, asyncio.timeout(10):
        client = await conversation(server)
        assert await client.reader.read() == b""
        await close(client)


async def test_a_taken_port_is_an_error():
    async with serve_tcp(lambda reader, writer: asyncio.sleep(0)) as port:
        with pytest.raises(OSError, match="in use"):
            async with serve_cameras([], port=port):
                pass


async def test_the_block_s_own_error_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        async with serve_cameras([]):
            raise ZeroDivisionError


async def test_passwords_are_not_shown():
    assert PASSWORD not in repr(SimulatedCamera(name="a", producer=H264, username="v", password=PASSWORD))
