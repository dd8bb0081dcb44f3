"""RTSP for encoders that publish, with FFmpeg as the encoder."""

import asyncio
import contextlib
import sys
from pathlib import Path

import av
import pytest
from support import rtsp_publisher
from support.rtsp_viewer import RtspClient, digest_header, running_rtsp
from support.units import encode_clip

from gateway.messages import PUSH_URL, PublisherLogin
from gateway.relay import rtsp_login
from streams.media import Codec
from streams.mux.rtp import rtp_description
from streams.sources.source import CameraAddress
from streams.wire.digest import Algorithm

LOGIN = "encoder", "s3cret"


@contextlib.asynccontextmanager
async def pushed(folder, camera="camera-1"):
    async with running_rtsp(folder) as relay:
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
    assert b"401" in error or b"Unauthorized" in error
    assert encoder.returncode != 0
