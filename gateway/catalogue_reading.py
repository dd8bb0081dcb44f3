"""Cameras read from the lines of a file: CSV (RFC 4180) and JSON lines, a line at a time.

Reading never fails: what is wrong with a line is a `LineError` among the lines; after an unusable header and
at a limit it is the last. A CSV is UTF-8 with or without a byte-order mark, UTF-16 with one, or GB18030, as
Excel writes it in China; its delimiter is a comma, a semicolon or a tab. JSON lines are UTF-8.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from gateway.catalogue_cells import GUARDED_STARTS, KEEP, READERS, FormulaError, read_text
from gateway.catalogue_columns import COLUMNS, OF_HEADING, SHARING_FIELDS, Fields, FileFormat

MAX_FILE_BYTES = 128 * 1024 * 1024
MAX_LINES = 200_000
"""Of a file, header and empty ones included: twice a large city's cameras."""
MAX_LINE = 96 * 1024
"""Characters of a CSV's line, all that a quoted cell goes on over included; bytes of a JSON line."""
MAX_COLUMNS = 64
MAX_TOLD_CHARS = 100
"""How much of a file's own text an error repeats."""
_SNIFFED_BYTES = 8 * 1024 * 1024
"""So far is looked for the first byte that is not ASCII; a file without one is UTF-8."""
_WINDOW_BYTES = 64 * 1024
"""So much is looked at from that byte on: less of it may be UTF-8 by accident."""

_SHARING: Fields = {
    "mode": "conditional",
    "departments": [],
    "scope": "",
    "purpose": "",
    "frequency": "",
    "until": None,
}
"""What `sharing` of a JSON line means where it says nothing. Purposes then stay, as in the API."""
_JSON_FIELDS = frozenset(name for name in COLUMNS if not name.startswith("sharing_")) | {"sharing"}


class LineError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong. `line`: of the file, from 1. `column`: its name, or the file's own heading."""

    line: int
    code: str
    message: str
    column: str | None = None


class CameraLine(msgspec.Struct, frozen=True):
    """One camera of a file, with nothing checked but its form."""

    line: int
    fields: Fields

    def __repr__(self) -> str:
        return f"CameraLine(line={self.line})"


def read_lines(file: BinaryIO, form: FileFormat) -> Iterator[CameraLine | LineError]:
    """The lines of a file that can be read and sought, from its start. Empty lines are left out."""
    return _read_csv(file) if form is FileFormat.CSV else _read_json_lines(file)


class _LineTooLongError(Exception):
    pass


