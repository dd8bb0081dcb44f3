"""Reading cameras at a start: which fit their seals, and all that the PDP and the listings take of them.

In control itself, or in processes beside it that each read a part of a city: see `gateway.reading_apart`.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue_index import IndexedCamera, ListingPage, PairsPage, prepare
from gateway.clock import from_micros
from gateway.sealed_facts import SealedFacts
from gateway.store.bulk_read import BulkQuery
from gateway.store.key_pages import Links, by_key, pages
from gateway.store.schema import camera_tags, cameras, group_cameras
from gateway.store.sealed_rows import Sealed, camera_content
from gateway.store.sealing import StoredRow, raw
from policies.access import Sharing, SharingMode

log = structlog.get_logger(__name__)

READ_AT_ONCE = 8000
"""Cameras of a page: 80 ms of work to read, 20 to take in. By 2,000, all would take a fifth longer."""
LISTED_AT_ONCE = 2000
"""Beyond, what sorts the pairs of a page gets new memory from the kernel each time: as much time again."""

Terms = tuple[str, str | None, int | None, str | None]
"""How a camera is shared, as stored: mode, departments, until when, for which purposes; lists as JSON."""
CameraFacts = tuple[str, str, tuple[str, ...], tuple[str, ...], Terms | None]
"""Id, department, groups, tags, and how it is shared (None: by grants). No class: there are a million."""


class Cameras(Protocol):
    """All cameras of an installation, read once."""

    revision: int
    """The policy's when they were read: the oldest, if at different times. Known when `facts` has ended."""

    def facts(self, found: SealedFacts) -> AsyncIterator[list[CameraFacts]]:
        """Pages of those that fit their seals; `found` is told of all."""

    def listing(self) -> AsyncIterator[ListingPage]:
        """Pages of the same cameras, to be asked for when `facts` has ended."""

    def pairs(self) -> AsyncIterator[PairsPage]:
        """Of the same pages, to be asked for when `listing` has ended."""


class CameraReading:
    """One pass over the cameras with an id beyond `after`, up to `until` (None: to the last)."""

    def __init__(self, after: str = "", until: str | None = None) -> None:
        self._after = after
        self._until = until
        self._listed: list[bytes] = []  # packed: a fifth of what the columns are as objects
        self._without_pairs: list[ListingPage] = []

    async def facts(self, conn: AsyncConnection, found: SealedFacts) -> AsyncIterator[list[CameraFacts]]:
        """In the order of their ids. What listings need of them is kept."""
        query, until = (_NEXT, {}) if self._until is None else (_NEXT_UNTIL, {"until": self._until})

        async def read(after: str) -> Sequence[Sequence[Any]]:
            return await query.rows(conn, after=after, count=READ_AT_ONCE, **until)

        async for rows in pages(read, self._after, READ_AT_ONCE):
            page = list(await _stored(conn, rows))
            sealed = [(entry[0], seal, content) for entry, _, seal, _, _, _, content in page]
            fits = found.check_sealed(Sealed.CAMERA, sealed)
            facts, listed = [], []
            for entry, department_id, _, terms, groups, tags, _ in compress(page, fits):
                shared = None if terms == _BY_GRANTS else terms
                facts.append((entry[0], department_id, _sorted(groups), _sorted(tags), shared))
                listed.append(entry)
            if facts:
                self._listed.append(_pack(listed))
                yield facts

    def listing(self) -> Iterator[ListingPage]:
        """Of all that were among the facts. What their pairs need is kept."""
        self._listed.reverse()
        while self._listed:
            entries = _entries(self._listed.pop())
            for start in range(0, len(entries), LISTED_AT_ONCE):
                page = prepare(entries[start : start + LISTED_AT_ONCE])
                self._without_pairs.append(page)
                yield page

    def pairs(self) -> Iterator[PairsPage]:
        """Of all that were listed. Nothing is kept any longer."""
        self._without_pairs.reverse()
        while self._without_pairs:
            yield self._without_pairs.pop().pairs


