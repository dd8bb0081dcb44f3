import asyncio
import itertools
from pathlib import Path

import pytest
from support.rtsp_cameras import failure_of, pull

from streams.errors import SourceRefusedError
from streams.hub.timeline import TimeLine
from streams.media import AccessUnit, AudioCodec, AudioUnit, Codec

PYTHON = Path("/usr/bin/python3")
SERVER = Path(__file__).parents[2] / "support" / "rtsp_gstreamer.py"
NOT_INSTALLED = 3
PASSWORD = "gst-secret"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no system Python")


class GstreamerServer:
    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            PYTHON,
            SERVER,
            "viewer",
            PASSWORD,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.port = (await self.process.stdout.readline()).decode().strip()
        if not self.port:
            if await self.process.wait() == NOT_INSTALLED:
                pytest.skip("Debian's GStreamer RTSP server is not installed")
            raise RuntimeError("the GStreamer server did not start")
        return self

    async def __aexit__(self, *error):
        self.process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("scheme", ["rtsp", "rtsp+udp"])
async def test_pulls_gstreamer_with_digest(codec, scheme):
    async with GstreamerServer() as server:
        url = f"{scheme}://127.0.0.1:{server.port}/{codec}"
        collector = await pull(url, 30, username="viewer", password=PASSWORD)
        assert isinstance(await failure_of(url, username="viewer", password="wrong"), SourceRefusedError)
    (track,) = collector.tracks
    assert (track.codec, track.width, track.height) == (codec, 320, 240)
    assert collector.units[0].is_random_access
    assert sum(unit.is_random_access for unit in collector.units) >= 2
    assert all(after.dts > before.dts for before, after in itertools.pairwise(collector.units))


def sounds_of_viewers(collector):
    """The sound that a stream passes on: none that goes back."""
    line = TimeLine()
    came = sorted((*collector.units, *collector.sounds), key=lambda unit: unit.received_ns)
    placed = [line.place(unit) if isinstance(unit, AccessUnit) else line.place_audio(unit) for unit in came]
    return [unit for unit in placed if isinstance(unit, AudioUnit)]


@pytest.mark.slow
@pytest.mark.parametrize("codec", [AudioCodec.AAC, AudioCodec.PCMA])
@pytest.mark.parametrize("scheme", ["rtsp", "rtsp+udp"])
async def test_pulls_gstreamer_with_its_sound(codec, scheme):
    """Its payloaders send a sender report soon: sound and pictures are on one time line from then on."""
    async with GstreamerServer() as server:
        url = f"{scheme}://127.0.0.1:{server.port}/{codec}"
        collector = await pull(url, 30, sounds=30, username="viewer", password=PASSWORD)
    audio = collector.tracks[0].audio
    assert (audio.codec, audio.channels) == (codec, 1)
    assert audio.sample_rate == (16_000 if codec is AudioCodec.AAC else 8_000)
    # the reports put the sound where it belongs, once; over UDP they may come after some of it
    assert sum(after.pts <= before.pts for before, after in itertools.pairwise(collector.sounds)) <= 1
    heard = sounds_of_viewers(collector)
    assert all(after.pts > before.pts for before, after in itertools.pairwise(heard))
    assert heard[-1].received_ns == collector.sounds[-1].received_ns
    assert abs(collector.sounds[-1].pts - collector.units[-1].pts) < 90_000
