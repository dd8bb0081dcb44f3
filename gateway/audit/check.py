"""Recomputing a ledger and holding it against every head that was ever signed for it. No I/O.

Whoever reads a ledger (`verify`) feeds its records in order; heads from each place where they are kept come
as trails, ordered by size, so that nothing is held in memory but the tree's frontier. What records must be to
each other is a `RecordRule`'s.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.audit.heads import SignedHead
from gateway.audit.key_history import KeyChainError, KeyHistory, next_key
from gateway.audit.merkle import Frontier, Node, hash_leaf
from gateway.audit.records import ERASED_FIELDS, ERASED_SEQ, AuditKind, AuditRecord, RecordFormatError, parse

MAX_FINDINGS = 100
"""More are counted, not kept: one missing record in the middle spoils everything after it."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written. `seq`: the record, where it can be told."""

    code: str
    detail: str
    seq: int | None = None


@dataclass
class Report:
    """What a verification saw.

    `records`: of the tree, those included that retention removed, which are the first `removed`.
    `witnessed_size`: how many records the largest agreeing head from elsewhere covers; None without one.
    """

    records: int = 0
    removed: int = 0
    heads: int = 0
    published_heads: int = 0
    witnessed_size: int | None = None
    findings: list[Finding] = field(default_factory=list)
    findings_total: int = 0

    def add(self, code: str, detail: str, seq: int | None = None) -> None:
        self.findings_total += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, detail, seq))

    @property
    def status(self) -> str:
        """`altered`, `unwitnessed` (consistent, but no head held elsewhere was given) or `intact`."""
        if self.findings_total:
            return "altered"
        return "unwitnessed" if self.witnessed_size is None else "intact"

    @property
    def exit_code(self) -> int:
        return {"altered": 1, "unwitnessed": 3, "intact": 0}[self.status]


class HeadTrail:
    """Signed heads of one place, by growing size, each held against the tree when it has that size.

    `keys` grows with the tree: only then is it known which key signs. `is_chained`: each head must name the
    one before it, so that none can be taken out.
    """

    def __init__(
        self,
        place: str,
        keys: KeyHistory,
        report: Report,
        heads: Iterable[SignedHead] = (),
        *,
        is_chained: bool = False,
    ) -> None:
        self._place = place
        self._keys = keys
        self._report = report
        self._heads = iter(heads)
        self._is_chained = is_chained
        self._is_spoilt = False
        self.count = 0
        self.last_size = 0
        self.agreed_size = 0
        self._next = self._take()

    def begin(self, size: int, last_head: int = 0) -> None:
        """The first `size` records are gone: of heads up to there, the signatures remain to be verified.

        `last_head`: the size of the newest of them, where they are gone too.
        """
        self.last_size = max(self.last_size, last_head)
        while self._next is not None and self._next.head.size <= size:
            self._is_signed(self._next)
            self._next = self._take()

    def advance(self, size: int, root: Callable[[], bytes]) -> None:
        """The tree has now `size` leaves."""
        while self._next is not None and self._next.head.size <= size:
            self._compare(self._next, size, root())
            self._next = self._take()

    def offer(self, signed: SignedHead, size: int, root: bytes) -> None:
        """A head that stands among the records, after the first `size` of them."""
        if self._is_in_order(signed):
            self._compare(signed, size, root)

    def finish(self, size: int) -> None:
        """The tree ends here: a head beyond it was signed for records that are gone."""
        is_truncated = False
        while self._next is not None:
            if self._is_signed(self._next) and not is_truncated:
                is_truncated = True
                beyond = self._next.head.size
                self._add("truncated", f"a signed head counts {beyond} records, here are {size}", size)
            self._next = self._take()

    def expect_last(self, size: int) -> None:
        """The last record has a head of its own, as every commit writes one."""
        if self.last_size != size:
            self._report.add("head_missing", f"{size} records, but the last head signs {self.last_size}")

    def _take(self) -> SignedHead | None:
        return next(filter(self._is_in_order, self._heads), None)

    def _is_in_order(self, signed: SignedHead) -> bool:
        self.count += 1
        head = signed.head
        if head.size <= self.last_size:
            self._add("head_order", f"the head of size {head.size} comes after that of size {self.last_size}")
            return False
        if self._is_chained and head.previous_size != self.last_size:
            self._add("head_missing", f"the head before that of size {head.size} is not the one it names")
        self.last_size = head.size
        return True

    def _is_signed(self, signed: SignedHead) -> bool:
        if self._keys.verify(signed):
            return True
        retired = self._keys.is_retired(signed)
        text = "a key that was given up before" if retired else "another key than the ledger's"
        code = "retired_key" if retired else "bad_signature"
        self._add(code, f"the head of size {signed.head.size} is signed with {text}")
        return False

    def _compare(self, signed: SignedHead, size: int, root: bytes) -> None:
        if not self._is_signed(signed):
            return
        if signed.head.size == size and signed.head.root == root:
            self.agreed_size = size
        elif not self._is_spoilt:
            # every later root differs too
            self._is_spoilt = True
            between = f"records {self.agreed_size} to {signed.head.size - 1}"
            self._add(
                "root_mismatch", f"{between} are not those that the head of size {signed.head.size} signs"
            )

    def _add(self, code: str, detail: str, seq: int | None = None) -> None:
        self._report.add(code, f"{self._place}: {detail}", seq)


