"""What an export of the ledger is made of, and its form as JSON lines.

First the ledger, then one line per record, after it the signed head of that size if there is one, and at the
end a line that counts them:

    {"type":"ledger","version":2,"origin":"custos/…","public_key":"…"}
    {"type":"record","seq":0,"leaf":"<base64 of the canonical bytes>","disclosures":"<base64>"}
    {"type":"head","head":{"origin":…,"size":…,"previous_size":…,"root":…,"time":…,"signature":…}}
    {"type":"end","records":1,"heads":1}

A record written before there were commitments (version 1) has no disclosures.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.audit.key_history import RotationJson

EXPORT_VERSION = 2
READABLE_VERSIONS = (1, 2)
MAX_LINE_BYTES = 24 * 1024 * 1024
"""A leaf of `records.MAX_LEAF_BYTES` in base64 and, in a CSV, once more in words, each quote doubled."""


class LedgerLine(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="ledger",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """Where retention removed the first `removed` records: `frontier` is their tree, in base64, `last_head`
    the size of their newest head, `keys` the changes of the signing key among them.
    """

    version: int
    origin: str
    public_key: str
    removed: int = 0
    frontier: str = ""
    last_head: int = 0
    keys: list[RotationJson] = []


class RecordLine(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="record",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    seq: int
    leaf: str
    disclosures: str | None = None


class HeadLine(msgspec.Struct, frozen=True, tag_field="type", tag="head", forbid_unknown_fields=True):
    head: msgspec.Raw


class EndLine(msgspec.Struct, frozen=True, tag_field="type", tag="end", forbid_unknown_fields=True):
    records: int
    heads: int


ExportLine = LedgerLine | RecordLine | HeadLine | EndLine

_decoder: msgspec.json.Decoder[ExportLine] = msgspec.json.Decoder(ExportLine)


@dataclass(frozen=True)
class ExportFormat:
    """`read` is the inverse of `render`, and more lenient: whoever verifies renders again and compares.

    `preamble` stands before the first line. `read` returns None for what is no line.
    """

    media_type: str
    preamble: bytes
    render: Callable[[ExportLine], bytes]
    read: Callable[[bytes], ExportLine | None]


def render_json(line: ExportLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def read_json(raw: bytes) -> ExportLine | None:
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


JSON_LINES = ExportFormat("application/jsonl", b"", render_json, read_json)


def to_base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def from_base64(text: str | None) -> bytes | None:
    """None for None, and for what `to_base64` would not produce."""
    try:
        data = base64.b64decode(text or "", validate=True)
    except ValueError:
        return None
    # Python reads over bits that stand for nothing
    return data if to_base64(data) == text else None
