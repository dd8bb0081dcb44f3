import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError
from streams.wire import rtsp
from streams.wire.rtsp import (
    InterleavedPacket,
    RtspParser,
    RtspRequest,
    RtspResponse,
    SessionHeader,
    Transport,
    UdpTransport,
    parse_session,
    parse_transport,
    parse_udp_answer,
    serialize,
    serialize_interleaved,
)

TOKENS = st.text(st.sampled_from("ABCXYZabcxyz019-_"), min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(str.strip)
HEADERS = st.lists(
    st.tuples(TOKENS.filter(lambda name: name.lower() != "content-length"), VALUES), max_size=5
).map(tuple)
BODIES = st.binary(max_size=50)
REQUESTS = st.builds(
    RtspRequest,
    method=TOKENS.map(lambda token: "M" + token),
    url=TOKENS.map("rtsp://camera/".__add__),
    headers=HEADERS,
    body=BODIES,
)
RESPONSES = st.builds(RtspResponse, status=st.integers(100, 999), reason=VALUES, headers=HEADERS, body=BODIES)
PACKETS = st.builds(InterleavedPacket, st.integers(0, 255), st.binary(max_size=50))
EVENTS = st.lists(st.one_of(REQUESTS, RESPONSES, PACKETS), max_size=6)


def encode(event):
    if isinstance(event, InterleavedPacket):
        return serialize_interleaved(event.channel, event.payload)
    return serialize(event)


def without_length(event):
    """The event without the Content-Length that `serialize` adds."""
    if isinstance(event, InterleavedPacket):
        return event
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    headers = tuple(header for header in event.headers if header[0] != "Content-Length")
    return type(event)(**(fields | {"headers": headers}))


def parse(*chunks):
    """The events, and whether the parser gave up."""
    parser, events = RtspParser(), []
    try:
        for chunk in chunks:
            events.extend(parser.receive_data(chunk))
    except ProtocolError as error:
        return events, type(error)
    return events, None


def byte_by_byte(data):
    return parse(*(data[index : index + 1] for index in range(len(data))))


@given(EVENTS)
def test_parse_inverts_serialize_however_the_bytes_arrive(events):
    data = b"".join(map(encode, events))
    parsed, error = parse(data)
    assert error is None
    assert list(map(without_length, parsed)) == events
    assert byte_by_byte(data) == (parsed, None)


@given(EVENTS, st.data())
def test_only_our_error_escapes_and_chunks_do_not_matter(events, data):
    stream = bytearray(b"".join(map(encode, events)))
    for position in data.draw(st.lists(st.integers(0, max(len(stream) - 1, 0)), max_size=3)):
        stream[position : position + 1] = data.draw(st.binary(max_size=3))
    cut = data.draw(st.integers(0, len(stream)))
    whole = parse(bytes(stream))
    assert byte_by_byte(bytes(stream)) == whole
    parts = parse(bytes(stream[:cut]), bytes(stream[cut:]))
    assert parts == whole


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_for(data):
    assert byte_by_byte(data) == parse(data)


def test_a_camera_answering_while_it_sends():
    data = (
        serialize_interleaved(0, b"rtp")
        + b"RTSP/1.0 200 OK\r\nCSeq: 4\r\nContent-length: 2\r\n"
        + b"WWW-Authenticate: a\r\nwww-authenticate: b\r\n\r\nhi"
        + serialize_interleaved(1, b"")
        + b"\r\nOPTIONS rtsp://us/ RTSP/1.0\r\nCSeq: x\r\n\r\n"
    )
    (first, response, second, request), _ = parse(data)
    assert (first, second) == (InterleavedPacket(0, b"rtp"), InterleavedPacket(1, b""))
    assert response.cseq == 4
    assert response.body == b"hi"
    assert response.header_values("WWW-Authenticate") == ["a", "b"]
    assert request.method == "OPTIONS"
    assert request.cseq is None


REQUEST = "{method} rtsp://{url} RTSP/1.0\r\n{headers}\r\n"


def request_bytes(method="PLAY", url="camera/", headers=""):
    return REQUEST.format(method=method, url=url, headers=headers).encode()


def line(length):
    return "A: " + "x" * (length - 3) + "\r\n"


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        (request_bytes(method="M" * 64), request_bytes(method="M" * 65)),
        (request_bytes(url="u" * (2048 - 7)), request_bytes(url="u" * (2048 - 6))),
        (request_bytes(headers=line(2048)), request_bytes(headers=line(2049))),
        (request_bytes(headers="A: b\r\n" * 255), request_bytes(headers="A: b\r\n" * 256)),
        (
            request_bytes(headers=f"Content-Length: {128 * 1024}\r\n") + bytes(128 * 1024),
            request_bytes(headers=f"Content-Length: {128 * 1024 + 1}\r\n"),
        ),
        (
            request_bytes(headers=line(1000) * 65 + line(rtsp.MAX_HEAD_BYTES - 65 * 1002 - 34)),
            request_bytes(headers=line(1000) * 65 + line(rtsp.MAX_HEAD_BYTES - 65 * 1002 - 33)),
        ),
    ],
)
def test_limits(at_limit, beyond):
    (message,), error = parse(at_limit)
    assert error is None
    assert isinstance(message, RtspRequest)
    assert parse(beyond) == ([], LimitExceededError)


