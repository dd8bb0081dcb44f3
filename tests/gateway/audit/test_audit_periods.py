"""Retention: what goes, what stays, and what whoever verifies makes of it."""

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.databases import looked

from gateway.audit.export import FORMATS, export_chunks
from gateway.audit.heads import HEADS_FILE, PUBLIC_KEY_FILE, Signer
from gateway.audit.key_history import PUBLIC_KEY_DETAIL, follow
from gateway.audit.merkle import verify_consistency, verify_inclusion
from gateway.audit.periods import Retention
from gateway.audit.proofs import RecordsRemovedError, consistency_proof, inclusion_proof
from gateway.audit.records import AuditKind, parse
from gateway.audit.removed_records import BLOCK_RECORDS, cutoff
from gateway.audit.verify import load_public_key, verify_data_folder, verify_export
from gateway.clock import to_micros
from gateway.store.schema import audit_heads, audit_periods, audit_records
from gateway.store.signing_key import stored_rotations
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit

RECORDS = 1400
BEGIN = datetime(2022, 1, 1, tzinfo=UTC)
PER_DAY = 2
"""700 days: to December 2023."""


class Time:
    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        return to_micros(self.now)


async def fill(store: Store, time: Time) -> None:
    for number in range(RECORDS // 10):
        time.now = BEGIN + timedelta(days=number * 10 / PER_DAY)
        owners = ("d1", "d2")
        await store.record(*(looked(f"{number} {i}", owner_ids=owners[: i % 3]) for i in range(10)))
        if number in (20, 100):
            await rotate(store)
        if number == 50:
            await store.publish()


async def rotate(store: Store) -> None:
    new = Signer.generate(store.verifier.origin)
    event = looked(kind=AuditKind.SIGNING_KEY_CHANGED, detail={PUBLIC_KEY_DETAIL: new.verifier.to_text()})

    async def unit(work: Unit) -> None:
        work.change_key(event, new)

    await store.run(unit)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")

    async def write() -> None:
        time = Time()
        async with Store.open(StoreSettings(folder), clock=time) as store:
            await fill(store, time)

    asyncio.run(write())
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def at(year: int, month: int, day: int = 15) -> Time:
    time = Time()
    time.now = datetime(year, month, day, tzinfo=UTC)
    return time


async def first_record(store: Store) -> int:
    async with store.read() as conn:
        return int((await conn.execute(sa.select(sa.func.min(audit_records.c.seq)))).scalar_one())


async def removed(folder: Path, time: Time, years: int = 3) -> int:
    """Apply retention in another year, with a record of that time; the number of the first that is left."""
    async with Store.open(StoreSettings(folder), clock=time) as store:
        await store.record(looked("later"))
        await Retention(store, years).apply()
        return await first_record(store)


async def test_only_whole_months_whose_years_have_passed_go(folder: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness.jsonl"
    shutil.copy(folder / HEADS_FILE, witness)
    before = verify_data_folder(folder, witness)
    assert before.exit_code == 0
    assert await removed(folder, at(2024, 12)) == 0
    # 1 January 2025: December 2021 has passed, January 2022 has not
    assert await removed(folder, at(2025, 1, 1)) == 0
    first = await removed(folder, at(2025, 9))
    assert first % BLOCK_RECORDS == 0
    async with Store.open(StoreSettings(folder), clock=at(2025, 9, 16)) as store:
        async with store.read() as conn:
            row = (await conn.execute(sa.select(audit_periods))).one()
            kept = (await conn.execute(sa.select(sa.func.min(audit_records.c.at)))).scalar_one()
            heads = (await conn.execute(sa.select(sa.func.min(audit_heads.c.tree_size)))).scalar_one()
            newest = sa.select(audit_records.c.leaf, audit_records.c.disclosures)
            leaf = (await conn.execute(newest.order_by(audit_records.c.seq.desc()).limit(1))).one()
        await store.record(looked("and it goes on"))
    # the block that the end of August 2022 is in stays whole
    limit = cutoff(to_micros(at(2025, 9).now), 3)
    assert row.end_size == first == 256
    assert row.last_at < limit
    assert kept < limit
    assert heads == 10
    event = parse(*leaf).event
    assert (event.kind, event.detail["end_size"], event.detail["last_at"]) == (
        "period_removed",
        first,
        row.last_at,
    )
    report = verify_data_folder(folder, witness)
    assert (report.findings, report.exit_code, report.removed) == ([], 0, first)
    again = await removed(folder, at(2027, 6))
    assert again == 1280
    report = verify_data_folder(folder)
    assert (report.findings, report.removed) == ([], again)


async def test_proofs_of_what_is_left(folder: Path) -> None:
    first = await removed(folder, at(2026, 6))
    async with Store.open(StoreSettings(folder), clock=at(2026, 7)) as store, store.read() as conn:
        heads = {row.tree_size: row.root for row in await conn.execute(sa.select(audit_heads))}
        size = max(heads)
        hashes = {
            row.seq: row.leaf_hash
            for row in await conn.execute(sa.select(audit_records.c.seq, audit_records.c.leaf_hash))
        }
        for seq in (first, first + 1, first + 300, size - 1):
            path = await inclusion_proof(conn, seq, size)
            assert verify_inclusion(seq, size, hashes[seq], path, heads[size])
        for old in (n for n in heads if n > first):
            path = await consistency_proof(conn, old, size)
            assert verify_consistency(old, size, heads[old], heads[size], path)
        with pytest.raises(RecordsRemovedError):
            await consistency_proof(conn, 10, size)
        with pytest.raises(RecordsRemovedError):
            await inclusion_proof(conn, 3, size)
        chain = follow(store.verifier, [r for _, r in await stored_rotations(conn, store.verifier.origin)])
        assert len(chain.sizes) == 2
        assert chain.sizes[0] < first


@pytest.mark.parametrize("form", FORMATS)
async def test_an_export_says_where_it_begins(folder: Path, tmp_path: Path, form: str) -> None:
    await removed(folder, at(2026, 6))
    key = load_public_key(str(folder / PUBLIC_KEY_FILE))
    async with Store.open(StoreSettings(folder), clock=at(2026, 7)) as store, store.read() as conn:
        data = b"".join([chunk async for chunk in export_chunks(conn, store.verifier, FORMATS[form])])
    file = tmp_path / "export"
    file.write_bytes(data)
    report = verify_export(file, key, folder / HEADS_FILE)
    assert (report.findings, report.exit_code, report.removed) == ([], 0, 1024)
    # cut at the front once more, as if retention had done it
    if form == "jsonl":
        lines = data.splitlines(keepends=True)
        for cut in (1, 3, 300):
            file.write_bytes(b"".join([lines[0], *lines[1 + cut :]]))
            assert verify_export(file, key).exit_code == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_records WHERE seq < 1280",
        "DELETE FROM audit_records WHERE seq = 1024",
        "DELETE FROM audit_periods",
        "UPDATE audit_periods SET end_size = 1280",
        "UPDATE audit_periods SET end_size = 512",
        "UPDATE audit_periods SET frontier = zeroblob(64)",
        "UPDATE audit_periods SET last_at = last_at - 1",
        "UPDATE audit_periods SET removed_at = removed_at + 1",
        "INSERT INTO audit_periods SELECT 1280, frontier, last_at, removed_at FROM audit_periods",
        "UPDATE audit_nodes SET hash = zeroblob(32) WHERE level = 8 AND idx = 1",
        "DELETE FROM audit_nodes WHERE level = 8 AND idx = 0",
        "INSERT INTO audit_subjects VALUES (1023, 'owner:d1')",
        "DELETE FROM audit_heads WHERE tree_size = 10",
        "UPDATE audit_heads SET root = zeroblob(32) WHERE tree_size = 20",
        "DELETE FROM audit_keys WHERE after_size = (SELECT min(after_size) FROM audit_keys)",
    ],
)
async def test_nothing_can_hide_behind_retention(
    folder_removed: Path, tmp_path: Path, statement: str
) -> None:
    copy = Path(shutil.copytree(folder_removed, tmp_path / "spoilt"))
    assert verify_data_folder(copy).exit_code == 3
    with closing(sqlite3.connect(copy / "custos.db")) as connection, connection:
        connection.execute(statement)
    assert verify_data_folder(copy).exit_code == 1


