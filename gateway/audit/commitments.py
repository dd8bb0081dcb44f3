"""Salted commitments: a value that can be forgotten while the proof of its record stays good.

The leaf holds a hash over a random salt and the value; salt and value stand beside it as a *disclosure*.
Whoever has the disclosure sees that it is what was committed to; once it is gone, the salt keeps anybody from
trying values until one fits. The idea is that of SD-JWT (RFC 9901), the encoding is not.
"""

import binascii
import hashlib
import os
from collections.abc import Mapping

import msgspec

SALT_BYTES = 16
MAX_DISCLOSURES_BYTES = 64 * 1024
"""Five texts of 2000 characters, each of which JSON may need six bytes for, and their salts."""

_DOMAIN = b"custos commitment 1\n"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_SALT_CHARS = 22

Disclosures = Mapping[str, tuple[str, str]]
"""Salt (16 bytes in unpadded base64url) and value, by the field's name."""

_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(dict[str, tuple[str, str]])


class DisclosureFormatError(ValueError):
    """These bytes are not the canonical form of disclosures."""


def disclose(values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Disclosures of values by field name, each with a new salt."""
    random = os.urandom(SALT_BYTES * len(values))
    return {
        name: (_base64url(random[place * SALT_BYTES : (place + 1) * SALT_BYTES]), value)
        for place, (name, value) in enumerate(values.items())
    }


def commit(name: str, salt: str, value: str) -> str:
    """SHA-256 over the field's name, the salt's 22 characters and the value, in unpadded base64url."""
    return _base64url(hashlib.sha256(_DOMAIN + f"{name}\n{salt}{value}".encode()).digest())


def serialize_disclosures(disclosures: Disclosures) -> bytes:
    """`{"<name>":["<salt>","<value>"],…}`: compact JSON, sorted by name."""
    return _encoder.encode(disclosures)


def parse_disclosures(data: bytes) -> dict[str, tuple[str, str]]:
    """The inverse of `serialize_disclosures`. Raise DisclosureFormatError."""
    if len(data) > MAX_DISCLOSURES_BYTES:
        raise DisclosureFormatError("longer than any disclosures")
    try:
        disclosures = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DisclosureFormatError("not disclosures") from error
    # a salt of another length could hand characters of the value over to it, or take some
    if any(len(salt) != _SALT_CHARS for salt, _ in disclosures.values()):
        raise DisclosureFormatError("a disclosure's salt is malformed")
    if serialize_disclosures(disclosures) != data:
        raise DisclosureFormatError("disclosures not in canonical form")
    return disclosures


def _base64url(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode()
