"""Proofs and exports of stored ledgers, on both databases."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import looked

from gateway.audit.export import PAGE_ROWS, export_chunks
from gateway.audit.heads import HEADS_FILE
from gateway.audit.merkle import verify_consistency, verify_inclusion
from gateway.audit.proofs import consistency_proof, inclusion_proof
from gateway.audit.verify import verify_export
from gateway.store.schema import audit_heads, audit_records
from gateway.store.store import Store, StoreSettings

SIZES = (1, 255, 256, 257, 511, 512, 700)


async def fill(store: Store) -> None:
    for start, end in zip((0, *SIZES), SIZES, strict=False):
        await store.record(*(looked(f"{i}") for i in range(start, end)))


async def test_proofs_hold_against_signed_heads(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        await fill(store)
        async with store.read() as conn:
            rows = await conn.execute(sa.select(audit_heads.c.tree_size, audit_heads.c.root))
            roots = {row.tree_size: row.root for row in rows}
            leaves = (await conn.execute(sa.select(audit_records.c.leaf_hash))).scalars().all()
            assert sorted(roots) == list(SIZES)
            for size in SIZES:
                for seq in {0, size // 2, size - 1, min(256, size - 1)}:
                    proof = await inclusion_proof(conn, seq, size)
                    assert len(proof) <= 10
                    assert verify_inclusion(seq, size, leaves[seq], proof, roots[size])
                for old in (s for s in SIZES if s <= size):
                    proof = await consistency_proof(conn, old, size)
                    assert verify_consistency(old, size, roots[old], roots[size], proof)


async def test_there_is_no_proof_beyond_the_ledger(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        await store.record(looked(), looked())
        async with store.read() as conn:
            for seq, size in ((2, 2), (-1, 2), (2, 3), (0, 3), (0, 0)):
                with pytest.raises(ValueError, match=r"leaf|ledger"):
                    await inclusion_proof(conn, seq, size)
            for old, size in ((0, 2), (3, 2), (1, 3), (3, 3)):
                with pytest.raises(ValueError, match=r"consistency|ledger"):
                    await consistency_proof(conn, old, size)


async def test_an_export_is_paged_and_verifies(store_settings: StoreSettings, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    async with Store.open(store_settings) as store:
        await fill(store)
        async with store.read() as conn:
            chunks = export_chunks(conn, store.verifier)
            pages = [await anext(chunks), await anext(chunks)]
            await store.record(looked("after the snapshot"))
            pages += [page async for page in chunks]
        file.write_bytes(b"".join(pages))
        assert max(page.count(b'"type":"record"') for page in pages) == PAGE_ROWS
        key = store.verifier
    report = verify_export(file, key)
    assert (report.findings, report.records, report.heads) == ([], SIZES[-1], len(SIZES))
    # what was published later covers a record that this export does not have
    assert verify_export(file, key, tmp_path / HEADS_FILE).exit_code == 1
