import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip

from streams.errors import LimitExceededError, ProtocolError, UnsupportedError
from streams.media import MAX_ACCESS_UNIT_BYTES, MAX_NAL_UNITS, AccessUnit, Codec, Track
from streams.wire.depacketizer import (
    MAX_AGGREGATED_PER_SECOND,
    MAX_PARSED_SETS_PER_SECOND,
    H264Depacketizer,
    H265Depacketizer,
    open_depacketizer,
)
from streams.wire.packetizer import Packetizer, RtpSender, describe_track
from streams.wire.rtp import RtpPacket, parse_rtp
from streams.wire.sdp import MediaDescription, RtpMap

DEPACKETIZERS = {Codec.H264: H264Depacketizer, Codec.H265: H265Depacketizer}
SENDER = RtpSender(payload_type=96, ssrc=7, first_sequence_number=65530, timestamp_offset=2**32 - 5000)


def packets_of(track, units, *, in_band=True, max_payload_bytes=1400):
    """Each access unit's packets."""
    packetizer = Packetizer(track.codec, SENDER, max_payload_bytes)
    return [
        [
            parse_rtp(data)
            for data in packetizer.packetize(
                unit, track.parameter_sets if in_band and unit.is_random_access else ()
            )
        ]
        for unit in units
    ]


def receive(depacketizer, packets):
    return [event for packet in packets for event in depacketizer.receive(packet, 5)]


def flatten(groups):
    return [packet for group in groups for packet in group]


def contents(events):
    return [event.nal_units for event in events if isinstance(event, AccessUnit)]


def replace(packet, **fields):
    return msgspec.structs.replace(packet, **fields)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("max_payload_bytes", [5, 100, 1400, 60000])
def test_depacketize_inverts_packetize(codec, max_payload_bytes):
    track, units = encode_clip(codec, 10, gop=5, slices=4)
    packets = flatten(packets_of(track, units, max_payload_bytes=max_payload_bytes))
    assert max(len(packet.payload) for packet in packets) <= max_payload_bytes
    depacketizer = DEPACKETIZERS[codec]()
    first, *rest = receive(depacketizer, packets)
    assert first == track
    assert contents(rest) == [unit.nal_units for unit in units]
    assert [unit.is_random_access for unit in rest] == [unit.is_random_access for unit in units]
    assert [unit.pts - rest[0].pts for unit in rest] == [unit.pts - units[0].pts for unit in units]
    assert all(unit.dts == unit.pts and unit.received_ns == 5 for unit in rest)
    assert (
        depacketizer.lost_packets == depacketizer.malformed_payloads == depacketizer.dropped_access_units == 0
    )


@pytest.mark.parametrize("codec", Codec)
def test_the_description_primes_the_depacketizer(codec):
    track, units = encode_clip(codec, 2)
    payload_type, depacketizer = open_depacketizer(describe_track(track, 97, "trackID=0"))
    assert payload_type == 97
    assert receive(depacketizer, flatten(packets_of(track, units, in_band=False)))[0] == track


def test_without_parameter_sets_nothing_comes():
    track, units = encode_clip(Codec.H264, 3)
    depacketizer = H264Depacketizer()
    assert receive(depacketizer, flatten(packets_of(track, units, in_band=False))) == []
    assert depacketizer.dropped_access_units == 3


def test_new_parameter_sets_are_announced_before_their_access_unit():
    small, small_units = encode_clip(Codec.H264, 2)
    large, large_units = encode_clip(Codec.H264, 2, width=640, height=360)
    packetizer = Packetizer(Codec.H264, SENDER)
    packets = [
        parse_rtp(data)
        for track, unit in ((small, small_units[0]), (small, small_units[1]), (large, large_units[0]))
        for data in packetizer.packetize(unit, track.parameter_sets if unit.is_random_access else ())
    ]
    events = receive(H264Depacketizer(), packets)
    assert [type(event) for event in events] == [Track, AccessUnit, AccessUnit, Track, AccessUnit]
    assert (events[0], events[3]) == (small, large)
    assert events[4].discontinuity


