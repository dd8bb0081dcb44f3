"""A cell of a CSV and its value, both ways.

A spreadsheet runs a cell that begins like a formula (OWASP, "CSV injection"). Such a cell is refused, and
written with an apostrophe before it, which reading takes away again.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_FORMULA_STARTS = frozenset("=+-@\t\r\n＝＋－＠")
GUARDED_STARTS = _FORMULA_STARTS | {"'"}
"""A cell of text that begins with none of these is as it seems."""
_GUARDED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
_NO_PURPOSES = ("-", "－")
"""The cell of an empty list of purposes; one without anything means any purpose."""
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,400})?", re.ASCII)
_TRUE = frozenset({"true", "1", "yes", "是"})
_FALSE = frozenset({"false", "0", "no", "否"})


class FormulaError(ValueError):
    """A cell that a spreadsheet would run."""


KEEP = object()
"""An empty cell that says nothing, where another says that there is nothing."""


def read_text(cell: str) -> Any:
    """Raises FormulaError."""
    start = cell[:1]
    if start in _FORMULA_STARTS:
        raise FormulaError
    return cell[1:] if start == "'" and _GUARDED.match(cell) else cell


def _text_if_any(cell: str) -> Any:
    return read_text(cell) if cell else KEEP


def _text_or_none(cell: str) -> Any:
    return read_text(cell) if cell else None


def _list(cell: str) -> Any:
    items = (item.strip() for item in re.split("[;；]", read_text(cell)))
    return [item for item in items if item]


def _list_or_any(cell: str) -> Any:
    if not cell.strip():
        return None
    if cell.strip() in _NO_PURPOSES:
        return []
    if not (items := _list(cell)):
        raise ValueError("codes, or a single - for none")
    return items


def _boolean(cell: str) -> Any:
    word = cell.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    if word:
        raise ValueError("true or false")
    return KEEP


def _integer(cell: str) -> Any:
    return _numeric(cell, _INTEGER, int, "a whole number")


def _number(cell: str) -> Any:
    return _numeric(cell, _NUMBER, float, "a number")


def _numeric(cell: str, pattern: re.Pattern[str], convert: Callable[[str], Any], what: str) -> Any:
    digits = cell.strip()
    if not digits:
        return None
    if not pattern.fullmatch(digits):
        raise ValueError(what)
    return convert(digits)


READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("id", "url", "sub_url", "username", "password", "sharing_mode"), _text_if_any),
    **dict.fromkeys(("code", "civil_code", "network", "direction", "sharing_until"), _text_or_none),
    **dict.fromkeys(("tags", "groups", "sharing_departments"), _list),
    "sharing_purposes": _list_or_any,
    **dict.fromkeys(("allow_basic", "enabled"), _boolean),
    **dict.fromkeys(("point_class", "retention_days", "declared_bandwidth_bps"), _integer),
    **dict.fromkeys(("longitude", "latitude"), _number),
}
"""How a column's cell is read; the others are text, and may be empty. Raises ValueError."""


def write_cell(column: str, value: Any) -> str:
    """Of a value that JSON knows; no spreadsheet runs it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            # no exponent: spreadsheets and people read it alike
            return format(Decimal(repr(value)), "f")
        case list():
            is_nothing = column == "sharing_purposes" and not value
            return _NO_PURPOSES[0] if is_nothing else _guard(";".join(value))
        case _:
            return _guard(str(value))


def _guard(text: str) -> str:
    return "'" + text if text[:1] in _FORMULA_STARTS or _GUARDED.match(text) else text
