"""The check of an export, as JSON lines or as CSV: every line, and that it is as an export writes it."""

from collections.abc import Callable
from typing import BinaryIO

from gateway.audit.check import HeadTrail, LedgerCheck
from gateway.audit.csv_export import CSV
from gateway.audit.head_files import VerificationInputError
from gateway.audit.heads import HeadFormatError, parse_head
from gateway.audit.key_history import KeyChainError, KeyHistory, parse_rotation
from gateway.audit.lines import (
    JSON_LINES,
    MAX_LINE_BYTES,
    READABLE_VERSIONS,
    EndLine,
    ExportFormat,
    ExportLine,
    HeadLine,
    LedgerLine,
    RecordLine,
    from_base64,
)
from gateway.audit.merkle import Frontier


class ExportCheck:
    def __init__(
        self,
        file: BinaryIO,
        keys: KeyHistory,
        check: LedgerCheck,
        heads: HeadTrail,
        progress: Callable[[int], None],
    ) -> None:
        self._file = file
        self._keys = keys
        self._check = check
        self._report = check.report
        self._heads = heads
        self._progress = progress

    def run(self) -> None:
        """Raise VerificationInputError for a file that is no export."""
        form = self._detect()
        ledger = self._read(form)
        if not isinstance(ledger, LedgerLine) or ledger.version not in READABLE_VERSIONS:
            raise VerificationInputError("not an export of a ledger")
        if ledger.origin != self._keys.origin or ledger.public_key != self._keys.first.to_text():
            self._report.add("foreign", "the export is of another ledger than the key")
        if ledger.removed:
            self._begin(ledger)
        while self._take(self._read(form)):
            self._progress(self._report.records)

    def _begin(self, ledger: LedgerLine) -> None:
        """After the records that retention removed."""
        frontier = Frontier()
        try:
            frontier = Frontier.from_bytes(ledger.removed, from_base64(ledger.frontier) or b"")
            for document in ledger.keys:
                rotation = parse_rotation(document)
                self._keys.change(rotation.after_size, rotation.verify(self._keys))
        except KeyChainError as error:
            self._report.add("key", str(error))
        except ValueError:
            self._report.add("malformed", "the export does not say which tree it continues")
        self._check.begin(frontier)
        self._heads.begin(frontier.size, ledger.last_head)

    def _detect(self) -> ExportFormat:
        if self._file.readline(MAX_LINE_BYTES) == CSV.preamble:
            return CSV
        self._file.seek(0)
        return JSON_LINES

    def _read(self, form: ExportFormat) -> ExportLine | None:
        raw = self._file.readline(MAX_LINE_BYTES)
        line = form.read(raw)
        if line is not None and form.render(line) != raw:
            if isinstance(line, RecordLine):
                message = f"the readable cells of record {line.seq} are not the record's"
                self._report.add("columns", message, line.seq)
            else:
                self._report.add("malformed", f"{self._place()} is not as an export writes it")
        return line

    def _take(self, line: ExportLine | None) -> bool:
        """Whether there is more."""
        if isinstance(line, RecordLine):
            self._check.add(line.seq, from_base64(line.leaf) or b"", from_base64(line.disclosures))
            return True
        if isinstance(line, HeadLine):
            try:
                head = parse_head(bytes(line.head))
            except HeadFormatError:
                self._report.add("bad_head", f"{self._place()} is no signed head")
                return True
            if head.to_line().strip() != bytes(line.head):
                self._report.add("malformed", f"{self._place()} is not as an export writes it")
            self._heads.offer(head, self._report.records, self._check.frontier.root())
            return True
        if isinstance(line, EndLine):
            if line != EndLine(self._report.records, self._heads.count):
                counts = f"{line.records} records and {line.heads} heads"
                self._report.add("truncated", f"the export counts {counts}")
            if self._file.read(1):
                self._report.add("malformed", "the export goes on after its end")
        else:
            self._report.add("malformed", f"{self._place()} is cut off, damaged or out of place")
        return False

    def _place(self) -> str:
        return f"the line after record {self._report.records - 1}"
