"""Records: one canonical form, whatever people type; bounds at the limit and one beyond."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.databases import looked

from gateway.audit.records import (
    MAX_DETAIL_ITEMS,
    MAX_DETAILS,
    MAX_INTEGER,
    MAX_LEAF_BYTES,
    MAX_TEXT_CHARS,
    AuditEvent,
    AuditKind,
    AuditRecord,
    Outcome,
    RecordFormatError,
    normalize,
    parse,
    serialize,
)

# every character there is, lone surrogates and NUL too
anything = st.text(st.characters(), max_size=40)
numbers = st.integers(-MAX_INTEGER, MAX_INTEGER)
details = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True),
    st.one_of(anything, numbers, st.booleans(), st.none(), st.lists(anything, max_size=3)),
    max_size=4,
)
events = st.builds(
    AuditEvent,
    kind=st.sampled_from(AuditKind),
    outcome=st.sampled_from(Outcome),
    content=anything,
    actor_name=st.none() | anything,
    purpose_note=st.none() | anything,
    revision=st.none() | numbers,
    detail=details,
)
records = st.builds(
    AuditRecord, seq=st.integers(0, MAX_INTEGER), at=st.integers(0, MAX_INTEGER), event=events.map(normalize)
)


@given(records)
def test_parse_is_the_inverse_of_serialize(record: AuditRecord) -> None:
    leaf = serialize(record)
    assert parse(leaf) == record
    document = json.loads(leaf)
    assert list(document) == sorted(document)
    assert document["v"] == 1


@given(st.binary(max_size=200))
def test_only_our_own_error_leaves_the_parser(data: bytes) -> None:
    with pytest.raises(RecordFormatError):
        parse(data)


@given(records, st.data())
def test_any_changed_byte_is_another_record_or_none(record: AuditRecord, data: st.DataObject) -> None:
    leaf = bytearray(serialize(record))
    position = data.draw(st.integers(0, len(leaf) - 1))
    leaf[position] ^= data.draw(st.integers(1, 255))
    try:
        other = parse(bytes(leaf))
    except RecordFormatError:
        return
    assert other != record


@pytest.mark.parametrize(
    "change",
    [
        lambda leaf: leaf.replace(b":", b": ", 1),
        lambda leaf: leaf + b"\n",
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":3.0'),
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":3,"seq":3'),
        lambda leaf: leaf.replace(b'"v":1', b'"v":2'),
        lambda leaf: leaf.replace(b'"v":1', b'"v":1,"x":null'),
        lambda leaf: leaf.replace(b'"v":1', b'"rule":null,"v":1'),
        lambda leaf: leaf.replace("张".encode(), rb"\u5f20"),
        lambda leaf: b'{"v":1,' + leaf[1:].replace(b',"v":1', b""),
        lambda leaf: leaf.replace(b'"decision"', b'"unheard_of"'),
        lambda leaf: b"[" * 100_000,
        lambda leaf: leaf + b" " * MAX_LEAF_BYTES,
    ],
)
def test_there_is_one_form(change) -> None:
    leaf = serialize(AuditRecord(seq=3, at=5, event=looked()))
    parse(leaf)
    assert change(leaf) != leaf
    with pytest.raises(RecordFormatError):
        parse(change(leaf))


def test_the_bytes_are_as_they_always_were() -> None:
    """Golden bytes: a change here is a new FORMAT_VERSION."""
    event = looked("看", detail={"b": ["x", '"'], "a": 1}, revision=7)
    assert serialize(AuditRecord(seq=0, at=1, event=event)).decode() == (
        '{"action":"live:view","actor_id":"u1","actor_name":"张三","at":1,"camera_id":"c1","content":"看",'
        '"detail":{"a":1,"b":["x","\\""]},"kind":"decision","outcome":"allow","purpose_code":"patrol",'
        '"revision":7,"seq":0,"unit_id":"d1","unit_name":"城市管理局","v":1}'
    )


def test_text_is_cut_beyond_its_limit_and_cleaned() -> None:
    assert normalize(looked("x" * MAX_TEXT_CHARS)).content == "x" * MAX_TEXT_CHARS
    assert normalize(looked("x" * (MAX_TEXT_CHARS + 1))).content == "x" * (MAX_TEXT_CHARS - 1) + "…"
    assert normalize(looked("a\x00b\ud800c")).content == "a\ufffdb\ufffdc"
    long = normalize(looked(detail={"note": "y" * 5000, "names": ["z" * 5000]})).detail
    assert isinstance(long["names"], list)
    assert [len(str(long["note"])), len(long["names"][0])] == [MAX_TEXT_CHARS] * 2


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"revision": MAX_INTEGER}, {"revision": MAX_INTEGER + 1}),
        ({"detail": {"n": -MAX_INTEGER}}, {"detail": {"n": -MAX_INTEGER - 1}}),
        (
            {"detail": {f"n{i}": i for i in range(MAX_DETAILS)}},
            {"detail": {f"n{i}": i for i in range(MAX_DETAILS + 1)}},
        ),
        ({"detail": {"x": ["y"] * MAX_DETAIL_ITEMS}}, {"detail": {"x": ["y"] * (MAX_DETAIL_ITEMS + 1)}}),
        ({"detail": {"a" * 64: 1}}, {"detail": {"a" * 65: 1}}),
        ({"detail": {"a_1": 1}}, {"detail": {"A": 1}}),
    ],
)
def test_what_only_a_bug_can_produce_is_refused(good: dict[str, object], bad: dict[str, object]) -> None:
    normalize(looked(**good))
    with pytest.raises(ValueError, match=r"audit|detail"):
        normalize(looked(**bad))


def test_the_largest_record_fits() -> None:
    text = "\x01" * MAX_TEXT_CHARS
    fields = {name: text for name in AuditEvent.__struct_fields__ if name.endswith(("_id", "_name", "_note"))}
    detail = {f"n{i}": [text] * 4 for i in range(MAX_DETAILS)}
    leaf = serialize(AuditRecord(seq=0, at=0, event=normalize(looked(text, detail=detail, **fields))))
    assert len(leaf) <= MAX_LEAF_BYTES
    assert msgspec.json.decode(leaf)["content"] == text
