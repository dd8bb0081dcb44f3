"""Encoders that publish over RTMP: FFmpeg gets in with the camera's login, and nobody else does."""

import asyncio
import contextlib

import pytest
from support.rtmp_publisher import publish

from gateway.messages import PublisherExpected, Refused
from gateway.relay import publishers
from gateway.relay import rtmp_server as rtmp_server_module
from gateway.relay.control_link import RefusedError
from gateway.relay.guard import ConnectionGuard, GuardSettings
from gateway.relay.publisher_login import MAX_FAILURES
from gateway.relay.publishers import MAX_BIT_RATE_BPS
from gateway.relay.rtmp_server import MAX_STRANGERS_BIT_RATE_BPS, RtmpServer
from streams.media import AudioCodec, Codec
from streams.wire.amf0 import serialize_amf0
from streams.wire.rtmp import COMMAND, DATA, HANDSHAKE_BYTES, serialize_message

PASSWORD = "encoder-canary-3c1f"
HELLO = b"\x03" + bytes(HANDSHAKE_BYTES) * 2


class Publishers(publishers.Publishers):
    """One camera, "gate"; everything published is kept. It is its own link to control."""

    def __init__(self):
        super().__init__(self, None, lambda _: None)
        self.tracks, self.units, self.sound = [], [], []
        self.refused = []
        self.publishing_now = 0
        self.on_replaced = None
        self.came = asyncio.Event()
        self.left = asyncio.Event()
        self.enough = asyncio.Event()

    async def publisher_login(self, camera):
        if camera != "gate":
            raise RefusedError(Refused(request=1, status=404, code="not_found", detail=""))
        return PublisherExpected(request=1, camera=camera, username="encoder", password=PASSWORD)

    def report(self, failed):
        self.refused.append((failed.camera, failed.remote))

    @contextlib.asynccontextmanager
    async def publishing(self, camera, login, on_replaced, *, failure):
        self.publishing_now += 1
        self.on_replaced = on_replaced
        self.came.set()
        try:
            yield self
        finally:
            self.publishing_now -= 1
            self.left.set()

    def configure(self, track):
        self.tracks.append(track)

    def publish(self, unit):
        self.units.append(unit)
        if len(self.units) >= 20:
            self.enough.set()

    def publish_audio(self, unit):
        self.sound.append(unit)


@contextlib.asynccontextmanager
async def rtmp_server(**guard):
    publishers = Publishers()
    server = RtmpServer(publishers, ConnectionGuard(GuardSettings(**guard)))
    async with server.serving("127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], publishers


LOGIN = ("encoder", PASSWORD)


@pytest.mark.parametrize(("codec", "relayed"), [("libx264", Codec.H264), ("libx265", Codec.H265)])
async def test_ffmpeg_publishes_pictures_and_sound(codec, relayed):
    async with rtmp_server() as (port, publishers):
        assert await publish(port, login=LOGIN, codec=codec)
        async with asyncio.timeout(10):
            await publishers.left.wait()
        track = publishers.tracks[-1]
        assert (track.codec, track.width, track.height) == (relayed, 320, 180)
        sound = track.audio
        assert (sound.codec, sound.sample_rate, sound.channels) == (AudioCodec.AAC, 44100, 1)
        assert publishers.units[0].is_random_access
        assert len(publishers.units) == 30
        times = [unit.dts for unit in publishers.units]
        assert times == sorted(set(times))
        assert any(unit.pts > unit.dts for unit in publishers.units)
        assert len(publishers.sound) > 20
        assert publishers.publishing_now == 0


async def test_g711_is_passed_on():
    async with rtmp_server() as (port, publishers):
        assert await publish(port, login=LOGIN, sound="pcm_alaw")
        async with asyncio.timeout(10):
            await publishers.left.wait()
        assert publishers.tracks[-1].audio.codec is AudioCodec.PCMA
        assert publishers.sound


@pytest.mark.parametrize(
    "wrong",
    [{"login": ("encoder", "x")}, {"login": ("x", PASSWORD)}, {"login": ("", "")}, {"camera": "other"}],
)
async def test_a_stranger_is_refused(wrong):
    async with rtmp_server() as (port, publishers):
        assert not await publish(port, **{"login": LOGIN, "pictures": 5, **wrong})
        assert not publishers.came.is_set()
        assert set(publishers.refused) == {(wrong.get("camera", "gate"), "127.0.0.1")}


async def test_guessing_is_braked():
    async with rtmp_server() as (port, publishers):
        guess = [
            ["connect", 1.0, {"app": "publish"}],
            ["publish", 2.0, None, "gate?user=encoder&pass=wrong"],
        ]
        for _ in range(MAX_FAILURES):
            reader, writer = await _command(port, *guess)
            await _until_closed(reader)
            writer.close()
        assert not await publish(port, login=LOGIN, pictures=5)
        assert not publishers.came.is_set()
        assert len(publishers.refused) == MAX_FAILURES


async def _command(port, *commands):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO)
    for values in commands:
        writer.write(serialize_message(COMMAND, serialize_amf0(*values)))
    return reader, writer