@pytest.fixture(scope="module")
def folder_removed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("removed") / "copy"))
    assert asyncio.run(removed(folder, at(2026, 6))) == 1024
    return folder


async def test_records_that_are_still_there_are_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that is cut off between two units, as a crash would."""
    monkeypatch.setattr("gateway.audit.periods.ROWS_PER_UNIT", BLOCK_RECORDS)
    monkeypatch.setattr("gateway.audit.periods.UNITS_PER_RUN", 2)
    assert await removed(folder, at(2026, 6)) == 512
    assert verify_data_folder(folder).findings == []
    with closing(sqlite3.connect(folder / "custos.db")) as connection, connection:
        connection.execute("UPDATE audit_records SET actor_id = 'x' WHERE seq = 600")
    assert [(f.code, f.seq) for f in verify_data_folder(folder).findings] == [("columns", 600)]
    assert await removed(folder, at(2026, 6)) == 1024


async def test_a_removal_that_came_too_early_is_found(folder: Path) -> None:
    """Somebody with all the keys, who lets the gateway itself remove what it must not."""
    time = at(2024, 1)
    async with Store.open(StoreSettings(folder), clock=time) as store:
        await store.record(looked("later"))
        retention = Retention(store, 3)
        retention._years = 1
        await retention.apply()
        assert await first_record(store) > 0
    assert "period" in {finding.code for finding in verify_data_folder(folder).findings}


async def test_a_clock_that_is_ahead_removes_nothing(folder: Path) -> None:
    """The ledger's own time counts, until something is recorded in that future."""
    async with Store.open(StoreSettings(folder), clock=at(2030, 1)) as store:
        await Retention(store, 3).apply()
        assert await first_record(store) == 0


async def test_on_both_databases(store_settings: StoreSettings) -> None:
    time = Time()
    async with Store.open(store_settings, clock=time) as store:
        for number in range(300):
            time.now = BEGIN + timedelta(days=number)
            if number % 100 == 0:
                await store.record(*(looked(f"{number} {i}") for i in range(100)))
        time.now = BEGIN + timedelta(days=3650)
        await store.record(looked("ten years on"))
        assert await Retention(store, 5).apply() == 256
        assert await Retention(store, 5).apply() == 0
        assert await first_record(store) == 256
        async with store.read() as conn:
            size = (await store.head()).head.size  # type: ignore[union-attr]
            assert await inclusion_proof(conn, 299, size)


def months() -> Iterator[tuple[datetime, datetime]]:
    for year, month in itertools.product((2025, 2028), (1, 2, 12)):
        yield datetime(year, month, 28, 23, 59, tzinfo=UTC), datetime(year - 3, month, 1, tzinfo=UTC)


def test_a_month_counts_when_it_is_over_everywhere() -> None:
    for now, expected in months():
        assert cutoff(to_micros(now), 3) == to_micros(expected)
