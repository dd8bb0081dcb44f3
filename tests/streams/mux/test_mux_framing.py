"""Transfer framings cover head, mark and tail together, at each boundary of their length fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.mux import FRAMINGS, Sample
from streams.mux.framing import chunk_header, websocket_header


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65_535, "827effff"),
        (65_536, "827f0000000000010000"),
    ],
)
def test_websocket_header(size: int, header: str) -> None:
    assert websocket_header(size).hex() == header


def test_chunk_header() -> None:
    assert chunk_header(0x1F0) == b"1f0\r\n"


@given(st.sampled_from(sorted(FRAMINGS)), st.binary(), st.binary(max_size=300), st.booleans())
def test_a_frame_covers_the_whole_unit(name: str, head: bytes, tail: bytes, marked: bool) -> None:
    framing = FRAMINGS[name]
    head, mark = (head, b"m" * 43) if marked else (b"", b"")
    pieces = tail[:7], memoryview(tail)[7:]
    size = len(head) + len(mark) + len(tail)
    unit = Sample(head, mark, pieces, size, marked, 1, 2, 3, b"h" if marked else None)
    framed = framing.frame_unit(unit)
    whole = framed.head + framed.mark + framed.tail
    assert whole == framing.frame(unit.head + unit.mark + unit.tail)
    assert (framed.mark, framed.pts, framed.dts, framed.received_ns) == (unit.mark, 1, 2, 3)
    assert marked or not framed.head
