"""Opening: migrations, keys, and what every connection must promise."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL
from sqlalchemy.engine import Connection
from support.databases import create_database, looked

from gateway.audit.heads import HEADS_FILE, KEY_FILE, PUBLIC_KEY_FILE, LedgerKeyError
from gateway.audit.verify import verify_data_folder
from gateway.store.errors import StoreUnavailableError, StoreVersionError
from gateway.store.schema import metadata
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


async def test_migrations_lead_to_the_schema(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store, store.read() as conn:
        assert await conn.run_sync(differences) == []


@pytest.mark.postgresql
async def test_migrations_run_on_an_empty_postgresql(tmp_path: Path, postgresql: URL) -> None:
    async with Store.open(StoreSettings(tmp_path, await create_database(postgresql))) as store:
        await store.record(looked())
        async with store.read() as conn:
            assert await conn.run_sync(differences) == []


async def test_an_existing_installation_goes_on(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        await store.record(looked())
        key = store.verifier
    async with Store.open(store_settings) as store:
        await store.record(looked())
        head = await store.head()
        assert store.verifier == key
    assert head is not None
    assert head.head.size == 2
    assert (store_settings.data_folder / HEADS_FILE).read_bytes().endswith(head.to_line())


async def test_a_database_of_another_version_is_refused(store_settings: StoreSettings) -> None:
    async def leap(unit: Unit) -> None:
        await unit.conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    async with Store.open(store_settings) as store:
        await store.run(leap)
    with pytest.raises(StoreVersionError):
        async with Store.open(store_settings):
            pass


async def test_a_lost_or_foreign_key_is_refused(store_settings: StoreSettings, tmp_path: Path) -> None:
    async with Store.open(store_settings):
        pass
    other = tmp_path / "other"
    other.mkdir()
    async with Store.open(StoreSettings(other)):
        pass
    shutil.copy(other / KEY_FILE, tmp_path / KEY_FILE)
    with pytest.raises(LedgerKeyError):
        async with Store.open(store_settings):
            pass
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(LedgerKeyError):
        async with Store.open(store_settings):
            pass
    assert not (tmp_path / KEY_FILE).exists()


async def test_a_first_start_that_died_with_its_key_written_is_repeated(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        first = store.verifier
    (tmp_path / "custos.db").unlink()
    async with Store.open(StoreSettings(tmp_path)) as store:
        assert store.verifier.key == first.key
        assert store.verifier.origin != first.origin
        assert (tmp_path / PUBLIC_KEY_FILE).read_text().strip() == store.verifier.to_text()


async def test_every_sqlite_connection_is_durable_and_checks_references(tmp_path: Path) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}

    async def pragmas(conn: sa.ext.asyncio.AsyncConnection) -> dict[str, object]:
        return {name: (await conn.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in expected}

    async with Store.open(StoreSettings(tmp_path, read_connections=2)) as store:
        assert await store.run(lambda unit: pragmas(unit.conn)) == expected
        async with store.read() as one, store.read() as two:
            assert await pragmas(one) == await pragmas(two) == expected


async def test_a_folder_that_is_not_there_or_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        async with Store.open(StoreSettings(tmp_path / "nowhere")):
            pass
    (tmp_path / "custos.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailableError):
        async with Store.open(StoreSettings(tmp_path)):
            pass


@pytest.mark.parametrize("url", ["mysql://u:canary@h/d", "sqlite:///x.db", "postgresql://u:canary@h/d"])
async def test_another_database_is_refused_and_no_password_shown(tmp_path: Path, url: str) -> None:
    settings = StoreSettings(tmp_path, url)
    assert "canary" not in repr(settings)
    with pytest.raises(ValueError, match="sqlite") as refusal:
        async with Store.open(settings):
            pass
    assert "canary" not in str(refusal.value)


async def test_an_unreachable_server_is_unavailable(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://custos:canary@/custos?host={tmp_path}"
    with pytest.raises(StoreUnavailableError) as failure:
        async with Store.open(StoreSettings(tmp_path, url)):
            pass
    assert "canary" not in str(failure.value)


async def test_a_table_altered_by_hand_is_seen(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)):
        pass
    with closing(sqlite3.connect(tmp_path / "custos.db")) as connection:
        connection.execute("ALTER TABLE cameras ADD COLUMN extra TEXT")
    async with Store.open(StoreSettings(tmp_path)) as store, store.read() as conn:
        assert len(await conn.run_sync(differences)) == 1


async def test_a_full_disk_refuses_and_then_goes_on(tmp_path: Path) -> None:
    """SQLite rolls the whole transaction back by itself then, savepoints included."""

    async def limit_pages(unit: Unit, pages: int) -> None:
        await unit.conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked("before"))
        await store.run(lambda unit: limit_pages(unit, 1))
        with pytest.raises(StoreUnavailableError):
            await store.record(*(looked("x" * 2000) for _ in range(200)))
        await store.run(lambda unit: limit_pages(unit, 1_000_000))
        await store.record(looked("after"))
        head = await store.head()
    assert head is not None
    assert head.head.size == 2
    assert verify_data_folder(tmp_path).findings == []