def test_cameras_that_do_not_set_the_marker():
    track, units = encode_clip(Codec.H264, 5)
    packets = [replace(packet, marker=False) for packet in flatten(packets_of(track, units))]
    events = receive(H264Depacketizer(), packets)
    assert contents(events) == [unit.nal_units for unit in units[:-1]]


def test_a_new_source_begins_at_its_next_keyframe_with_a_discontinuity():
    track, units = encode_clip(Codec.H264, 10, gop=5)
    groups = packets_of(track, units)
    renewed = [
        replace(packet, ssrc=8, sequence_number=500 + index)
        for index, packet in enumerate(flatten(groups[3:]))
    ]
    depacketizer = H264Depacketizer()
    events = receive(depacketizer, flatten(groups[:3]) + renewed)
    assert contents(events) == [unit.nal_units for unit in (*units[:3], *units[5:])]
    discontinuities = [event.discontinuity for event in events if isinstance(event, AccessUnit)]
    assert discontinuities == [False] * 3 + [True] + [False] * 4
    assert depacketizer.lost_packets == 0


def test_delimiters_filler_and_empty_packets_are_left_out():
    track, (unit, *_) = encode_clip(Codec.H264, 1)
    padded = msgspec.structs.replace(unit, nal_units=(b"\x09\xf0", *unit.nal_units, b"\x0c\xff\x80"))
    (packets,) = packets_of(track, [padded])
    keepalive = replace(packets[0], payload=b"", sequence_number=65529, timestamp=1, marker=True)
    assert contents(receive(H264Depacketizer(), [keepalive, *packets])) == [unit.nal_units]


def empty(number, ssrc=7):
    """A packet of another payload type, as the depacketizer gets it."""
    return RtpPacket(97, False, number & 0xFFFF, 12345, ssrc, b"")


@pytest.mark.parametrize("codec", Codec)
@given(data=st.data())
def test_other_payload_types_in_the_same_sequence_are_no_loss(codec, data):
    track, units = encode_clip(codec, 5, gop=5, slices=2)
    packets, number = [], SENDER.first_sequence_number
    for packet in flatten(packets_of(track, units, max_payload_bytes=300)):
        for _ in range(data.draw(st.integers(0, 2)) if packets else 0):
            packets.append(empty(number))
            number += 1
        packets.append(replace(packet, sequence_number=number & 0xFFFF))
        number += 1
    depacketizer = DEPACKETIZERS[codec]()
    assert contents(receive(depacketizer, packets)) == [unit.nal_units for unit in units]
    assert depacketizer.lost_packets == 0


@pytest.mark.parametrize(("first", "ssrc"), [(0, 7), (SENDER.first_sequence_number + 1, 8)])
def test_other_payload_types_with_a_sequence_of_their_own_change_nothing(first, ssrc):
    track, units = encode_clip(Codec.H264, 5, gop=5)
    packets = flatten(packets_of(track, units))
    mixed = [each for index, packet in enumerate(packets) for each in (packet, empty(first + index, ssrc))]
    depacketizer = H264Depacketizer()
    assert contents(receive(depacketizer, mixed)) == [unit.nal_units for unit in units]
    assert depacketizer.lost_packets == 0


@pytest.mark.parametrize("codec", Codec)
@given(data=st.data())
def test_after_a_loss_nothing_comes_until_a_complete_random_access_point(codec, data):
    track, units = encode_clip(codec, 20, gop=5, slices=2)
    groups = packets_of(track, units, max_payload_bytes=300)
    packets = flatten(groups)
    lost = data.draw(st.integers(0, len(packets) - 2))
    owner = next(index for index, group in enumerate(groups) if packets[lost] in group)
    depacketizer = DEPACKETIZERS[codec](track.parameter_sets)
    received = contents(receive(depacketizer, packets[:lost] + packets[lost + 1 :]))
    expected = [unit.nal_units for unit in units]
    # The lost packet may have carried only parameter sets that are known already: then nothing is missing.
    following = [index for index in range(owner, 20) if units[index].is_random_access and index > owner]
    resumed = following[0] if following else 20
    before, after = expected[:owner], expected[resumed:]
    if units[owner].is_random_access and received == before + expected[owner:]:
        assert lost == packets.index(groups[owner][0])
    else:
        assert received == before + after
    assert depacketizer.lost_packets == (1 if lost else 0)


