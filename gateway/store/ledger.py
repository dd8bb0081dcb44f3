"""Appending to the ledger, inside the store's transaction.

The row of `audit_state` is the ledger's head and its lock: a record's number is the tree's size, so numbers
have no gaps, whatever is rolled back. On SQLite BEGIN IMMEDIATE has locked it already.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.heads import SignedHead, Signer, TreeHead
from gateway.audit.merkle import STORED_LEVELS, Frontier, hash_leaf
from gateway.audit.records import AuditEvent, AuditRecord, serialize, subjects_of
from gateway.store.schema import audit_heads, audit_nodes, audit_records, audit_state, audit_subjects


class Ledger:
    """The locked head of the ledger, for one transaction."""

    def __init__(self, connection: AsyncConnection, frontier: Frontier, last_at: int) -> None:
        self._connection = connection
        self._frontier = frontier
        self._last_at = last_at

    @classmethod
    async def lock(cls, connection: AsyncConnection) -> "Ledger":
        """Wait for the ledger's head and hold it until the transaction ends."""
        query = sa.select(audit_state.c.size, audit_state.c.frontier, audit_state.c.last_at)
        row = (await connection.execute(query.with_for_update())).one()
        return cls(connection, Frontier.from_bytes(row.size, row.frontier), row.last_at)

    async def append(self, events: Sequence[AuditEvent], now: int, signer: Signer) -> SignedHead | None:
        """Add normalized events as records of one time, and the signed head after them; None for no events.

        `now` in microseconds, UTC; where the clock went back, the last record's time is kept.
        """
        if not events:
            return None
        previous_size = self._frontier.size
        self._last_at = max(now, self._last_at)
        rows, subjects, nodes = [], [], []
        for happening in events:
            record = AuditRecord(seq=self._frontier.size, at=self._last_at, event=happening)
            leaf, disclosures = serialize(record)
            leaf_hash = hash_leaf(leaf)
            completed = self._frontier.append(leaf_hash)
            nodes += [
                {"level": n.level, "idx": n.index, "hash": n.hash}
                for n in completed
                if n.level in STORED_LEVELS
            ]
            rows.append(_row(record, leaf, leaf_hash, disclosures))
            subjects += [{"seq": record.seq, "subject": each} for each in subjects_of(happening)]
        await self._connection.execute(audit_records.insert(), rows)
        if subjects:
            await self._connection.execute(audit_subjects.insert(), subjects)
        if nodes:
            await self._connection.execute(audit_nodes.insert(), nodes)
        size = self._frontier.size
        await self._connection.execute(
            audit_state.update().values(size=size, frontier=self._frontier.to_bytes(), last_at=self._last_at)
        )
        signed = signer.sign(size, previous_size, self._frontier.root(), self._last_at)
        await self._connection.execute(
            audit_heads.insert().values(
                tree_size=size,
                previous_size=previous_size,
                root=signed.head.root,
                signed_at=signed.head.signed_at,
                signature=signed.signature,
            )
        )
        return signed


def signed_head(row: sa.Row[Any], origin: str) -> SignedHead:
    """A row of `audit_heads`."""
    return SignedHead(
        TreeHead(origin, row.tree_size, row.previous_size, row.root, row.signed_at), row.signature
    )


def _row(record: AuditRecord, leaf: bytes, leaf_hash: bytes, disclosures: bytes) -> dict[str, object]:
    happening = record.event
    return {
        "seq": record.seq,
        "leaf": leaf,
        "leaf_hash": leaf_hash,
        "disclosures": disclosures,
        "at": record.at,
        "kind": happening.kind.value,
        "outcome": happening.outcome.value,
        "actor_id": happening.actor_id,
        "actor_name": happening.actor_name,
        "unit_id": happening.unit_id,
        "unit_name": happening.unit_name,
        "camera_id": happening.camera_id,
        "owner_id": happening.owner_id,
        "session_id": happening.session_id,
    }
