"""Records: one canonical form, whatever people type; bounds at the limit and one beyond."""

import base64
import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.databases import looked
from support.ledgers import as_version_1

from gateway.audit.commitments import MAX_DISCLOSURES_BYTES, commit
from gateway.audit.records import (
    MAX_DETAIL_ITEMS,
    MAX_DETAILS,
    MAX_INTEGER,
    MAX_LEAF_BYTES,
    MAX_TEXT_CHARS,
    SENSITIVE_FIELDS,
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
    camera_ids=st.lists(anything, max_size=3).map(tuple),
    owner_ids=st.lists(anything, max_size=3).map(tuple),
    revision=st.none() | numbers,
    detail=details,
)
records = st.builds(
    AuditRecord, seq=st.integers(0, MAX_INTEGER), at=st.integers(0, MAX_INTEGER), event=events.map(normalize)
)

LEAF, DISCLOSURES = serialize(AuditRecord(seq=3, at=5, event=looked(detail={"n": 1})))
NOTHING_DISCLOSED = b"{}"


@given(records)
def test_parse_is_the_inverse_of_serialize(record: AuditRecord) -> None:
    leaf, disclosures = serialize(record)
    assert parse(leaf, disclosures) == record
    document = json.loads(leaf)
    assert list(document) == sorted(document)
    assert document["v"] == 2
    assert not document.keys() & set(SENSITIVE_FIELDS)
    assert document["commitments"].keys() == json.loads(disclosures).keys()


@given(records)
def test_records_of_version_1_are_read_as_ever(record: AuditRecord) -> None:
    assert parse(as_version_1(record), None) == record
    with pytest.raises(RecordFormatError):
        parse(as_version_1(record), b"{}")


@given(st.binary(max_size=200).filter(lambda data: data != NOTHING_DISCLOSED))
def test_only_our_own_error_leaves_the_parser(data: bytes) -> None:
    with pytest.raises(RecordFormatError):
        parse(data, data)
    with pytest.raises(RecordFormatError):
        parse(LEAF, data)


def test_a_record_whose_disclosures_are_all_erased_is_read() -> None:
    assert set(parse(LEAF, NOTHING_DISCLOSED).erased) == json.loads(DISCLOSURES).keys()


@given(records, st.data())
def test_any_changed_byte_is_another_record_or_none(record: AuditRecord, data: st.DataObject) -> None:
    stored = [bytearray(part) for part in serialize(record)]
    place = data.draw(st.integers(0, 1))
    position = data.draw(st.integers(0, len(stored[place]) - 1))
    stored[place][position] ^= data.draw(st.integers(1, 255))
    try:
        other = parse(bytes(stored[0]), bytes(stored[1]))
    except RecordFormatError:
        return
    assert place == 0
    assert other != record


@given(records, st.sets(st.sampled_from(SENSITIVE_FIELDS)))
def test_an_erased_value_is_said_to_be_erased(record: AuditRecord, wanted: set[str]) -> None:
    leaf, disclosures = serialize(record)
    left = json.loads(disclosures)
    erased = wanted & left.keys()
    for name in erased:
        del left[name]
    read = parse(leaf, msgspec.json.encode(left, order="sorted"))
    assert set(read.erased) == erased
    blank = {name: "" if name == "content" else None for name in erased}
    assert read.event == msgspec.structs.replace(record.event, **blank)


@pytest.mark.parametrize(
    "change",
    [
        lambda leaf: leaf.replace(b":", b": ", 1),
        lambda leaf: leaf + b"\n",
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":3.0'),
        lambda leaf: leaf.replace(b'"seq":3', b'"seq":3,"seq":3'),
        lambda leaf: leaf.replace(b'"v":2', b'"v":1'),
        lambda leaf: leaf.replace(b'"v":2', b'"v":3'),
        lambda leaf: leaf.replace(b'"v":2', b'"v":2,"x":null'),
        lambda leaf: leaf.replace(b'"v":2', b'"rule":null,"v":2'),
        lambda leaf: leaf.replace("城".encode(), rb"\u57ce"),
        lambda leaf: b'{"v":2,' + leaf[1:].replace(b',"v":2', b""),
        lambda leaf: leaf.replace(b'"detail"', b'"content":"x","detail"'),
        lambda leaf: leaf.replace(b'{"actor_name"', b'{"rule"'),
        lambda leaf: leaf.replace(b'"content":', b'"purpose_note":'),
        lambda leaf: leaf.replace(b'"decision"', b'"unheard_of"'),
        lambda leaf: b"[" * 100_000,
        lambda leaf: leaf + b" " * MAX_LEAF_BYTES,
    ],
)
def test_there_is_one_form(change) -> None:
    assert change(LEAF) != LEAF
    with pytest.raises(RecordFormatError):
        parse(change(LEAF), DISCLOSURES)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: b" " + kept,
        lambda kept: kept.replace("张".encode(), rb"\u5f20"),
        lambda kept: kept.replace("张三".encode(), "李四".encode()),
        lambda kept: kept.replace(b'"actor_name"', b'"remote"'),
        lambda kept: kept.replace(b'"actor_name"', b'"rule"'),
        lambda kept: kept.replace('","张三'.encode(), '张","三'.encode()),
        lambda kept: b'{"content":' + kept.split(b'"content":')[1][:-1] + b"," + kept[1:],
        lambda kept: b"{}" + b" " * MAX_DISCLOSURES_BYTES,
        lambda kept: b"[" * 10_000,
        lambda kept: b"",
        lambda kept: None,
    ],
)
def test_disclosures_are_those_that_the_leaf_commits_to(change) -> None:
    parse(LEAF, DISCLOSURES)
    assert change(DISCLOSURES) != DISCLOSURES
    with pytest.raises(RecordFormatError):
        parse(LEAF, change(DISCLOSURES))


