"""A clip as a live camera: played forever in real time, with the wall clock in the picture, encoded anew.

Every subscription has its own decoder and encoder and costs nothing while there is none, as a camera that
encodes a channel only while somebody watches it. Pictures that cannot be produced in time are left out.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType

from streams.errors import UnsupportedError
from streams.media import TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.simulator.clock import Plane, stamp_clock
from streams.simulator.rendering import PICTURES_PER_SECOND
from streams.wire.bitstream import split_annex_b
from streams.wire.nal_unit import SYNTAX
from streams.wire.parameter_sets import ParameterSets

_ENCODERS: dict[Codec, Literal["libx264", "libx265"]] = {Codec.H264: "libx264", Codec.H265: "libx265"}
_MAX_LATENESS_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """How a simulated camera encodes. `quality` is x264's and x265's constant rate factor."""

    codec: Codec = Codec.H264
    gop_seconds: float = 1.0
    quality: int = 26
    max_bit_rate_bps: int = 900_000


def local_clock() -> datetime:
    """Now, in this machine's time zone."""
    return datetime.now().astimezone()


class ClipProducer:
    """An `AccessUnitProducer` of the camera simulator: plays the clip at `path`.

    Opening reads the clip and the encoder's parameter sets; it blocks for some 10 ms. Raises OSError or
    av.FFmpegError if the clip cannot be read. `clock` returns aware local time for the picture; `monotonic`
    (seconds) and `sleep` keep the pace.
    """

    def __init__(
        self,
        path: Path,
        settings: EncoderSettings,
        clock: Callable[[], datetime] = local_clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        player = _Player(path, settings)
        self._pictures_per_second = player.pictures_per_second
        self.track: Track = player.track

    async def open(self) -> AsyncGenerator[AccessUnit, None]:
        """Access units in real time, from a random access point on, until it is closed."""
        # Never closed by hand: a cancelled subscription may leave its last call running in the thread, and
        # the files and codecs go when that returns.
        player = await asyncio.to_thread(_Player, self._path, self._settings)
        started, index = self._monotonic(), 0
        while True:
            early = started + index / self._pictures_per_second - self._monotonic()
            if early < -_MAX_LATENESS_SECONDS:
                index += int(-early * self._pictures_per_second)
            await self._sleep(max(early, 0.0))
            yield await asyncio.to_thread(player.access_unit, index, self._clock())
            index += 1


class _Player:
    """One decoder and one encoder over one clip. Blocks; used by one thread at a time."""

    def __init__(self, path: Path, settings: EncoderSettings) -> None:
        self._container = av.open(str(path))
        video = self._container.streams.video[0]
        # One thread for a small picture, as a camera's chip; the default is one per core for each camera.
        video.codec_context.thread_type, video.codec_context.thread_count = "NONE", 1
        self._rate = Fraction(video.average_rate or PICTURES_PER_SECOND)
        self.pictures_per_second = float(self._rate)
        self._encoder = _open_encoder(settings, video.width, video.height, self._rate)
        self._syntax = SYNTAX[settings.codec]
        self._frames = self._play_forever()
        self.track = self._read_track(settings.codec)

    def access_unit(self, index: int, at: datetime) -> AccessUnit:
        """The next picture of the clip, stamped with `at`, as picture `index` of the subscription."""
        frame = next(self._frames)
        stamp_clock(_planes(frame), at)
        frame.pts, frame.time_base = index, 1 / self._rate
        frame.pict_type = PictureType.NONE
        data = b"".join(bytes(packet) for packet in self._encoder.encode(frame))
        left_out = self._syntax.PARAMETER_SETS | self._syntax.DISCARDED
        nal_units = [(self._syntax.nal_unit_type(unit), unit) for unit in split_annex_b(data)]
        ticks = round(index * TIME_BASE_HZ / self._rate)
        return AccessUnit(
            pts=ticks,
            dts=ticks,
            nal_units=tuple(unit for kind, unit in nal_units if kind not in left_out),
            is_random_access=any(kind in self._syntax.RANDOM_ACCESS for kind, _ in nal_units),
            received_ns=time.monotonic_ns(),
        )

    def _play_forever(self) -> Iterator[av.VideoFrame]:
        while True:
            for frame in self._container.decode(video=0):
                # The decoder still predicts from its own copy of the picture.
                frame.make_writable()
                yield frame
            self._container.seek(0)

    def _read_track(self, codec: Codec) -> Track:
        parameter_sets = ParameterSets(codec)
        for nal_unit in split_annex_b(bytes(self._encoder.extradata or b"")):
            if self._syntax.nal_unit_type(nal_unit) in self._syntax.PARAMETER_SETS:
                parameter_sets.add(nal_unit)
        if parameter_sets.track is None:
            raise UnsupportedError("the encoder gives no parameter sets")
        return parameter_sets.track


def _open_encoder(settings: EncoderSettings, width: int, height: int, rate: Fraction) -> av.VideoCodecContext:
    encoder = av.CodecContext.create(_ENCODERS[settings.codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = rate, 1 / rate
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    gop = round(settings.gop_seconds * rate)
    common = f"keyint={gop}:min-keyint={gop}:scenecut=0"
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "crf": str(settings.quality),
        "maxrate": str(settings.max_bit_rate_bps),
        "bufsize": str(settings.max_bit_rate_bps),
        "x264-params": common,
        "x265-params": f"{common}:pools=none:frame-threads=1:log-level=none:open-gop=0",
    }
    encoder.open()
    return encoder


def _planes(frame: av.VideoFrame) -> tuple[Plane, Plane, Plane]:
    """The picture's own samples, without padding: writing there changes the picture."""
    luma, blue, red = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return luma, blue, red
