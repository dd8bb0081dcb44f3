"""The installation's own secrets: one master key in the data folder, and what is derived from it.

The file `keys/master.key` (32 random bytes, mode 0600) is made at the first start. Nothing else in the data
folder opens a camera's password: a copied database without the key holds none.
"""

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyFileError(Exception):
    """The key file is unreadable, too open, or does not fit the data it should open."""

    code = "key_file_invalid"


class InstallationKeys:
    """Derives one key per use (HKDF, RFC 5869); seals camera passwords and second factors with AES-256-GCM.

    The camera's or user's id is bound as associated data, so that two rows' ciphertexts cannot be exchanged.
    """

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            msg = f"the master key must have {KEY_BYTES} bytes"
            raise KeyFileError(msg)
        self._camera_passwords = AESGCM(_derive(master, b"camera-passwords"))
        self._second_factors = AESGCM(_derive(master, b"second-factors"))
        self.mark_key = _derive(master, b"trace-marks")

    @classmethod
    def open(cls, data_folder: Path) -> "InstallationKeys":
        """Read the master key, or make it at the first start. Raises KeyFileError."""
        path = data_folder / "keys" / "master.key"
        return cls(read_key(path) or make_key(path))

    def seal(self, camera_id: str, password: str) -> bytes:
        return _encrypted(self._camera_passwords, camera_id, password)

    def unseal(self, camera_id: str, sealed: bytes) -> str:
        """Raises KeyFileError if the key is another one or the bytes were altered or exchanged."""
        return _decrypted(self._camera_passwords, camera_id, sealed, f"the password of camera {camera_id}")

    def seal_second_factor(self, user_id: str, secret: str) -> bytes:
        return _encrypted(self._second_factors, user_id, secret)

    def unseal_second_factor(self, user_id: str, sealed: bytes) -> str:
        """Raises KeyFileError as `unseal` does."""
        return _decrypted(self._second_factors, user_id, sealed, f"the second factor of user {user_id}")


def read_key(path: Path) -> bytes | None:
    """A key of KEY_BYTES from its file; None if there is no file. Raises KeyFileError."""
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        msg = f"{path} is readable by others: chmod 600 it"
        raise KeyFileError(msg)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        msg = f"{path} must have {KEY_BYTES} bytes"
        raise KeyFileError(msg)
    return key


def make_key(path: Path) -> bytes:
    """A new random key, durable in a file that only this user may read. Raises OSError if there is one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = secrets.token_bytes(KEY_BYTES)
    # O_EXCL: of two first starts at once, one fails and nothing is overwritten.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _encrypted(key: AESGCM, bound_to: str, text: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + key.encrypt(nonce, text.encode(), bound_to.encode())


def _decrypted(key: AESGCM, bound_to: str, sealed: bytes, what: str) -> str:
    try:
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode()).decode()
    except (InvalidTag, ValueError):
        msg = f"{what} does not open with this installation's key"
        raise KeyFileError(msg) from None


def _derive(master: bytes, use: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"custos/" + use).derive(master)
