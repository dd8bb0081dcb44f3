"""Inclusion and consistency proofs of the stored ledger, from few rows.

A subtree's hash is folded from the stored hashes (leaves, or nodes of `STORED_LEVELS`) next below it: at
most 255 rows per subtree and one subtree per level of the tree.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.merkle import (
    STORED_LEVELS,
    Frontier,
    Range,
    consistency_ranges,
    inclusion_ranges,
    perfect_subtrees,
    prove,
)
from gateway.store.schema import audit_nodes, audit_records, audit_state


class RecordsRemovedError(ValueError):
    """The proof needs hashes of records that retention removed, of which only blocks of 256 are kept."""


async def inclusion_proof(conn: AsyncConnection, seq: int, size: int) -> list[bytes]:
    """The proof that record `seq` is in the tree of the first `size` records (RFC 9162 §2.1.3).

    Raise ValueError unless 0 <= seq < size <= the ledger's size.
    """
    return await _prove(conn, inclusion_ranges(seq, size), size)


async def consistency_proof(conn: AsyncConnection, old_size: int, size: int) -> list[bytes]:
    """The proof that the tree of `size` records continues that of `old_size` (RFC 9162 §2.1.4).

    Raise ValueError unless 0 < old_size <= size <= the ledger's size, RecordsRemovedError if what retention
    left does not suffice.
    """
    return await _prove(conn, consistency_ranges(old_size, size), size)


async def tree_frontier(conn: AsyncConnection, size: int) -> Frontier:
    """The tree of the first `size` records. Raise like `consistency_proof`."""
    if not 0 < size <= (await conn.execute(sa.select(audit_state.c.size))).scalar_one():
        raise ValueError("the ledger is not that long")
    return Frontier(size, [await _subtree_hash(conn, *subtree) for subtree in perfect_subtrees((0, size))])


async def _prove(conn: AsyncConnection, ranges: Sequence[Range], size: int) -> list[bytes]:
    if size > (await conn.execute(sa.select(audit_state.c.size))).scalar_one():
        raise ValueError("the ledger is not that long")
    subtrees = {subtree for leaves in ranges for subtree in perfect_subtrees(leaves)}
    hashes = {subtree: await _subtree_hash(conn, *subtree) for subtree in subtrees}
    return prove(ranges, lambda level, index: hashes[level, index])


async def _subtree_hash(conn: AsyncConnection, level: int, index: int) -> bytes:
    stored = max((s for s in (0, *STORED_LEVELS) if s <= level), default=0)
    start, end = index << (level - stored), (index + 1) << (level - stored)
    if stored == 0:
        key, column = audit_records.c.seq, audit_records.c.leaf_hash
        query = sa.select(column)
    else:
        key, column = audit_nodes.c.idx, audit_nodes.c.hash
        query = sa.select(column).where(audit_nodes.c.level == stored)
    rows = (await conn.execute(query.where(key >= start, key < end).order_by(key))).scalars().all()
    if len(rows) < end - start:
        raise RecordsRemovedError(f"records before {end << stored} were removed: their years had passed")
    frontier = Frontier()
    for row in rows:
        frontier.append(row)
    return frontier.root()
