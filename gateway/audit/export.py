"""The ledger as one file of JSON lines, verifiable without the database.

First a header, then one line per record, after it the signed head of that size if there is one, and at the
end a line that counts them:

    {"type":"ledger","version":1,"origin":"custos/…","public_key":"…"}
    {"type":"record","seq":0,"leaf":"<base64 of the canonical bytes>"}
    {"type":"head","head":{"origin":…,"size":…,"previous_size":…,"root":…,"time":…,"signature":…}}
    {"type":"end","records":1,"heads":1}
"""

import base64
from collections.abc import AsyncIterator, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.heads import SignedHead, Verifier
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads, audit_records

EXPORT_VERSION = 1
PAGE_ROWS = 500
MAX_LINE_BYTES = 8 * 1024 * 1024
"""A leaf of `records.MAX_LEAF_BYTES` in base64, and its wrapping."""


class LedgerLine(msgspec.Struct, frozen=True, tag_field="type", tag="ledger", forbid_unknown_fields=True):
    version: int
    origin: str
    public_key: str


class RecordLine(msgspec.Struct, frozen=True, tag_field="type", tag="record", forbid_unknown_fields=True):
    seq: int
    leaf: str


class HeadLine(msgspec.Struct, frozen=True, tag_field="type", tag="head", forbid_unknown_fields=True):
    head: msgspec.Raw


class EndLine(msgspec.Struct, frozen=True, tag_field="type", tag="end", forbid_unknown_fields=True):
    records: int
    heads: int


ExportLine = LedgerLine | RecordLine | HeadLine | EndLine


async def export_lines(conn: AsyncConnection, verifier: Verifier) -> AsyncIterator[bytes]:
    """The whole ledger as of this connection's snapshot, in chunks of whole lines, each of a page of rows."""
    yield _line(LedgerLine(EXPORT_VERSION, verifier.origin, verifier.to_text()))
    records = heads = 0
    while leaves := await _leaves(conn, records):
        signed = await _heads(conn, verifier.origin, records, records + len(leaves))
        lines = []
        for leaf in leaves:
            lines.append(_line(RecordLine(records, base64.b64encode(leaf).decode())))
            records += 1
            if head := signed.get(records):
                lines.append(_line(HeadLine(msgspec.Raw(head.to_line().strip()))))
        heads += len(signed)
        yield b"".join(lines)
    yield _line(EndLine(records, heads))


async def _leaves(conn: AsyncConnection, start: int) -> Sequence[bytes]:
    query = sa.select(audit_records.c.leaf).where(audit_records.c.seq >= start)
    return (await conn.execute(query.order_by(audit_records.c.seq).limit(PAGE_ROWS))).scalars().all()


async def _heads(conn: AsyncConnection, origin: str, above: int, size: int) -> dict[int, SignedHead]:
    query = sa.select(audit_heads).where(audit_heads.c.tree_size > above, audit_heads.c.tree_size <= size)
    return {row.tree_size: signed_head(row, origin) for row in (await conn.execute(query)).all()}


def _line(line: ExportLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"
