"""The clip, the stamps, the cameras' shared bytes, the cases, what the kernel says of a process."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench_flv import small_clip

from gateway.bench.cameras import SharedUnits
from gateway.bench.clip import GOP, encode_clip, read_clip, write_clip
from gateway.bench.errors import BenchError
from gateway.bench.processes import children, usage
from gateway.bench.relay import CASES, chosen_cases
from gateway.bench.stamp import read_stamps, serialize_stamp, stamp_nal_unit
from streams.media import Codec
from streams.wire.rtp import parse_rtp
from streams.wire.rtsp import InterleavedPacket, RtspParser

STAMPED = stamp_nal_unit()


@pytest.fixture(scope="module")
def clip():
    return small_clip()


def test_the_coded_clip_has_its_bit_rate_and_its_gops():
    clip = encode_clip(300_000)
    assert clip.bit_rate_bps == pytest.approx(300_000, rel=0.15)
    assert [index for index, unit in enumerate(clip.units) if unit.is_random_access] == [0, GOP]
    assert (clip.track.codec, clip.track.width, clip.track.height) == (Codec.H264, 1280, 720)


def test_a_clip_survives_its_file(clip, tmp_path):
    write_clip(clip, tmp_path / "clip")
    assert read_clip(tmp_path / "clip") == clip


@pytest.mark.parametrize(("merge_seconds", "writes"), [(0, 100), (0.1, 40), (0.2, 20), (0.35, 11)])
def test_merged_writes_hold_the_same_bytes(clip, merge_seconds, writes):
    merged = clip.flv_writes(merge_seconds)
    assert len(merged) == writes
    assert b"".join(merged) == b"".join(clip.flv_units())


@given(st.binary(max_size=50), st.lists(st.integers(0, 2**63), max_size=3), st.integers(0, 400))
def test_stamps_are_read_if_they_are_whole(noise, moments, size):
    stamps = [STAMPED.replace(b"0" * 16, serialize_stamp(moment)) for moment in moments]
    data = noise.join([b"", *stamps, b""])
    found = read_stamps(data.ljust(400, b"\xff"), size)
    assert found == moments[: len(found)]
    assert size < len(data) or found == moments


@pytest.mark.parametrize("every", [True, False])
def test_cameras_share_one_endless_stream(clip, every):
    units = SharedUnits(clip, stamps_every_unit=every)
    packets, stamps = [], []
    for number in range(3 * GOP):
        data = bytes(units.stamped(0, number))
        stamps += read_stamps(data, len(data))
        events = list(RtspParser().receive_data(data))
        assert all(isinstance(event, InterleavedPacket) for event in events)
        packets += [(GOP - 1 + number, parse_rtp(event.payload)) for event in events]
        units.advance()
    sequence_numbers = [packet.sequence_number for _, packet in packets]
    first = sequence_numbers[0]
    assert sequence_numbers == [(first + n) & 0xFFFF for n in range(len(packets))]
    assert all(packet.timestamp == number * 3600 for number, packet in packets)
    assert stamps == (list(range(3 * GOP)) if every else [1, GOP + 1, 2 * GOP + 1])


def test_a_camera_may_be_behind_the_newest_unit(clip):
    units = SharedUnits(clip, stamps_every_unit=False)
    newest = bytes(units.stamped(0, 0))
    units.advance()
    assert bytes(units.stamped(1, 0)) == newest


def test_cases_are_chosen_by_name_and_named_for_their_size():
    assert chosen_cases((), None, None) == tuple(CASES.values())
    assert [c.name for c in chosen_cases(["one-1000", "300x10"], None, 50)] == ["one-50", "5x10"]
    (distinct,) = chosen_cases(["distinct"], 7, None)
    assert (distinct.name, distinct.cameras, distinct.viewers) == ("distinct", 7, 7)
    (shared,) = chosen_cases(["300x10"], 30, None)
    assert (shared.name, shared.viewers) == ("30x10", 300)
    with pytest.raises(BenchError, match="no such case: two"):
        chosen_cases(["two"], None, None)


def test_the_kernel_counts_this_process():
    before = usage(os.getpid())
    assert before.rss_kb > 1000
    while usage(os.getpid()).cpu_seconds == before.cpu_seconds:
        sum(range(10_000))
    assert children("gateway.no_such_module") == []
    with pytest.raises(OSError, match="No such"):
        usage(2**22 + 1)