def test_a_stream_that_starts_within_a_picture_waits_for_the_next_keyframe():
    track, units = encode_clip(Codec.H264, 10, gop=5, slices=2)
    groups = packets_of(track, units, max_payload_bytes=300)
    depacketizer = H264Depacketizer(track.parameter_sets)
    starts = [index for index, packet in enumerate(groups[0]) if packet.payload[:2] == b"\x7c\x85"]
    second_slice = starts[1]
    received = contents(receive(depacketizer, groups[0][second_slice:] + flatten(groups[1:])))
    assert received == [unit.nal_units for unit in units[5:]]


def rtp(payload, number, *, marker=True, timestamp=0):
    return RtpPacket(96, marker, number, timestamp, 7, payload)


@pytest.mark.parametrize(
    "payloads",
    [
        [b"\x7c\x05" + b"middle"],  # FU-A without a start
        [b"\x7c\x85" + b"start", b"\x7c\x85" + b"start again"],
        [b"\x7c\x85" + b"start", b"\x41 single in between"],
        [b"\x7c\x85" + b"start, and no end"],
        [b"\x7c\x85"],  # FU-A without data
        [b"\x78\x00\x05ab"],  # STAP-A beyond the end
        [b"\x78\x00"],
        [b"\x78\x00\x00"],
        [b"\x7d\x85ab"],  # FU-B, STAP-B, MTAP, undefined
        [b"\x79ab"],
        [b"\x7aab"],
        [b"\x60ab"],
    ],
)
def test_malformed_h264_payloads_cost_their_access_unit(payloads):
    track, (unit, *_) = encode_clip(Codec.H264, 1)
    depacketizer = H264Depacketizer(track.parameter_sets)
    bad = [
        rtp(payload, 65520 + index, marker=index == len(payloads) - 1)
        for index, payload in enumerate(payloads)
    ]
    assert receive(depacketizer, bad) == []
    assert depacketizer.malformed_payloads == 1
    assert depacketizer.dropped_access_units == 1
    good = flatten(packets_of(track, [unit]))
    shifted = [replace(packet, sequence_number=65520 + len(bad) + index) for index, packet in enumerate(good)]
    assert contents(receive(depacketizer, shifted)) == [unit.nal_units]


@pytest.mark.parametrize(
    "payload", [b"\x62\x01\x93", b"\x62\x01\x13ab", b"\x60\x01\x00\x01a", b"\x64\x01ab", b"\x26"]
)
def test_malformed_h265_payloads_cost_their_access_unit(payload):
    depacketizer = H265Depacketizer()
    assert receive(depacketizer, [rtp(payload, 1)]) == []
    assert depacketizer.malformed_payloads == 1


def test_unreadable_parameter_sets_cost_no_picture():
    track, (unit, *_) = encode_clip(Codec.H264, 1)
    broken = msgspec.structs.replace(unit, nal_units=(b"\x67\x42", *unit.nal_units))
    depacketizer = H264Depacketizer()
    assert contents(receive(depacketizer, flatten(packets_of(track, [broken])))) == [unit.nal_units]
    assert depacketizer.malformed_payloads == 0


def endless(payload, count):
    depacketizer = H264Depacketizer()
    for number in range(count):
        depacketizer.receive(rtp(payload, number & 0xFFFF, marker=False), 0)
    return depacketizer


