"""RTMP's chunks, from the server's side: any cut, any interleaving, every limit."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError
from streams.wire import rtmp
from streams.wire.rtmp import (
    HANDSHAKE_BYTES,
    MAX_CHUNK_STREAMS,
    MAX_MESSAGE_BYTES,
    MAX_STRANGERS_CHUNK_STREAMS,
    MAX_STRANGERS_MESSAGE_BYTES,
    MIN_CHUNK_BYTES,
    RtmpMessage,
    RtmpParser,
    opening_messages,
    serialize_message,
)

HELLO = b"\x03" + bytes(HANDSHAKE_BYTES) * 2


def message(kind, body, *, chunk_stream=4, timestamp=0, stream=1, chunk=128):
    """All headers of type 0, continued by type 3."""
    extended = timestamp >= 0xFFFFFF
    head = bytes((chunk_stream,)) + min(timestamp, 0xFFFFFF).to_bytes(3) + len(body).to_bytes(3)
    head += bytes((kind,)) + stream.to_bytes(4, "little")
    more = timestamp.to_bytes(4) if extended else b""
    pieces = [head + more + body[:chunk]]
    pieces += [
        bytes((0xC0 | chunk_stream,)) + more + body[i : i + chunk] for i in range(chunk, len(body), chunk)
    ]
    return pieces


def publisher():
    """The parser of one who has logged in."""
    parser = RtmpParser()
    parser.admit()
    return parser


def take(parser, data):
    return list(parser.receive_data(data))


def parse(data, step=None):
    parser = publisher()
    found = []
    for at in range(0, len(data), step or len(data) or 1):
        found += parser.receive_data(data[at : at + (step or len(data))])
    return found


_MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([rtmp.AUDIO, rtmp.VIDEO, rtmp.COMMAND]),
        st.binary(max_size=400),
        st.integers(3, 6),
        st.integers(0, 2**32 - 1),
    ),
    max_size=5,
)


@given(_MESSAGES, st.integers(1, 300))
def test_one_chunk_equals_any_cut(messages, step):
    data = HELLO + b"".join(
        b"".join(message(kind, body, chunk_stream=chunk, timestamp=time))
        for kind, body, chunk, time in messages
    )
    expected = [RtmpMessage(kind, 1, time, body) for kind, body, _, time in messages]
    assert parse(data) == expected
    assert parse(data, step) == expected


def outcome(data, step=None):
    """What is parsed before the end, or before an error."""
    parser, found = publisher(), []
    with contextlib.suppress(ProtocolError):
        for at in range(0, len(data), step or len(data)):
            for parsed in parser.receive_data(data[at : at + (step or len(data))]):
                found.append(parsed)  # noqa: PERF402 - what came before an error counts
    return found


@given(_MESSAGES, st.integers(1, 300))
def test_one_chunk_equals_any_cut_where_extended_times_are_left_out(messages, step):
    data = HELLO
    for kind, body, chunk, time in messages:
        first, *more = message(kind, body, chunk_stream=chunk, timestamp=time)
        data += first + b"".join(piece[:1] + piece[5:] if time >= 0xFFFFFF else piece for piece in more)
    assert outcome(data, step) == outcome(data)


def test_messages_of_several_chunk_streams_interleave():
    video = message(rtmp.VIDEO, b"v" * 300, chunk_stream=4)
    audio = message(rtmp.AUDIO, b"a" * 200, chunk_stream=5)
    found = parse(HELLO + video[0] + audio[0] + video[1] + audio[1] + video[2])
    assert [(m.kind, len(m.body)) for m in found] == [(rtmp.AUDIO, 200), (rtmp.VIDEO, 300)]


def test_what_a_header_leaves_out_is_what_it_was():
    first = message(rtmp.VIDEO, b"x" * 10, timestamp=1000)[0]
    same_stream = b"\x44" + (40).to_bytes(3) + (10).to_bytes(3) + bytes((rtmp.VIDEO,)) + b"y" * 10
    same_length = b"\x84" + (41).to_bytes(3) + b"z" * 10
    same_delta = b"\xc4" + b"w" * 10
    found = parse(HELLO + first + same_stream + same_length + same_delta)
    assert [(m.timestamp, m.body[:1], m.stream) for m in found] == [
        (1000, b"x", 1), (1040, b"y", 1), (1081, b"z", 1), (1122, b"w", 1),
    ]  # fmt: skip


def test_long_chunk_stream_numbers():
    body = (0).to_bytes(3) + (1).to_bytes(3) + bytes((rtmp.DATA,)) + bytes(4) + b"x"
    assert [m.body for m in parse(HELLO + b"\x00\x00" + body + b"\x01\x00\x01" + body)] == [b"x", b"x"]


def test_chunk_size_and_abort_are_heeded():
    size = b"".join(message(rtmp.SET_CHUNK_SIZE, (1000).to_bytes(4), chunk_stream=2))
    whole = message(rtmp.VIDEO, b"x" * 900, chunk=1000)
    half = message(rtmp.AUDIO, b"a" * 200, chunk_stream=5)[0]
    abort = message(rtmp.ABORT, (5).to_bytes(4), chunk_stream=2)[0]
    again = message(rtmp.AUDIO, b"b" * 20, chunk_stream=5)[0]
    assert [m.body[:1] for m in parse(HELLO + size + whole[0])[1:]] == [b"x"]
    assert [m.body for m in parse(HELLO + half + abort + again)[1:]] == [b"b" * 20]


def test_the_handshake_is_answered_with_an_echo():
    parser = RtmpParser()
    take(parser, b"\x03" + bytes(range(256)) * 6)
    greeting = parser.take_greeting()
    assert greeting[:1] == b"\x03"
    assert greeting[1 + HANDSHAKE_BYTES :] == bytes(range(256)) * 6
    assert parser.take_greeting() == b""


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", HELLO + b"\xc4", HELLO + b"\x44" + bytes(8)]
)
def test_what_is_no_rtmp_is_refused(data):
    with pytest.raises(ProtocolError):
        parse(data)


def test_a_message_has_a_largest_size():
    size = b"".join(message(rtmp.SET_CHUNK_SIZE, (0x7FFFFFFF).to_bytes(4), chunk_stream=2))
    largest = message(rtmp.VIDEO, bytes(MAX_MESSAGE_BYTES), chunk=MAX_MESSAGE_BYTES)[0]
    (_, found) = parse(HELLO + size + largest)
    assert len(found.body) == MAX_MESSAGE_BYTES
    head = message(rtmp.VIDEO, b"", chunk=1)[0]
    with pytest.raises(LimitExceededError):
        parse(HELLO + size + head[:4] + (MAX_MESSAGE_BYTES + 1).to_bytes(3) + head[7:])


def test_a_stranger_s_message_is_no_larger_than_a_command():
    largest = b"".join(message(rtmp.COMMAND, bytes(MAX_STRANGERS_MESSAGE_BYTES)))
    (found,) = take(RtmpParser(), HELLO + largest)
    assert len(found.body) == MAX_STRANGERS_MESSAGE_BYTES
    head = message(rtmp.COMMAND, bytes(MAX_STRANGERS_MESSAGE_BYTES + 1))[0][:12]
    with pytest.raises(LimitExceededError):
        take(RtmpParser(), HELLO + head)


@pytest.mark.parametrize("size", [0, MIN_CHUNK_BYTES - 1, MIN_CHUNK_BYTES])
def test_chunks_are_no_smaller_than_they_begin(size):
    """A byte each, and a second of what an encoder may send takes seven to read."""
    announced = b"".join(message(rtmp.SET_CHUNK_SIZE, size.to_bytes(4), chunk_stream=2))
    if size < MIN_CHUNK_BYTES:
        with pytest.raises(LimitExceededError):
            parse(HELLO + announced)
    else:
        assert len(parse(HELLO + announced)) == 1


@pytest.mark.parametrize("step", [None, 1, 50])
@pytest.mark.parametrize("repeats", [True, False])
def test_an_extended_time_may_be_left_out_where_a_message_goes_on(step, repeats):
    """librtmp did for years: its encoders' streams fell apart after 4 h 40 min."""
    time = 0x1000000
    bodies = [bytes((n,)) * 300 for n in (1, 2)]
    data = b""
    for body in bodies:
        first, *more = message(rtmp.VIDEO, body, timestamp=time)
        data += first + b"".join(piece if repeats else piece[:1] + piece[5:] for piece in more)
    found = parse(HELLO + data + b"".join(message(rtmp.AUDIO, b"after", chunk_stream=5)), step)
    assert [(m.timestamp, m.body) for m in found] == [(time, bodies[0]), (time, bodies[1]), (0, b"after")]


