"""Database engines: one for the writer, one for readers, over SQLite or PostgreSQL.

The drivers' own transaction control is switched off on SQLite (pysqlite begins late and cannot nest), so that
the writer begins with BEGIN IMMEDIATE and SAVEPOINT works: SQLAlchemy's documented recipe.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.store.sqlite import connect

DATABASE_FILE = "custos.db"


@dataclass(frozen=True)
class Engines:
    """`writer` has one connection. `readers` cannot write, and each of its transactions is one snapshot."""

    writer: AsyncEngine
    readers: AsyncEngine

    async def dispose(self) -> None:
        await self.readers.dispose()
        await self.writer.dispose()


def open_engines(
    url: str | None, folder: Path, *, readers: int, timeout_seconds: float, lock_seconds: float
) -> Engines:
    """Engines for `url`, or for the SQLite file in the data folder. Connections open when first used.

    `timeout_seconds` bounds a reader's wait for a lock, the wait for a connection and, on PostgreSQL, a
    statement; `lock_seconds` the writer's wait for a lock. Raise ValueError for a URL that is neither
    `sqlite+aiosqlite` nor `postgresql+asyncpg`.
    """
    target = make_url(url) if url else URL.create("sqlite+aiosqlite", database=str(folder / DATABASE_FILE))
    if target.drivername == "sqlite+aiosqlite":
        return Engines(
            _sqlite(target, "BEGIN IMMEDIATE", 1, timeout_seconds, lock_seconds, read_only=False),
            _sqlite(target, "BEGIN", readers, timeout_seconds, timeout_seconds, read_only=True),
        )
    if target.drivername == "postgresql+asyncpg":
        return Engines(
            _postgresql(target, 1, timeout_seconds, lock_seconds, "READ COMMITTED", read_only=False),
            _postgresql(target, readers, timeout_seconds, timeout_seconds, "REPEATABLE READ", read_only=True),
        )
    raise ValueError("the database is sqlite+aiosqlite or postgresql+asyncpg")


def _sqlite(
    url: URL, begin: str, size: int, timeout_seconds: float, lock_seconds: float, *, read_only: bool
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        connect_args={"timeout": lock_seconds, "async_creator_fn": connect},
        hide_parameters=True,
    )
    pragmas = ["journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"]
    # what is erased is overwritten: a free page would keep it
    pragmas.append("query_only=ON" if read_only else "secure_delete=ON")

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql(
    url: URL, size: int, timeout_seconds: float, lock_seconds: float, isolation: str, *, read_only: bool
) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_pre_ping=True,
        isolation_level=isolation,
        connect_args={
            "timeout": timeout_seconds,
            # the server's own limits come first; this one is for a server that no longer answers
            "command_timeout": timeout_seconds * 2,
            "server_settings": {
                "application_name": "custos",
                "lock_timeout": str(int(lock_seconds * 1000)),
                "statement_timeout": str(int(timeout_seconds * 1000)),
                "default_transaction_read_only": "on" if read_only else "off",
                "synchronous_commit": "on",
            },
        },
        hide_parameters=True,
    )