async def cameras_after(conn: AsyncConnection, after: str, limit: int) -> list[StoredRow]:
    """The next rows of cameras, in the order of their ids, as a start reads them."""
    rows = await _NEXT.rows(conn, after=after, count=limit)
    if not rows:
        return []
    return [
        StoredRow(entry[0], content, seal, is_denial=False)
        for entry, _, seal, *_, content in await _stored(conn, rows)
    ]


def sharing_of(terms: Terms | None) -> Sharing | None:
    """As the PDP takes it; what cannot be read is not shared, and for no purpose."""
    if terms is None:
        return None
    mode, departments, until, purposes = terms
    try:
        return Sharing(
            mode=SharingMode(mode),
            departments=msgspec.json.decode(departments, type=tuple[str, ...]) if departments else (),
            until=None if until is None else from_micros(until),
            purposes=None if purposes is None else msgspec.json.decode(purposes, type=frozenset[str]),
        )
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        log.error("policy_sharing_unreadable", error=str(error))
        return Sharing(mode=SharingMode.NOT_SHARED, purposes=frozenset())


_LISTED = tuple(cameras.c[name] for name in IndexedCamera._fields)
_MODE, _ENABLED = (IndexedCamera._fields.index(name) for name in ("sharing_mode", "enabled"))
_ROWS = sa.select(
    *_LISTED,
    cameras.c.department_id,
    cameras.c.seal,
    raw(cameras.c.sharing_departments),
    cameras.c.sharing_until,
    raw(cameras.c.sharing_purposes),
)
_NEXT_ROWS = (
    _ROWS.where(cameras.c.id > sa.bindparam("after")).order_by(cameras.c.id).limit(sa.bindparam("count"))
)
_NEXT = BulkQuery(_NEXT_ROWS)
_NEXT_UNTIL = BulkQuery(_NEXT_ROWS.where(cameras.c.id <= sa.bindparam("until")))
_GROUPS = Links(*group_cameras.c["camera_id", "group_id"])
_TAGS = Links(*camera_tags.c["camera_id", "tag"])
_BY_GRANTS: Terms = (SharingMode.CONDITIONAL.value, None, None, None)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[IndexedCamera]).decode

_Stored = tuple[tuple[Any, ...], str, bytes | None, Terms, Collection[str], Collection[str], bytes | None]
"""What listings take, department, seal, terms, groups, tags, and what the seal was made of."""


def _entries(packed: bytes) -> list[IndexedCamera]:
    """A page's; one that cannot be read is left out (SQLite stores any type in any column)."""
    try:
        return _unpack(packed)
    except msgspec.ValidationError:
        readable = []
        for entry in msgspec.msgpack.decode(packed):
            try:
                readable.append(msgspec.convert(entry, IndexedCamera))
            except msgspec.ValidationError as error:
                log.error("camera_not_listed", id=entry[0], error=str(error))
        return readable


async def _stored(conn: AsyncConnection, rows: Sequence[Any]) -> Iterator[_Stored]:
    """Of a page of `_ROWS`."""
    member_of: dict[str, list[str]] = by_key(await _GROUPS.of(conn, rows))
    tagged: dict[str, list[str]] = by_key(await _TAGS.of(conn, rows))

    def each() -> Iterator[_Stored]:
        for row in rows:
            entry = (*row[:_ENABLED], bool(row[_ENABLED]))
            department_id, seal, departments, until, purposes = row[_ENABLED + 1 :]
            camera_id, terms = entry[0], (entry[_MODE], departments, until, purposes)
            groups, tags = member_of.get(camera_id, ()), tagged.get(camera_id, ())
            content = _content(camera_id, department_id, entry[-1], terms, groups, tags)
            yield entry, department_id, seal, terms, groups, tags, content

    return each()


def _sorted(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names)) if names else ()


def _content(
    camera_id: str,
    department_id: str,
    enabled: bool,
    terms: Terms,
    groups: Iterable[str],
    tags: Iterable[str],
) -> bytes | None:
    mode, departments, until, purposes = terms
    try:
        shared_with = None if departments is None else msgspec.json.decode(departments)
        listed = None if purposes is None else msgspec.json.decode(purposes)
        return camera_content(
            camera_id, department_id, enabled, (mode, shared_with, until, listed), groups, tags
        )
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None
