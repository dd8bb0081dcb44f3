"""The check of a SQLite ledger: records, their readable columns, and all that is stored about the tree."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gateway.audit.check import HeadTrail, LedgerCheck, Report
from gateway.audit.heads import SignedHead, TreeHead
from gateway.audit.key_history import KeyHistory
from gateway.audit.merkle import STORED_LEVELS, Node
from gateway.audit.records import AuditRecord, subjects_of
from gateway.audit.removed_records import PeriodRule, RemovedRecords
from gateway.audit.states import RowStates

_COLUMNS = (
    "kind",
    "outcome",
    "actor_id",
    "actor_name",
    "unit_id",
    "unit_name",
    "camera_id",
    "owner_id",
    "session_id",
)


class DatabaseCheck:
    def __init__(
        self,
        connection: sqlite3.Connection,
        keys: KeyHistory,
        report: Report,
        trails: Sequence[HeadTrail],
    ) -> None:
        self._connection = connection
        self._report = report
        heads = _stored_heads(connection, keys.origin, report)
        self._heads = HeadTrail("audit_heads", keys, report, heads, is_chained=True)
        self._periods = PeriodRule(report, lambda: report.removed)
        self._check = LedgerCheck(report, [self._heads, *trails], keys, [self._periods])
        self._removed = RemovedRecords(connection, keys, report)
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._subjects: dict[Any, list[Any]] = {}
        self._states = RowStates(report)

    def run(self, progress: Callable[[int], None]) -> None:
        """Raise sqlite3.DatabaseError, OverflowError or UnicodeDecodeError for what cannot be read at all."""
        for (problem,) in self._connection.execute("PRAGMA integrity_check(10)"):
            if problem != "ok":
                self._report.add("corrupt", f"the database file is damaged: {problem}")
        nodes = self._connection.execute("SELECT level, idx, hash FROM audit_nodes")
        self._nodes = {(level, index): node for level, index, node in nodes}
        for seq, subject in self._connection.execute("SELECT seq, subject FROM audit_subjects"):
            self._subjects.setdefault(seq, []).append(subject)
        self._check.begin(self._removed.frontier(self._nodes, self._check_node))
        names = ", ".join(_COLUMNS)
        records = f"SELECT seq, leaf, leaf_hash, disclosures, at, {names} FROM audit_records ORDER BY seq"  # noqa: S608
        for seq, leaf, leaf_hash, disclosures, *columns in self._connection.execute(records):
            self._add(seq, leaf, leaf_hash, disclosures, columns)
            progress(self._report.records)
        self._check.finish()
        self._heads.expect_last(self._report.records)
        self._report.heads = self._heads.count
        for level, index in sorted(self._nodes):
            place = f"level {level}, index {index}"
            self._report.add("node", f"a hash is stored for a subtree that does not exist: {place}")
        for seq in self._subjects:
            self._report.add("columns", f"cameras or owners are stored for record {seq}, which is not there")
        self._removed.finish(self._periods.stated)
        self._states.check(self._connection, is_complete=not self._report.removed)
        self._check_state()

    def _add(self, seq: int, leaf: Any, leaf_hash: Any, disclosures: Any, columns: list[Any]) -> None:
        # SQLite stores any type in any column
        leaf = leaf if isinstance(leaf, bytes) else b""
        disclosures = disclosures if isinstance(disclosures, bytes | None) else b""
        record, computed, completed = self._check.add(seq, leaf, disclosures)
        if record is not None:
            self._states.take(record.event)
        if leaf_hash != computed:
            self._report.add("hash", f"record {seq} is not what its hash was taken of", seq)
        if record is not None and columns != _readable(record):
            self._report.add("columns", f"the readable columns of record {seq} are not the record's", seq)
        subjects = self._subjects.pop(seq, [])
        if record is not None and sorted(map(str, subjects)) != sorted(subjects_of(record.event)):
            self._report.add("columns", f"the cameras or owners stored for record {seq} are not its own", seq)
        for node in completed:
            self._check_node(node)
        self._removed.reached(self._check.frontier)

    def _check_node(self, node: Node) -> None:
        if node.level in STORED_LEVELS and self._nodes.pop((node.level, node.index), None) != node.hash:
            place = f"level {node.level}, index {node.index}"
            self._report.add("node", f"the stored hash of {place} is wrong or missing")

    def _check_state(self) -> None:
        frontier = self._check.frontier
        expected = [(1, frontier.size, frontier.to_bytes(), self._check.last_at)]
        state = self._connection.execute("SELECT id, size, frontier, last_at FROM audit_state").fetchall()
        if state != expected:
            self._report.add("state", "the ledger's state is not that of its records")


def _readable(record: AuditRecord) -> list[Any]:
    return [record.at, *(getattr(record.event, name) for name in _COLUMNS)]


def _stored_heads(connection: sqlite3.Connection, origin: str, report: Report) -> Iterator[SignedHead]:
    query = "SELECT tree_size, previous_size, root, signed_at, signature FROM audit_heads ORDER BY tree_size"
    for size, previous_size, root, signed_at, signature in connection.execute(query):
        if isinstance(root, bytes) and isinstance(signature, bytes):
            yield SignedHead(TreeHead(origin, size, previous_size, root, signed_at), signature)
        else:
            report.add("bad_signature", f"audit_heads: the head of size {size} is malformed")
