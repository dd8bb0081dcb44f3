"""Offline verification, of a data folder (SQLite) or of an export: reads only, needs no gateway.

Everything is recomputed: records against their readable columns, leaf hashes, stored nodes, the ledger's
state, and the roots of every signed head in the database, in `heads.jsonl` and, given `head_file`, in the
hands of somebody else. Without the last, whoever owns the machine and the key could have rebuilt it all.
"""

import base64
import binascii
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gateway.audit.check import HeadTrail, LedgerCheck, Report
from gateway.audit.export import (
    EXPORT_VERSION,
    MAX_LINE_BYTES,
    EndLine,
    ExportLine,
    HeadLine,
    LedgerLine,
    RecordLine,
)
from gateway.audit.heads import (
    HEADS_FILE,
    MAX_HEAD_BYTES,
    PUBLIC_KEY_FILE,
    HeadFormatError,
    LedgerKeyError,
    SignedHead,
    TreeHead,
    Verifier,
    parse_head,
)
from gateway.audit.merkle import STORED_LEVELS
from gateway.audit.records import AuditRecord
from gateway.store.engines import DATABASE_FILE

MAX_HEAD_FILE_BYTES = 64 * 1024 * 1024

Progress = Callable[[int], None]
"""Called now and then with the number of records checked."""
_PROGRESS_EVERY = 1000

_COLUMNS = ("kind", "outcome", "actor_id", "actor_name", "unit_id", "unit_name", "camera_id", "session_id")


class VerificationInputError(Exception):
    """There is nothing to verify, or with nothing to verify it: a wrong path, an empty file, a bad key."""

    code = "verification_input"


def load_public_key(value: str) -> Verifier:
    """A public key given as its text or as the path of a file that holds it. Raise VerificationInputError."""
    try:
        return Verifier.from_text(value)
    except LedgerKeyError:
        pass
    try:
        return Verifier.from_text(Path(value).read_text())
    except (OSError, UnicodeDecodeError, LedgerKeyError) as error:
        raise VerificationInputError(f"no ledger's public key: {value}") from error


