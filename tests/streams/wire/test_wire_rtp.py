import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.rtcp import (
    MAX_COMPOUND_PACKETS,
    ReceiverReport,
    SenderReport,
    parse_sender_report,
    serialize_receiver_report,
    serialize_sender_report,
)
from streams.wire.rtp import (
    DISCARD,
    MAX_DROPOUT,
    MAX_MISORDER,
    RtpPacket,
    SequenceTracker,
    TimestampUnwrapper,
    parse_rtp,
    serialize_rtp,
)

UINT32 = st.integers(0, 2**32 - 1)
PACKETS = st.builds(
    RtpPacket,
    st.integers(0, 127),
    st.booleans(),
    st.integers(0, 65535),
    UINT32,
    UINT32,
    st.binary(max_size=40),
)
REPORTS = st.builds(
    SenderReport,
    ssrc=UINT32,
    ntp_timestamp=st.integers(0, 2**64 - 1),
    rtp_timestamp=UINT32,
    packet_count=UINT32,
    octet_count=UINT32,
)


@given(PACKETS)
def test_parse_inverts_serialize(packet):
    assert parse_rtp(serialize_rtp(packet)) == packet


@given(PACKETS, st.integers(0, 15), st.none() | st.integers(0, 4), st.integers(0, 8))
def test_everything_around_the_payload_is_removed(packet, sources, extension_words, padding):
    header = bytearray(serialize_rtp(packet)[:12])
    header[0] |= sources | (extension_words is not None) << 4 | (padding > 0) << 5
    data = bytes(header) + bytes(4 * sources)
    if extension_words is not None:
        data += b"\xbe\xde" + extension_words.to_bytes(2, "big") + bytes(4 * extension_words)
    data += packet.payload
    if padding:
        data += bytes(padding - 1) + bytes((padding,))
    assert parse_rtp(data) == packet


@given(st.binary(max_size=64) | st.binary(max_size=64).map(b"\xb1\x60".__add__))
def test_only_our_error_escapes(data):
    for parser in (parse_rtp, parse_sender_report):
        try:
            parser(data)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        bytes(11),
        bytes(12),
        b"\x90" + bytes(11),
        b"\x90" + bytes(11) + b"\x00\x00\x00\x01",
        b"\xa0" + bytes(11) + b"\x00",
        b"\xa0" + bytes(11) + b"\x02",
        b"\x8f" + bytes(11),
    ],
)
def test_malformed_packets(data):
    with pytest.raises(ProtocolError):
        parse_rtp(data)


def test_sequence_numbers_are_followed_across_the_wrap():
    tracker = SequenceTracker()
    assert [tracker.update(number) for number in (65534, 65535, 0, 1, 4, 5)] == [0, 0, 0, 0, 2, 0]
    assert tracker.lost == 2


def test_late_and_repeated_packets_are_discarded():
    tracker = SequenceTracker()
    assert [tracker.update(number) for number in (10, 11, 11, 10, 12)] == [0, 0, DISCARD, DISCARD, 0]
    assert tracker.lost == 0


def test_a_restarted_sender_is_believed_at_its_second_packet():
    for restart in (101 + MAX_DROPOUT + 1, 101 - MAX_MISORDER - 50):
        tracker = SequenceTracker()
        tracker.update(100)
        numbers = [number & 65535 for number in (restart, restart + 1, restart + 2)]
        assert [tracker.update(number) for number in numbers] == [DISCARD, 1, 0]


def test_the_largest_gap_that_is_loss():
    tracker = SequenceTracker()
    tracker.update(0)
    assert tracker.update(MAX_DROPOUT + 1) == MAX_DROPOUT


@given(st.integers(0, 2**40), st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=20))
def test_timestamps_continue_beyond_32_bits(start, steps):
    unwrapper = TimestampUnwrapper()
    first = unwrapper.unwrap(start % 2**32)
    position = start
    for step in steps:
        position += step
        assert unwrapper.unwrap(position % 2**32) - first == position - start


@given(REPORTS)
def test_sender_reports(report):
    data = serialize_sender_report(report)
    assert parse_sender_report(data) == report
    description = b"\x81\xca\x00\x01" + bytes(4)
    assert parse_sender_report(description + data) == report
    assert parse_sender_report(description) is None
    with pytest.raises(ProtocolError):
        parse_sender_report(data[:-1])


def test_compound_limit():
    empty = b"\x80\xca\x00\x00"
    assert parse_sender_report(empty * MAX_COMPOUND_PACKETS) is None
    with pytest.raises(LimitExceededError):
        parse_sender_report(empty * (MAX_COMPOUND_PACKETS + 1))


def test_a_cut_off_sender_report():
    with pytest.raises(ProtocolError):
        parse_sender_report(b"\x80\xc8\x00\x01" + bytes(4))


@pytest.mark.parametrize(("lost", "field"), [(5, "000005"), (0x7FFFFF, "7fffff"), (0x800000, "7fffff")])
def test_receiver_report(lost, field):
    report = ReceiverReport(
        ssrc=1,
        reported_ssrc=2,
        fraction_lost=3,
        lost=lost,
        highest_sequence_number=4,
        jitter=5,
        last_sender_report=6,
        delay_since_last_sender_report=7,
    )
    expected = f"81c90007 00000001 00000002 03{field} 00000004 00000005 00000006 00000007"
    assert serialize_receiver_report(report) == bytes.fromhex(expected)
