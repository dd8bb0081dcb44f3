"""Offline verification, of a data folder (SQLite) or of an export: reads only, needs no gateway.

Everything is recomputed: records against their readable columns, leaf hashes, stored nodes, the ledger's
state, and the roots of every signed head in the database, in `heads.jsonl` and, given `held`, in the hands
of somebody else. Without the last, whoever owns the machine and the key could have rebuilt it all.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from gateway.audit.check import HeadTrail, LedgerCheck, Report
from gateway.audit.database_check import DatabaseCheck
from gateway.audit.export_check import ExportCheck
from gateway.audit.head_files import VerificationInputError, published_heads, witness_trail
from gateway.audit.heads import HEADS_FILE, PUBLIC_KEY_FILE, LedgerKeyError, Verifier
from gateway.audit.key_history import KeyHistory
from gateway.audit.removed_records import PeriodRule
from gateway.store.engines import DATABASE_FILE

Progress = Callable[[int], None]
"""Called now and then with the number of records checked."""
_PROGRESS_EVERY = 1000

__all__ = ["VerificationInputError", "load_public_key", "verify_data_folder", "verify_export"]


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
    held: Path | bytes | None = None,
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
    report, keys = Report(), KeyHistory(verifier)
    # its end is noted before the database's snapshot is taken, which is then at least as new
    published = HeadTrail(HEADS_FILE, keys, report, published_heads(folder / HEADS_FILE, report))
    witness = witness_trail(held, keys, report)
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")
            check = DatabaseCheck(connection, keys, report, [published, witness])
            check.run(_now_and_then(progress))
    except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
        report.add("unreadable", f"the database cannot be read: {error}")
    report.published_heads = published.count
    _conclude(report, witness)
    return report


def verify_export(
    file: Path, public_key: Verifier, held: Path | bytes | None = None, *, progress: Progress | None = None
) -> Report:
    """Verify an export (JSON lines or CSV) with the public key alone. Raise VerificationInputError."""
    report, keys = Report(), KeyHistory(public_key)
    heads = HeadTrail("export", keys, report, is_chained=True)
    witness = witness_trail(held, keys, report)
    periods = PeriodRule(report, lambda: report.removed)
    check = LedgerCheck(report, [witness], keys, [periods])
    try:
        with file.open("rb") as lines:
            ExportCheck(lines, keys, check, heads, _now_and_then(progress)).run()
    except OSError as error:
        raise VerificationInputError(f"cannot read {file}: {type(error).__name__}") from error
    check.finish()
    heads.expect_last(report.records)
    report.heads = heads.count
    _conclude(report, witness)
    return report


def _now_and_then(progress: Progress | None) -> Progress:
    def report(records: int) -> None:
        if progress is not None and records % _PROGRESS_EVERY == 0:
            progress(records)

    return report


def _conclude(report: Report, witness: HeadTrail) -> None:
    if witness.agreed_size:
        report.witnessed_size = witness.agreed_size