def test_an_endless_head_is_cut_off():
    assert parse(b"A" * (rtsp.MAX_HEAD_BYTES - 1)) == ([], None)
    assert parse(b"A" * rtsp.MAX_HEAD_BYTES) == ([], LimitExceededError)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"RTSP/1.0 2000 OK\r\n\r\n",
        b"RTSP/2.0 200 OK\r\n\r\n",
        b"PLAY rtsp://a/ HTTP/1.1\r\n\r\n",
        b"PLAY rtsp://a b RTSP/1.0\r\n\r\n",
        b"PLAY rtsp://\xe4 RTSP/1.0\r\n\r\n",
        b"PLAY\trtsp://a RTSP/1.0\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\r\nno colon\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\r\n folded: x\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\r\nA: b\nC: d\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\r\nCSeq : 1\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\nCSeq: 1\n\n\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\rA: b\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 1\r\n 2\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length : 1\r\nContent-Length: 2\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PLAY rtsp://a RTSP/1.0\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_violations(data):
    assert parse(data) == ([], ProtocolError)


RESPONSE = RtspResponse(status=200, reason="OK", headers=(("CSeq", "1"), ("Public", "A, B")))


@pytest.mark.parametrize(
    "data",
    [
        b"RTSP/1.0 200 OK\r\nCSeq : 1\r\nPublic: A, B\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: A,\r\n B\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic:\r\n\tA,\r\n  B\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nno colon\r\nCSeq: 1\r\n(x): 1\r\n: 2\r\nPublic: A, B\r\n\r\n",
        b"RTSP/1.0 200 OK\nCSeq: 1\nPublic: A, B\n\n",
        b"RTSP/1.0 200 OK\nCSeq: 1\r\nPublic: A, B\n\r\n",
    ],
)
def test_responses_are_taken_as_cameras_write_them(data):
    expected = [RESPONSE, InterleavedPacket(0, b"rtp")]
    assert parse(data + b"$\x00\x00\x03rtp") == (expected, None)
    assert byte_by_byte(data + b"$\x00\x00\x03rtp") == (expected, None)


@given(st.lists(st.sampled_from(["\r", "\n", "\r\n", " ", ":", "A", "Content-Length: 1", "$\0\0\1"])))
def test_however_a_response_arrives_it_is_the_same(pieces):
    data = ("RTSP/1.0 200 OK\r\n" + "".join(pieces)).encode()
    assert byte_by_byte(data) == parse(data)


def response_bytes(headers):
    return f"RTSP/1.0 200 OK\r\n{headers}\r\n".encode()


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        (response_bytes(line(2048)), response_bytes(line(2049))),
        (
            response_bytes("A: b\r\n " + "x" * 2043 + "\r\n"),
            response_bytes("A: b\r\n " + "x" * 2044 + "\r\n"),
        ),
        (response_bytes("A: b\n" * 255), response_bytes("A: b\n" * 256)),
        (
            response_bytes(line(1000) * 65 + line(rtsp.MAX_HEAD_BYTES - 65 * 1002 - 21)),
            response_bytes(line(1000) * 65 + line(rtsp.MAX_HEAD_BYTES - 65 * 1002 - 20)),
        ),
    ],
)
def test_limits_of_responses(at_limit, beyond):
    (message,), error = parse(at_limit)
    assert error is None
    assert isinstance(message, RtspResponse)
    assert parse(beyond) == ([], LimitExceededError)


