"""Sound of cameras that are not RTSP: passed through with the pictures, on their time line."""

import asyncio
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import ProtocolError
from streams.media import AudioCodec
from streams.sources.egress import EgressSettings
from streams.sources.pyav import PyavSettings, PyavSource
from streams.sources.source import CameraAddress
from streams.wire.aac import parse_audio_specific_config, split_adts


class Recorder:
    def __init__(self):
        self.tracks, self.units, self.sound = [], [], []
        self.enough = asyncio.Event()

    def configure(self, track):
        self.tracks.append(track)

    def publish(self, unit):
        self.units.append(unit)
        if len(self.units) > 30 and self.sound:  # the clip has begun again
            self.enough.set()

    def publish_audio(self, unit):
        self.sound.append(unit)


def make_clip(container, sound):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        video = output.add_stream("libx264", rate=25, options={"g": "25", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        form, kind, rate = ("fltp", np.float32, 48_000) if sound == "aac" else ("s16", np.int16, 8_000)
        audio = output.add_stream(sound, rate=rate, layout="mono")
        samples = 0
        for number in range(25):
            picture = av.VideoFrame.from_ndarray(np.full((96, 160, 3), number, np.uint8), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            output.mux(video.encode(picture))
            while samples < (number + 1) * rate // 25:
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), kind), form, "mono")
                tone.sample_rate, tone.pts, tone.time_base = rate, samples, Fraction(1, rate)
                output.mux(audio.encode(tone))
                samples += 1024
        for stream in (video, audio):
            output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container", "sound", "codec", "rate"),
    [
        ("flv", "aac", AudioCodec.AAC, 48_000),
        ("mpegts", "aac", AudioCodec.AAC, 48_000),
        ("mp4", "aac", AudioCodec.AAC, 48_000),
        ("flv", "pcm_alaw", AudioCodec.PCMA, 8_000),
        ("flv", "pcm_mulaw", AudioCodec.PCMU, 8_000),
    ],
)
async def test_sound_arrives_with_the_pictures(tmp_path, container, sound, codec, rate):
    (tmp_path / "clip").write_bytes(make_clip(container, sound))
    settings = PyavSettings(egress=EgressSettings(allowed_networks=()), file_folder=tmp_path)
    source = PyavSource(CameraAddress(url=f"file://{tmp_path}/clip"), settings)
    recorder = Recorder()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(source.run(recorder))
        await recorder.enough.wait()
        running.cancel()
    assert len(recorder.tracks) <= 2, "the clip that begins again is no other track"
    track = recorder.tracks[-1].audio
    assert (track.codec, track.sample_rate, track.channels) == (codec, rate, 1)
    assert bool(track.configuration) == (codec is AudioCodec.AAC)
    times = [unit.pts for unit in recorder.sound]
    assert all(0 <= time - recorder.units[0].dts < 300_000 for time in times)
    assert times == sorted(times)


@given(st.binary(max_size=40))
def test_only_our_own_error_escapes(data):
    try:
        configuration, raw = split_adts(data)
    except ProtocolError:
        return
    assert len(configuration) == 2
    assert 0 < len(raw) < len(data)


def test_an_adts_header_says_what_the_configuration_does():
    header = bytes((0xFF, 0xF1, 0x4C, 0x40, 0x01, 0x5F, 0xFC))  # LC, 48 kHz, mono, 10 bytes
    configuration, raw = split_adts(header + b"abc")
    sound = parse_audio_specific_config(configuration)
    assert (sound.object_type, sound.sample_rate, sound.channels, raw) == (2, 48_000, 1, b"abc")
    with pytest.raises(ProtocolError):
        split_adts(header + b"ab")
