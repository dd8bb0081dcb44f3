"""The trace mark: fixed layout, survives, cannot be moved or made by others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip

from streams.media import Codec
from streams.mux import MARK_LENGTH, Marker, sample_of
from streams.mux.mark import (
    MARK_PLACEHOLDER,
    MARK_UUID,
    find_marks,
    hash_slices,
    mark_for,
    mark_sei,
)
from streams.wire.nal_unit import is_slice

KEY = b"k" * 32
SESSION = bytes(range(16))
any_codec = st.sampled_from(list(Codec))
slice_of = {Codec.H264: b"\x65\x88\x80", Codec.H265: b"\x26\x01\xaf"}


def marked(
    codec: Codec, key: bytes, session: bytes, camera: str, pts: int, slices: list[bytes]
) -> list[bytes]:
    head, tail = mark_sei(codec, pts)
    return [head + mark_for(key, session, camera, pts, hash_slices(codec, slices)) + tail, *slices]


@given(
    any_codec,
    st.binary(min_size=16, max_size=64),
    st.binary(min_size=16, max_size=16),
    st.text(),
    st.integers(0, 2**63),
)
def test_round_trip(codec: Codec, key: bytes, session: bytes, camera: str, pts: int) -> None:
    nal_units = marked(codec, key, session, camera, pts, [slice_of[codec]])
    (found,) = find_marks(codec, nal_units)
    assert (found.session_id, found.pts) == (session, pts)
    assert found.is_authentic(key, camera)
    assert not found.is_authentic(bytes(32), camera)
    assert not found.is_authentic(key, camera + "x")
    assert b"\0\0" not in nal_units[0]


@given(any_codec, st.binary(max_size=16), st.integers())
def test_another_picture_or_time_is_not_authentic(codec: Codec, other: bytes, pts: int) -> None:
    nal_units = marked(codec, KEY, SESSION, "cam", 7, [slice_of[codec]])
    (moved,) = find_marks(codec, [nal_units[0], slice_of[codec] + other])
    assert moved.is_authentic(KEY, "cam") == (not other)
    head, tail = mark_sei(codec, pts)
    mark = nal_units[0][-MARK_LENGTH - 1 : -1]
    (retimed,) = find_marks(codec, [head + mark + tail, slice_of[codec]])
    assert retimed.is_authentic(KEY, "cam") == (pts == 7)


@given(
    any_codec,
    st.lists(st.binary(max_size=40).map(lambda b: b"\x06" + MARK_UUID + b) | st.binary(), max_size=5),
)
def test_no_bytes_make_it_raise(codec: Codec, nal_units: list[bytes]) -> None:
    for found in find_marks(codec, nal_units):
        assert not found.is_authentic(KEY, "cam")


@pytest.mark.parametrize("codec", list(Codec))
def test_an_unpatched_placeholder_is_no_mark(codec: Codec) -> None:
    head, tail = mark_sei(codec, 7)
    assert find_marks(codec, [head + MARK_PLACEHOLDER + tail, slice_of[codec]]) == []
    assert find_marks(codec, [slice_of[codec]]) == []


@pytest.mark.parametrize("codec", list(Codec))
def test_found_in_a_merged_sei_and_beside_another(codec: Codec) -> None:
    """Recorders may merge SEI messages; two marks are both reported, whoever wrote the second."""
    ours, picture = marked(codec, KEY, SESSION, "cam", 7, [slice_of[codec]])
    header = 1 if codec is Codec.H264 else 2
    merged = ours[:header] + b"\x05\x11" + bytes(16) + b"x" + ours[header:]
    forged, _ = marked(codec, bytes(32), bytes(16), "cam", 7, [picture])
    found = find_marks(codec, [merged, forged, picture])
    assert [f.is_authentic(KEY, "cam") for f in found] == [True, False]


@pytest.mark.parametrize("codec", list(Codec))
def test_the_mark_goes_before_the_first_slice(codec: Codec) -> None:
    _, units = encode_clip(codec, 1, slices=3)
    sample = sample_of(codec, units[0])
    slices = [n for n in units[0].nal_units if is_slice(codec, n)]
    assert sample.tail == b"\x80" + b"".join(len(s).to_bytes(4) + s for s in slices)
    assert sample.slices_hash == hash_slices(codec, slices)
    data = sample.head + sample.mark + sample.tail
    assert (
        len(data)
        == sample.size_bytes
        == units[0].size_bytes
        + 4 * (len(units[0].nal_units) + 1)
        + len(b"".join(mark_sei(codec, 0)))
        + len(sample.mark)
    )


def test_the_layout_is_fixed() -> None:
    assert MARK_LENGTH == 43
    assert mark_sei(Codec.H264, 90_000)[0].hex() == "06054b" + MARK_UUID.hex() + b"0000000000015f90".hex()
    assert mark_sei(Codec.H265, 1)[0][:4] == b"\x4e\x01\x05\x4b"
    assert len(MARK_PLACEHOLDER) == MARK_LENGTH
    assert 16 + 16 + MARK_LENGTH == 0x4B


@pytest.mark.parametrize(
    ("key", "session"), [(b"k" * 15, SESSION), (KEY, SESSION[:15]), (KEY, SESSION + b"x")]
)
def test_sizes_are_checked(key: bytes, session: bytes) -> None:
    with pytest.raises(ValueError, match=r"at least|has 16"):
        Marker(key, session, "cam")
