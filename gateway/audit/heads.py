"""Signed tree heads: what the ledger was at a time, signed with the installation's Ed25519 key.

The signed text is a checkpoint (C2SP tlog-checkpoint): origin, tree size and root on three lines, and two
extension lines: when it was signed, and the size of the head before it, which makes the heads a chain. Keys
are written as C2SP signed-note verifier keys, `origin+keyid+base64(0x01 || key)`.
"""

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.audit.merkle import HASH_BYTES

KEY_FILE = "ledger.key"
NEXT_KEY_FILE = "ledger.key.next"
PUBLIC_KEY_FILE = "ledger.pub"
HEADS_FILE = "heads.jsonl"
MAX_HEAD_BYTES = 4096
SIGNATURE_BYTES = 64
_ED25519 = b"\x01"
_ORIGIN = re.compile(r"[!-*,-~]{1,200}")


class LedgerKeyError(Exception):
    """The ledger's key is absent, unreadable, or another ledger's."""

    code = "ledger_key"


class HeadFormatError(ValueError):
    """This is not a signed tree head."""


@dataclass(frozen=True)
class TreeHead:
    """The ledger's first `size` records have this Merkle root. `signed_at`: microseconds, UTC."""

    origin: str
    size: int
    previous_size: int
    root: bytes
    signed_at: int

    def body(self) -> bytes:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        extension = f"time {self.signed_at}\nprevious {self.previous_size}"
        return f"{self.origin}\n{self.size}\n{root}\n{extension}\n".encode()


@dataclass(frozen=True)
class SignedHead:
    head: TreeHead
    signature: bytes

    def to_json(self) -> dict[str, str | int]:
        """`{"origin", "size", "previous_size", "root", "time", "signature"}`, the bytes in base64."""
        return {
            "origin": self.head.origin,
            "size": self.head.size,
            "previous_size": self.head.previous_size,
            "root": base64.b64encode(self.head.root).decode(),
            "time": self.head.signed_at,
            "signature": base64.b64encode(self.signature).decode(),
        }

    def to_line(self) -> bytes:
        return msgspec.json.encode(self.to_json()) + b"\n"


class _HeadJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    origin: str
    size: int
    previous_size: int
    root: str
    time: int
    signature: str


def parse_head(line: bytes) -> SignedHead:
    """A head from its JSON. Raise HeadFormatError; the signature is not yet verified."""
    if len(line) > MAX_HEAD_BYTES:
        raise HeadFormatError("longer than a signed head")
    try:
        fields = msgspec.json.decode(line, type=_HeadJson)
        root = base64.b64decode(fields.root, validate=True)
        signature = base64.b64decode(fields.signature, validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError) as error:
        raise HeadFormatError("not a signed head") from error
    if (
        len(root) != HASH_BYTES
        or len(signature) != SIGNATURE_BYTES
        or not 0 <= fields.previous_size < fields.size
    ):
        raise HeadFormatError("not a signed head")
    head = TreeHead(fields.origin, fields.size, fields.previous_size, root, fields.time)
    signed = SignedHead(head, signature)
    # Python reads over bits of base64 that stand for nothing
    if signed.to_json() != msgspec.structs.asdict(fields):
        raise HeadFormatError("not a signed head")
    return signed


@dataclass(frozen=True)
class Verifier:
    """A ledger's public key, with the origin that it speaks for."""

    origin: str
    key: bytes

    def verify(self, signed: SignedHead) -> bool:
        return signed.head.origin == self.origin and self.verify_text(signed.signature, signed.head.body())

    def verify_text(self, signature: bytes, text: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text)
        except InvalidSignature:
            return False
        return True

    def to_text(self) -> str:
        key = _ED25519 + self.key
        key_id = hashlib.sha256(self.origin.encode() + b"\n" + key).digest()[:4]
        return f"{self.origin}+{key_id.hex()}+{base64.b64encode(key).decode()}"

    def write(self, folder: Path) -> None:
        """As `ledger.pub`."""
        (folder / PUBLIC_KEY_FILE).write_text(self.to_text() + "\n")

    @classmethod
    def from_text(cls, text: str) -> "Verifier":
        """The inverse of `to_text`. Raise LedgerKeyError."""
        try:
            origin, _key_id, encoded = text.strip().split("+", 2)
            key = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise LedgerKeyError("not a ledger's public key") from error
        verifier = cls(origin, key[1:])
        if len(key) != 1 + HASH_BYTES or not _ORIGIN.fullmatch(origin) or verifier.to_text() != text.strip():
            raise LedgerKeyError("not a ledger's public key")
        return verifier


class Signer:
    """Signs this installation's heads; the private key stays inside."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier = Verifier(origin, key.public_key().public_bytes_raw())

    def sign(self, size: int, previous_size: int, root: bytes, signed_at: int) -> SignedHead:
        head = TreeHead(self.verifier.origin, size, previous_size, root, signed_at)
        return SignedHead(head, self._key.sign(head.body()))

    def sign_text(self, text: bytes) -> bytes:
        """For statements that no head can be taken for; see `liveness`."""
        return self._key.sign(text)

    @classmethod
    def generate(cls, origin: str) -> "Signer":
        """A new key, in memory only."""
        return cls(origin, Ed25519PrivateKey.generate())

    @classmethod
    def create(cls, folder: Path, origin: str) -> "Signer":
        """Make a key, durable in `ledger.key` (0600), and `ledger.pub`. Raise OSError if there is one."""
        signer = cls.generate(origin)
        signer._write(folder / KEY_FILE)  # noqa: SLF001 - its own
        signer.verifier.write(folder)
        return signer

    def stage(self, folder: Path) -> None:
        """Make this key durable as the next one, before anything is signed with it. Raise OSError."""
        (folder / NEXT_KEY_FILE).unlink(missing_ok=True)
        self._write(folder / NEXT_KEY_FILE)

    def _write(self, path: Path) -> None:
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write_new(path, pem, 0o600)

    @classmethod
    def load(cls, folder: Path, origin: str, name: str = KEY_FILE) -> "Signer":
        """Raise LedgerKeyError if the file is absent or holds no Ed25519 key."""
        try:
            key = serialization.load_pem_private_key((folder / name).read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise LedgerKeyError(f"cannot read the ledger's key {name}: {type(error).__name__}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise LedgerKeyError(f"{name} holds no Ed25519 key")
        return cls(origin, key)


def install_next_key(folder: Path) -> None:
    """The staged key becomes `ledger.key`; the one before it is overwritten, then gone. Raise OSError.

    Where a disk writes elsewhere than in place (copy on write, flash), traces of it may remain.
    """
    with (folder / KEY_FILE).open("r+b", buffering=0) as old:
        (folder / NEXT_KEY_FILE).replace(folder / KEY_FILE)
        sync_folder(folder)
        old.write(bytes(os.fstat(old.fileno()).st_size))
        os.fsync(old.fileno())


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable (a new file's name is not, by its own fsync)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
