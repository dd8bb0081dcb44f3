"""Whether a witness holds a head that this ledger does not continue: an older state of it was restored."""

import asyncio
import base64
from collections.abc import Sequence

import aiohttp
import msgspec
import structlog

from gateway.audit.heads import HeadFormatError, SignedHead, parse_head
from gateway.audit.key_history import KeyChainError, RotationJson, follow, parse_rotation
from gateway.audit.proofs import RecordsRemovedError, tree_frontier
from gateway.bounded_fetch import FetchError, fetch, fetching, parse_address
from gateway.store.store import Store

_log = structlog.get_logger(__name__)


_NO_ANSWER = (
    FetchError,
    KeyChainError,
    HeadFormatError,
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
)


class _Held(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]
    keys: list[RotationJson] = []


async def witnessed_ahead(
    store: Store, witnesses: Sequence[str], connector: aiohttp.BaseConnector | None = None
) -> str | None:
    """The root (base64) of a head that one of the witnesses holds and this ledger does not continue, or None.

    `witnesses`: addresses of what `custos witness --listen` serves as `/heads`, all asked at once and each
    given `bounded_fetch.TIMEOUT_SECONDS`. Only heads that this ledger's keys signed count, the rotations that
    the witness has seen included, so that no witness can do more than say nothing. Raise StoreError.
    """
    async with fetching(connector) as http, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask(http, store, witness)) for witness in witnesses]
    for held in (task.result() for task in asked):
        if held is not None and not await _is_continued(store, held):
            return base64.b64encode(held.head.root).decode()
    return None


async def _ask(http: aiohttp.ClientSession, store: Store, witness: str) -> SignedHead | None:
    """The newest head that the witness holds; None if it says nothing that counts."""
    try:
        answer = msgspec.json.decode(await fetch(http, parse_address(witness)), type=_Held)
        keys = follow(store.verifier, [parse_rotation(item) for item in answer.keys])
        head = parse_head(bytes(answer.items[0])) if answer.items else None
    except _NO_ANSWER as error:
        _log.warning("witness_without_answer", witness=witness, error=str(error))
        return None
    if head is not None and not keys.verify(head):
        _log.warning("witness_holds_what_we_did_not_sign", witness=witness, size=head.head.size)
        return None
    return head


async def _is_continued(store: Store, held: SignedHead) -> bool:
    async with store.read() as conn:
        try:
            return (await tree_frontier(conn, held.head.size)).root() == held.head.root
        except RecordsRemovedError:
            # from before what retention removed: its block hashes do not tell
            return True
        except ValueError:
            return False
