"""AMF0: what we write we read; whatever else comes is refused with our own error."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.amf0 import MAX_DEPTH, MAX_STRING_BYTES, MAX_VALUES, parse_amf0, serialize_amf0

_NAMES = st.text(min_size=1, max_size=10)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(_VALUES, max_size=4))
def test_what_is_written_is_read(values):
    assert parse_amf0(serialize_amf0(*values)) == values


@given(st.binary(max_size=200))
def test_only_our_own_error_escapes(data):
    with contextlib.suppress(ProtocolError):
        parse_amf0(data)


def test_what_only_peers_write():
    ecma = b"\x08\x00\x00\x00\x01\x00\x01a\x01\x01\x00\x00\x09"
    date = b"\x0b" + bytes(8) + b"\x00\x00"
    long_string = b"\x0c\x00\x00\x00\x02hi"
    assert parse_amf0(ecma + date + long_string + b"\x06") == [{"a": True}, 0.0, "hi", None]


def test_limits():
    nested = b"\x0a\x00\x00\x00\x01" * MAX_DEPTH + b"\x05"
    parse_amf0(nested)
    with pytest.raises(LimitExceededError):
        parse_amf0(b"\x0a\x00\x00\x00\x01" + nested)
    parse_amf0(b"\x05" * MAX_VALUES)
    with pytest.raises(LimitExceededError):
        parse_amf0(b"\x05" * (MAX_VALUES + 1))
    assert parse_amf0(serialize_amf0("x" * MAX_STRING_BYTES)) == ["x" * MAX_STRING_BYTES]
    with pytest.raises(LimitExceededError):
        parse_amf0(serialize_amf0("x" * (MAX_STRING_BYTES + 1)))
    with pytest.raises(LimitExceededError):
        parse_amf0(b"\x0a\xff\xff\xff\xff")
