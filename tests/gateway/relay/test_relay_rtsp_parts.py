"""The parts of the RTSP server that need no network: offers, nonces, the brake on guessing, the packets."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay import publisher_login, rtsp_login, rtsp_media
from gateway.relay.publisher_login import LoginThrottle
from gateway.relay.rtsp_login import Nonces
from gateway.relay.rtsp_media import InterleavedTransport, Splitter, UdpTransport, split_packets
from streams.wire.rtcp import parse_sender_report, serialize_bye, serialize_canonical_name
from streams.wire.rtp import RtpPacket, serialize_rtp
from streams.wire.rtsp import parse_transport_offers, serialize_interleaved

KEY = b"k" * 32


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class FakeSocket:
    def __init__(self):
        self.written = b""

    def write(self, data):
        self.written += data

    def backlog_bytes(self):
        return 0


@given(st.text())
def test_whatever_a_client_offers_is_read_or_left_out(text):
    for offer in parse_transport_offers(text) + parse_transport_offers(f"RTP/AVP;client_port={text}"):
        assert (offer.client_ports is None) or (offer.channels is None)


@pytest.mark.parametrize(
    ("value", "offers"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=0-255", [(None, (0, 255))]),
        ("RTP/AVP/TCP;unicast;interleaved=0-256", []),
        ("RTP/AVP/TCP;unicast;interleaved=255", []),
        ("RTP/AVP/TCP;unicast;interleaved=3-3", []),
        ("RTP/AVP/TCP", [(None, None)]),
        ("RTP/AVP;unicast;client_port=1024-65535", [((1024, 65535), None)]),
        ("RTP/AVP;unicast;client_port=1023-1024", []),
        ("RTP/AVP;unicast;client_port=65534-65536", []),
        ("RTP/AVP/UDP;client_port=5000", [((5000, 5001), None)]),
        ("RTP/AVP;unicast", []),
        ("RTP/AVP;multicast;client_port=5000-5001,RTP/AVP/TCP;interleaved=2-3", [(None, (2, 3))]),
    ],
)
def test_offers_are_bounded(value, offers):
    assert [(offer.client_ports, offer.channels) for offer in parse_transport_offers(value)] == offers


def test_a_nonce_is_used_once_on_its_connection_within_its_time():
    clock = Clock()
    nonces, others = Nonces(KEY, clock), Nonces(KEY, clock)
    nonce = nonces.issue()
    assert not others.is_own(nonce)
    assert not others.use(nonce)
    clock.now += rtsp_login.NONCE_SECONDS
    assert nonces.use(nonce)
    assert not nonces.use(nonce)
    late = nonces.issue()
    clock.now += rtsp_login.NONCE_SECONDS + 0.001
    assert nonces.is_own(late)
    assert not nonces.use(late)


@given(st.text() | st.binary(min_size=24, max_size=24).map(bytes.hex))
def test_no_other_nonce_is_ours(text):
    assert not Nonces(KEY, Clock()).use(text)


def test_guessing_is_stopped_at_the_limit_and_forgotten_in_time():
    clock = Clock()
    throttle = LoginThrottle(clock)
    for _ in range(publisher_login.MAX_FAILURES):
        assert throttle.is_open("a", "camera")
        throttle.count("a", "camera")
    assert not throttle.is_open("a", "camera")
    assert throttle.is_open("a", "other")
    assert throttle.is_open("b", "camera")
    clock.now += publisher_login.FAILURE_WINDOW_SECONDS + 1
    assert throttle.is_open("a", "camera")


def test_one_address_cannot_go_through_all_cameras():
    throttle = LoginThrottle(Clock())
    for number in range(publisher_login.MAX_ADDRESS_FAILURES):
        assert throttle.is_open("a", f"camera-{number}")
        throttle.count("a", f"camera-{number}")
    assert not throttle.is_open("a", "one more")


def test_an_ipv6_network_guesses_as_one_address():
    throttle = LoginThrottle(Clock())
    for number in range(5):
        throttle.count(f"2001:db8::{number}", "gate")
    assert not throttle.is_open("2001:db8::ffff", "gate")
    assert throttle.is_open("2001:db8:0:1::1", "gate")
    assert throttle.is_open("::ffff:192.0.2.1", "gate")


def test_what_is_remembered_of_guessing_is_bounded(monkeypatch):
    monkeypatch.setattr(publisher_login, "MAX_THROTTLED", 4)
    throttle = LoginThrottle(Clock())
    for address in range(100):
        throttle.count(str(address), "camera")
    assert len(throttle._failures) == 4


packets = st.lists(st.tuples(st.sampled_from([0, 2]), st.binary(max_size=40)), min_size=1, max_size=8).map(
    lambda parts: [
        (channel, serialize_rtp(RtpPacket(96, False, number, 90 * number, 7 + channel, payload)))
        for number, (channel, payload) in enumerate(parts)
    ]
)


@given(packets, st.data())
def test_packets_arrive_whole_however_they_are_cut(sent, data):
    """Also with channels of the client's own, and without the sound that it did not ask for."""
    stream = b"".join(serialize_interleaved(channel, packet) for channel, packet in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    for channels in ({0: (0, 1), 2: (2, 3)}, {0: (8, 9), 2: (0, 1)}, {0: (0, 1)}, {2: (2, 3)}):
        socket = FakeSocket()
        transport = InterleavedTransport(socket, channels, has_sound=True, splitter=Splitter())
        transport.release()
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            transport.write(stream[start:stop])
        expected = [(channels[channel][0], packet) for channel, packet in sent if channel in channels]
        assert socket.written == b"".join(serialize_interleaved(*packet) for packet in expected)
        assert transport.bytes_sent == len(socket.written)


@given(st.binary(max_size=200))
def test_splitting_loses_no_byte(data):
    split = split_packets(data)
    assert b"".join(bytes(packet) for _, packet in split.packets) + split.rest == data


def test_held_packets_wait_for_the_answer_and_say_where_they_begin():
    socket = FakeSocket()
    transport = InterleavedTransport(socket, {0: (0, 1)}, has_sound=False, splitter=Splitter())
    packet = serialize_interleaved(0, serialize_rtp(RtpPacket(96, True, 5, 900, 7, b"x")))
    transport.write(packet)
    assert socket.written == b""
    assert transport.backlog_bytes() == len(packet)
    assert (transport.first[0].sequence_number, transport.first[0].timestamp) == (5, 900)
    transport.release()
    assert socket.written == packet
    transport.report(2 * 90_000, {0: 90_000}, 0)
    report = parse_sender_report(socket.written[len(packet) + 4 :])
    assert (report.ssrc, report.rtp_timestamp, report.packet_count, report.octet_count) == (7, 180_000, 1, 1)
    assert report.ntp_timestamp >> 32 == 2_208_988_800


async def test_over_udp_the_first_pictures_go_at_a_pace_that_arrives(monkeypatch):
    sent = []
    monkeypatch.setattr(rtsp_media, "UDP_BURST_SECONDS", 0.0)
    monkeypatch.setattr(rtsp_media, "send", lambda _socket, datagram: sent.append(len(datagram)) or True)

    class Pair:
        rtp = rtcp = None

    transport = UdpTransport({0: Pair()}, Splitter())
    packet = serialize_interleaved(0, serialize_rtp(RtpPacket(96, True, 5, 900, 7, bytes(60_000))))
    for _ in range(10):
        transport.write(packet)
    transport.release()
    assert 0 < len(sent) < 10
    transport.write(packet)
    async with asyncio.timeout(5):
        while len(sent) < 11:
            await asyncio.sleep(0)
    assert transport.backlog_bytes() == 0
    transport.close()


@pytest.mark.parametrize("reason", ["", "revoked", "x" * 300])
def test_what_ends_and_names_a_source_fills_whole_words(reason):
    for packet in (serialize_bye(7, reason), serialize_canonical_name(7, reason)):
        assert len(packet) == 4 + 4 * int.from_bytes(packet[2:4])
        assert packet[4:8] == (7).to_bytes(4)
