"""The key that signs heads, and its change: on disk first, then in the database, then in use.

The database says which key is the present one, so that a crash between any two steps leaves one truth: a
staged key that no commit knows is forgotten, one that the newest row of `audit_keys` names is installed.
"""

import asyncio
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.heads import KEY_FILE, NEXT_KEY_FILE, LedgerKeyError, Signer, install_next_key
from gateway.audit.key_history import Rotation
from gateway.audit.merkle import split_hashes
from gateway.audit.proofs import inclusion_proof
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads, audit_keys, audit_records

_log = structlog.get_logger(__name__)


class SigningKey:
    """`signer` signs the next head.

    Used by the store's writer task alone, in this order: `settle`, `hand_over`, COMMIT, `committed`.
    """

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._folder = folder
        self.signer = signer
        self._staged: Signer | None = None

    async def settle(self, connection: AsyncConnection) -> None:
        """After a COMMIT whose outcome nobody saw: was the key changed?"""
        if self._staged is None:
            return
        if await newest_public_key(connection) == self._staged.verifier.to_text():
            await self.committed()
        self._staged = None

    async def hand_over(self, connection: AsyncConnection, size: int, new: Signer) -> None:
        """The record before `size` names the new key. Raise OSError if the key cannot be kept."""
        await asyncio.to_thread(new.stage, self._folder)
        self._staged = new
        leaf = sa.select(audit_records.c.leaf).where(audit_records.c.seq == size - 1)
        row = {
            "after_size": size,
            "public_key": new.verifier.to_text(),
            "leaf": (await connection.execute(leaf)).scalar_one(),
            "path": b"".join(await inclusion_proof(connection, size - 1, size)),
        }
        await connection.execute(audit_keys.insert().values(row))

    async def committed(self) -> None:
        """From now on use the key that was handed over to, if one was."""
        if self._staged is None:
            return
        self.signer, self._staged = self._staged, None
        try:
            await asyncio.to_thread(install_next_key, self._folder)
        except OSError as error:
            # the next start installs it
            _log.error("ledger_key_not_installed", error=type(error).__name__, errno=error.errno)


def open_signer(folder: Path, origin: str, public_key: str) -> Signer:
    """The key of that public key, whose change may have been cut off. Raise LedgerKeyError or OSError."""
    signer = Signer.load(folder, origin)
    if signer.verifier.to_text() == public_key:
        (folder / NEXT_KEY_FILE).unlink(missing_ok=True)
        return signer
    if (folder / NEXT_KEY_FILE).exists():
        signer = Signer.load(folder, origin, NEXT_KEY_FILE)
        if signer.verifier.to_text() == public_key:
            install_next_key(folder)
            return signer
    raise LedgerKeyError(f"{KEY_FILE} is not the key of this database's ledger")


async def stored_rotations(
    connection: AsyncConnection, origin: str, *, after: int = 0, limit: int | None = None
) -> list[tuple[str, Rotation]]:
    """Changes of the key after so many records, the oldest first, each with the key that it names."""
    is_its_head = audit_heads.c.tree_size == audit_keys.c.after_size
    query = sa.select(audit_keys, audit_heads).join(audit_heads, is_its_head)
    query = query.where(audit_keys.c.after_size > after).order_by(audit_keys.c.after_size).limit(limit)
    return [
        (row.public_key, Rotation(row.leaf, split_hashes(row.path), signed_head(row, origin)))
        for row in await connection.execute(query)
    ]


async def newest_public_key(connection: AsyncConnection) -> str | None:
    """The newest key that the ledger handed over to; None while it has its first."""
    query = sa.select(audit_keys.c.public_key).order_by(audit_keys.c.after_size.desc()).limit(1)
    return (await connection.execute(query)).scalar_one_or_none()