async def _until_closed(reader):
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass


@pytest.mark.parametrize(
    "commands",
    [
        [["connect", 1.0, {"app": "live"}]],
        [["connect", 1.0, {"app": "publish"}], ["play", 2.0, None, "gate"]],
        [["connect", 1.0, {"app": "publish"}], ["publish", 2.0, None, 7.0]],
        [["connect", 1.0, {"app": "publish"}], ["publish", 2.0, None, "gate?" + "&".join("abcdefghij")]],
        [["publish", 2.0, None, "gate"]] * 30,
        [[]] * 30,
    ],
)
async def test_other_commands_end_the_connection(commands):
    async with rtmp_server(header_seconds=0.5) as (port, publishers):
        reader, writer = await _command(port, *commands)
        await _until_closed(reader)
        writer.close()
        assert not publishers.came.is_set()


async def test_who_asks_on_and_on_and_never_reads_is_cut_off():
    """Neither the answers nor what they repeat of the question may pile up."""
    async with rtmp_server() as (port, _):
        reader, writer = await _command(
            port, ["connect", "x" * 60, {"app": "publish"}], ["createStream", "y" * 60]
        )
        async with asyncio.timeout(10):
            answers = b""
            while b"\0\x07_result" not in answers[answers.find(b"_result") + 7 :]:
                answers += await reader.read(65536)
        assert b"xxxx" not in answers
        assert b"yyyy" not in answers
        writer.write(serialize_message(COMMAND, serialize_amf0("connect", 1.0, {"app": "publish"})))
        await _until_closed(reader)
        writer.close()


async def test_a_stranger_s_flood_is_cut_off():
    async with rtmp_server() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO + serialize_message(DATA, b"") * (MAX_STRANGERS_BIT_RATE_BPS // 8_000))
        await _until_closed(reader)
        writer.close()


async def test_what_is_no_command_s_name_is_nobody_s_goodbye():
    async with rtmp_server() as (port, publishers):
        _, writer = await _command(
            port,
            ["connect", 1.0, {"app": "publish"}],
            ["publish", 2.0, None, f"gate?user=encoder&pass={PASSWORD}"],
        )
        async with asyncio.timeout(10):
            await publishers.came.wait()
            writer.write(serialize_message(COMMAND, serialize_amf0({"a": 1.0}, 3.0)))
            writer.write(serialize_message(COMMAND, serialize_amf0("deleteStream", 4.0)))
            await publishers.left.wait()
        writer.close()


async def test_commands_do_not_hide_that_no_picture_comes(monkeypatch):
    monkeypatch.setattr(rtmp_server_module, "SILENCE_SECONDS", 0.5)
    async with rtmp_server() as (port, publishers), asyncio.TaskGroup() as tasks:
        reader, writer = await _command(
            port,
            ["connect", 1.0, {"app": "publish"}],
            ["publish", 2.0, None, f"gate?user=encoder&pass={PASSWORD}"],
        )

        async def chatter():
            while not publishers.left.is_set():
                writer.write(serialize_message(COMMAND, serialize_amf0("FCPublish", 3.0)))
                await asyncio.sleep(0.1)

        tasks.create_task(chatter())
        await _until_closed(reader)
        writer.close()


@pytest.mark.parametrize("data", [b"", b"\x03", HELLO, b"GET / HTTP/1.1\r\n\r\n", HELLO + b"\xff" * 5000])
async def test_silent_and_strange_clients_are_cut_off(data):
    async with rtmp_server(header_seconds=0.3) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        await _until_closed(reader)
        writer.close()


async def test_connections_are_bounded():
    async with rtmp_server(max_connections_per_address=1) as (port, _):
        _, first = await asyncio.open_connection("127.0.0.1", port)
        first.write(b"\x03")
        reader, second = await asyncio.open_connection("127.0.0.1", port)
        await _until_closed(reader)
        first.close()
        second.close()


async def test_a_newer_encoder_takes_the_place():
    async with rtmp_server() as (port, publishers), asyncio.TaskGroup() as tasks:
        encoder = tasks.create_task(publish(port, login=LOGIN, pictures=100_000, sound=None))
        async with asyncio.timeout(30):
            await publishers.enough.wait()
            publishers.on_replaced()
            await publishers.left.wait()
            assert not await encoder


async def test_a_flood_is_cut_off():
    async with rtmp_server() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        flood = serialize_message(DATA, bytes(100)) * 1000
        writer.write(HELLO)
        for _ in range(1 + MAX_BIT_RATE_BPS // 8 // 1_000_000):
            writer.write(flood)
        await _until_closed(reader)
        writer.close()
