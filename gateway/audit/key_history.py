"""Which key signs which head, after rotations: a chain that starts at the ledger's first public key.

A rotation is a record `signing_key_changed`, always the last of its commit: record n - 1 names the next key,
the head of size n is still signed with the old one and so hands over, every larger head with the new one.
The record's leaf, its inclusion proof in that head, and the head prove a rotation without the ledger.
"""

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.audit.commitments import serialize_disclosures
from gateway.audit.heads import HeadFormatError, LedgerKeyError, SignedHead, Verifier, parse_head
from gateway.audit.merkle import HASH_BYTES, MAX_PROOF_HASHES, hash_leaf, verify_inclusion
from gateway.audit.records import MAX_LEAF_BYTES, AuditKind, AuditRecord, RecordFormatError, parse

PUBLIC_KEY_DETAIL = "public_key"
_NOTHING_DISCLOSED = serialize_disclosures({})


class KeyChainError(Exception):
    """A rotation that the keys before it do not vouch for."""

    code = "key_chain"


class KeyHistory:
    """The verifiers of one ledger's heads: the first key's, and by `change` the later ones' in order."""

    def __init__(self, first: Verifier) -> None:
        self._verifiers = [first]
        self._sizes: list[int] = []

    @property
    def origin(self) -> str:
        return self._verifiers[0].origin

    @property
    def first(self) -> Verifier:
        return self._verifiers[0]

    @property
    def changed_at(self) -> int:
        """The size of the head that handed over to the present key; 0 without a rotation."""
        return self._sizes[-1] if self._sizes else 0

    @property
    def sizes(self) -> list[int]:
        """Of the heads that handed over."""
        return list(self._sizes)

    def change(self, after_size: int, key: Verifier) -> None:
        """Heads larger than `after_size` are signed with `key`. Raise KeyChainError."""
        self.check(after_size, key)
        self._sizes.append(after_size)
        self._verifiers.append(key)

    def check(self, after_size: int, key: Verifier) -> None:
        """Raise what `change` would raise."""
        if after_size <= self.changed_at or key.origin != self.origin:
            raise KeyChainError(f"the key after size {after_size} does not continue the ledger's keys")

    def verifier_of(self, size: int) -> Verifier:
        """Of the head of that size."""
        return self._verifiers[bisect_left(self._sizes, size)]

    def verifier_at(self, size: int) -> Verifier:
        """Of what is signed while the ledger has that size: the new key at once after a rotation."""
        return self._verifiers[bisect_right(self._sizes, size)]

    def verify(self, signed: SignedHead) -> bool:
        return self.verifier_of(signed.head.size).verify(signed)

    def is_retired(self, signed: SignedHead) -> bool:
        """Whether a head is signed with a key that had been given up before the head's size."""
        return any(
            key.verify(signed) for key in self._verifiers[: bisect_left(self._sizes, signed.head.size)]
        )


@dataclass(frozen=True)
class Rotation:
    """A change of the signing key with its proof: `leaf` is the last record of the tree that `head` signs."""

    leaf: bytes
    path: tuple[bytes, ...]
    head: SignedHead

    @property
    def after_size(self) -> int:
        return self.head.head.size

    def verify(self, keys: KeyHistory) -> Verifier:
        """The next key, which the key before it signed for. Raise KeyChainError."""
        signed = self.head
        size, root = signed.head.size, signed.head.root
        if not keys.verify(signed):
            raise KeyChainError(f"the head of size {size} is not signed with the key before the rotation")
        if not verify_inclusion(size - 1, size, hash_leaf(self.leaf), self.path, root):
            raise KeyChainError(f"the rotation's record is not the last of the head of size {size}")
        try:
            record = parse(self.leaf, _NOTHING_DISCLOSED)
        except RecordFormatError as error:
            raise KeyChainError(f"the rotation before size {size} is no record: {error}") from error
        key = next_key(record)
        if key is None or record.seq != size - 1:
            raise KeyChainError(f"the record before size {size} changes no key")
        return key

    def to_json(self) -> dict[str, Any]:
        return {
            "leaf": base64.b64encode(self.leaf).decode(),
            "path": [base64.b64encode(node).decode() for node in self.path],
            "head": self.head.to_json(),
        }

    def to_document(self) -> "RotationJson":
        """The inverse of `parse_rotation`."""
        fields = self.to_json()
        return RotationJson(fields["leaf"], fields["path"], msgspec.Raw(self.head.to_line().strip()))


class RotationJson(msgspec.Struct, frozen=True):
    """`leaf`, and each hash of `path`, in base64."""

    leaf: str
    path: list[str]
    head: msgspec.Raw


def parse_rotation(document: RotationJson) -> Rotation:
    """Raise KeyChainError; nothing is verified yet."""
    if len(document.leaf) > 2 * MAX_LEAF_BYTES or len(document.path) > MAX_PROOF_HASHES:
        raise KeyChainError("longer than a rotation")
    try:
        leaf = base64.b64decode(document.leaf, validate=True)
        path = tuple(base64.b64decode(node, validate=True) for node in document.path)
        head = parse_head(bytes(document.head))
    except (binascii.Error, ValueError, HeadFormatError) as error:
        raise KeyChainError("not a rotation of keys") from error
    if any(len(node) != HASH_BYTES for node in path):
        raise KeyChainError("not a rotation of keys")
    return Rotation(leaf, path, head)


def next_key(record: AuditRecord) -> Verifier | None:
    """The key that a record hands over to; None if it is no rotation. Raise KeyChainError for a wrong one."""
    if record.event.kind is not AuditKind.SIGNING_KEY_CHANGED:
        return None
    text = record.event.detail.get(PUBLIC_KEY_DETAIL)
    try:
        return Verifier.from_text(text if isinstance(text, str) else "")
    except LedgerKeyError as error:
        raise KeyChainError(f"record {record.seq} names no public key") from error


def follow(first: Verifier, rotations: Sequence[Rotation]) -> KeyHistory:
    """The history that a chain of rotations proves. Raise KeyChainError."""
    keys = KeyHistory(first)
    for rotation in rotations:
        keys.change(rotation.after_size, rotation.verify(keys))
    return keys
