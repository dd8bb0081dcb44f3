"""Erasing: on the record, with every proof as good as before; an erasure in silence is found."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import looked
from support.ledgers import as_version_1

from gateway.audit.erasure import ErasureRefusedError, NoSuchRecordError, erase
from gateway.audit.export import FORMATS, export_chunks
from gateway.audit.merkle import verify_inclusion
from gateway.audit.proofs import inclusion_proof
from gateway.audit.records import AuditKind, AuditRecord, parse
from gateway.audit.verify import load_public_key, verify_data_folder, verify_export
from gateway.store.schema import audit_records
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit

OFFICER = looked("at her request", kind=AuditKind.ERASURE, actor_id="officer", actor_name="李四")


async def erased(store: Store, seq: int, *fields: str, event=OFFICER) -> None:
    async def unit(work: Unit) -> None:
        await erase(work, seq, fields, event)

    await store.run(unit)


async def read(store: Store, seq: int) -> tuple[AuditRecord, sa.Row]:
    async with store.read() as conn:
        row = (await conn.execute(sa.select(audit_records).where(audit_records.c.seq == seq))).one()
    return parse(row.leaf, row.disclosures), row


async def test_what_is_erased_is_gone_and_every_proof_stays_good(tmp_path: Path, store_settings) -> None:
    async with Store.open(store_settings) as store:
        for number in range(5):
            await store.record(looked(f"look {number}", remote="192.0.2.1", purpose_note="a name"))
        _, before = await read(store, 2)
        await erased(store, 2, "remote", "actor_name", "remote")
        record, row = await read(store, 2)
        assert (record.event.actor_name, record.event.remote, row.actor_name) == (None, None, None)
        assert (record.event.content, record.event.purpose_note) == ("look 2", "a name")
        assert record.erased == ("actor_name", "remote")
        assert (row.leaf, row.leaf_hash) == (before.leaf, before.leaf_hash)
        assert "张三".encode() not in row.disclosures
        explained, _ = await read(store, 5)
        assert (explained.event.kind, explained.event.resource) == (AuditKind.ERASURE, "record:2")
        assert explained.event.detail == {"seq": 2, "fields": ["actor_name", "remote"]}
        head = await store.head()
        assert head is not None
        async with store.read() as conn:
            proof = await inclusion_proof(conn, 2, head.head.size)
        assert verify_inclusion(2, head.head.size, row.leaf_hash, proof, head.head.root)
        await erased(store, 2, "content")
        record, _ = await read(store, 2)
        assert record.event.content == ""


async def test_what_is_erased_is_not_in_the_files_free_space_either(tmp_path: Path) -> None:
    name, folder = "司马相如", tmp_path / "data"
    folder.mkdir()
    async with Store.open(StoreSettings(folder)) as store:
        await store.record(
            *(looked(f"look {number}", actor_name=f"{name} {number}") for number in range(100))
        )
        assert any(name.encode() in file.read_bytes() for file in folder.glob("custos.db*"))
        for seq in range(100):
            await erased(store, seq, "actor_name")
    with closing(sqlite3.connect(folder / "custos.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert connection.execute("SELECT count(*) FROM audit_records").fetchone() == (200,)
    assert not any(name.encode() in file.read_bytes() for file in folder.glob("*.*"))


async def test_what_cannot_be_erased_is_refused_and_nothing_is_written(store_settings) -> None:
    async with Store.open(store_settings) as store:
        await store.record(looked("look"))
        await erased(store, 0, "actor_name")
        head = await store.head()
        for seq, fields, event, error in (
            (9, ["content"], OFFICER, NoSuchRecordError),
            (0, [], OFFICER, ErasureRefusedError),
            (0, ["actor_name"], OFFICER, ErasureRefusedError),
            (0, ["content", "remote"], OFFICER, ErasureRefusedError),
            (0, ["camera_id"], OFFICER, ErasureRefusedError),
            # nobody edits what he did himself
            (0, ["content"], looked(kind=AuditKind.ERASURE, actor_id="u1"), ErasureRefusedError),
            (0, ["content"], looked(kind=AuditKind.ERASURE, actor_id=None), ErasureRefusedError),
        ):
            with pytest.raises(error):
                await erased(store, seq, *fields, event=event)
        assert await store.head() == head


async def test_an_erasure_verifies_everywhere_and_its_absence_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    exports = {}
    async with Store.open(StoreSettings(folder)) as store:
        await store.record(looked("one"), looked("two"), looked("three"))
        await erased(store, 1, "content", "actor_name")
        other = looked(kind=AuditKind.ERASURE, actor_id="another officer")
        await erased(store, 3, "content", event=other)
        for name, form in FORMATS.items():
            async with store.read() as conn:
                exports[name] = b"".join([chunk async for chunk in export_chunks(conn, store.verifier, form)])
    key = load_public_key(str(folder / "ledger.pub"))
    assert verify_data_folder(folder).findings == []
    for name, export in exports.items():
        (tmp_path / name).write_bytes(export)
        assert b"two" not in export
        assert verify_export(tmp_path / name, key).findings == []
    with closing(sqlite3.connect(folder / "custos.db")) as connection, connection:
        silent = "UPDATE audit_records SET disclosures = CAST('{}' AS BLOB), actor_name = NULL WHERE seq = 2"
        connection.execute(silent)
    findings = [(finding.code, finding.seq) for finding in verify_data_folder(folder).findings]
    assert findings == [("undisclosed", 2)]


async def test_what_was_erased_and_put_back_is_found(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked("one"))
        _, before = await read(store, 0)
        await erased(store, 0, "actor_name")
    with closing(sqlite3.connect(tmp_path / "custos.db")) as connection, connection:
        connection.execute(
            "UPDATE audit_records SET disclosures = ?, actor_name = ? WHERE seq = 0",
            (before.disclosures, before.actor_name),
        )
    findings = [(finding.code, finding.seq) for finding in verify_data_folder(tmp_path).findings]
    assert findings == [("erasure", 0)]


async def test_records_of_version_1_verify_beside_new_ones_and_cannot_be_erased_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version_1(record: AuditRecord) -> tuple[bytes, None]:
        return as_version_1(record), None

    with monkeypatch.context() as patched:
        patched.setattr("gateway.store.ledger.serialize", version_1)
        async with Store.open(StoreSettings(tmp_path)) as store:
            await store.record(looked("old"))
    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked("new"))
        with pytest.raises(ErasureRefusedError):
            await erased(store, 0, "content")
        await erased(store, 1, "content")
        async with store.read() as conn:
            export = b"".join([chunk async for chunk in export_chunks(conn, store.verifier)])
    assert verify_data_folder(tmp_path).findings == []
    (tmp_path / "export").write_bytes(export)
    assert verify_export(tmp_path / "export", load_public_key(str(tmp_path / "ledger.pub"))).findings == []
