"""Cameras written as lines of a file, which `gateway.catalogue_reading` reads as they were."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.catalogue_cells import write_cell
from gateway.catalogue_columns import SHARING_FIELDS


def write_header(columns: Iterable[str]) -> str:
    return _csv_line(columns)


def write_csv_line(columns: Iterable[str], fields: Mapping[str, Any]) -> str:
    """One line with its end; a column that the fields lack is empty."""
    return _csv_line(write_cell(column, fields.get(column)) for column in columns)


def write_json_line(columns: Iterable[str], fields: Mapping[str, Any]) -> bytes:
    """One line with its end; `sharing` is an object, as in the API."""
    given = {column: fields[column] for column in columns if column in fields}
    sharing = {name: given.pop(f"sharing_{name}") for name in SHARING_FIELDS if f"sharing_{name}" in given}
    return msgspec.json.encode(given | ({"sharing": sharing} if sharing else {})) + b"\n"


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
