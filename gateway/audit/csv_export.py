"""The ledger as a CSV (RFC 4180) for people with a spreadsheet, verifiable as it is.

UTF-8 with a byte-order mark, without which Excel takes it for the system's code page. One header row with
each column's Chinese and English name in one cell: the law's words for who opens it in an office, the API's
for who reads it by program. Then a row per line of an export (`lines`): a record's readable columns, its leaf
and its disclosures in base64; of the others the JSON line in base64.

A cell is for reading, the leaf is what counts, so a cell may lose: line breaks and other control characters
become spaces, which makes every row one line, and what a spreadsheet would run gets an apostrophe before it
(OWASP, "CSV injection"), also after a character at which a spreadsheet set to another delimiter would split.
"""

import csv
import io
import re

import msgspec

from gateway.audit.lines import (
    ExportFormat,
    ExportLine,
    RecordLine,
    from_base64,
    read_json,
    render_json,
    to_base64,
)
from gateway.audit.records import AuditRecord, parse
from gateway.clock import from_micros

HEADINGS = {
    "type": "类型",
    "seq": "序号",
    "at": "时间",
    "kind": "事项",
    "outcome": "结果",
    "actor_name": "姓名",
    "actor_id": "用户编号",
    "unit_name": "单位",
    "unit_id": "单位编号",
    "purpose_code": "事由",
    "purpose_reference": "事由编号",
    "purpose_note": "事由说明",
    "content": "内容",
    "action": "操作",
    "resource": "对象",
    "camera_id": "摄像机编号",
    "owner_id": "所属单位编号",
    "session_id": "会话编号",
    "reason": "原因",
    "rule": "规则",
    "revision": "策略版本",
    "remote": "来源地址",
    "request_id": "请求编号",
    "detail": "详情",
    "erased": "已删除项",
    "leaf": "规范记录",
    "disclosures": "披露值",
    "line": "其他行",
}
_EVENT_COLUMNS = tuple(HEADINGS)[3:-4]
_LAST_COLUMNS = 3

_RUN = re.compile(r"(^|[;,|\"])(\s*)(?=[=+\-@＝＋－＠])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Also what turns the direction of writing: a cell shows its text in the order in which it stands."""


def render_row(line: ExportLine) -> bytes:
    if isinstance(line, RecordLine):
        readable = ["record", str(line.seq), *_readable(line)]
        cells = [*map(harmless, readable), line.leaf, line.disclosures or "", ""]
    else:
        kind = str(line.__struct_config__.tag)
        cells = [kind, *[""] * (len(HEADINGS) - 2), to_base64(render_json(line).rstrip())]
    return _row(cells)


def read_row(raw: bytes) -> ExportLine | None:
    """What the last columns say; the readable ones are not looked at."""
    try:
        row = raw.decode()
        kind, seq, _ = row.split(",", 2)
        _, leaf, disclosures, line = row.rstrip("\r\n").rsplit(",", _LAST_COLUMNS)
        if kind == "record":
            return RecordLine(int(seq), leaf, disclosures or None)
    except ValueError:
        return None
    return read_json(from_base64(line) or b"")


def harmless(text: str) -> str:
    """The text as a cell on one line that no spreadsheet runs."""
    return _RUN.sub(r"\1'\2", _CONTROL.sub(" ", text))


def _readable(line: RecordLine) -> list[str]:
    try:
        record = parse(from_base64(line.leaf) or b"", from_base64(line.disclosures))
        return [from_micros(record.at).isoformat(), *_event_cells(record), " ".join(record.erased)]
    # a ledger that was altered is exported as it is: whoever verifies finds it
    except (ValueError, OverflowError):
        return [""] * (len(_EVENT_COLUMNS) + 2)


def _event_cells(record: AuditRecord) -> list[str]:
    values = msgspec.structs.asdict(record.event)
    detail = record.event.detail
    values["camera_id"] = " ".join(filter(None, (record.event.camera_id, *record.event.camera_ids))) or None
    values["owner_id"] = " ".join(filter(None, (record.event.owner_id, *record.event.owner_ids))) or None
    values["detail"] = msgspec.json.encode(detail, order="sorted").decode() if detail else None
    return ["" if values[name] is None else str(values[name]) for name in _EVENT_COLUMNS]


def _row(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


PREAMBLE = b"\xef\xbb\xbf" + _row([f"{chinese} {name}" for name, chinese in HEADINGS.items()])
CSV = ExportFormat("text/csv; charset=utf-8", PREAMBLE, render_row, read_row)
