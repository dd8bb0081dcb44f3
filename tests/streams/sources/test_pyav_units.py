"""Packets of a demuxer to access units."""

import contextlib
import io

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_media import HEIGHT, WIDTH, make_clip

from streams.errors import LimitExceededError, ProtocolError
from streams.media import MAX_ACCESS_UNIT_BYTES, MAX_NAL_UNITS, TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.sources.pyav_units import (
    MAX_BACKWARD_TICKS,
    MAX_REORDER_TICKS,
    MAX_STEP_TICKS,
    NOMINAL_STEP_TICKS,
    ContainerTimeLine,
    UnitAssembler,
)

IDR, SLICE, DELIMITER, FILLER = b"\x65\x88", b"\x41\x9a", b"\x09\xf0", b"\x0c\xff"
START = b"\x00\x00\x00\x01"


def read_clip(container, codec):
    with av.open(io.BytesIO(make_clip(container, codec))) as clip:
        stream = clip.streams.video[0]
        packets = [bytes(packet) for packet in clip.demux(stream) if packet.size]
        return stream.codec_context.extradata, packets


def parameter_sets():
    extradata, _ = read_clip("mpegts", "h264")
    return extradata


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("container", ["flv", "mpegts", "mp4"])
def test_both_ways_of_framing_nal_units(container, codec):
    extradata, packets = read_clip(container, codec)
    assembler = UnitAssembler(codec, extradata, ContainerTimeLine())
    track, first = assembler.assemble(packets[0], 0, 0, 7)
    assert isinstance(track, Track)
    assert (track.codec, track.width, track.height) == (codec, WIDTH, HEIGHT)
    assert isinstance(first, AccessUnit)
    assert first.is_random_access
    assert first.received_ns == 7
    (second,) = assembler.assemble(packets[1], 3600, 3600, 8)
    assert not second.is_random_access
    assert all(not nal_unit.startswith(b"\x00\x00") for nal_unit in first.nal_units)


def test_delimiters_filler_and_parameter_sets_are_taken_out():
    assembler = UnitAssembler(Codec.H264, b"", ContainerTimeLine())
    packet = START + DELIMITER + parameter_sets() + START + IDR + START + FILLER
    track, unit = assembler.assemble(packet, 0, 0, 0)
    assert unit.nal_units == (IDR,)
    assert len(track.parameter_sets) == 2
    assert assembler.assemble(START + DELIMITER, 0, 3600, 0) == ()


def test_nothing_before_the_first_random_access_point_or_without_parameter_sets():
    assembler = UnitAssembler(Codec.H264, b"", ContainerTimeLine())
    assert assembler.assemble(START + IDR, 0, 0, 0) == ()
    assembler = UnitAssembler(Codec.H264, parameter_sets(), ContainerTimeLine())
    assert assembler.assemble(START + SLICE, 0, 0, 0) == ()
    assert len(assembler.assemble(START + IDR, 0, 3600, 0)) == 2
    assert len(assembler.assemble(START + SLICE, 0, 7200, 0)) == 1


def test_a_new_picture_size_is_a_new_track():
    assembler = UnitAssembler(Codec.H264, parameter_sets(), ContainerTimeLine())
    assembler.assemble(START + IDR, 0, 0, 0)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(stream.encode())
    with av.open(io.BytesIO(buffer.getvalue())) as clip:
        other = clip.streams.video[0].codec_context.extradata
    track, unit = assembler.assemble(other + START + IDR, 3600, 3600, 0)
    assert (track.width, track.height) == (64, 48)
    assert unit.is_random_access


@given(st.binary(max_size=200), st.binary(max_size=60), st.sampled_from(list(Codec)))
def test_only_our_own_error_escapes(packet, extradata, codec):
    for box in (extradata, b"\x01" + extradata, START + extradata):
        try:
            assembler = UnitAssembler(codec, box, ContainerTimeLine())
            assembler.assemble(packet, 0, 0, 0)
            assembler.assemble(START + packet, 0, 0, 0)
        except ProtocolError:
            continue


