"""The local hub socket's format."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError, StreamError, UnsupportedError
from streams.media import (
    MAX_ACCESS_UNIT_BYTES,
    MAX_AUDIO_CHANNELS,
    MAX_AUDIO_CONFIGURATION_BYTES,
    MAX_AUDIO_UNIT_BYTES,
    MAX_DIMENSION,
    MAX_NAL_UNITS,
    MAX_PARAMETER_SET_BYTES,
    MAX_PARAMETER_SETS,
    MAX_SAMPLE_RATE_HZ,
    AccessUnit,
    AudioCodec,
    AudioTrack,
    AudioUnit,
    Codec,
    Track,
)
from streams.sources import link
from streams.sources.link import LinkParser, StreamEnd, Wanted, parse_wanted, serialize, to_error

TRACK = Track(codec=Codec.H264, parameter_sets=(b"sps", b"pps"), width=320, height=180)
SOUND = AudioTrack(codec=AudioCodec.AAC, sample_rate=48_000, channels=2, configuration=b"\x11\x90")
AUDIO_UNIT = AudioUnit(pts=0, data=b"x", received_ns=0)
UNIT = AccessUnit(pts=0, dts=0, nal_units=(b"x",), is_random_access=True, received_ns=0)

times = st.integers(-link.MAX_TIMESTAMP, link.MAX_TIMESTAMP)
units = st.builds(
    AccessUnit,
    pts=times,
    dts=times,
    nal_units=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4).map(tuple),
    is_random_access=st.booleans(),
    received_ns=st.integers(0, 2**63 - 1),
    discontinuity=st.booleans(),
)
audio_units = st.builds(
    AudioUnit, pts=times, data=st.binary(min_size=1, max_size=9), received_ns=st.integers(0, 2**63 - 1)
)
audio_tracks = st.builds(
    AudioTrack,
    codec=st.sampled_from(AudioCodec),
    sample_rate=st.integers(1, MAX_SAMPLE_RATE_HZ),
    channels=st.integers(1, MAX_AUDIO_CHANNELS),
    configuration=st.binary(max_size=5),
)
tracks = st.builds(
    Track,
    codec=st.sampled_from(Codec),
    parameter_sets=st.lists(st.binary(min_size=1, max_size=9), min_size=3, max_size=5).map(tuple),
    width=st.integers(1, MAX_DIMENSION),
    height=st.integers(1, MAX_DIMENSION),
    audio=st.none() | audio_tracks,
)
ends = st.builds(StreamEnd, code=st.text(max_size=20), detail=st.text(max_size=link.MAX_DETAIL_CHARACTERS))
messages = st.lists(units | audio_units | tracks | ends, max_size=5)


def parse(data):
    return LinkParser().receive_data(data)


def replaced(message, **changes):
    return serialize(msgspec.structs.replace(message, **changes))


def with_sound(**changes):
    return replaced(TRACK, audio=msgspec.structs.replace(SOUND, **changes))


@given(messages)
def test_one_chunk_is_byte_by_byte_and_parse_inverts_serialize(expected):
    data = b"".join(map(serialize, expected))
    assert parse(data) == expected
    parser = LinkParser()
    assert [message for byte in data for message in parser.receive_data(bytes((byte,)))] == expected


@given(st.binary(max_size=60))
def test_only_our_own_error_escapes(data):
    parser = LinkParser()
    try:
        parser.receive_data(data)
        parser.receive_data(len(data).to_bytes(4, "big") + data)
    except ProtocolError:
        pass


@given(units | audio_units | tracks | ends, st.data())
def test_a_damaged_message_is_our_own_error_or_another_message(message, data):
    body = bytearray(serialize(message))
    body[data.draw(st.integers(4, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        parse(bytes(body))


def test_the_largest_access_unit_passes_in_any_number_of_nal_units():
    for count in (1, MAX_NAL_UNITS):
        size, rest = divmod(MAX_ACCESS_UNIT_BYTES, count)
        nal_units = (bytes(size + rest), *(bytes(size) for _ in range(count - 1)))
        (unit,) = parse(replaced(UNIT, nal_units=nal_units))
        assert unit.size_bytes == MAX_ACCESS_UNIT_BYTES


@pytest.mark.parametrize(
    "data",
    [
        replaced(UNIT, nal_units=()),
        replaced(UNIT, nal_units=(b"",)),
        replaced(UNIT, nal_units=(b"x",) * (MAX_NAL_UNITS + 1)),
        replaced(UNIT, nal_units=(bytes(MAX_ACCESS_UNIT_BYTES + 1),)),
        replaced(UNIT, nal_units=(bytes(MAX_ACCESS_UNIT_BYTES), b"x")),
        replaced(UNIT, pts=link.MAX_TIMESTAMP + 1),
        replaced(UNIT, dts=-link.MAX_TIMESTAMP - 1),
        replaced(UNIT, received_ns=-1),
        replaced(UNIT, received_ns=2**63),
        replaced(TRACK, parameter_sets=(b"x",)),
        replaced(TRACK, codec=Codec.H265),
        replaced(TRACK, parameter_sets=(b"x",) * (MAX_PARAMETER_SETS + 1)),
        replaced(TRACK, parameter_sets=(b"", b"x")),
        replaced(TRACK, parameter_sets=(bytes(MAX_PARAMETER_SET_BYTES + 1), b"x")),
        replaced(TRACK, width=0),
        replaced(TRACK, width=MAX_DIMENSION + 1),
        replaced(TRACK, height=-1),
        replaced(TRACK, height=MAX_DIMENSION + 1),
        replaced(AUDIO_UNIT, data=b""),
        replaced(AUDIO_UNIT, data=bytes(MAX_AUDIO_UNIT_BYTES + 1)),
        replaced(AUDIO_UNIT, pts=link.MAX_TIMESTAMP + 1),
        replaced(AUDIO_UNIT, received_ns=-1),
        with_sound(sample_rate=0),
        with_sound(sample_rate=MAX_SAMPLE_RATE_HZ + 1),
        with_sound(channels=0),
        with_sound(channels=MAX_AUDIO_CHANNELS + 1),
        with_sound(configuration=bytes(MAX_AUDIO_CONFIGURATION_BYTES + 1)),
        serialize(StreamEnd(code="x", detail="x" * (link.MAX_DETAIL_CHARACTERS + 1))),
        serialize(StreamEnd(code="x" * (link.MAX_DETAIL_CHARACTERS + 1), detail="")),
        (link.MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"),
    ],
    ids=range(30),
)
def test_one_beyond_a_limit(data):
    with pytest.raises(LimitExceededError):
        parse(data)


def test_at_the_limits():
    most = replaced(
        TRACK,
        parameter_sets=(bytes(MAX_PARAMETER_SET_BYTES),) * MAX_PARAMETER_SETS,
        width=MAX_DIMENSION,
        height=MAX_DIMENSION,
    )
    assert len(parse(most)) == 1
    loudest = with_sound(
        sample_rate=MAX_SAMPLE_RATE_HZ,
        channels=MAX_AUDIO_CHANNELS,
        configuration=bytes(MAX_AUDIO_CONFIGURATION_BYTES),
    )
    assert len(parse(loudest + replaced(AUDIO_UNIT, data=bytes(MAX_AUDIO_UNIT_BYTES)))) == 2
    assert parse(link.MAX_MESSAGE_BYTES.to_bytes(4, "big")) == []


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", b"\x81\xa4type\xa4bomb", b"\x91" * 5000])
def test_what_is_no_message(body):
    with pytest.raises(ProtocolError):
        parse(len(body).to_bytes(4, "big") + body)


def test_the_last_message_is_an_error():
    error = to_error(StreamEnd(code="unsupported", detail="no video"))
    assert isinstance(error, UnsupportedError)
    assert str(error) == "no video"
    assert type(to_error(StreamEnd(code="from the future", detail=""))) is StreamError


@given(st.text(st.characters(max_codepoint=126, min_codepoint=33), max_size=70))
def test_what_is_wanted_is_read_whole_or_not_at_all(stream):
    data = serialize(Wanted(stream=stream))
    assert parse_wanted(data) == Wanted(stream=stream)
    for end in range(len(data)):
        assert parse_wanted(data[:end]) is None


@given(st.binary(max_size=40))
def test_what_is_not_wanted_is_our_own_error(data):
    with contextlib.suppress(ProtocolError):
        parse_wanted(data)
    with contextlib.suppress(ProtocolError):
        parse_wanted(len(data).to_bytes(4, "big") + data)


def test_what_is_wanted_has_a_limit():
    envelope = len(serialize(Wanted(stream=""))) - 4
    longest = link.MAX_WANTED_BYTES - envelope - 1  # a longer text has one more byte of length
    assert parse_wanted(serialize(Wanted(stream="x" * longest))).stream == "x" * longest
    with pytest.raises(LimitExceededError):
        parse_wanted(serialize(Wanted(stream="x" * (longest + 1))))
