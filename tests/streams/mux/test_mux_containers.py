"""FFmpeg reads what the muxers write: the same pictures at the same times, and the mark in each keyframe."""

import io
import re
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import FRAME_TICKS, encode_clip, synthetic_unit

from streams.media import TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.mux import CONTAINERS, MARK_LENGTH, Marker, Muxer, sample_of
from streams.mux.mark import MARK_PLACEHOLDER, find_marks

KEY = b"k" * 32
SESSION = bytes(range(16))

codecs = pytest.mark.parametrize("codec", list(Codec))
containers = pytest.mark.parametrize("container", ["flv", "flv-12", "fmp4"])
b_frames = pytest.mark.parametrize("b_frames", [0, 2])


def shifted(unit: AccessUnit, ticks: int) -> AccessUnit:
    return AccessUnit(
        pts=unit.pts + ticks,
        dts=unit.dts + ticks,
        nal_units=unit.nal_units,
        is_random_access=unit.is_random_access,
        received_ns=unit.received_ns,
    )


def container_file(muxer: Muxer, track: Track, units: tuple[AccessUnit, ...], marker: Marker | None) -> bytes:
    parts = [muxer.init]
    for unit in units:
        muxed = muxer.mux(sample_of(track.codec, unit))
        mark = muxed.mark
        if marker and muxed.slices_hash is not None:
            mark = marker.mark(muxed.pts, muxed.slices_hash)
        parts += [muxed.head, mark, muxed.tail]
    return b"".join(parts)


def length_prefixed_nal_units(data: bytes) -> list[bytes]:
    nal_units = []
    while data:
        size = int.from_bytes(data[:4])
        nal_units.append(data[4 : 4 + size])
        data = data[4 + size :]
    return nal_units


def decoded(track: Track, units: tuple[AccessUnit, ...]) -> list[np.ndarray]:
    context = av.CodecContext.create("h264" if track.codec is Codec.H264 else "hevc", "r")
    start_code = b"\0\0\0\1"
    data = [b"".join(start_code + n for n in (*track.parameter_sets, *unit.nal_units)) for unit in units]
    frames = [frame for d in data for frame in context.decode(av.Packet(d))] + context.decode(None)
    return [frame.to_ndarray() for frame in frames]


@codecs
@containers
@b_frames
def test_ffmpeg_reads_the_same_pictures_and_times(codec: Codec, container: str, b_frames: int) -> None:
    track, units = encode_clip(codec, 30, b_frames=b_frames)
    data = container_file(CONTAINERS[container](track), track, units, Marker(KEY, SESSION, "cam"))
    with av.open(io.BytesIO(data)) as file:
        (stream,) = file.streams
        assert stream.type == "video"
        assert (stream.codec_context.name, stream.width, stream.height) == (
            {"h264": "h264", "h265": "hevc"}[codec],
            track.width,
            track.height,
        )
        packets = [p for p in file.demux(stream) if p.size]
        seconds = Fraction(stream.time_base)
        assert [p.dts * seconds for p in packets] == [Fraction(u.dts, TIME_BASE_HZ) for u in units]
        assert [p.pts * seconds for p in packets] == [Fraction(u.pts, TIME_BASE_HZ) for u in units]
        assert [p.is_keyframe for p in packets] == [u.is_random_access for u in units]
        for packet, unit in zip(packets, units, strict=True):
            nal_units = length_prefixed_nal_units(bytes(packet))
            marks = find_marks(codec, nal_units)
            assert len(marks) == unit.is_random_access
            assert tuple(n for n in nal_units if n in unit.nal_units) == unit.nal_units
            assert len(nal_units) == len(unit.nal_units) + unit.is_random_access
            if marks:
                assert (marks[0].session_id, marks[0].pts) == (SESSION, unit.pts)
                assert marks[0].is_authentic(KEY, "cam")
    with av.open(io.BytesIO(data)) as file:
        pictures = [frame.to_ndarray() for frame in file.decode(video=0)]
    source = decoded(track, units)
    assert len(pictures) == len(source) == len(units)
    assert all(np.array_equal(a, b) for a, b in zip(pictures, source, strict=True))


