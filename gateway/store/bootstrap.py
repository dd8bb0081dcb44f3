"""Bringing a database to this version, and an installation to life: id, ledger key, empty ledger."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.audit.heads import KEY_FILE, PUBLIC_KEY_FILE, Signer, Verifier
from gateway.store.errors import StoreVersionError
from gateway.store.identifiers import new_id
from gateway.store.schema import POLICY_REVISION, audit_state, counters, installation
from gateway.store.signing_key import newest_public_key, open_signer

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x437573746F73
"""PostgreSQL's advisory locks are numbers: "Custos" in ASCII."""


async def prepare(engine: AsyncEngine, folder: Path, clock: Callable[[], int]) -> tuple[Signer, Verifier]:
    """Migrate and found the installation if it is new; return the ledger's signer and its first public key.

    One transaction.

    Raise StoreVersionError, LedgerKeyError, OSError or SQLAlchemy's errors.
    """
    async with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        await connection.run_sync(migrate)
        values = {row.key: row.value for row in await connection.execute(sa.select(installation))}
        if not values:
            signer = await _found(connection, folder, clock())
            return signer, signer.verifier
        first = Verifier.from_text(values["ledger_public_key"])
        present = await newest_public_key(connection) or first.to_text()
        signer = open_signer(folder, first.origin, present)
        if not (folder / PUBLIC_KEY_FILE).exists():
            first.write(folder)
        return signer, first


def migrate(connection: Connection) -> None:
    """Bring the schema to this version. Raise StoreVersionError if it is from another one."""
    config = Config()
    # `%` would be read as the configuration file's interpolation
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreVersionError("this database was written by another version of Custos") from error


async def _found(connection: AsyncConnection, folder: Path, now: int) -> Signer:
    identity = new_id()
    # a key without an installation is left by a start that died here
    origin = f"custos/{identity}"
    signer = Signer.load(folder, origin) if (folder / KEY_FILE).exists() else Signer.create(folder, origin)
    signer.verifier.write(folder)
    values = {"id": identity, "ledger_public_key": signer.verifier.to_text(), "created_at": str(now)}
    rows = [{"key": key, "value": value} for key, value in values.items()]
    await connection.execute(installation.insert(), rows)
    await connection.execute(counters.insert().values(name=POLICY_REVISION, value=0))
    await connection.execute(audit_state.insert().values(id=1, size=0, frontier=b"", last_at=0))
    return signer