class _PhysicalLines:
    """What `csv.reader` reads from: it asks for as many lines as a quoted cell goes on over."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._chars = 0
        self.read = 0

    def begin_record(self) -> int:
        """The number of its first line."""
        self._chars = 0
        return self.read + 1

    def __iter__(self) -> "_PhysicalLines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE - self._chars + 1)
        if not line:
            raise StopIteration
        self._chars += len(line)
        if self._chars > MAX_LINE:
            raise _LineTooLongError
        self.read += 1
        return line


def _read_csv(file: BinaryIO) -> Iterator[CameraLine | LineError]:
    # newline="": a line ends as it ends, and a quoted cell keeps its own line ends
    text = io.TextIOWrapper(file, encoding=_encoding_of(file), errors="replace", newline="")
    try:
        yield from _read_records(_PhysicalLines(text))
    finally:
        # or it would close the file
        text.detach()


def _read_records(lines: _PhysicalLines) -> Iterator[CameraLine | LineError]:
    try:
        header = next(lines, "")
    except _LineTooLongError:
        yield _too_long(1)
        return
    delimiter, headings = _split_header(header)
    columns, errors = _columns_of(headings)
    yield from errors
    if errors:
        return
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    for _ in range(MAX_LINES - 1):
        number = lines.begin_record()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield LineError(line=number, code="quoting_invalid", message=f"RFC 4180: {error}")
            continue
        except _LineTooLongError:
            yield _too_long(number)
            return
        if cells is None:
            return
        if any(cells):
            yield _camera_of(number, columns, cells)
    number = lines.begin_record()
    try:
        is_more = next(lines, None) is not None
    except _LineTooLongError:
        is_more = True
    if is_more:
        yield _too_many(number)


def _too_long(line: int) -> LineError:
    return LineError(line=line, code="line_too_long", message=f"a line has at most {MAX_LINE} characters")


def _too_many(line: int) -> LineError:
    return LineError(line=line, code="too_many_lines", message=f"a file has at most {MAX_LINES} lines")


def _split_header(header: str) -> tuple[str, list[str]]:
    """The delimiter with which most headings are known, and the headings."""

    def split(delimiter: str) -> list[str]:
        try:
            return [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
        except csv.Error:
            return []

    candidates = [(delimiter, split(delimiter)) for delimiter in ",;\t"]
    return max(candidates, key=lambda found: sum(cell.lower() in OF_HEADING for cell in found[1]))


def _columns_of(headings: list[str]) -> tuple[list[str], list[LineError]]:
    if not any(headings):
        message = "the first line names the columns"
        return [], [LineError(line=1, code="file_empty", message=message)]
    if len(headings) > MAX_COLUMNS:
        message = f"a file has at most {MAX_COLUMNS} columns"
        return [], [LineError(line=1, code="too_many_columns", message=message)]
    columns: list[str] = []
    errors: list[LineError] = []
    for heading in headings:
        column = OF_HEADING.get(heading.lower())
        if column is None:
            message = f"there is no column {_told(heading)!r}"
            errors.append(_wrong(1, _told(heading), message, "column_unknown"))
        elif column in columns:
            errors.append(_wrong(1, column, f"the column {column} is there twice", "column_duplicate"))
        else:
            columns.append(column)
    return columns, errors


def _camera_of(line: int, columns: list[str], cells: list[str]) -> CameraLine | LineError:
    if len(cells) != len(columns):
        message = f"{len(cells)} cells under {len(columns)} headings"
        return LineError(line=line, code="cells_differ", message=message)
    fields: Fields = {}
    for column, cell in zip(columns, cells, strict=True):
        if "\ufffd" in cell:
            message = "characters that are none: is the file UTF-8, or GB18030?"
            return _wrong(line, column, message, "encoding_invalid")
        read = READERS.get(column)
        # most cells are text that is as it seems
        if read is None and cell[:1] not in GUARDED_STARTS:
            fields[column] = cell
            continue
        try:
            value = read_text(cell) if read is None else read(cell)
        except FormulaError:
            message = "begins like a formula; put an apostrophe before it"
            return _wrong(line, column, message, "formula_cell")
        except ValueError as error:
            return _wrong(line, column, str(error))
        if value is not KEEP:
            fields[column] = value
    return CameraLine(line, fields)


def _wrong(line: int, column: str, message: str, code: str = "invalid_field") -> LineError:
    return LineError(line=line, column=column, code=code, message=message)


def _told(text: str) -> str:
    return text if len(text) <= MAX_TOLD_CHARS else text[: MAX_TOLD_CHARS - 1] + "…"


def _encoding_of(file: BinaryIO) -> str:
    """Leaves the file at its start."""
    file.seek(0)
    try:
        start = _read_fully(file, len(codecs.BOM_UTF8))
        if start.startswith(codecs.BOM_UTF8):
            return "utf-8-sig"
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        file.seek(0)
        offset = _first_beyond_ascii(file)
        if offset is None:
            return "utf-8"
        file.seek(offset)
        text = _read_fully(file, _WINDOW_BYTES).decode("utf-8", "replace")
        foreign = len(text) - len(text.encode("ascii", "ignore"))
        # some broken characters do not make it another encoding, which breaks nearly all
        return "utf-8" if text.count("\ufffd") * 10 <= foreign else "gb18030"
    finally:
        file.seek(0)


def _first_beyond_ascii(file: BinaryIO) -> int | None:
    offset = 0
    while offset < _SNIFFED_BYTES and (block := file.read(_WINDOW_BYTES)):
        if not block.isascii():
            return offset + next(index for index, byte in enumerate(block) if byte > 0x7F)  # noqa: PLR2004
        offset += len(block)
    return None


def _read_fully(file: BinaryIO, size: int) -> bytes:
    read = bytearray()
    while len(read) < size and (block := file.read(size - len(read))):
        read += block
    return bytes(read)


def _read_json_lines(file: BinaryIO) -> Iterator[CameraLine | LineError]:
    file.seek(0)
    for number in range(1, MAX_LINES + 2):
        line = file.readline(MAX_LINE + 1)
        if not line:
            return
        if number > MAX_LINES:
            yield _too_many(number)
            return
        if len(line) > MAX_LINE:
            yield _too_long(number)
            return
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield _camera_of_json(number, line)


def _camera_of_json(number: int, line: bytes) -> CameraLine | LineError:
    try:
        given: Fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return LineError(line=number, code="json_invalid", message="not a JSON object in UTF-8")
    sharing = given.pop("sharing", None)
    unknown = given.keys() - _JSON_FIELDS
    if sharing is not None:
        if not isinstance(sharing, dict):
            return _wrong(number, "sharing", "an object")
        unknown |= {f"sharing.{name}" for name in sharing.keys() - set(SHARING_FIELDS)}
        given |= {f"sharing_{name}": value for name, value in (_SHARING | sharing).items()}
    if unknown:
        column = _told(min(unknown))
        return _wrong(number, column, f"there is no field {column!r}", "column_unknown")
    return CameraLine(number, given)
