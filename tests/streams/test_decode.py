"""Keyframes to pictures: right values for every chroma and depth, and one error for everything broken."""

import random

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.units import encode_clip, picture

from streams import decode as decode_module
from streams.decode import DecodeError, decode, encode_jpeg
from streams.errors import StreamError
from streams.media import AccessUnit, Codec

PIXEL_FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le"]


def changed(unit: AccessUnit, *nal_units: bytes) -> AccessUnit:
    return AccessUnit(pts=0, dts=0, nal_units=nal_units, is_random_access=True, received_ns=unit.received_ns)


def expected_bgr(index: int, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture(index, 320, 240)[:, :, ::-1], size, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_the_picture_is_the_encoded_one(codec: Codec, pixel_format: str) -> None:
    track, units = encode_clip(codec, 26, pixel_format=pixel_format)
    frame = decode(track, units[25])
    assert (frame.width, frame.height) == (320, 240)
    for max_width, size in ((None, (320, 240)), (160, (160, 120)), (4000, (320, 240))):
        bgr = frame.bgr(max_width)
        assert bgr.shape == (size[1], size[0], 3)
        assert bgr.dtype == np.uint8
        assert np.abs(bgr.astype(int) - expected_bgr(25, size)).mean() < 6
    luma = frame.luma((160, 90))
    assert luma.shape == (90, 160)
    assert luma.dtype == np.uint8
    assert luma.flags.c_contiguous
    expected = cv2.cvtColor(expected_bgr(25, (160, 90)), cv2.COLOR_BGR2GRAY).astype(int)
    if pixel_format != "yuvj420p":
        expected = 16 + expected * 219 // 255
    assert np.abs(luma.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("codec", list(Codec))
def test_odd_sizes_and_several_slices(codec: Codec) -> None:
    track, units = encode_clip(codec, 1, width=354, height=290, slices=3)
    assert decode(track, units[0]).luma((354, 290)).shape == (290, 354)
    assert decode(track, units[0]).bgr(101).shape == (82, 100, 3)
    assert decode(track, units[0]).bgr(1).shape == (2, 2, 3)


def test_gray() -> None:
    track, units = encode_clip(Codec.H265, 1, pixel_format="gray")
    bgr = decode(track, units[0]).bgr().astype(int)
    assert bgr.shape == (240, 320, 3)
    assert np.ptp(bgr, axis=2).max() == 0
    luma = decode(track, units[0]).luma((320, 240)).astype(int)
    assert np.abs(bgr[:, :, 0] - ((luma - 16) * 255 / 219).clip(0, 255)).max() < 2


def test_pictures_outlive_their_frame() -> None:
    track, units = encode_clip(Codec.H264, 26)
    luma = decode(track, units[0]).luma((320, 240))
    copy = luma.copy()
    decode(track, units[25]).luma((320, 240))
    assert np.array_equal(luma, copy)
    assert luma.flags.owndata or luma.base is None


def test_jpeg() -> None:
    track, units = encode_clip(Codec.H264, 1)
    bgr = decode(track, units[0]).bgr(160)
    low, high = encode_jpeg(bgr, 20), encode_jpeg(bgr, 95)
    assert low[:2] == b"\xff\xd8"
    assert len(low) < len(high)
    again = cv2.imdecode(np.frombuffer(high, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(again.astype(int) - bgr).mean() < 6


@pytest.mark.parametrize("codec", list(Codec))
def test_broken_keyframes_give_no_picture(codec: Codec) -> None:
    track, units = encode_clip(codec, 1, width=640, height=480)
    *before, picture_slice = units[0].nal_units
    half = picture_slice[: len(picture_slice) // 2]
    for nal_units in ((*before, half), (bytes(100),), (random.Random(0).randbytes(1000),), (), (b"",)):
        with pytest.raises(DecodeError):
            decode(track, changed(units[0], *nal_units))
    without_parameter_sets = type(track)(codec=codec, parameter_sets=(), width=640, height=480)
    with pytest.raises(DecodeError):
        decode(without_parameter_sets, units[0])
    assert DecodeError.code == "decode_error"
    assert issubclass(DecodeError, StreamError)


@pytest.mark.parametrize("codec", list(Codec))
def test_pictures_that_are_too_large_are_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    track, units = encode_clip(codec, 1)
    # FFmpeg compares with more than the visible picture: rows and columns of padding for its own use.
    monkeypatch.setattr(decode_module, "MAX_PIXELS", (320 + 128) * (240 + 128))
    decode(track, units[0])
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 320 * 240 - 1)
    with pytest.raises(DecodeError):
        decode(track, units[0])


def test_a_pixel_format_that_no_camera_uses() -> None:
    with pytest.raises(DecodeError):
        decode_module.DecodedFrame(av.VideoFrame(16, 16, "rgb24"))


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_mutated_keyframes_raise_only_our_error(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(list(Codec)))
    track, units = encode_clip(codec, 1, width=64, height=64)
    nal_units = []
    for nal_unit in units[0].nal_units:
        mutable = bytearray(nal_unit)
        for position in data.draw(st.lists(st.integers(0, len(mutable) - 1), max_size=4)):
            mutable[position] = data.draw(st.integers(0, 255))
        nal_units.append(bytes(mutable))
    try:
        frame = decode(track, changed(units[0], *nal_units))
    except DecodeError:
        return
    assert frame.luma((8, 8)).shape == (8, 8)
