"""The ledger as a CSV: read by a spreadsheet without harm, verified to the byte."""

import csv
import io
import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.databases import looked

from gateway.audit.commitments import serialize_disclosures
from gateway.audit.csv_export import CSV, HEADINGS, harmless
from gateway.audit.lines import (
    EXPORT_VERSION,
    JSON_LINES,
    EndLine,
    ExportLine,
    LedgerLine,
    RecordLine,
    from_base64,
    to_base64,
)
from gateway.audit.records import AuditRecord, normalize, serialize

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
texts = st.text(st.sampled_from("=+-@＝＋－＠ ,;|\"'\t\r\n\u2028a李\u202e"), max_size=12) | st.text(
    max_size=12
)


def line_of(**fields: object) -> RecordLine:
    record = AuditRecord(seq=7, at=1_700_000_000_000_000, event=normalize(looked(**fields)))
    return RecordLine(7, *map(to_base64, serialize(record)))


def cells_of(line: ExportLine, delimiter: str = ",") -> dict[str, str]:
    rows = list(csv.reader(io.StringIO(CSV.render(line).decode(), newline=""), delimiter=delimiter))
    assert len(rows) == 1
    return dict(zip(HEADINGS, rows[0], strict=True))


def test_a_row_has_the_laws_words_the_leaf_and_what_it_commits_to() -> None:
    line = line_of(content="看了画面", purpose_reference="A-1", owner_id="d2", detail={"b": ["x"], "a": 1})
    cells = cells_of(line)
    shown = {name: cells[name] for name in ("seq", "at", "actor_name", "unit_name", "purpose_reference")}
    assert shown == {
        "seq": "7",
        "at": "2023-11-14T22:13:20+00:00",
        "actor_name": "张三",
        "unit_name": "城市管理局",
        "purpose_reference": "A-1",
    }
    assert (cells["content"], cells["owner_id"], cells["session_id"]) == ("看了画面", "d2", "")
    assert cells["detail"] == '{"a":1,"b":["x"]}'
    assert json.loads(b64decode(cells["leaf"]))["seq"] == 7
    assert json.loads(b64decode(cells["disclosures"]))["content"][1] == "看了画面"


def test_a_cell_has_all_cameras_and_owners() -> None:
    assert cells_of(line_of(owner_ids=("d2", "d3")))["owner_id"] == "d2 d3"
    assert cells_of(line_of(camera_ids=("c2", "c3")))["camera_id"] == "c1 c2 c3"
    assert cells_of(line_of())["owner_id"] == ""


def test_the_header_names_each_column_in_both_languages() -> None:
    assert CSV.preamble.startswith(b"\xef\xbb\xbf")
    headings = next(csv.reader([CSV.preamble.decode("utf-8-sig")]))
    assert headings == [f"{chinese} {name}" for name, chinese in HEADINGS.items()]
    assert {"事由 purpose_code", "内容 content", "单位 unit_name", "姓名 actor_name"} <= set(headings)


def test_what_is_erased_is_named_and_not_shown() -> None:
    line = line_of(remote="192.0.2.1")
    disclosures = json.loads(from_base64(line.disclosures) or b"")
    left = serialize_disclosures({"content": disclosures["content"]})
    cells = cells_of(RecordLine(7, line.leaf, to_base64(left)))
    assert (cells["actor_name"], cells["remote"], cells["erased"]) == ("", "", "actor_name remote")


@pytest.mark.parametrize("start", DANGEROUS)
def test_a_cell_that_a_spreadsheet_would_run_is_made_harmless(start: str) -> None:
    for text in (f"{start}1+1", f" {start}cmd|' /C calc'!A0", f"a;{start}1", f'a",{start}1', f"a\t{start}1"):
        cells = cells_of(line_of(content=text, actor_name=text, detail={"x": text}))
        for name in ("content", "actor_name"):
            assert not cells[name].lstrip().startswith(DANGEROUS)


@given(texts, texts)
def test_no_delimiter_makes_a_cell_dangerous(content: str, name: str) -> None:
    line = line_of(content=content, actor_name=name)
    for delimiter in (",", ";", "\t", "|"):
        rows = list(csv.reader(io.StringIO(CSV.render(line).decode(), newline=""), delimiter=delimiter))
        assert len(rows) == 1
        assert not [cell for cell in rows[0] if cell.lstrip().startswith(DANGEROUS)]


@given(st.text(max_size=50))
def test_what_is_harmless_stays_so_on_one_line(text: str) -> None:
    once = harmless(text)
    assert harmless(once) == once
    assert len(once.splitlines()) <= 1


@given(texts, texts, st.integers(0, 2**53 - 1))
def test_rows_and_lines_say_the_same(content: str, name: str, number: int) -> None:
    lines: list[ExportLine] = [
        LedgerLine(EXPORT_VERSION, "custos/x", "custos/x+00+AQ=="),
        line_of(content=content, actor_name=name, revision=number),
        EndLine(number, 3),
    ]
    for form in (CSV, JSON_LINES):
        for line in lines:
            raw = form.render(line)
            assert raw.count(b"\n") == 1
            assert form.read(raw) == line


def test_a_record_that_is_none_is_exported_as_it_is() -> None:
    for leaf in (b"", b"{}", b"\xff", b'{"v":2}'):
        line = RecordLine(3, to_base64(leaf), None)
        assert CSV.read(CSV.render(line)) == line
        assert cells_of(line)["content"] == ""


@given(st.binary(max_size=200))
def test_nothing_but_a_line_or_none_comes_from_the_readers(raw: bytes) -> None:
    for form in (CSV, JSON_LINES):
        line = form.read(raw)
        assert line is None or form.read(form.render(line)) == line
