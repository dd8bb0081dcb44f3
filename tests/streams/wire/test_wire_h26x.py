import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip

from streams.errors import LimitExceededError, ProtocolError
from streams.media import MAX_NAL_UNITS, MAX_PARAMETER_SET_BYTES, MAX_PARAMETER_SETS, Codec
from streams.wire import h264, h265
from streams.wire.bitstream import BitReader, split_annex_b, unescape
from streams.wire.nal_unit import SYNTAX
from streams.wire.parameter_sets import ParameterSets

SIZES = [(320, 240), (322, 242), (640, 360), (1920, 1080)]


def sps_of(track):
    return next(unit for unit in track.parameter_sets if SYNTAX[track.codec].is_sps(unit))


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_picture_size_after_cropping(codec, width, height):
    track, _ = encode_clip(codec, 1, width=width, height=height)
    sps = SYNTAX[codec].parse_sps(sps_of(track))
    assert (sps.width, sps.height) == (width, height)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv444p"])
def test_cropping_counts_in_chroma_samples(codec, pixel_format):
    track, _ = encode_clip(codec, 1, width=322, height=242, pixel_format=pixel_format)
    sps = SYNTAX[codec].parse_sps(sps_of(track))
    assert (sps.width, sps.height) == (322, 242)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize(("b_frames", "expected"), [(0, {0}), (2, {1, 2})])
def test_reorder_depth(codec, b_frames, expected):
    track, _ = encode_clip(codec, 10, b_frames=b_frames)
    assert SYNTAX[codec].parse_sps(sps_of(track)).reorder_depth in expected


class BitWriter:
    """Builds parameter sets that no encoder at hand produces."""

    def __init__(self):
        self.bits = ""

    def u(self, count, value):
        self.bits += f"{value:0{count}b}"
        return self

    def ue(self, *values):
        for value in values:
            code = f"{value + 1:b}"
            self.bits += "0" * (len(code) - 1) + code
        return self

    def se(self, *values):
        return self.ue(*(2 * value - 1 if value > 0 else -2 * value for value in values))

    def rbsp(self):
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    def nal_unit(self, header):
        escaped = bytearray(header)
        for byte in self.rbsp():
            if escaped.endswith(b"\x00\x00") and byte <= 3:
                escaped.append(3)
            escaped.append(byte)
        return bytes(escaped)


def baseline_sps(order_type=(2,), *, sps_id=0, crop=None):
    writer = BitWriter().u(8, 66).u(8, 0xC0).u(8, 30).ue(sps_id, 0)
    if order_type[0] == 1:
        writer.ue(1).u(1, 0).se(-1, 2).ue(2).se(1, -1)
    else:
        writer.ue(*order_type)
    writer.ue(1).u(1, 0).ue(19, 14).u(1, 1).u(1, 1)
    writer.u(1, crop is not None)
    if crop is not None:
        writer.ue(*crop)
    return writer.u(1, 0).nal_unit(b"\x67")


@pytest.mark.parametrize("order_type", [(0, 4), (1,), (2,)])
def test_picture_order_count_types(order_type):
    sps = h264.parse_sps(baseline_sps(order_type))
    assert (sps.width, sps.height, sps.reorder_depth) == (320, 240, 0)


def test_interlaced_with_scaling_matrix_and_full_vui():
    writer = BitWriter().u(8, 100).u(8, 0).u(8, 40).ue(3, 1, 0, 0).u(1, 0)
    writer.u(1, 1)  # scaling matrix: one list of each size, one that falls back, the rest absent
    writer.u(1, 1).se(*([1] * 16)).u(1, 1).se(-8).u(4, 0).u(1, 1).se(*([0] * 64)).u(1, 0)
    writer.ue(0, 0, 2, 4).u(1, 0).ue(119, 33).u(1, 0).u(1, 1).u(1, 1).u(1, 1).ue(0, 0, 0, 2)
    writer.u(1, 1)  # VUI
    writer.u(1, 1).u(8, 255).u(32, 0x00010001).u(1, 1).u(1, 0).u(1, 1).u(4, 10).u(1, 1).u(24, 0x010101)
    writer.u(1, 1).ue(0, 0).u(1, 1).u(32, 1).u(32, 50).u(1, 1)
    for _ in range(2):
        writer.u(1, 1).ue(1).u(8, 0).ue(5, 5).u(1, 0).ue(6, 6).u(1, 1).u(20, 0)
    writer.u(1, 0).u(1, 1).u(1, 1).u(1, 1).ue(2, 1, 10, 10, 2, 4)
    sps = h264.parse_sps(writer.nal_unit(b"\x67"))
    assert (sps.id, sps.width, sps.height, sps.reorder_depth) == (3, 1920, 1080, 2)


def test_a_truncated_vui_costs_only_the_vui():
    nal_unit = baseline_sps()
    broken = (
        BitWriter().u(8, 77).u(8, 0).u(8, 30).ue(0, 0, 0, 0, 1).u(1, 0).ue(19, 14).u(4, 0b1101).u(3, 0b111)
    )
    assert h264.parse_sps(nal_unit).reorder_depth == 0
    sps = h264.parse_sps(broken.nal_unit(b"\x67"))
    assert (sps.width, sps.height, sps.reorder_depth) == (320, 240, None)


@pytest.mark.parametrize("crop", [(80, 80, 0, 0), (0, 0, 120, 0), (2**32 - 2, 0, 0, 0)])
def test_cropping_everything_away(crop):
    with pytest.raises(ProtocolError):
        h264.parse_sps(baseline_sps(crop=crop))


