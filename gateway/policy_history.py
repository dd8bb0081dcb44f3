"""Whether the tables of the policy, and the whole database, are the newest that there were.

Both questions are asked of what an older state of them cannot contain: the ledger's newest records, and the
heads that were published to a file beside the database.
"""

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.publication import last_published
from gateway.store.schema import audit_heads, audit_records
from gateway.store.sealing import MARKED

_NEWEST = 16
"""Records of a kind that are looked through for one with a mark."""


class _Marked(msgspec.Struct, frozen=True):
    seq: int
    detail: dict[str, Any] = {}


async def newest_mark(conn: AsyncConnection) -> str | None:
    """The `policy` of the newest record that has one; None if none has."""
    newest: tuple[int, str] | None = None
    for kind in MARKED:
        query = sa.select(audit_records.c.leaf).where(audit_records.c.kind == kind.value)
        rows = await conn.execute(query.order_by(audit_records.c.seq.desc()).limit(_NEWEST))
        for leaf in rows.scalars():
            record = msgspec.json.decode(leaf, type=_Marked)
            if mark := record.detail.get("policy"):
                newest = max(newest or (-1, ""), (record.seq, mark))
                break
    return None if newest is None else newest[1]


async def strayed_head(conn: AsyncConnection, data_folder: Path) -> str | None:
    """The root (base64) of the newest published head if this ledger does not continue it; None if it does.

    Whoever can write that file can make grants freeze, but not hide that the ledger went back from anybody
    who holds a head: its signature is for them to check.
    """
    published = await asyncio.to_thread(last_published, data_folder)
    if published is None:
        return None
    query = sa.select(audit_heads.c.root).where(audit_heads.c.tree_size == published.head.size)
    if (await conn.execute(query)).scalar_one_or_none() == published.head.root:
        return None
    return base64.b64encode(published.head.root).decode()