def test_serialize_refuses_to_break_lines():
    with pytest.raises(ValueError, match="line break"):
        serialize(RtspRequest(method="PLAY", url="rtsp://a/", headers=(("A", "b\r\nC: d"),)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=1", Transport(rtp_channel=2, rtcp_channel=3)),
        (
            "RTP/AVP;unicast;client_port=1-2,rtp/avp/tcp;interleaved=4",
            Transport(rtp_channel=4, rtcp_channel=5),
        ),
        ("RTP/AVP/TCP;unicast", Transport(rtp_channel=0, rtcp_channel=1)),
        ('RTP/AVP/TCP;unicast;interleaved="2-3"', Transport(rtp_channel=2, rtcp_channel=3)),
        ("RTP/AVP/TCP;unicast;interleaved= 2-3", Transport(rtp_channel=2, rtcp_channel=3)),
        ("RTP/AVP/TCP;Interleaved =2 - 3 ;ssrc=1", Transport(rtp_channel=2, rtcp_channel=3)),
        ("RTP/AVP;unicast;client_port=1-2", None),
        ("", None),
    ],
)
def test_transport(value, expected):
    assert parse_transport(value) == expected
    assert expected is None or parse_transport(str(expected)) == expected


@pytest.mark.parametrize("channels", ["", "a-b", "256-257", "255", "1-1", "1-", '"', "1- "])
def test_impossible_channels(channels):
    with pytest.raises(ProtocolError):
        parse_transport(f"RTP/AVP/TCP;interleaved={channels}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12345678", SessionHeader(id="12345678")),
        ("a;timeout=30", SessionHeader(id="a", timeout_seconds=30)),
        ("a ; Timeout = 5", SessionHeader(id="a", timeout_seconds=5)),
        ("a;timeout=0;x", SessionHeader(id="a")),
        ("a;timeout=\x1c7", SessionHeader(id="a", timeout_seconds=7)),
    ],
)
def test_session(value, expected):
    assert parse_session(value) == expected
    assert parse_session(str(expected)) == expected


def test_a_session_needs_an_identifier():
    with pytest.raises(ProtocolError):
        parse_session(";timeout=30")


@given(st.text())
def test_header_parsers_let_only_our_error_escape(text):
    for parser in (parse_transport, parse_session):
        for value in (text, "RTP/AVP/TCP;interleaved=" + text):
            try:
                parser(value)
            except ProtocolError:
                continue


ASKED = UdpTransport(client_ports=(5000, 5001))


@pytest.mark.parametrize(
    ("value", "server_ports"),
    [
        ("RTP/AVP;unicast;client_port=5000-5001;server_port=6970-6971", (6970, 6971)),
        ("RTP/AVP/UDP;unicast;source=10.0.0.9;client_port=1-2;server_port=6970;ssrc=1", (6970, 6971)),
        ('RTP/AVP;unicast;server_port="6970 - 6971"', (6970, 6971)),
        ("rtp/avp;unicast", None),
        ("RTP/AVP;server_port=x", None),
        ("RTP/AVP;server_port=65536-65537", None),
        (str(UdpTransport(client_ports=(1024, 1025), server_ports=(3, 4))), (3, 4)),
    ],
)
def test_answers_over_udp(value, server_ports):
    assert parse_udp_answer(value, ASKED) == UdpTransport(
        client_ports=(5000, 5001), server_ports=server_ports
    )


@pytest.mark.parametrize(
    "value", ["", "RTP/AVP/TCP;interleaved=0-1", "RTP/AVP;multicast", "RTP/SAVP;unicast"]
)
def test_answers_in_another_way(value):
    assert parse_udp_answer(value, ASKED) is None


@given(st.text())
def test_no_answer_over_udp_raises(text):
    for value in (text, "RTP/AVP;server_port=" + text):
        parse_udp_answer(value, ASKED)
