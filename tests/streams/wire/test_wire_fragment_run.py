"""The fast path and the general path give the same access units, whatever comes."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip

from streams.errors import LimitExceededError, ProtocolError
from streams.media import MAX_ACCESS_UNIT_BYTES, AccessUnit, Codec
from streams.wire import rtsp
from streams.wire.depacketizer import H264Depacketizer, H265Depacketizer
from streams.wire.fragment_run import FragmentRun, FragmentScanner
from streams.wire.packetizer import Packetizer, RtpSender
from streams.wire.rtp import RtpPacket, parse_rtp, serialize_rtp
from streams.wire.rtsp import InterleavedPacket, RtspParser, serialize_interleaved

DEPACKETIZERS = {Codec.H264: H264Depacketizer, Codec.H265: H265Depacketizer}
CHANNEL, PAYLOAD_TYPE = 2, 96


@pytest.fixture(autouse=True, scope="module")
def small_streams_are_scanned_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtsp, "MIN_SCAN_BYTES", 0)
        yield


FRAGMENTS = {Codec.H264: (b"\x7c", 5), Codec.H265: (b"\x62\x01", 19)}


def events_of(parser, chunk):
    """As `RtspConnection` takes them."""
    position = 0
    while (run := parser.run_at(chunk, position)) is not None:
        yield run
        position = run.stop
    if position < len(chunk):
        yield from parser.receive_data(chunk, position)


def receive(codec, chunks, *, fast, track):
    """What comes out of an RTSP connection with these bytes, and how it ended."""
    parser, depacketizer = RtspParser(), DEPACKETIZERS[codec](track.parameter_sets)
    if fast:
        parser.scanner = FragmentScanner(codec, CHANNEL, PAYLOAD_TYPE)
    results = []
    try:
        for received_ns, chunk in enumerate(chunks):
            for event in events_of(parser, chunk):
                if isinstance(event, FragmentRun):
                    unit = depacketizer.receive_picture(event, received_ns)
                    results += depacketizer.receive_run(event, received_ns) if unit is None else (unit,)
                elif event.channel == CHANNEL:
                    packet = parse_rtp(event.payload)
                    if packet.payload_type == PAYLOAD_TYPE:
                        results += depacketizer.receive(packet, received_ns)
    except ProtocolError as error:
        results.append(type(error))
    counters = (
        depacketizer.lost_packets,
        depacketizer.malformed_payloads,
        depacketizer.dropped_access_units,
    )
    return results, counters


def clip(codec, *, first_sequence_number=65500, slices=2):
    track, units = encode_clip(codec, 12, gop=6, slices=slices)
    sender = RtpSender(
        payload_type=PAYLOAD_TYPE, ssrc=7, first_sequence_number=first_sequence_number, timestamp_offset=1
    )
    packetizer = Packetizer(codec, sender, 60)
    packets = [packet for unit in units for packet in packetizer.packetize(unit, track.parameter_sets)]
    return track, [serialize_interleaved(CHANNEL, packet) for packet in packets]


def cut(data, places):
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


@pytest.mark.parametrize("codec", Codec)
@given(data=st.data())
def test_a_damaged_clip_is_received_alike(codec, data):
    track, packets = clip(codec)
    packets = list(packets)
    for _ in range(data.draw(st.integers(0, 4))):
        index = data.draw(st.integers(0, len(packets) - 1))
        match data.draw(st.integers(0, 4)):
            case 0:
                del packets[index]
            case 1:
                packets.insert(index, packets[data.draw(st.integers(0, len(packets) - 1))])
            case 2:  # another byte in the headers, which may change anything
                place, value = data.draw(st.integers(5, 19)), data.draw(st.integers(0, 255))
                changed = bytearray(packets[index].ljust(20, b"\0"))
                changed[place] = value
                packets[index] = serialize_interleaved(CHANNEL, bytes(changed[4:]))
            case 3:
                packets.insert(index, serialize_interleaved(CHANNEL + 1, b"\x80\xc8\x00\x00"))
            case _:
                packets.insert(index, packets.pop(data.draw(st.integers(0, len(packets) - 1))))
    stream = b"".join(packets)
    chunks = cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    assert receive(codec, chunks, fast=True, track=track) == receive(codec, chunks, fast=False, track=track)


@pytest.mark.parametrize("codec", Codec)
@given(
    packets=st.lists(
        st.tuples(
            st.sampled_from([0x80, 0x40, 0x00, 0x00, 0xC0, 0x20]),
            st.sampled_from([0, 1, 1, 1, 1, 2, 9000]),
            st.sampled_from([0, 0, 0, 3600]),
            st.sampled_from([7, 7, 7, 7, 8]),
            st.booleans(),
            st.binary(max_size=3),
        ),
        max_size=24,
    ),
    places=st.lists(st.integers(0, 2000), max_size=4),
)
def test_any_fragments_are_received_alike(codec, packets, places):
    track, _ = encode_clip(codec, 1)
    indicator, kind = FRAGMENTS[codec]
    sequence = timestamp = 0
    stream = b""
    for flags, step, ticks, ssrc, marker, body in packets:
        sequence, timestamp = (sequence + step) & 0xFFFF, timestamp + ticks
        payload = indicator + bytes((flags | kind,)) + body
        packet = RtpPacket(PAYLOAD_TYPE, marker, sequence, timestamp, ssrc, payload)
        stream += serialize_interleaved(CHANNEL, serialize_rtp(packet))
    chunks = cut(stream, places)
    assert receive(codec, chunks, fast=True, track=track) == receive(codec, chunks, fast=False, track=track)


@pytest.mark.parametrize("codec", Codec)
def test_byte_by_byte_gives_the_same_access_units(codec):
    track, packets = clip(codec)
    stream = b"".join(packets)
    whole, _ = receive(codec, [stream], fast=True, track=track)
    single, _ = receive(codec, [bytes((byte,)) for byte in stream], fast=True, track=track)

    def without_time(events):
        return [
            msgspec.structs.replace(event, received_ns=0) if isinstance(event, AccessUnit) else event
            for event in events
        ]

    assert len(whole) == 13
    assert without_time(whole) == without_time(single)


@pytest.mark.parametrize("codec", Codec)
def test_a_fragmented_nal_unit_is_one_run(codec):
    _, packets = clip(codec, first_sequence_number=0, slices=1)
    parser = RtspParser()
    parser.scanner = FragmentScanner(codec, CHANNEL, PAYLOAD_TYPE)
    events = list(parser.receive_data(b"".join(packets)))
    runs = [event for event in events if isinstance(event, FragmentRun)]
    mask = 0x1F if codec is Codec.H264 else 0x7E
    indicator, _ = FRAGMENTS[codec]
    payloads = [packet[16:] for packet in packets]
    starts = [p for p in payloads if p[0] & mask == indicator[0] & mask and p[len(indicator)] & 0x80]
    assert len(runs) == len(starts) > 1
    assert all(run.is_end for run in runs)
    others = sum(isinstance(event, InterleavedPacket) for event in events)
    assert sum(len(run.parts) for run in runs) + others == len(packets)


@pytest.mark.parametrize("codec", Codec)
def test_the_usual_picture_goes_the_short_way(codec):
    track, units = encode_clip(codec, 12, gop=6)
    sender = RtpSender(payload_type=PAYLOAD_TYPE, ssrc=7, first_sequence_number=0, timestamp_offset=1)
    packetizer, parser = Packetizer(codec, sender, 60), RtspParser()
    parser.scanner = FragmentScanner(codec, CHANNEL, PAYLOAD_TYPE)
    depacketizer = DEPACKETIZERS[codec](track.parameter_sets)
    received = []
    for unit in units:
        slice_nal_unit = unit.nal_units[-1].ljust(200, b"\x55")
        picture = msgspec.structs.replace(unit, nal_units=(slice_nal_unit,))
        packets = b"".join(serialize_interleaved(CHANNEL, p) for p in packetizer.packetize(picture, ()))
        run = parser.run_at(packets, 0)
        assert run is not None
        assert run.stop == len(packets)
        short = depacketizer.receive_picture(run, 0)
        assert (short is None) == (not received)
        received += depacketizer.receive_run(run, 0) if short is None else (short,)
        assert received[-1].nal_units == picture.nal_units


@pytest.mark.parametrize("codec", Codec)
def test_a_run_ends_where_the_sequence_numbers_wrap(codec):
    """What comes there with the next payload type, to which the carry would lead, is not the track's."""
    indicator, kind = FRAGMENTS[codec]

    def packet(payload_type, sequence_number, flags):
        payload = indicator + bytes((flags | kind,)) + b"part"
        rtp = RtpPacket(payload_type, False, sequence_number, 1, 7, payload)
        return serialize_interleaved(CHANNEL, serialize_rtp(rtp))

    before = [packet(PAYLOAD_TYPE, 0xFFFD + i, 0 if i else 0x80) for i in range(3)]
    for payload_type in (PAYLOAD_TYPE, PAYLOAD_TYPE + 1):
        after = [packet(payload_type, i, 0) for i in range(2)]
        run = FragmentScanner(codec, CHANNEL, PAYLOAD_TYPE).scan(b"".join(before + after), 0)
        assert run is not None
        assert len(run.parts) == 3


