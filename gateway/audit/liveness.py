"""A sign of life: the ledger's key states the time, over the newest head.

Where nothing is recorded there is no new head, and an old answer could be replayed for as long as somebody
likes. Its text cannot be taken for a head: a head's second line is a number.
"""

import base64
import binascii
from dataclasses import dataclass

import msgspec

from gateway.audit.heads import SIGNATURE_BYTES, HeadFormatError, Signer, TreeHead
from gateway.audit.key_history import KeyHistory
from gateway.audit.merkle import HASH_BYTES


class SignOfLifeJson(msgspec.Struct, frozen=True):
    """`root` and `signature` in base64; `time` in microseconds since the epoch, UTC."""

    size: int
    root: str
    time: int
    signature: str


@dataclass(frozen=True)
class SignOfLife:
    """At `time` (microseconds, UTC) the ledger's newest head had this size and root."""

    size: int
    root: bytes
    time: int
    signature: bytes

    def to_json(self) -> SignOfLifeJson:
        return SignOfLifeJson(
            self.size,
            base64.b64encode(self.root).decode(),
            self.time,
            base64.b64encode(self.signature).decode(),
        )

    def verify(self, keys: KeyHistory) -> bool:
        text = _text(keys.origin, self.size, self.root, self.time)
        return keys.verifier_at(self.size).verify_text(self.signature, text)


def sign_of_life(signer: Signer, head: TreeHead, now: int) -> SignOfLife:
    """`now`: microseconds, UTC; never stated earlier than the head."""
    time = max(now, head.signed_at)
    signature = signer.sign_text(_text(head.origin, head.size, head.root, time))
    return SignOfLife(head.size, head.root, time, signature)


def parse_sign_of_life(document: SignOfLifeJson) -> SignOfLife:
    """Raise HeadFormatError; the signature is not yet verified."""
    try:
        root = base64.b64decode(document.root, validate=True)
        signature = base64.b64decode(document.signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HeadFormatError("not a sign of life") from error
    if len(root) != HASH_BYTES or len(signature) != SIGNATURE_BYTES or document.size < 1:
        raise HeadFormatError("not a sign of life")
    return SignOfLife(document.size, root, document.time, signature)


def _text(origin: str, size: int, root: bytes, time: int) -> bytes:
    return f"{origin}\nalive\n{size}\n{base64.b64encode(root).decode()}\ntime {time}\n".encode()
