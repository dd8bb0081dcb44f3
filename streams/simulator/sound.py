"""A tone as a simulated camera's sound: coded once, played forever in real time."""

import asyncio
import time
from collections.abc import AsyncGenerator
from fractions import Fraction
from typing import Final, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from streams.media import TIME_BASE_HZ, AudioCodec, AudioTrack, AudioUnit

_ENCODERS: Final = {AudioCodec.AAC: "aac", AudioCodec.PCMA: "pcm_alaw", AudioCodec.PCMU: "pcm_mulaw"}
_SAMPLE_RATES: Final = {AudioCodec.AAC: 16_000, AudioCodec.PCMA: 8_000, AudioCodec.PCMU: 8_000}
_FRAME_SAMPLES: Final = {AudioCodec.AAC: 1024, AudioCodec.PCMA: 160, AudioCodec.PCMU: 160}
_TONE_HZ: Final = 440
_AMPLITUDE: Final = 0.2


class ToneProducer:
    """What a simulated camera hears: 440 Hz, one channel. Making one blocks for some milliseconds."""

    def __init__(self, codec: AudioCodec = AudioCodec.AAC, seconds: float = 2.0) -> None:
        rate, samples = _SAMPLE_RATES[codec], _FRAME_SAMPLES[codec]
        encoder = cast("AudioCodecContext", av.CodecContext.create(_ENCODERS[codec], "w"))
        encoder.sample_rate, encoder.layout = rate, "mono"
        encoder.format = "fltp" if codec is AudioCodec.AAC else "s16"
        encoder.time_base = Fraction(1, rate)
        encoder.open()
        self._units: list[bytes] = []
        for index in range(round(seconds * rate / samples)):
            frame = _tone(index * samples, samples, rate, encoder.format.name)
            self._units += map(bytes, encoder.encode(frame))
        self._unit_ticks = Fraction(samples * TIME_BASE_HZ, rate)
        self.track = AudioTrack(
            codec=codec, sample_rate=rate, channels=1, configuration=bytes(encoder.extradata or b"")
        )

    async def open(self) -> AsyncGenerator[AudioUnit, None]:
        """The sound in real time, until it is closed."""
        started, number = time.monotonic(), 0
        while True:
            pts = int(number * self._unit_ticks)
            await asyncio.sleep(max(started + pts / TIME_BASE_HZ - time.monotonic(), 0.0))
            data = self._units[number % len(self._units)]
            yield AudioUnit(pts=pts, data=data, received_ns=time.monotonic_ns())
            number += 1


def _tone(first: int, samples: int, rate: int, sample_format: str) -> av.AudioFrame:
    wave = _AMPLITUDE * np.sin(2 * np.pi * _TONE_HZ * np.arange(first, first + samples) / rate)
    if sample_format == "fltp":
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[np.newaxis], "fltp", "mono")
    else:
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[np.newaxis], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
    return frame
