"""What of the ledger is for everybody: signed heads, consistency proofs, the chain of keys, a sign of life.

None of it says what is recorded, only how much; witnesses in other departments live on it.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.audit.heads import Signer
from gateway.audit.key_history import PUBLIC_KEY_DETAIL
from gateway.audit.liveness import SignOfLifeJson
from gateway.audit.proofs import RecordsRemovedError, consistency_proof
from gateway.audit.records import AuditKind
from gateway.enforcement import Circumstances, Enforcement, Grant
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads, audit_keys
from gateway.store.signing_key import stored_rotations
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the signing key: heads larger than `after_size` are signed with `public_key`.

    `leaf` is the record of it, the last one of the tree that `head` signs with the key before; `path` its
    inclusion proof (RFC 9162 §2.1.3) there. All bytes in base64.
    """

    after_size: int
    public_key: str
    leaf: str
    path: list[str]
    head: dict[str, Any]


class PublicLedger:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    @property
    def public_key(self) -> str:
        """The first key; later ones follow from `keys`."""
        return self._store.verifier.to_text()

    async def heads(self, before: int | None, size: int) -> list[dict[str, Any]]:
        """Signed heads, the newest first."""
        query = sa.select(audit_heads).order_by(audit_heads.c.tree_size.desc()).limit(size)
        if before is not None:
            query = query.where(audit_heads.c.tree_size < before)
        async with self._store.read() as conn:
            rows = (await conn.execute(query)).all()
        return [signed_head(row, self._store.verifier.origin).to_json() for row in rows]

    def alive(self) -> SignOfLifeJson | None:
        """The time, signed with the present key over the newest head; None while the ledger is empty."""
        sign = self._store.sign_of_life()
        return None if sign is None else sign.to_json()

    async def consistency(self, old_size: int, tree_size: int) -> list[str]:
        """Proof in hexadecimal that the later tree continues the earlier.

        Raises Problem `invalid_field`, or `records_removed` where retention left too little to show it.
        """
        async with self._store.read() as conn:
            try:
                return [node.hex() for node in await consistency_proof(conn, old_size, tree_size)]
            except RecordsRemovedError as error:
                raise Problem("records_removed", str(error)) from None
            except ValueError as error:
                raise Problem("invalid_field", str(error)) from None

    async def keys(self, after: int, size: int) -> list[KeyEntry]:
        """Changes of the signing key after so many records, the oldest first."""
        async with self._store.read() as conn:
            found = await stored_rotations(conn, self._store.verifier.origin, after=after, limit=size)
        return [
            KeyEntry(after_size=rotation.after_size, public_key=public_key, **rotation.to_json())
            for public_key, rotation in found
        ]

    async def rotate(self, principal: Principal, circumstances: Circumstances) -> KeyEntry:
        """Sign with a new key from the head after this record's on. Raises Problem `access_denied`."""
        content = "change the ledger's signing key"
        new = Signer.generate(self._store.verifier.origin)
        public_key = new.verifier.to_text()

        async def act(work: Unit, grant: Grant) -> None:
            event = grant.event(AuditKind.SIGNING_KEY_CHANGED, content)
            work.change_key(msgspec.structs.replace(event, detail={PUBLIC_KEY_DETAIL: public_key}), new)

        await self._enforcement.perform(
            principal, Action.SECURITY_MANAGE, INSTALLATION, circumstances, content, act
        )
        query = sa.select(audit_keys.c.after_size).where(audit_keys.c.public_key == public_key)
        async with self._store.read() as conn:
            after_size = (await conn.execute(query)).scalar_one()
        (entry,) = await self.keys(after_size - 1, 1)
        return entry