@given(st.data())
def test_a_damaged_configuration_is_our_own_error(data):
    codec = data.draw(st.sampled_from(list(Codec)))
    box = bytearray(read_clip("mp4", codec)[0])
    box[data.draw(st.integers(1, len(box) - 1))] ^= data.draw(st.integers(1, 255))
    del box[data.draw(st.integers(1, len(box))) :]
    with contextlib.suppress(ProtocolError):
        UnitAssembler(codec, bytes(box), ContainerTimeLine())


def test_limits_of_an_access_unit():
    extradata, _ = read_clip("mp4", "h264")

    def packet(count):
        return (len(IDR).to_bytes(4, "big") + IDR) * count

    assembler = UnitAssembler(Codec.H264, extradata, ContainerTimeLine())
    _, unit = assembler.assemble(packet(MAX_NAL_UNITS), 0, 0, 0)
    assert len(unit.nal_units) == MAX_NAL_UNITS
    with pytest.raises(LimitExceededError):
        assembler.assemble(packet(MAX_NAL_UNITS + 1), 0, 3600, 0)
    size = MAX_ACCESS_UNIT_BYTES - 4
    assert assembler.assemble(size.to_bytes(4, "big") + IDR.ljust(size), 0, 7200, 0)
    with pytest.raises(LimitExceededError):
        assembler.assemble((size + 1).to_bytes(4, "big") + IDR.ljust(size + 1), 0, 9000, 0)


def test_a_nal_unit_beyond_its_packet():
    assembler = UnitAssembler(Codec.H264, read_clip("mp4", "h264")[0], ContainerTimeLine())
    for packet in (b"\x00\x00\x00\x03\x65\x88", b"\x00\x00"):
        with pytest.raises(ProtocolError):
            assembler.assemble(packet, 0, 0, 0)


def test_the_time_line_keeps_ordinary_steps():
    line = ContainerTimeLine()
    assert line.place(5000, 5000) == (5000, 5000, False)
    assert line.place(15800, 8600) == (15800, 8600, False)
    assert line.place(8600 + MAX_STEP_TICKS, 8600 + MAX_STEP_TICKS)[2] is False


def test_rounding_backwards_is_no_break():
    line = ContainerTimeLine()
    line.place(TIME_BASE_HZ * 5, TIME_BASE_HZ * 5)
    back = TIME_BASE_HZ * 5 - MAX_BACKWARD_TICKS
    assert line.place(back, back) == (TIME_BASE_HZ * 5 + 1, TIME_BASE_HZ * 5 + 1, False)


@pytest.mark.parametrize("jump", [MAX_STEP_TICKS + 1, -MAX_BACKWARD_TICKS - 1, 2**33, -(2**33)])
def test_a_jump_is_bridged_and_marked(jump):
    line = ContainerTimeLine()
    line.place(0, 0)
    assert line.place(jump, jump) == (NOMINAL_STEP_TICKS, NOMINAL_STEP_TICKS, True)
    after = jump + 3600
    assert line.place(after, after) == (NOMINAL_STEP_TICKS + 3600, NOMINAL_STEP_TICKS + 3600, False)


def test_a_restart_is_bridged_silently():
    line = ContainerTimeLine()
    line.place(90_000, 90_000)
    line.restart()
    assert line.place(0, 0) == (90_000 + NOMINAL_STEP_TICKS, 90_000 + NOMINAL_STEP_TICKS, False)


@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62)), min_size=1))
def test_dts_always_grows_and_pts_is_never_far(stamps):
    line = ContainerTimeLine()
    last = None
    for pts, dts in stamps:
        placed_pts, placed_dts, _ = line.place(pts, dts)
        assert last is None or placed_dts > last
        assert 0 <= placed_pts - placed_dts <= MAX_REORDER_TICKS
        last = placed_dts