@pytest.mark.parametrize(
    ("payload", "at_limit"),
    [
        (b"\x41" + bytes(65535), MAX_ACCESS_UNIT_BYTES // 65536),
        (b"\x41" * 2, MAX_NAL_UNITS),
        (b"\x09\xf0", MAX_NAL_UNITS),
    ],
)
def test_limits(payload, at_limit):
    depacketizer = endless(payload, at_limit)
    with pytest.raises(LimitExceededError):
        depacketizer.receive(rtp(payload, at_limit & 0xFFFF, marker=False), 0)


def aggregated(*nal_units, header=b"\x18"):
    return header + b"".join(len(nal_unit).to_bytes(2) + nal_unit for nal_unit in nal_units)


@pytest.mark.parametrize(("codec", "header"), [(Codec.H264, b"\x18"), (Codec.H265, b"\x60\x01")])
@pytest.mark.parametrize("padding", [b"\x00", b"\x00\x00", bytes(7)])
def test_zeros_behind_aggregated_nal_units_are_padding(codec, header, padding):
    track, (unit, *_) = encode_clip(codec, 1)
    payload = aggregated(*track.parameter_sets, *unit.nal_units, header=header)
    depacketizer = DEPACKETIZERS[codec]()
    assert contents(receive(depacketizer, [rtp(payload + padding, 0)])) == [unit.nal_units]
    assert depacketizer.malformed_payloads == 0


@pytest.mark.parametrize("rest", [b"\x01", b"\x00\x00\x00\x01", b"\x00\x00\x00\x01\x41"])
def test_other_bytes_behind_aggregated_nal_units_are_damage(rest):
    track, (unit, *_) = encode_clip(Codec.H264, 1)
    depacketizer = H264Depacketizer(track.parameter_sets)
    assert receive(depacketizer, [rtp(aggregated(*unit.nal_units) + rest, 0)]) == []
    assert depacketizer.malformed_payloads == 1


@pytest.mark.parametrize("start_code", [b"\x00\x00\x01", b"\x00\x00\x00\x01"])
@pytest.mark.parametrize("max_payload_bytes", [100, 1400, 60000])
def test_start_codes_in_packets_are_taken_out(start_code, max_payload_bytes):
    track, units = encode_clip(Codec.H264, 10, gop=5, slices=4)
    coded = [
        replace(unit, nal_units=tuple(start_code + nal_unit for nal_unit in unit.nal_units)) for unit in units
    ]
    together = b"".join(start_code + nal_unit for nal_unit in track.parameter_sets)
    in_band = replace(track, parameter_sets=(together,))
    depacketizer = H264Depacketizer()
    first, *rest = receive(
        depacketizer, flatten(packets_of(in_band, coded, max_payload_bytes=max_payload_bytes))
    )
    assert first == track
    assert contents(rest) == [unit.nal_units for unit in units]
    assert depacketizer.malformed_payloads == 0


@pytest.mark.parametrize("codec", Codec)
@given(st.lists(st.sampled_from([b"\x00", b"\x00\x00\x01", b"\x41\x9a", b"\x67", b"\x00\x03"])))
def test_whatever_follows_a_start_code_only_our_error_escapes(codec, pieces):
    track, _ = encode_clip(codec, 1)
    depacketizer = DEPACKETIZERS[codec](track.parameter_sets)
    with contextlib.suppress(ProtocolError):
        depacketizer.receive(rtp(b"\x00\x00\x01" + b"".join(pieces), 0), 0)


def test_parameter_sets_count_as_nal_units_of_their_access_unit():
    track, _ = encode_clip(Codec.H264, 1)
    depacketizer = H264Depacketizer(track.parameter_sets)
    known = [track.parameter_sets[1]] * (MAX_NAL_UNITS - 1)
    depacketizer.receive(rtp(aggregated(*known), 0, marker=False), 0)
    depacketizer.receive(rtp(b"\x41\x9a", 1, marker=False), 0)
    with pytest.raises(LimitExceededError):
        depacketizer.receive(rtp(track.parameter_sets[1], 2, marker=False), 0)


SECOND_NS = 1_000_000_000


@pytest.mark.parametrize("parameter_set", [b"\x67", b"\x68", b"\x67\x42\x00"])
def test_unreadable_parameter_sets_are_bounded_within_a_second(parameter_set):
    depacketizer = H264Depacketizer()
    payload = aggregated(*[parameter_set] * (MAX_PARSED_SETS_PER_SECOND // 2))
    for number, received_ns in enumerate((0, SECOND_NS - 1, SECOND_NS, SECOND_NS)):
        depacketizer.receive(rtp(payload, number), received_ns)
    with pytest.raises(LimitExceededError):
        depacketizer.receive(rtp(parameter_set, 4), SECOND_NS)


def test_parameter_sets_that_change_are_bounded_within_a_second():
    track, _ = encode_clip(Codec.H264, 1)
    depacketizer = H264Depacketizer(track.parameter_sets)
    for number in range(MAX_PARSED_SETS_PER_SECOND - len(track.parameter_sets)):
        depacketizer.receive(rtp(b"\x68\x80" + bytes((number, 1)), number), 0)
    with pytest.raises(LimitExceededError):
        depacketizer.receive(rtp(b"\x68\x80", MAX_PARSED_SETS_PER_SECOND), 0)


def test_unchanged_parameter_sets_are_not_parsed_again():
    track, _ = encode_clip(Codec.H264, 1)
    depacketizer = H264Depacketizer()
    for number in range(MAX_PARSED_SETS_PER_SECOND + 1):
        depacketizer.receive(rtp(aggregated(*track.parameter_sets), number), 0)
    assert depacketizer.malformed_payloads == 0


@pytest.mark.parametrize("one", [aggregated(b"\x09"), b"\x00\x00\x01\x09"])
def test_aggregated_nal_units_are_bounded_within_a_second(one):
    depacketizer = H264Depacketizer()
    packets = MAX_AGGREGATED_PER_SECOND // MAX_NAL_UNITS
    for number in range(packets):
        depacketizer.receive(rtp(aggregated(*[b"\x09"] * MAX_NAL_UNITS), number), 0)
    with pytest.raises(LimitExceededError):
        depacketizer.receive(rtp(one, packets), SECOND_NS - 1)


PAYLOADS = st.binary(max_size=20) | st.sampled_from(
    [b"\x7c\x85abc", b"\x7c\x05abc", b"\x7c\x45abc", b"\x65\x88\x84", b"\x41\x9a", b"\x78\x00\x02\x41\x9a"]
)


@given(
    st.sampled_from(Codec),
    st.lists(st.tuples(PAYLOADS, st.booleans(), st.integers(0, 3), st.integers(0, 2)), max_size=30),
)
def test_only_our_error_escapes(codec, packets):
    track, _ = encode_clip(codec, 1)
    depacketizer = DEPACKETIZERS[codec](track.parameter_sets)
    for payload, marker, number, timestamp in packets:
        packet = rtp(payload, number, marker=marker, timestamp=timestamp)
        try:
            events = depacketizer.receive(packet, 0)
        except ProtocolError:
            return
        assert all(event.nal_units for event in events if isinstance(event, AccessUnit))


def described(encoding="H264", clock_rate=90000, **fmtp):
    parameters = {key.replace("_", "-"): value for key, value in fmtp.items()}
    return MediaDescription(
        kind="video",
        formats=(96,),
        rtpmap={96: RtpMap(encoding=encoding, clock_rate=clock_rate)},
        fmtp={96: parameters},
    )


@pytest.mark.parametrize(
    "media",
    [
        described("JPEG"),
        described(clock_rate=8000),
        described(packetization_mode="2"),
        described("H265", sprop_max_don_diff="1"),
        MediaDescription(kind="video", formats=(96,)),
        MediaDescription(kind="video"),
    ],
)
def test_what_we_do_not_support(media):
    with pytest.raises(UnsupportedError):
        open_depacketizer(media)


def test_garbage_in_the_description_is_harmless():
    _, depacketizer = open_depacketizer(described(sprop_parameter_sets="!!,Z0,aaaa"))
    assert depacketizer.lost_packets == 0
