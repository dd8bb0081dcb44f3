"""RTSP for viewers, seen by FFmpeg: what players really do."""

import asyncio
import itertools
from pathlib import Path

import av
import pytest
from support import rtsp_viewer
from support.certificates import write_certificate
from support.rtsp_viewer import RtspClient, SoundSource, running_rtsp

from gateway.messages import Streaming
from policies.access import Obligations
from streams.media import AudioCodec, Codec
from streams.wire.rtp import parse_rtp

TRANSPORTS = ["tcp", "udp"]
DEBIAN_PYTHON = Path("/usr/bin/python3")
GSTREAMER_VIEWER = Path(rtsp_viewer.__file__).with_name("rtsp_gstreamer_viewer.py")


def play(url, count, *, sounds=0, **options):
    """What FFmpeg makes of an address: the video's codec, size and times, and the sound's."""
    with av.open(url, timeout=10, options=options) as container:
        video = container.streams.video[0]
        audio = container.streams.audio[0] if sounds else None
        pictures, heard = [], []
        for packet in container.demux():
            for frame in packet.decode():
                (pictures if packet.stream is video else heard).append(frame)
            if len(pictures) >= count and len(heard) >= sounds:
                break
        size = pictures[0].width, pictures[0].height
        rate = audio.codec_context.sample_rate if audio else None
        return (
            video.codec_context.name,
            size,
            [f.time for f in pictures if f.time is not None],
            [f.time for f in heard if f.time is not None],
            rate,
        )


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("codec", [Codec.H264, Codec.H265])
async def test_ffmpeg_plays(tmp_path, transport, codec):
    SoundSource(codec, None)
    async with running_rtsp(tmp_path, source=lambda: SoundSource(codec, None)) as relay:
        url = relay.address(relay.control.ticket(1))
        name, size, times, _, _ = await asyncio.to_thread(play, url, 10, rtsp_transport=transport)
        over = await relay.control.over(f"{1:032x}")
        await relay.control.wait_for(Streaming)
    assert name == {Codec.H264: "h264", Codec.H265: "hevc"}[codec]
    assert size == (320, 240)
    assert times == sorted(set(times))
    assert over.reason == "completed"
    assert over.bytes_sent > 1000


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("sound", list(AudioCodec))
async def test_ffmpeg_hears(tmp_path, transport, sound):
    SoundSource(Codec.H264, sound)
    async with running_rtsp(tmp_path, source=lambda: SoundSource(Codec.H264, sound)) as relay:
        url = relay.address(relay.control.ticket(1))
        _, _, times, heard, rate = await asyncio.to_thread(play, url, 25, sounds=10, rtsp_transport=transport)
    assert rate == SoundSource(Codec.H264, sound).track.audio.sample_rate
    assert heard == sorted(heard)
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.2
    assert abs(times[0] - heard[0]) < 1.0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ffmpeg_logs_in_with_the_ticket_as_password(tmp_path, transport):
    async with running_rtsp(tmp_path) as relay:
        url = relay.address(relay.control.ticket(1), login=True)
        _, size, _, _, _ = await asyncio.to_thread(play, url, 5, rtsp_transport=transport)
    assert size == (320, 240)


@pytest.mark.skipif(not DEBIAN_PYTHON.exists(), reason="no Debian Python")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_gstreamer_plays(tmp_path, transport):
    async with running_rtsp(tmp_path, source=lambda: SoundSource(Codec.H264, None)) as relay:
        player = await asyncio.create_subprocess_exec(
            str(DEBIAN_PYTHON), str(GSTREAMER_VIEWER), transport, relay.address(relay.control.ticket(1))
        )
        status = await asyncio.wait_for(player.wait(), 20)
        if status == 3:
            pytest.skip("GStreamer is not installed")
    assert status == 0


async def test_ffmpeg_plays_encrypted(tmp_path):
    certificate, key = map(str, write_certificate(tmp_path))
    async with running_rtsp(tmp_path, tls_certificate=certificate, tls_key=key) as relay:
        url = relay.address(relay.control.ticket(1)).replace("rtsp:", "rtsps:")
        _, size, _, _, _ = await asyncio.to_thread(play, url, 5, tls_verify="0")
    assert size == (320, 240)


async def test_a_player_asks_without_login_then_over_udp_then_over_tcp(tmp_path):
    """As FFmpeg and VLC do: until the first packet the ticket opens again."""
    async with running_rtsp(tmp_path) as relay:
        url = relay.address(relay.control.ticket(1))
        async with RtspClient.connected(relay.rtsp_port) as client:
            assert (await client.request("DESCRIBE", url)).status == 200
        assert (await relay.control.over(f"{1:032x}")).lost
        _, size, _, _, _ = await asyncio.to_thread(play, url, 5)
    assert size == (320, 240)


class ChangingSource:
    """A camera that changes its codec when it is told to."""

    def __init__(self, change, after):
        self._change = change
        self._after = after

    async def run(self, publisher):
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(SoundSource(Codec.H264, None).run(publisher))
            await self._change.wait()
            first.cancel()
            await self._after().run(publisher)


@pytest.mark.parametrize(
    ("after", "max_height", "survives"),
    [
        (lambda: SoundSource(Codec.H265, None), None, False),
        (lambda: SoundSource(Codec.H264, AudioCodec.PCMA), None, False),
        (lambda: SoundSource(Codec.H264, None, width=640, height=480), None, True),
        (lambda: SoundSource(Codec.H264, None, width=640, height=480), 240, False),
    ],
    ids=["codec", "sound", "size", "more than is permitted"],
)
async def test_a_change_that_the_description_does_not_cover_ends_the_session(
    tmp_path, after, max_height, survives
):
    change = asyncio.Event()
    after()
    async with running_rtsp(tmp_path, source=lambda: ChangingSource(change, after)) as relay:
        async with RtspClient.connected(relay.rtsp_port) as client:
            ticket = relay.control.ticket(1, obligations=Obligations(max_height=max_height))
            await client.play(relay.address(ticket))
            before = parse_rtp((await client.packets_on(0, 1))[0]).ssrc
            change.set()
            if survives:
                async with asyncio.timeout(10):
                    while parse_rtp(client.packets[-1].payload).ssrc == before:
                        await client.event()
                return
            await client.until_closed()
            assert client.packets[-1].payload[1] == 203
        assert (await relay.control.over(f"{1:032x}")).reason == "failed"
