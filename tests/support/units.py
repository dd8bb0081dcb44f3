"""Encoded clips as access units, and readers that keep what they are given."""

import functools
from fractions import Fraction

import av
import numpy as np

from streams.hub import ReaderFailedError, Tally
from streams.media import TIME_BASE_HZ, AccessUnit, AudioCodec, AudioTrack, AudioUnit, Codec, Track
from streams.mux import MuxedUnit
from streams.wire.bitstream import split_annex_b

FRAME_TICKS = TIME_BASE_HZ // 25
FRAME_NS = 40_000_000
_PARAMETER_SETS = {Codec.H264: {7, 8}, Codec.H265: {32, 33, 34}}
_RANDOM_ACCESS = {Codec.H264: {5}, Codec.H265: set(range(16, 24))}


def nal_unit_type(codec: Codec, nal_unit: bytes) -> int:
    return nal_unit[0] & 0x1F if codec is Codec.H264 else nal_unit[0] >> 1 & 0x3F


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A gradient with a bright square that moves: RGB, uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack((columns * 200 // width, rows * 200 // height, (rows + columns) % 128), axis=-1)
    left = 4 * index % (width - 32)
    image[20:52, left : left + 32] = 250
    return image.astype(np.uint8)


@functools.cache
def encode_clip(
    codec: Codec,
    count: int = 50,
    *,
    width: int = 320,
    height: int = 240,
    gop: int = 25,
    b_frames: int = 0,
    slices: int = 1,
    pixel_format: str = "yuv420p",
) -> tuple[Track, tuple[AccessUnit, ...]]:
    """A clip at 25 pictures per second, in decoding order; the first DTS is 0."""
    context = av.CodecContext.create("libx264" if codec is Codec.H264 else "libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, pixel_format
    context.time_base = Fraction(1, 25)
    context.framerate = Fraction(25)
    context.thread_count = 1
    parameters = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:slices={slices}:open-gop=0"
    if codec is Codec.H264:
        context.options = {"preset": "ultrafast", "x264-params": parameters}
    else:
        quiet = ":log-level=none:pools=1:frame-threads=1:hrd=0:aud=0:info=1"
        context.options = {"preset": "ultrafast", "x265-params": parameters + quiet}
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
        frame.pts = index
        packets += context.encode(frame.reformat(format=pixel_format))
    packets += context.encode(None)
    parameter_sets: tuple[bytes, ...] = ()
    units = []
    first_dts = packets[0].dts
    for number, packet in enumerate(packets):
        nal_units = split_annex_b(bytes(packet))
        if not parameter_sets:
            parameter_sets = tuple(n for n in nal_units if nal_unit_type(codec, n) in _PARAMETER_SETS[codec])
        kept = tuple(n for n in nal_units if nal_unit_type(codec, n) not in _PARAMETER_SETS[codec])
        units.append(
            AccessUnit(
                pts=(packet.pts - first_dts) * FRAME_TICKS,
                dts=(packet.dts - first_dts) * FRAME_TICKS,
                nal_units=kept,
                is_random_access=any(nal_unit_type(codec, n) in _RANDOM_ACCESS[codec] for n in kept),
                received_ns=number * FRAME_NS,
            )
        )
    return Track(codec=codec, parameter_sets=parameter_sets, width=width, height=height), tuple(units)


def synthetic_unit(number: int, *, random_access: bool = False, size: int = 100, **fields) -> AccessUnit:
    """An access unit that no decoder would take; good enough for whoever does not look inside."""
    header = b"\x65" if random_access else b"\x41"
    values = {
        "pts": number * FRAME_TICKS,
        "dts": number * FRAME_TICKS,
        "nal_units": (header + b"\x88" * (size - 1),),
        "is_random_access": random_access,
        "received_ns": number * FRAME_NS,
    }
    return AccessUnit(**(values | fields))


class RecordingReader:
    """A `Reader` and `UnitReader` that keeps every call."""

    def __init__(self, *, fail_after: int | None = None, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, object]] = []
        self.units: list[MuxedUnit] = []
        self.ended: str | None = None
        self._fail_after = fail_after
        self._error = error or ReaderFailedError("slow")

    def start(self, init: bytes, mime: str) -> None:
        self.calls.append(("start", (init, mime)))

    def restart(self, init: bytes, mime: str) -> None:
        self.calls.append(("restart", (init, mime)))

    def configure(self, track: Track) -> None:
        self.calls.append(("configure", track))

    def write(self, unit: MuxedUnit) -> None:
        if self._fail_after is not None and len(self.units) >= self._fail_after:
            raise self._error
        self.units.append(unit)
        self.calls.append(("write", unit.pts))

    publish = write

    def check(self) -> None: ...

    def plain_write(self, tally: Tally | None) -> None:
        """Every unit is recorded."""

    def end(self, reason: str) -> None:
        assert self.ended is None
        self.ended = reason
        self.calls.append(("end", reason))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


class NeverDue:
    def cancel(self) -> None:
        pass


@functools.cache
def encode_sound(
    codec: AudioCodec, seconds: float = 2.0, *, sample_rate: int | None = None, channels: int = 1
) -> tuple[AudioTrack, tuple[AudioUnit, ...]]:
    """A tone of 440 Hz from PTS 0 on; G.711 in units of 20 ms."""
    name = {AudioCodec.AAC: "aac", AudioCodec.PCMA: "pcm_alaw", AudioCodec.PCMU: "pcm_mulaw"}[codec]
    is_aac = codec is AudioCodec.AAC
    rate = sample_rate or (48_000 if is_aac else 8_000)
    context = av.CodecContext.create(name, "w")
    context.sample_rate, context.layout = rate, "mono" if channels == 1 else "stereo"
    context.format = "fltp" if is_aac else "s16"
    context.time_base = Fraction(1, rate)
    context.flags |= av.codec.context.Flags.global_header
    context.open()
    step = 1024 if is_aac else rate // 50
    packets = []
    for start in range(0, int(seconds * rate), step):
        tone = 0.5 * np.sin(2 * np.pi * 440 / rate * np.arange(start, start + step))
        samples = np.repeat(tone[None], channels, axis=0).astype(np.float32)
        if not is_aac:
            samples = (32_000 * samples.T.reshape(1, -1)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format=context.format.name, layout=context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, context.time_base
        packets += context.encode(frame)
    packets += context.encode(None)
    first = packets[0].pts
    units = tuple(
        AudioUnit(
            pts=(packet.pts - first) * TIME_BASE_HZ // rate,
            data=bytes(packet),
            received_ns=(packet.pts - first) * 1_000_000_000 // rate,
        )
        for packet in packets
    )
    configuration = bytes(context.extradata or b"") if is_aac else b""
    track = AudioTrack(codec=codec, sample_rate=rate, channels=channels, configuration=configuration)
    return track, units