def test_h265_sub_layers_and_separate_planes():
    writer = BitWriter().u(4, 0).u(3, 2).u(1, 1).u(88, 1).u(8, 93)
    writer.u(2, 0b11).u(2, 0b01).u(12, 0).u(88, 0).u(8, 60).u(8, 63)
    writer.ue(1, 3).u(1, 1).ue(64, 64).u(1, 1).ue(1, 2, 3, 4).ue(0, 0, 4).u(1, 1).ue(
        1, 0, 0, 2, 1, 0, 4, 2, 0
    )
    sps = h265.parse_sps(writer.nal_unit(b"\x42\x01"))
    assert (sps.id, sps.width, sps.height, sps.reorder_depth) == (1, 61, 57, 2)


@given(st.binary(max_size=80), st.sampled_from(Codec))
def test_sps_parsers_let_only_our_error_escape(data, codec):
    track, _ = encode_clip(codec, 1)
    header = sps_of(track)[: SYNTAX[codec].NAL_UNIT_HEADER_BYTES]
    whole = sps_of(track)
    for nal_unit in (header + data, whole[: len(data)], whole[:8] + data + whole[8:]):
        try:
            SYNTAX[codec].parse_sps(nal_unit or header)
        except ProtocolError:
            continue


@given(st.lists(st.integers(0, 2**32 - 2), max_size=10))
def test_exp_golomb(values):
    reader = BitReader(BitWriter().ue(*values).rbsp())
    assert [reader.ue() for _ in values] == values


@given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=10))
def test_signed_exp_golomb(values):
    reader = BitReader(BitWriter().se(*values).rbsp())
    assert [reader.se() for _ in values] == values


def test_exp_golomb_limits():
    assert BitReader(BitWriter().ue(5).rbsp()).ue(5) == 5
    with pytest.raises(ProtocolError):
        BitReader(BitWriter().ue(6).rbsp()).ue(5)
    with pytest.raises(ProtocolError):
        BitReader(bytes(5)).ue()
    with pytest.raises(ProtocolError):
        BitReader(bytes(4) + b"\x40" + bytes(5)).ue()


NAL_UNITS = st.lists(
    st.binary(min_size=1, max_size=30).map(lambda data: data.replace(b"\x00", b"\x01") + b"\x80"),
    min_size=1,
    max_size=5,
)


@given(NAL_UNITS, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_annex_b(nal_units, zeros):
    stream = b"".join(
        bytes(count) + b"\x00\x00\x01" + unit for unit, count in zip(nal_units, zeros, strict=False)
    )
    assert split_annex_b(stream) == nal_units
    assert split_annex_b(stream + bytes(2)) == nal_units


@given(st.binary())
def test_annex_b_lets_only_our_error_escape(data):
    for stream in (data, b"\x00\x00\x01" + data):
        try:
            assert all(split_annex_b(stream))
        except ProtocolError:
            continue


def test_annex_b_limits():
    one = b"\x00\x00\x01\x09"
    assert len(split_annex_b(one * MAX_NAL_UNITS)) == MAX_NAL_UNITS
    with pytest.raises(LimitExceededError):
        split_annex_b(one * (MAX_NAL_UNITS + 1))
    with pytest.raises(ProtocolError):
        split_annex_b(b"\x01" + one)


def test_unescape():
    assert unescape(b"\x00\x00\x03\x00\x00\x03\x01\x00\x00\x03") == b"\x00\x00\x00\x00\x01\x00\x00"


@pytest.mark.parametrize("codec", Codec)
def test_parameter_sets_are_complete_with_every_kind(codec):
    track, _ = encode_clip(codec, 1)
    sets = ParameterSets(codec)
    for nal_unit in reversed(track.parameter_sets):
        assert sets.track is None
        sets.add(nal_unit)
    assert sets.track == track
    first = sets.track
    sets.add(track.parameter_sets[0])
    assert sets.track is first


def test_a_parameter_set_replaces_its_namesake():
    small, _ = encode_clip(Codec.H264, 1)
    large, _ = encode_clip(Codec.H264, 1, width=640, height=360)
    sets = ParameterSets(Codec.H264)
    for nal_unit in (*small.parameter_sets, *large.parameter_sets):
        sets.add(nal_unit)
    assert sets.track == large


def test_parameter_set_limits():
    sets = ParameterSets(Codec.H264)
    pps = b"\x68\x80"
    sets.add(pps + bytes(MAX_PARAMETER_SET_BYTES - 2))
    with pytest.raises(LimitExceededError):
        sets.add(pps + bytes(MAX_PARAMETER_SET_BYTES - 1))
    for number in range(1, MAX_PARAMETER_SETS):
        sets.add(BitWriter().ue(number).nal_unit(b"\x68"))
    sets.add(BitWriter().ue(5, 5).nal_unit(b"\x68"))
    with pytest.raises(LimitExceededError):
        sets.add(BitWriter().ue(MAX_PARAMETER_SETS).nal_unit(b"\x68"))


@pytest.mark.parametrize("codec", Codec)
def test_the_syntax_agrees_with_the_encoder_about_pictures(codec):
    _, units = encode_clip(codec, 30, gop=10, slices=2 if codec is Codec.H264 else 1)
    syntax = SYNTAX[codec]
    for unit in units:
        slices = [nal for nal in unit.nal_units if syntax.nal_unit_type(nal) in syntax.SLICES]
        kinds = {syntax.nal_unit_type(nal) in syntax.RANDOM_ACCESS for nal in slices}
        assert kinds == {unit.is_random_access}
        assert [syntax.starts_picture(nal) for nal in slices] == [True] + [False] * (len(slices) - 1)
