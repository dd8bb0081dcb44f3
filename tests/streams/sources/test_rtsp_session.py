import pytest

from streams.errors import ProtocolError
from streams.sources.rtsp_session import MAX_MALFORMED_PACKETS_PER_SECOND, RtspSession, TrackReceiver
from streams.wire.rtp import RtpPacket, serialize_rtp
from streams.wire.rtsp import RtspResponse

SECOND_NS = 1_000_000_000


def own(number, *, payload_type=96):
    return RtpPacket(payload_type, True, number, 5, 7, b"data")


def track_receiver():
    """A receiver of payload type 96, and the list of what it passes on."""
    taken = []
    receiver = TrackReceiver(
        payload_type=96,
        clock_rate=90_000,
        take_packet=lambda packet, _received_ns: taken.append(packet),
        take_control=lambda _data: None,
    )
    return receiver, taken


@pytest.mark.parametrize(
    "odd",
    [b"", b"\x80\xc9\x00\x01\x00\x00\x00\x01", bytes((0xA0, 96)) + bytes(14), b"\xff" * 40],
    ids=["empty", "receiver report", "padding of length zero", "noise"],
)
def test_an_odd_packet_between_others_is_dropped(odd):
    receiver, taken = track_receiver()
    packets = [own(number) for number in range(3)]
    for packet in packets:
        receiver.take_interleaved(serialize_rtp(packet), 0)
        receiver.take_interleaved(odd, 0)
    assert taken == packets


def test_so_many_odd_packets_in_a_second_and_no_more():
    receiver, _ = track_receiver()
    for received_ns in (0, SECOND_NS):
        for _ in range(MAX_MALFORMED_PACKETS_PER_SECOND):
            receiver.take_interleaved(b"", received_ns)
    with pytest.raises(ProtocolError, match="too short"):
        receiver.take_interleaved(b"", 2 * SECOND_NS - 1)


def test_another_payload_type_s_packets_go_on_empty():
    receiver, taken = track_receiver()
    receiver.take_own(own(1), 0)
    receiver.take_own(own(2, payload_type=97), 0)
    receiver.take_interleaved(serialize_rtp(own(3, payload_type=97)), 0)
    receiver.take_interleaved(serialize_rtp(own(4)), 0)
    numbers = [(packet.sequence_number, packet.payload, packet.marker) for packet in taken]
    assert numbers == [(1, b"data", True), (2, b"", False), (3, b"", False), (4, b"data", True)]


def answer(*headers):
    return RtspResponse(status=200, reason="OK", headers=headers)


class ScriptedRequester:
    """A camera whose answers to SETUP have these Session headers."""

    def __init__(self, *sessions):
        self._sessions = iter(sessions)

    async def request(self, _method, _url, *_headers):
        return answer(("Session", next(self._sessions)))


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        (["1", "1"], 60),
        (["1;timeout=10", "1"], 10),
        (["1", "1;timeout=120"], 120),
        (["1;timeout=30", "1;timeout=20"], 20),
        (["1;timeout=20", "1;timeout=30"], 20),
    ],
)
async def test_the_smallest_timeout_that_was_named_counts(sessions, expected):
    session = RtspSession(ScriptedRequester(*sessions), "rtsp://camera/", answer())
    for _ in sessions:
        await session.set_up("rtsp://camera/track", "RTP/AVP/TCP")
    assert session.timeout_seconds == expected