@pytest.mark.parametrize("codec", Codec)
def test_fragments_of_any_length_are_one_run(codec):
    indicator, kind = FRAGMENTS[codec]
    parts = [bytes((i,)) * size for i, size in enumerate((9, 9, 5, 5, 9, 1, 1, 1, 20, 3))]
    stream = b""
    for i, part in enumerate(parts):
        flags = 0x80 if i == 0 else 0x40 if i == 9 else 0
        packet = RtpPacket(PAYLOAD_TYPE, i == 9, i, 1, 7, indicator + bytes((flags | kind,)) + part)
        stream += serialize_interleaved(CHANNEL, serialize_rtp(packet))
    run = FragmentScanner(codec, CHANNEL, PAYLOAD_TYPE).scan(stream, 0)
    assert run is not None
    assert run.parts == parts
    assert (run.is_end, run.marker, run.stop) == (True, True, len(stream))


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_largest_picture(beyond):
    depacketizer = H264Depacketizer(encode_clip(Codec.H264, 2)[0].parameter_sets)
    first = FragmentRun(96, 0, 0, 7, b"\x7c\x85", [b"\x80"], True, True, 3, 0)
    assert len(depacketizer.receive_run(first, 0)) == 2
    size = MAX_ACCESS_UNIT_BYTES - 2 + beyond
    run = FragmentRun(96, 1, 3600, 7, b"\x7c\x81", [bytes(size)], True, True, size + 2, 0)
    unit = depacketizer.receive_picture(run, 0)
    if beyond:
        assert unit is None
        with pytest.raises(LimitExceededError):
            depacketizer.receive_run(run, 0)
    else:
        assert unit is not None
        assert unit.size_bytes == size + 1


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_largest_access_unit(beyond):
    header = b"\x7c\x05"
    depacketizer = H264Depacketizer()
    depacketizer.receive(RtpPacket(96, False, 0, 0, 7, b"\x7c\x85a"), 0)
    size = MAX_ACCESS_UNIT_BYTES - 3 + beyond
    run = FragmentRun(96, 1, 0, 7, header, [bytes(size)], False, False, size, 0)
    if beyond:
        with pytest.raises(LimitExceededError):
            depacketizer.receive_run(run, 0)
    else:
        assert depacketizer.receive_run(run, 0) == ()
