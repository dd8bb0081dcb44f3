"""The whole ledger read out as one file, in pages of rows: JSON lines (see `lines`) or CSV (`csv_export`)."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.csv_export import CSV
from gateway.audit.heads import SignedHead, Verifier
from gateway.audit.lines import (
    EXPORT_VERSION,
    JSON_LINES,
    EndLine,
    ExportFormat,
    ExportLine,
    HeadLine,
    LedgerLine,
    RecordLine,
    to_base64,
)
from gateway.audit.proofs import tree_frontier
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads, audit_records
from gateway.store.signing_key import stored_rotations

PAGE_ROWS = 500

FORMATS = {"jsonl": JSON_LINES, "csv": CSV}


async def export_chunks(
    conn: AsyncConnection, verifier: Verifier, form: ExportFormat = JSON_LINES
) -> AsyncIterator[bytes]:
    """The whole ledger as of this connection's snapshot, in chunks of whole lines, each of a page of rows."""
    ledger = await _ledger_line(conn, verifier)
    yield form.preamble + form.render(ledger)
    records, heads = ledger.removed, 0
    while rows := await _records(conn, records):
        signed = await _heads(conn, verifier.origin, records, records + len(rows))
        lines: list[ExportLine] = []
        for row in rows:
            disclosures = None if row.disclosures is None else to_base64(row.disclosures)
            lines.append(RecordLine(records, to_base64(row.leaf), disclosures))
            records += 1
            if head := signed.get(records):
                lines.append(HeadLine(msgspec.Raw(head.to_line().strip())))
        heads += len(signed)
        yield b"".join(map(form.render, lines))
    yield form.render(EndLine(records, heads))


async def _ledger_line(conn: AsyncConnection, verifier: Verifier) -> LedgerLine:
    start = (await conn.execute(sa.select(sa.func.min(audit_records.c.seq)))).scalar_one() or 0
    if start == 0:
        return LedgerLine(EXPORT_VERSION, verifier.origin, verifier.to_text())
    last_head = sa.select(sa.func.max(audit_heads.c.tree_size)).where(audit_heads.c.tree_size <= start)
    found = await stored_rotations(conn, verifier.origin)
    return LedgerLine(
        EXPORT_VERSION,
        verifier.origin,
        verifier.to_text(),
        removed=start,
        frontier=to_base64((await tree_frontier(conn, start)).to_bytes()),
        last_head=(await conn.execute(last_head)).scalar_one() or 0,
        keys=[rotation.to_document() for _, rotation in found if rotation.after_size <= start],
    )


async def _records(conn: AsyncConnection, start: int) -> Sequence[sa.Row[Any, Any]]:
    query = sa.select(audit_records.c.leaf, audit_records.c.disclosures).where(audit_records.c.seq >= start)
    return (await conn.execute(query.order_by(audit_records.c.seq).limit(PAGE_ROWS))).all()


async def _heads(conn: AsyncConnection, origin: str, above: int, size: int) -> dict[int, SignedHead]:
    query = sa.select(audit_heads).where(audit_heads.c.tree_size > above, audit_heads.c.tree_size <= size)
    return {row.tree_size: signed_head(row, origin) for row in (await conn.execute(query)).all()}