@codecs
@containers
def test_a_viewer_may_start_late(codec: Codec, container: str) -> None:
    """From the middle of a day on, at a random access point, and the camera's time stamps are kept."""
    track, units = encode_clip(codec)
    hour = 13 * 3600 * TIME_BASE_HZ
    late = tuple(shifted(unit, hour) for unit in units[25:])
    data = container_file(CONTAINERS[container](track), track, late, None)
    with av.open(io.BytesIO(data)) as file:
        packets = [p for p in file.demux(video=0) if p.size]
    assert len(packets) == 25
    assert packets[0].dts * packets[0].time_base == Fraction(late[0].dts, TIME_BASE_HZ)


@codecs
@containers
def test_several_slices_and_a_codec_change(codec: Codec, container: str) -> None:
    track, units = encode_clip(codec, 2, slices=3, width=640, height=480)
    muxer = CONTAINERS[container](track)
    muxed = muxer.mux(sample_of(codec, units[0]))
    assert muxer.restart
    assert muxer.init.endswith(muxer.restart)
    assert muxed.mark == MARK_PLACEHOLDER
    assert len(muxed.mark) == MARK_LENGTH
    later = muxer.mux(sample_of(codec, units[1]))
    assert (later.head, later.mark, later.slices_hash) == (b"", b"", None)
    assert later.size_bytes == len(later.tail)


def test_flv_time_stamps_wrap_at_32_bits_of_milliseconds() -> None:
    track, _ = encode_clip(Codec.H264)
    muxer = CONTAINERS["flv"](track)

    def timestamp(dts: int) -> int:
        tag = muxer.mux(sample_of(Codec.H264, synthetic_unit(1, dts=dts, pts=dts))).tail
        return tag[7] << 24 | int.from_bytes(tag[4:7])

    last = ((1 << 32) - 1) * 90
    assert timestamp(last) == 0xFFFF_FFFF
    assert timestamp(last + 90) == 0
    assert timestamp(last + 90 + FRAME_TICKS) == 40


@given(st.integers(-(2**40), 2**40))
def test_flv_composition_time_is_bounded(offset: int) -> None:
    track, _ = encode_clip(Codec.H264)
    unit = synthetic_unit(1, dts=2**41, pts=2**41 + offset)
    tag = CONTAINERS["flv"](track).mux(sample_of(Codec.H264, unit)).tail
    composition_ms = int.from_bytes(tag[13:16], signed=True)
    assert abs(composition_ms - offset // 90) <= 1 or abs(composition_ms) == 2**23 - 1


@codecs
def test_fmp4_takes_the_last_duration_and_counts_fragments(codec: Codec) -> None:
    track, _ = encode_clip(codec)
    muxer = CONTAINERS["fmp4"](track)
    dts_values = [0, 3600, 10800, 10800, 5_000_000, 3600]
    headers = [muxer.mux(sample_of(codec, synthetic_unit(0, dts=d, pts=d))).tail for d in dts_values]
    assert [int.from_bytes(h[20:24]) for h in headers] == [1, 2, 3, 4, 5, 6]
    assert [int.from_bytes(h[88:92]) for h in headers] == [3600, 3600, 7200, 7200, 7200, 7200]


@codecs
def test_mime_is_what_browsers_ask_for(codec: Codec) -> None:
    track, _ = encode_clip(codec)
    pattern = {
        Codec.H264: r'video/mp4; codecs="avc1\.[0-9A-F]{6}"',
        Codec.H265: r'video/mp4; codecs="hvc1\.1\.6\.L\d+(\.[0-9A-F]{1,2})*"',
    }[codec]
    assert re.fullmatch(pattern, CONTAINERS["fmp4"](track).mime)
    assert CONTAINERS["flv"](track).mime == "video/x-flv"
