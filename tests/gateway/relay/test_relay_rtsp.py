"""RTSP for viewers, seen by FFmpeg: what players really do."""

import asyncio
import itertools

import av
import pytest
from support.rtsp_viewer import SoundSource, running_rtsp

from gateway.messages import Streaming
from streams.media import AudioCodec, Codec

TRANSPORTS = ["tcp", "udp"]


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