def test_the_bytes_are_as_they_always_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden bytes: a change here is a new FORMAT_VERSION."""
    monkeypatch.setattr("os.urandom", bytes)
    event = looked("看", detail={"b": ["x", '"'], "a": 1}, revision=7)
    leaf, disclosures = serialize(AuditRecord(seq=0, at=1, event=event))
    assert leaf.decode() == (
        '{"action":"live:view","actor_id":"u1","at":1,"camera_id":"c1","commitments":{'
        '"actor_name":"9IIDu8bV43h2uewDDY15hxzGw8v7kjOpErAICxITx7k","content":"AcGuH39Rqtq0i-3Rk--pre5qzn1dTPA-UZjCtNUHfcM"},'
        '"detail":{"a":1,"b":["x","\\""]},"kind":"decision","outcome":"allow","purpose_code":"patrol",'
        '"revision":7,"seq":0,"unit_id":"d1","unit_name":"城市管理局","v":2}'
    )
    salt = "A" * 22
    assert disclosures.decode() == f'{{"actor_name":["{salt}","张三"],"content":["{salt}","看"]}}'
    hashed = hashlib.sha256(b"custos commitment 1\ncontent\n" + f"{salt}看".encode()).digest()
    assert commit("content", salt, "看") == base64.urlsafe_b64encode(hashed).decode().rstrip("=")


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
        ({"camera_ids": ("y",) * MAX_DETAIL_ITEMS}, {"camera_ids": ("y",) * (MAX_DETAIL_ITEMS + 1)}),
        ({"owner_ids": ("y",) * MAX_DETAIL_ITEMS}, {"owner_ids": ("y",) * (MAX_DETAIL_ITEMS + 1)}),
        ({"detail": {"a" * 64: 1}}, {"detail": {"a" * 65: 1}}),
        ({"detail": {"a_1": 1}}, {"detail": {"A": 1}}),
    ],
)
def test_what_only_a_bug_can_produce_is_refused(good: dict[str, object], bad: dict[str, object]) -> None:
    normalize(looked(**good))
    with pytest.raises(ValueError, match=r"audit|detail"):
        normalize(looked(**bad))


def test_each_owner_is_named_once_and_in_order() -> None:
    event = normalize(looked(owner_ids=("d2", "d1", "d2", "\ud800")))
    assert event.owner_ids == ("d1", "d2", "\ufffd")
    leaf, disclosures = serialize(AuditRecord(seq=0, at=0, event=event))
    assert json.loads(leaf)["owner_ids"] == ["d1", "d2", "\ufffd"]
    assert parse(leaf, disclosures).event == event
    assert b"owner_ids" not in serialize(AuditRecord(seq=0, at=0, event=looked(owner_id="d1")))[0]


def test_the_largest_record_fits() -> None:
    text = "\x01" * MAX_TEXT_CHARS
    fields = {name: text for name in AuditEvent.__struct_fields__ if name.endswith(("_id", "_name", "_note"))}
    detail = {f"n{i}": [text] * 4 for i in range(MAX_DETAILS)}
    fields |= {name: text for name in SENSITIVE_FIELDS if name != "content"}
    fields["owner_ids"] = fields["camera_ids"] = tuple(f"{i:064}" for i in range(MAX_DETAIL_ITEMS))
    event = normalize(looked(text, detail=detail, **fields))
    leaf, disclosures = serialize(AuditRecord(seq=0, at=0, event=event))
    assert len(leaf) <= MAX_LEAF_BYTES
    assert len(disclosures) <= MAX_DISCLOSURES_BYTES
    assert parse(leaf, disclosures).event == event
