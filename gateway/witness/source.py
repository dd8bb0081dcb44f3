"""What a witness asks a gateway: its newest head, its rotations of keys, and consistency proofs."""

from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from gateway.audit.heads import HeadFormatError, SignedHead, parse_head
from gateway.audit.key_history import KeyChainError, Rotation, RotationJson, parse_rotation
from gateway.audit.liveness import SignOfLife, SignOfLifeJson, parse_sign_of_life
from gateway.audit.merkle import MAX_PROOF_HASHES
from gateway.bounded_fetch import FetchError, fetch

MAX_ROTATIONS = 50
"""Asked for at once; more of them come with the next pull."""

T = TypeVar("T")


class _Heads(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]
    alive: SignOfLifeJson | None


class _Keys(msgspec.Struct, frozen=True):
    items: list[RotationJson]


class _Consistency(msgspec.Struct, frozen=True):
    path: list[str]


@dataclass(frozen=True)
class Newest:
    """Not yet verified. None: the ledger is empty."""

    head: SignedHead | None
    alive: SignOfLife | None


class GatewaySource:
    """The public part of a gateway's ledger, at its base address. Every method raises FetchError."""

    def __init__(self, http: aiohttp.ClientSession, gateway: URL) -> None:
        self._http = http
        self._audit = gateway / "api/v1/audit"

    async def newest(self) -> Newest:
        answer = await self._get("heads", _Heads, page_size=1)
        try:
            head = parse_head(bytes(answer.items[0])) if answer.items else None
            alive = None if answer.alive is None else parse_sign_of_life(answer.alive)
        except HeadFormatError as error:
            raise FetchError(f"{self._audit.origin()}: {error}") from error
        return Newest(head, alive)

    async def rotations(self, after: int) -> list[Rotation]:
        """Those after so many records, the oldest first, at most `MAX_ROTATIONS`."""
        answer = await self._get("keys", _Keys, after=after, page_size=MAX_ROTATIONS)
        try:
            return [parse_rotation(item) for item in answer.items[:MAX_ROTATIONS]]
        except KeyChainError as error:
            raise FetchError(f"{self._audit.origin()}: {error}") from error

    async def consistency(self, old_size: int, size: int) -> list[bytes]:
        """Raise FetchRefusedError if the gateway has no such proof."""
        answer = await self._get("consistency", _Consistency, old_size=old_size, tree_size=size)
        try:
            return [bytes.fromhex(node) for node in answer.path[: MAX_PROOF_HASHES + 1]]
        except ValueError as error:
            raise FetchError(f"{self._audit.origin()}: no consistency proof") from error

    async def _get(self, what: str, shape: type[T], **params: int) -> T:
        query = {name: str(value) for name, value in params.items()}
        content = await fetch(self._http, self._audit / what, query)
        try:
            return msgspec.json.decode(content, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise FetchError(f"{self._audit.origin()}: not the answer of a gateway") from None
