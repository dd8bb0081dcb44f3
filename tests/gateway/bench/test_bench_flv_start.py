"""Where an HTTP-FLV answer has its first keyframe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench_flv import answer, small_clip, tag

from gateway.bench.flv_start import MAX_CHUNK_LINE_BYTES, MAX_HEAD_BYTES, MAX_START_BYTES, FlvStart
from streams.errors import LimitExceededError, ProtocolError

SEQUENCE_HEADER = tag(b"\x17\x00\x00\x00\x00avcC")
KEYFRAME = tag(b"\x17\x01\x00\x00\x00" + b"k" * 300)
INTER = tag(b"\x27\x01\x00\x00\x00" + b"i" * 40)
SCRIPT = tag(b"\x02\x00\x0aonMetaData", kind=18)
AUDIO = tag(b"\xaf\x01sound", kind=8)

tags = st.lists(st.sampled_from([SEQUENCE_HEADER, INTER, SCRIPT, AUDIO, tag(b""), tag(b"\x17")]), max_size=5)
chunk_sizes = st.one_of(st.none(), st.integers(1, 400))


def first_at(data):
    """How many bytes it takes; None if all are not enough."""
    start = FlvStart()
    return next((end for end in range(1, len(data) + 1) if start.receive_data(data[end - 1 : end])), None)


@given(tags, chunk_sizes)
def test_it_is_found_when_its_last_byte_is_there(before, chunk_bytes):
    whole = answer(*before, KEYFRAME, chunk_bytes=chunk_bytes)
    needed = first_at(whole)
    assert needed is not None
    assert needed <= len(whole)
    if chunk_bytes is None:
        assert needed == len(whole)
    assert FlvStart().receive_data(whole)


@given(tags, chunk_sizes)
def test_nothing_else_is_one(before, chunk_bytes):
    assert not FlvStart().receive_data(answer(*before, chunk_bytes=chunk_bytes))


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (b"\x91hvc1", True),
        (b"\x93hvc1", True),
        (b"\x90hvc1", False),
        (b"\xa1hvc1", False),
        (b"\x1c\x01", True),
        (b"\x1c\x00", False),
    ],
)
def test_h265_in_its_three_forms(body, is_one):
    assert FlvStart().receive_data(answer(tag(body + b"data"))) is is_one


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=20))
def test_only_our_own_error_escapes_and_pieces_do_not_matter(noise, cuts):
    data = answer(SCRIPT, chunk_bytes=30) + noise + answer(KEYFRAME)
    assert outcome([data]) == outcome(cut(data, cuts)) == outcome(cut(data, [1] * len(data)))


@given(st.binary(max_size=200))
def test_any_bytes_at_all(noise):
    assert outcome([noise]) in {False, ProtocolError, LimitExceededError}


def cut(data, sizes):
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*filter(None, pieces), data]


def outcome(pieces):
    start = FlvStart()
    try:
        return any(start.receive_data(piece) for piece in pieces if piece)
    except ProtocolError as error:
        return type(error)


@pytest.mark.parametrize("status", ["404 Not Found", "503 Busy"])
def test_a_refusal_is_named_by_its_status(status):
    with pytest.raises(ProtocolError, match=f"HTTP status {status[:3]}"):
        FlvStart().receive_data(answer(status=status))


def test_limits_of_the_head():
    head = b"HTTP/1.1 200 OK\r\nX: "
    FlvStart().receive_data(head.ljust(MAX_HEAD_BYTES - 4, b"x") + b"\r\n\r\n")
    FlvStart().receive_data(head.ljust(MAX_HEAD_BYTES - 1, b"x"))
    with pytest.raises(LimitExceededError):
        FlvStart().receive_data(head.ljust(MAX_HEAD_BYTES, b"x"))


def test_limits_of_a_chunk_line():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    FlvStart().receive_data(head + b"1;".ljust(MAX_CHUNK_LINE_BYTES - 1, b"x"))
    with pytest.raises(LimitExceededError):
        FlvStart().receive_data(head + b"1;".ljust(MAX_CHUNK_LINE_BYTES, b"x"))


def test_limit_of_all_that_may_come_before():
    start = FlvStart()
    assert not start.receive_data(answer().ljust(MAX_START_BYTES, b"\xff"))
    with pytest.raises(LimitExceededError):
        start.receive_data(b"\xff")


def test_what_custos_sends_itself():
    clip = small_clip()
    keyframe, *others = clip.flv_units()
    start = FlvStart()
    assert not start.receive_data(clip.flv_head() + b"".join(others[:49]))
    assert start.receive_data(keyframe)
