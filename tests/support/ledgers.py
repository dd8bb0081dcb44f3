"""Ledgers to verify: a folder, what it was after each commit, and its exports."""

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
from support.databases import looked

from gateway.audit.erasure import erase
from gateway.audit.export import FORMATS, export_chunks
from gateway.audit.heads import HEADS_FILE, PUBLIC_KEY_FILE, Signer, Verifier
from gateway.audit.records import AuditKind, AuditRecord
from gateway.audit.verify import load_public_key
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit

RECORDS = 300
"""More than 256, so that a node of level 8 is stored."""
DATABASE = "custos.db"


@dataclass(frozen=True)
class Written:
    """`older`: the database after each commit, the last one included; exports by format."""

    folder: Path
    verifier: Verifier
    signer: Signer
    older: list[bytes]
    exports: dict[str, bytes]

    @property
    def database(self) -> bytes:
        return self.older[-1]

    @property
    def heads(self) -> Path:
        return self.folder / HEADS_FILE

    def copied(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder, folder))


async def write_ledger(folder: Path, records: int = RECORDS, commits: int = 20) -> Written:
    """A ledger of so many records, in about so many commits, one head published in the middle.

    In the first half each commit erases something of a record of the one before.
    """
    times = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    older = []
    async with Store.open(StoreSettings(folder), clock=lambda: next(times)) as store:
        step = -(-records // commits)
        for start in range(0, records, step):
            end = min(start + step, records)
            erases = 0 < start < records // 2 and end - start > 1
            await store.record(*(_event(i) for i in range(start, end - erases)))
            if erases:
                await _erase(store, start - step)
            if start <= records // 2 < end:
                await store.publish()
            older.append(_snapshot(folder))
        exports = {}
        for name, form in FORMATS.items():
            async with store.read() as conn:
                exports[name] = b"".join([chunk async for chunk in export_chunks(conn, store.verifier, form)])
        origin = store.verifier.origin
    verifier = load_public_key(str(folder / PUBLIC_KEY_FILE))
    return Written(folder, verifier, Signer.load(folder, origin), older, exports)


def _event(number: int):
    remote, note = f"192.0.2.{number % 250}", "=2+5" if number % 9 == 0 else None
    owner_ids = ("d1", "d2", "d3") if number % 5 == 0 else ()
    camera_ids = ("c1", "c2") if number % 5 == 0 else ()
    fields = {"remote": remote, "purpose_note": note, "owner_ids": owner_ids, "camera_ids": camera_ids}
    return looked(f"记录 {number}", session_id=f"s{number % 7}", **fields)


async def _erase(store: Store, seq: int) -> None:
    event = looked(f"erased of {seq}", kind=AuditKind.ERASURE, actor_id="officer")

    async def unit(work: Unit) -> None:
        await erase(work, seq, ["actor_name", "remote"], event)

    await store.run(unit)


def _snapshot(folder: Path) -> bytes:
    """The database as one file that needs no log beside it."""
    with closing(sqlite3.connect(folder / DATABASE)) as source, closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = MEMORY")
        data = copy.serialize()
    # file format versions (SQLite file format §1.3.3): 1 is a rollback journal, 2 a log
    return data[:18] + b"\x01\x01" + data[20:]


def as_version_1(record: AuditRecord) -> bytes:
    """As records were written before there were commitments."""
    fields: dict[str, object] = {"v": 1, "seq": record.seq, "at": record.at}
    fields |= {k: v for k, v in msgspec.structs.asdict(record.event).items() if v not in (None, {}, ())}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
