"""Whose recording is this? Finds the marks in a clip, checks them, and looks their sessions up in the ledger.

Works offline on a data folder with SQLite: the installation's key proves a mark, the ledger's `session_start`
record names the viewer. A clip that was encoded again has lost its marks.
"""

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.records import AuditKind, AuditRecord, parse
from gateway.clock import from_micros
from gateway.keys import InstallationKeys
from gateway.store.engines import DATABASE_FILE
from streams.mux.mark import FoundMark, find_marks
from streams.sources.recording import read_recording

MAX_SESSIONS = 1000
"""Sessions that one clip may claim to be of; a clip of ours is of one, a cut of several of a few."""


class TraceError(Exception):
    """There is nothing to look the marks up in."""

    code = "trace_input"


@dataclass(frozen=True, kw_only=True)
class TracedSession:
    """`authentic` of `keyframes` marks were proven with the installation's key; the rest are claims.

    The names are the ledger's; None if it does not know the session, or a name was erased.
    """

    session: str
    keyframes: int
    authentic: int
    camera: str | None
    viewer: str | None
    unit: str | None
    purpose: str | None
    started_at: str | None


def trace_recording(clip: Path, data: Path) -> list[TracedSession]:
    """The sessions that a clip carries marks of, the most frequent first.

    Raises TraceError, KeyFileError, or a StreamError if the clip cannot be read.
    """
    database = data / DATABASE_FILE
    if not database.is_file() or not (data / "keys" / "master.key").is_file():
        raise TraceError(f"no {DATABASE_FILE} and keys in {data}")
    mark_key = InstallationKeys.open(data).mark_key
    marks: dict[str, Counter[FoundMark]] = {}
    for codec, unit in read_recording(clip):
        for mark in find_marks(codec, unit.nal_units) if unit.is_random_access else ():
            session = mark.session_id.hex()
            if session in marks or len(marks) < MAX_SESSIONS:
                marks.setdefault(session, Counter())[mark] += 1
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        traced = [
            _traced(session, found, _start_of(connection, session), mark_key)
            for session, found in marks.items()
        ]
    return sorted(traced, key=lambda session: (-session.authentic, -session.keyframes, session.session))


def _traced(
    session: str, found: Counter[FoundMark], record: AuditRecord | None, mark_key: bytes
) -> TracedSession:
    event = record.event if record is not None else None
    camera = event.camera_id if event is not None else None
    authentic = 0
    if camera is not None:
        authentic = sum(n for mark, n in found.items() if mark.is_authentic(mark_key, camera))
    return TracedSession(
        session=session,
        keyframes=found.total(),
        authentic=authentic,
        camera=camera,
        viewer=event.actor_name if event is not None else None,
        unit=event.unit_name if event is not None else None,
        purpose=event.purpose_code if event is not None else None,
        started_at=from_micros(record.at).isoformat() if record is not None else None,
    )


def _start_of(connection: sqlite3.Connection, session: str) -> AuditRecord | None:
    row = connection.execute(
        "SELECT leaf, disclosures FROM audit_records WHERE session_id = ? AND kind = ? ORDER BY seq LIMIT 1",
        (session, AuditKind.SESSION_START.value),
    ).fetchone()
    return None if row is None else parse(*row)