class RecordRule(Protocol):
    """Something that all of a ledger's records must be together."""

    def add(self, record: AuditRecord) -> None:
        """The next record, as far as it could be read."""

    def finish(self) -> None:
        """There are no more."""


class ErasureRule:
    """What is not disclosed was erased by a later record that says so, and what it says is erased is gone."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._unexplained: dict[int, set[str]] = {}
        self._first: int | None = None

    def add(self, record: AuditRecord) -> None:
        if self._first is None:
            self._first = record.seq
        if record.erased:
            self._unexplained[record.seq] = set(record.erased)
        if record.event.kind is AuditKind.ERASURE:
            self._explain(record)

    def _explain(self, record: AuditRecord) -> None:
        seq, fields = record.event.detail.get(ERASED_SEQ), record.event.detail.get(ERASED_FIELDS)
        if not isinstance(seq, int) or not isinstance(fields, list):
            self._report.add("erasure", f"record {record.seq} does not say what it erased", record.seq)
            return
        missing = self._unexplained.get(seq, set())
        if (self._first is None or seq >= self._first) and not missing.issuperset(fields):
            self._report.add("erasure", f"record {record.seq} erased what record {seq} still says", seq)
        missing.difference_update(fields)
        if not missing:
            self._unexplained.pop(seq, None)

    def finish(self) -> None:
        for seq, fields in self._unexplained.items():
            names = ", ".join(sorted(fields))
            self._report.add("undisclosed", f"no record says that {names} of record {seq} was erased", seq)


class KeyRule:
    """Every change of the signing key continues the chain of keys; see `key_history`."""

    def __init__(self, report: Report, keys: KeyHistory) -> None:
        self._report = report
        self._keys = keys

    def add(self, record: AuditRecord) -> None:
        try:
            if (key := next_key(record)) is not None:
                self._keys.change(record.seq + 1, key)
        except KeyChainError as error:
            self._report.add("key", str(error), record.seq)

    def finish(self) -> None:
        """A record says all there is to say."""


class LedgerCheck:
    """The tree, rebuilt leaf by leaf."""

    def __init__(
        self, report: Report, trails: Sequence[HeadTrail], keys: KeyHistory, rules: Sequence[RecordRule] = ()
    ) -> None:
        self.report = report
        self._trails = trails
        self._rules: list[RecordRule] = [ErasureRule(report), KeyRule(report, keys), *rules]
        self.frontier = Frontier()
        self.last_at = 0

    def begin(self, frontier: Frontier) -> None:
        """The tree of the records that retention removed; those that are there come after them."""
        self.frontier = frontier
        self.report.removed = frontier.size
        for trail in self._trails:
            trail.begin(frontier.size)

    def add(
        self, seq: int, leaf: bytes, disclosures: bytes | None
    ) -> tuple[AuditRecord | None, bytes, list[Node]]:
        """Take the next record; return it (None if it is malformed), its hash and the completed subtrees."""
        expected = self.frontier.size
        if seq != expected:
            self.report.add("missing", f"expected record {expected}, found {seq}", expected)
        record = self._parse(seq, leaf, disclosures)
        leaf_hash = hash_leaf(leaf)
        completed = self.frontier.append(leaf_hash)
        self.report.records = self.frontier.size
        for trail in self._trails:
            trail.advance(self.frontier.size, self.frontier.root)
        return record, leaf_hash, completed

    def _parse(self, seq: int, leaf: bytes, disclosures: bytes | None) -> AuditRecord | None:
        try:
            record = parse(leaf, disclosures)
        except RecordFormatError as error:
            self.report.add("malformed", f"record {seq}: {error}", seq)
            return None
        if record.seq != seq:
            self.report.add("moved", f"record {seq} says that it is number {record.seq}", seq)
        if record.at < self.last_at:
            self.report.add("time", f"record {seq} is earlier than the one before it", seq)
        self.last_at = max(self.last_at, record.at)
        for rule in self._rules:
            rule.add(record)
        return record

    def finish(self) -> None:
        for rule in self._rules:
            rule.finish()
        for trail in self._trails:
            trail.finish(self.frontier.size)
