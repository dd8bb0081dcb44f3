"""Seals: whoever can write the database, but not read `keys/seal.key`, cannot make a row that decides.

Each row that decides who may do what carries a MAC of its content (keyed BLAKE2b, RFC 7693), made in the unit
of work that recorded the change. A sum over all seals of a kind tells that a row is gone, or that an older
one is back. The key is a file beside the master key. Pure but for that file.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.keys import make_key, read_key

SEAL_FILE = Path("keys", "seal.key")
MAC_BYTES = 16
_DENIAL = b"\x01"
"""Ends a denial's seal: one that does not fit its row still tells that a denial is lost."""
_MODULUS = 1 << 8 * MAC_BYTES


@dataclass
class Total:
    """Of the seals of a kind of rows."""

    rows: int = 0
    total: int = 0

    def add(self, summand: int) -> None:
        self.rows += 1
        self.total = (self.total + summand) % _MODULUS

    def take(self, summand: int) -> None:
        self.rows -= 1
        self.total = (self.total - summand) % _MODULUS

    def join(self, other: "Total") -> None:
        """Take on the seals of other rows."""
        self.rows += other.rows
        self.total = (self.total + other.total) % _MODULUS

    def follow(self, before: "Total", after: "Total") -> None:
        """Take on what another total went through between two times."""
        self.rows += after.rows - before.rows
        self.total = (self.total + after.total - before.total) % _MODULUS


class Seals:
    """`is_new`: the key's file was absent, so what is there has to be taken over, and then the key kept."""

    def __init__(self, key: bytes) -> None:
        self._row = hashlib.blake2b(key=key, digest_size=MAC_BYTES, person=b"custos-row")
        self._summand = hashlib.blake2b(key=key, digest_size=MAC_BYTES, person=b"custos-summand")
        self._mark = hashlib.blake2b(key=key, digest_size=MAC_BYTES, person=b"custos-mark")
        self.is_new = False
        self._path: Path | None = None

    @classmethod
    def open(cls, folder: Path) -> "Seals":
        """Read the key in the data folder; without one make it, under another name. Raise KeyFileError."""
        path = folder / SEAL_FILE
        key = read_key(path)
        if key is not None:
            return cls(key)
        waiting = path.with_suffix(".key.new")
        seals = cls(read_key(waiting) or make_key(waiting))
        seals.is_new, seals._path = True, path
        return seals

    def keep(self) -> None:
        """What was there is sealed: from now on only what is sealed counts. Raise OSError."""
        if self._path is not None:
            self._path.with_suffix(".key.new").rename(self._path)
        self.is_new = False

    def seal(self, content: bytes, *, is_denial: bool = False) -> bytes:
        mac = self._row.copy()
        mac.update(content)
        return mac.digest() + _DENIAL if is_denial else mac.digest()

    def fits(self, seal: bytes | None, content: bytes) -> bool:
        if not isinstance(seal, bytes):  # SQLite stores any type in any column
            return False
        mac = self._row.copy()
        mac.update(content)
        return hmac.compare_digest(seal[:MAC_BYTES], mac.digest())

    def check(self, rows: Iterable[tuple[bytes | None, bytes | None]]) -> tuple[list[bool], Total]:
        """Of many rows, each its seal and its content (None: nobody can read it): which fit, and their sum.

        Like `fits` and `summand` for each, with fewer calls: a start checks a million rows.
        """
        new_mac, new_summand, equal = self._row.copy, self._summand.copy, hmac.compare_digest
        fits: list[bool] = []
        count = total = 0
        for seal, content in rows:
            fit = False
            if isinstance(seal, bytes):
                mac = new_summand()
                mac.update(seal)
                total += int.from_bytes(mac.digest(), "big")
                count += 1
                if content is not None:
                    mac = new_mac()
                    mac.update(content)
                    fit = equal(seal[:MAC_BYTES], mac.digest())
            fits.append(fit)
        return fits, Total(count, total % _MODULUS)

    def summand(self, seal: bytes) -> int:
        """What a seal adds to its kind's sum: secret, else rows could be exchanged so that the sum stays."""
        mac = self._summand.copy()
        mac.update(seal)
        return int.from_bytes(mac.digest(), "big")

    def mark(self, data: bytes) -> bytes:
        """A MAC of anything else: sums, the state of the policy."""
        mac = self._mark.copy()
        mac.update(data)
        return mac.digest()


def is_of_denial(seal: bytes) -> bool:
    """Whether the row that was sealed so was a denial."""
    return len(seal) > MAC_BYTES
