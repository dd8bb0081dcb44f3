"""Decoder configuration records: compared with FFmpeg's own, and hostile parameter sets refused."""

import io
from contextlib import suppress

import av
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip, picture

from streams.errors import LimitExceededError, ProtocolError, StreamError
from streams.media import MAX_DIMENSION, MAX_PARAMETER_SET_BYTES, MAX_PARAMETER_SETS, Codec, Track
from streams.mux.codec_configuration import codec_configuration


def record_of_ffmpeg(codec: Codec, pixel_format: str) -> bytes:
    """The record that FFmpeg's MP4 muxer writes for its own encoder's parameter sets."""
    output = io.BytesIO()
    with av.open(output, "w", format="mp4") as file:
        stream = file.add_stream("libx264" if codec is Codec.H264 else "libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixel_format
        if codec is Codec.H265:
            stream.codec_context.codec_tag = "hvc1"
            stream.codec_context.options = {"x265-params": "log-level=none:info=0:bframes=0"}
        frame = av.VideoFrame.from_ndarray(picture(0, 64, 64), format="rgb24").reformat(format=pixel_format)
        frame.pts = 0
        file.mux([*stream.encode(frame), *stream.encode(None)])
    data = output.getvalue()
    at = data.index(b"avcC" if codec is Codec.H264 else b"hvcC")
    return data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at])]


def parameter_sets_of(codec: Codec, record: bytes) -> tuple[bytes, ...]:
    """All NAL units of a record, by its length fields."""
    found, at = [], 22 if codec is Codec.H265 else 5
    arrays = record[at] if codec is Codec.H265 else 2
    at += codec is Codec.H265
    for _ in range(arrays):
        if codec is Codec.H265:
            count, at = int.from_bytes(record[at + 1 : at + 3]), at + 3
        else:
            count, at = record[at] & 0x1F, at + 1
        for _ in range(count):
            size = int.from_bytes(record[at : at + 2])
            found.append(record[at + 2 : at + 2 + size])
            at += 2 + size
    return tuple(found)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_the_record_is_that_of_ffmpeg(codec: Codec, pixel_format: str) -> None:
    theirs = record_of_ffmpeg(codec, pixel_format)
    parameter_sets = tuple(
        p for p in parameter_sets_of(codec, theirs) if codec is Codec.H264 or p[0] >> 1 in {32, 33, 34}
    )
    track = Track(codec=codec, parameter_sets=parameter_sets, width=64, height=64)
    ours = codec_configuration(track).record
    if codec is Codec.H264:
        assert ours == theirs
    else:
        # FFmpeg also fills in hints that no decoder needs, and adds SEI NAL units.
        assert ours[:13] == theirs[:13]
        assert ours[16:19] == theirs[16:19]
        assert ours[21] == theirs[21]
        assert parameter_sets_of(codec, ours) == parameter_sets


def test_sps_with_sub_layers_and_emulation_prevention() -> None:
    """The H.265 SPS is read past sub-layers and escapes; its general fields land in record and string."""
    track, _ = encode_clip(Codec.H265, 1)
    configuration = codec_configuration(track)
    sps = next(p for p in track.parameter_sets if p[0] >> 1 & 0x3F == 33)
    unescaped = sps.replace(b"\0\0\3", b"\0\0")
    assert configuration.record[1:13] == unescaped[3:15]
    assert configuration.codecs.startswith("hvc1.1.6.L")
    assert configuration.sample_entry == b"hvc1"


def test_h265_with_sub_layers_and_a_conformance_window() -> None:
    """An SPS of the fields in H.265 §7.3.2.2, bit by bit; ue(v) of 0 to 3 is 1, 010, 011, 00100."""
    general = bytes.fromhex("016000000300b0000003007b").replace(b"\0\0\3", b"\0\0")
    general = general.ljust(12, b"\x5a")
    sub_layers = "10" + "01" + "00" * 6 + "1" * 88 + "0" * 8
    fields = "1" + "00100" + "0" + "011" * 2 + "1" + "011" * 4 + "011" + "010"
    bits = "0000" + "010" + "1" + f"{int.from_bytes(general):096b}" + sub_layers + fields + "1"
    bits += "0" * (-len(bits) % 8)
    sps = b"\x42\x01" + int(bits, 2).to_bytes(len(bits) // 8)
    track = Track(codec=Codec.H265, parameter_sets=(b"\x40\x01", sps, b"\x44\x01"), width=8, height=8)
    record = codec_configuration(track).record
    assert record[1:13] == general
    assert record[16:19] == bytes((0xFC | 3, 0xF8 | 2, 0xF8 | 1))
    assert record[21] == 3 << 3 | 1 << 2 | 3


def test_the_codec_string_of_h264_is_profile_flags_and_level() -> None:
    sps, pps = bytes.fromhex("6764001facd9405005bb016a02020280"), b"\x68\xeb\xe3"
    track = Track(codec=Codec.H264, parameter_sets=(sps, pps), width=1280, height=720)
    assert codec_configuration(track).codecs == "avc1.64001F"


@pytest.mark.parametrize("codec", list(Codec))
def test_limits(codec: Codec) -> None:
    track, _ = encode_clip(codec, 1)
    pps = track.parameter_sets[-1]
    sets = track.parameter_sets
    at_limit = (*sets, *[pps] * (MAX_PARAMETER_SETS - len(sets)))
    large = (*sets, pps + bytes(MAX_PARAMETER_SET_BYTES - len(pps)))
    for parameter_sets in (at_limit, large):
        codec_configuration(msgspec.structs.replace(track, parameter_sets=parameter_sets))
    codec_configuration(msgspec.structs.replace(track, width=MAX_DIMENSION, height=1))
    for parameter_sets in ((*at_limit, pps), (*large[:-1], large[-1] + b"\0")):
        with pytest.raises(LimitExceededError):
            codec_configuration(msgspec.structs.replace(track, parameter_sets=parameter_sets))
    for size in ({"width": 0}, {"height": -1}, {"width": MAX_DIMENSION + 1}):
        with pytest.raises(ProtocolError):
            codec_configuration(msgspec.structs.replace(track, **size))


@pytest.mark.parametrize("codec", list(Codec))
def test_a_missing_parameter_set(codec: Codec) -> None:
    track, _ = encode_clip(codec, 1)
    for missing in track.parameter_sets[:3]:
        left = tuple(p for p in track.parameter_sets if p != missing)
        if codec is Codec.H264 and missing[0] & 0x1F not in {7, 8}:
            continue
        with pytest.raises(ProtocolError):
            codec_configuration(msgspec.structs.replace(track, parameter_sets=left))


@given(st.sampled_from(list(Codec)), st.data())
def test_mutated_parameter_sets_raise_only_our_errors(codec: Codec, data: st.DataObject) -> None:
    track, _ = encode_clip(codec, 1)
    parameter_sets = []
    for original in track.parameter_sets:
        mutable = bytearray(original[: data.draw(st.integers(0, len(original)))])
        for position in data.draw(st.lists(st.integers(0, max(0, len(mutable) - 1)), max_size=3)):
            if mutable:
                mutable[position] = data.draw(st.integers(0, 255))
        parameter_sets.append(bytes(mutable))
    with suppress(StreamError):
        codec_configuration(msgspec.structs.replace(track, parameter_sets=tuple(parameter_sets)))
