"""A clip of noise at a fixed bit rate, for benchmarks: coded once, so that a thousand cameras can send it.

Noise keeps the rate control honest: a quiet scene would stay below its bit rate however it is set.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags

from streams.errors import UnsupportedError
from streams.media import TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.wire.bitstream import split_annex_b
from streams.wire.nal_unit import SYNTAX
from streams.wire.parameter_sets import ParameterSets

_GREY = 128
_NOISE_SCALE = 8
"""Samples of noise are squares of so many pixels: a codec finds something to predict."""
_NOISE_AMPLITUDE = 24


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """H.264. `gop`: access units from one random access point to the next; `gops`: how many are coded."""

    bit_rate_bps: int = 1_000_000
    width: int = 1280
    height: int = 720
    pictures_per_second: int = 25
    gop: int = 50
    gops: int = 2


def encode_noise(settings: NoiseSettings) -> tuple[Track, list[AccessUnit]]:
    """The clip's track and access units, the first a random access point; blocks for a second or two.

    Raises UnsupportedError if the encoder gives no parameter sets.
    """
    encoder = _open_encoder(settings)
    syntax = SYNTAX[Codec.H264]
    parameter_sets = ParameterSets(Codec.H264)
    for nal_unit in split_annex_b(bytes(encoder.extradata or b"")):
        if syntax.nal_unit_type(nal_unit) in syntax.PARAMETER_SETS:
            parameter_sets.add(nal_unit)
    if parameter_sets.track is None:
        raise UnsupportedError("the encoder gives no parameter sets")
    # The first GOP only settles the rate control.
    coded = [packet for frame in _noise(settings) for packet in encoder.encode(frame)][settings.gop :]
    units = []
    for index, packet in enumerate(coded):
        ticks = index * TIME_BASE_HZ // settings.pictures_per_second
        left_out = syntax.PARAMETER_SETS | syntax.DISCARDED
        nal_units = [(syntax.nal_unit_type(unit), unit) for unit in split_annex_b(bytes(packet))]
        units.append(
            AccessUnit(
                pts=ticks,
                dts=ticks,
                nal_units=tuple(unit for kind, unit in nal_units if kind not in left_out),
                is_random_access=any(kind in syntax.RANDOM_ACCESS for kind, _ in nal_units),
                received_ns=time.monotonic_ns(),
            )
        )
    return parameter_sets.track, units


def _open_encoder(settings: NoiseSettings) -> av.VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = settings.width, settings.height, "yuv420p"
    encoder.framerate = Fraction(settings.pictures_per_second)
    encoder.time_base = 1 / encoder.framerate
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    encoder.bit_rate = settings.bit_rate_bps
    gop = settings.gop
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "maxrate": str(settings.bit_rate_bps),
        "bufsize": str(settings.bit_rate_bps),
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0",
    }
    encoder.open()
    return encoder


def _noise(settings: NoiseSettings) -> Iterator[av.VideoFrame]:
    """One texture that drifts, with fresh noise on it. The same in every run."""
    random = np.random.default_rng(1)
    rows, columns = settings.height // _NOISE_SCALE, settings.width // _NOISE_SCALE
    texture = random.integers(-_NOISE_AMPLITUDE, _NOISE_AMPLITUDE, (rows, columns))
    chroma = np.full((settings.height // 2, settings.width), _GREY, np.uint8)
    for index in range(settings.gop * (settings.gops + 1)):
        fresh = random.integers(-_NOISE_AMPLITUDE, _NOISE_AMPLITUDE, (rows, columns))
        coarse = (_GREY + np.roll(texture, index, axis=1) + fresh // 2).astype(np.uint8)
        luma = np.kron(coarse, np.ones((_NOISE_SCALE, _NOISE_SCALE), np.uint8))
        frame = av.VideoFrame.from_ndarray(np.concatenate((luma, chroma)), format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, settings.pictures_per_second)
        yield frame
