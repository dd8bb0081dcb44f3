"""Verifying a ledger whose oldest records retention removed: what is left of them must still fit.

Of removed records remain the hashes of blocks of 256, the signed heads, the keys, and the records that say up
to where they were removed. Signatures and blocks are verified; a head's root only where its records are.
"""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gateway.audit.check import Report
from gateway.audit.heads import SignedHead, TreeHead
from gateway.audit.key_history import KeyChainError, KeyHistory, Rotation
from gateway.audit.merkle import HASH_BYTES, STORED_LEVELS, Frontier, Node, split_hashes
from gateway.audit.records import AuditKind, AuditRecord
from gateway.clock import from_micros, to_micros

MIN_RETENTION_YEARS = 3
"""《网络数据安全管理条例》 art. 12, PIPL art. 56: records of processing and sharing, at least three years."""
BLOCK_RECORDS = 1 << STORED_LEVELS[0]


def cutoff(now: int, years: int) -> int:
    """The beginning of the month so many years ago: earlier months are over for longer. Microseconds, UTC."""
    today = from_micros(now)
    return to_micros(datetime(today.year - years, today.month, 1, tzinfo=UTC))


class PeriodRule:
    """Records are missing at the front only up to where a record says so, and only after their years.

    `start`: the number of the first record that is there.
    """

    def __init__(self, report: Report, start: Callable[[], int]) -> None:
        self._report = report
        self._start = start
        self.stated: list[tuple[int, int, int]] = []
        """`end_size`, `last_at`, `removed_at` of each."""

    def add(self, record: AuditRecord) -> None:
        if record.event.kind is not AuditKind.PERIOD_REMOVED:
            return
        names = ("end_size", "last_at", "removed_at")
        values = tuple(record.event.detail.get(name) for name in names)
        end, last_at, removed_at = (value if isinstance(value, int) else -1 for value in values)
        is_late = 0 <= last_at < cutoff(record.at, MIN_RETENTION_YEARS)
        if not is_late or not (self.stated[-1][0] if self.stated else 0) < end <= record.seq:
            self._report.add("period", f"record {record.seq} removed what had to be kept", record.seq)
        self.stated.append((end, last_at, removed_at))

    def finish(self) -> None:
        stated = self.stated[-1][0] if self.stated else 0
        if self._start() > stated:
            text = f"no record says that those before {self._start()} were removed, only before {stated}"
            self._report.add("missing", text, stated)


class RemovedRecords:
    """The tables `audit_periods` and `audit_keys` of a SQLite ledger, held against its tree and its heads."""

    def __init__(self, connection: sqlite3.Connection, keys: KeyHistory, report: Report) -> None:
        self._connection = connection
        self._keys = keys
        self._report = report
        rows = connection.execute("SELECT end_size, frontier, last_at, removed_at FROM audit_periods")
        self._periods = {end: (frontier, last_at, removed_at) for end, frontier, last_at, removed_at in rows}

    def frontier(self, nodes: dict[tuple[int, int], bytes], check_node: Callable[[Node], None]) -> Frontier:
        """The tree of the records that are gone, from the blocks' hashes, which are taken out of `nodes`."""
        (start,) = self._connection.execute("SELECT min(seq) FROM audit_records").fetchone()
        stated = max(self._periods, default=0)
        if not isinstance(start, int) or start % BLOCK_RECORDS or not 0 < start <= stated:
            return Frontier()
        blocks, frontier = Frontier(), Frontier()
        for index in range(start // BLOCK_RECORDS):
            block = nodes.pop((STORED_LEVELS[0], index), None)
            if not isinstance(block, bytes) or len(block) != HASH_BYTES:
                self._report.add("node", f"the hash of removed records is missing: block {index}")
                return Frontier()
            for node in blocks.append(block):
                check_node(Node(node.level + STORED_LEVELS[0], node.index, node.hash))
            frontier = Frontier.from_bytes(blocks.size * BLOCK_RECORDS, blocks.to_bytes())
            self.reached(frontier)
        for rotation, _ in self._rotations():
            if rotation.after_size <= start:
                self._follow(rotation)
        return frontier

    def reached(self, frontier: Frontier) -> None:
        """The tree has this size."""
        period = self._periods.get(frontier.size)
        if period is not None and period[0] != frontier.to_bytes():
            self._report.add("period", f"the period up to {frontier.size} has another tree than the ledger")

    def finish(self, stated: list[tuple[int, int, int]]) -> None:
        """`stated`: the periods that records name; those of older ones may be gone. All keys are known."""
        known = [(end, *self._periods[end][1:]) for end in sorted(self._periods)]
        if known[len(known) - len(stated) :] != stated or (known and not stated):
            self._report.add("period", "the periods that were removed are not those that the records name")
        sizes = []
        for rotation, public_key in self._rotations():
            sizes.append(rotation.after_size)
            try:
                is_right = rotation.verify(self._keys).to_text() == public_key
            except KeyChainError:
                is_right = False
            if not is_right:
                self._report.add("key", f"the key after size {rotation.after_size} is not the record's")
        if sizes != self._keys.sizes:
            self._report.add("key", "the keys that are stored are not those that the records name")

    def _follow(self, rotation: Rotation) -> None:
        try:
            self._keys.change(rotation.after_size, rotation.verify(self._keys))
        except KeyChainError as error:
            self._report.add("key", str(error))

    def _rotations(self) -> list[tuple[Rotation, Any]]:
        rows = self._connection.execute(
            "SELECT k.after_size, k.public_key, k.leaf, k.path,"
            " h.previous_size, h.root, h.signed_at, h.signature"
            " FROM audit_keys k LEFT JOIN audit_heads h ON h.tree_size = k.after_size ORDER BY k.after_size"
        )
        rotations = []
        for size, public_key, leaf, path, previous_size, root, signed_at, signature in rows:
            if not all(isinstance(value, bytes) for value in (leaf, path, root, signature)):
                self._report.add("key", f"the key after size {size} has no signed head")
                continue
            head = TreeHead(self._keys.origin, size, previous_size, root, signed_at)
            rotations.append((Rotation(leaf, split_hashes(path), SignedHead(head, signature)), public_key))
        return rotations