@pytest.mark.parametrize("tail_bytes", [1, 2, 3, 4])
def test_a_message_s_last_bytes_are_not_waited_past(tail_bytes):
    """Where the extended time is left out, four bytes more may be the next message's, a picture later."""
    first, last = message(rtmp.VIDEO, b"v" * (128 + tail_bytes), timestamp=0x1000000)
    (found,) = parse(HELLO + first + last[:1] + last[5:])
    assert found.body == b"v" * (128 + tail_bytes)


@pytest.mark.parametrize(
    ("new_parser", "limit"), [(RtmpParser, MAX_STRANGERS_CHUNK_STREAMS), (publisher, MAX_CHUNK_STREAMS)]
)
def test_chunk_streams_are_bounded(new_parser, limit):
    parser = new_parser()
    streams = [message(rtmp.DATA, b"x" * 200, chunk_stream=3 + i)[0] for i in range(limit)]
    assert take(parser, HELLO + b"".join(streams)) == []
    with pytest.raises(LimitExceededError):
        take(parser, message(rtmp.DATA, b"x", chunk_stream=60)[0])


def test_incomplete_messages_are_bounded_in_sum():
    chunk = 4 * 1024 * 1024
    size = b"".join(message(rtmp.SET_CHUNK_SIZE, chunk.to_bytes(4), chunk_stream=2))
    parser = publisher()
    take(parser, HELLO + size)
    pieces = [message(rtmp.VIDEO, bytes(chunk + 1), chunk_stream=n, chunk=chunk)[0] for n in range(3, 8)]
    for piece in pieces[:4]:
        take(parser, piece)
    with pytest.raises(LimitExceededError):
        take(parser, pieces[4])


@given(st.binary(max_size=400))
def test_only_our_own_error_escapes(data):
    for start in (b"", HELLO):
        with contextlib.suppress(ProtocolError):
            parse(start + data)


def test_what_we_say_can_be_read():
    long = serialize_message(rtmp.COMMAND, bytes(10_000), stream=1)
    found = parse(HELLO + opening_messages(1000) + long)
    assert [(m.kind, len(m.body)) for m in found] == [
        (rtmp.WINDOW_SIZE, 4), (rtmp.SET_BANDWIDTH, 5), (rtmp.SET_CHUNK_SIZE, 4), (rtmp.COMMAND, 10_000),
    ]  # fmt: skip