def verify_data_folder(
    folder: Path,
    head_file: Path | None = None,
    *,
    public_key: Verifier | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verify the SQLite ledger in a data folder, also while a gateway writes it.

    `public_key` defaults to the folder's `ledger.pub`. Raise VerificationInputError.
    """
    database = folder / DATABASE_FILE
    if not database.is_file():
        raise VerificationInputError(f"no {DATABASE_FILE} in {folder}")
    verifier = public_key or load_public_key(str(folder / PUBLIC_KEY_FILE))
    report = Report()
    # its end is noted before the database's snapshot is taken, which is then at least as new
    published = HeadTrail(HEADS_FILE, verifier, report, _published_heads(folder / HEADS_FILE, report))
    witness = _witness(head_file, verifier, report)
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")
            _check_database(connection, verifier, report, [published, witness], progress)
    except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
        report.add("unreadable", f"the database cannot be read: {error}")
    report.published_heads = published.count
    _conclude(report, witness)
    return report


def verify_export(
    file: Path, public_key: Verifier, head_file: Path | None = None, *, progress: Progress | None = None
) -> Report:
    """Verify an export (see `export`) with the public key alone. Raise VerificationInputError."""
    report = Report()
    heads = HeadTrail("export", public_key, report, is_chained=True)
    witness = _witness(head_file, public_key, report)
    check = LedgerCheck(report, [witness])
    try:
        with file.open("rb") as lines:
            _check_export(lines, public_key, check, heads, progress)
    except OSError as error:
        raise VerificationInputError(f"cannot read {file}: {type(error).__name__}") from error
    check.finish()
    _check_last_head(heads, report)
    _conclude(report, witness)
    return report


def _conclude(report: Report, witness: HeadTrail) -> None:
    if witness.agreed_size:
        report.witnessed_size = witness.agreed_size


def _check_last_head(heads: HeadTrail, report: Report) -> None:
    report.heads = heads.count
    if heads.last_size != report.records:
        report.add("head_missing", f"{report.records} records, but the last head signs {heads.last_size}")


def _check_database(
    connection: sqlite3.Connection,
    verifier: Verifier,
    report: Report,
    trails: list[HeadTrail],
    progress: Progress | None,
) -> None:
    for (problem,) in connection.execute("PRAGMA integrity_check(10)"):
        if problem != "ok":
            report.add("corrupt", f"the database file is damaged: {problem}")
    stored = HeadTrail(
        "audit_heads", verifier, report, _stored_heads(connection, verifier, report), is_chained=True
    )
    check = LedgerCheck(report, [stored, *trails])
    nodes = {
        (level, index): node
        for level, index, node in connection.execute("SELECT level, idx, hash FROM audit_nodes")
    }
    records = f"SELECT seq, leaf, leaf_hash, at, {', '.join(_COLUMNS)} FROM audit_records ORDER BY seq"  # noqa: S608
    for seq, leaf, leaf_hash, at, *columns in connection.execute(records):
        _check_row(check, report, nodes, (seq, leaf, leaf_hash, at), columns)
        if progress and report.records % _PROGRESS_EVERY == 0:
            progress(report.records)
    check.finish()
    for level, index in sorted(nodes):
        report.add(
            "node", f"a hash is stored for a subtree that does not exist: level {level}, index {index}"
        )
    _check_last_head(stored, report)
    expected = [(1, check.frontier.size, check.frontier.to_bytes(), check.last_at)]
    if connection.execute("SELECT id, size, frontier, last_at FROM audit_state").fetchall() != expected:
        report.add("state", "the ledger's state is not that of its records")


def _check_row(
    check: LedgerCheck,
    report: Report,
    nodes: dict[tuple[int, int], bytes],
    stored: tuple[int, Any, Any, Any],
    columns: list[Any],
) -> None:
    seq, leaf, leaf_hash, at = stored
    # SQLite stores any type in any column
    record, computed, completed = check.add(seq, leaf if isinstance(leaf, bytes) else b"")
    if leaf_hash != computed:
        report.add("hash", f"record {seq} is not what its hash was taken of", seq)
    if record is not None and [at, *columns] != _readable(record):
        report.add("columns", f"the readable columns of record {seq} are not the record's", seq)
    for node in completed:
        if node.level in STORED_LEVELS and nodes.pop((node.level, node.index), None) != node.hash:
            report.add(
                "node", f"the stored hash of level {node.level}, index {node.index} is wrong or missing"
            )


def _readable(record: AuditRecord) -> list[Any]:
    return [record.at, *(getattr(record.event, name) for name in _COLUMNS)]


def _stored_heads(connection: sqlite3.Connection, verifier: Verifier, report: Report) -> Iterator[SignedHead]:
    query = "SELECT tree_size, previous_size, root, signed_at, signature FROM audit_heads ORDER BY tree_size"
    for size, previous_size, root, signed_at, signature in connection.execute(query):
        if isinstance(root, bytes) and isinstance(signature, bytes):
            yield SignedHead(TreeHead(verifier.origin, size, previous_size, root, signed_at), signature)
        else:
            report.add("bad_signature", f"audit_heads: the head of size {size} is malformed")


def _published_heads(path: Path, report: Report) -> Iterator[SignedHead]:
    end = path.stat().st_size if path.exists() else 0
    return _head_lines(path, end, report)


def _head_lines(path: Path, end: int, report: Report) -> Iterator[SignedHead]:
    if end == 0:
        return
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(min(MAX_HEAD_BYTES + 1, end - file.tell()))
            # a line without its end was being written, or is what a crash left: not published
            if not line or (file.tell() == end and not line.endswith(b"\n")):
                return
            try:
                yield parse_head(line)
            except HeadFormatError:
                report.add("bad_head", f"{path.name}: line {number} is not a signed head")


def _witness(head_file: Path | None, verifier: Verifier, report: Report) -> HeadTrail:
    if head_file is None:
        return HeadTrail("witness", verifier, report)
    try:
        if head_file.stat().st_size > MAX_HEAD_FILE_BYTES:
            raise VerificationInputError(f"{head_file} is too large for a file of heads")
        heads = [parse_head(text) for text in _head_texts(head_file.read_bytes())]
    except (OSError, HeadFormatError) as error:
        raise VerificationInputError(f"no signed heads in {head_file}") from error
    if not heads:
        raise VerificationInputError(f"no signed heads in {head_file}")
    distinct = {(signed.head, signed.signature): signed for signed in heads}
    ordered = sorted(distinct.values(), key=lambda signed: signed.head.size)
    return HeadTrail(head_file.name, verifier, report, iter(ordered))


def _head_texts(data: bytes) -> list[bytes]:
    """Lines as in `heads.jsonl`, or one JSON document: a head, a list of heads, or the API's page of them."""
    try:
        document = msgspec.json.decode(data, type=_HeadPage | list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [line for line in data.splitlines() if line.strip()]
    return [bytes(item) for item in (document.items if isinstance(document, _HeadPage) else document)]


class _HeadPage(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]


_line_decoder: msgspec.json.Decoder[ExportLine] = msgspec.json.Decoder(ExportLine)


def _check_export(
    lines: BinaryIO,
    verifier: Verifier,
    check: LedgerCheck,
    heads: HeadTrail,
    progress: Progress | None,
) -> None:
    report = check.report
    ledger = _read_line(lines)
    if not isinstance(ledger, LedgerLine) or ledger.version != EXPORT_VERSION:
        raise VerificationInputError("not an export of a ledger")
    if ledger.origin != verifier.origin or ledger.public_key != verifier.to_text():
        report.add("foreign", "the export is of another ledger than the key")
    while True:
        line = _read_line(lines)
        if isinstance(line, RecordLine):
            check.add(line.seq, _decode(line.leaf))
            if progress and report.records % _PROGRESS_EVERY == 0:
                progress(report.records)
        elif isinstance(line, HeadLine):
            try:
                heads.offer(parse_head(bytes(line.head)), report.records, check.frontier.root())
            except HeadFormatError:
                report.add("bad_head", f"after record {report.records - 1} stands no signed head")
        elif isinstance(line, EndLine):
            if line != EndLine(report.records, heads.count):
                report.add("truncated", f"the export counts {line.records} records and {line.heads} heads")
            if lines.read(1):
                report.add("malformed", "the export goes on after its end")
            return
        else:
            report.add("malformed", f"after record {report.records - 1} the export is cut off or damaged")
            return


def _read_line(lines: BinaryIO) -> ExportLine | None:
    try:
        return _line_decoder.decode(lines.readline(MAX_LINE_BYTES))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode(leaf: str) -> bytes:
    try:
        return base64.b64decode(leaf, validate=True)
    except binascii.Error:
        return b""
