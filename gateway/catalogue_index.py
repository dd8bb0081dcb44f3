"""What a listing of cameras asks, by their numbers in the PDP: which is first, fits a filter, has a word.

In control's memory: built from the database at the start, then written after each commit, like the PDP.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from pyroaring import BitMap
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.bigrams import END_OF_FIELD, BigramIndex, fold
from gateway.listing_order import ListingOrder
from gateway.national_codes import Network
from gateway.store.schema import cameras
from policies.access import SharingMode

MAX_SORTED_CHARACTERS = 200
"""Of a folded name, which may be longer than the name, these decide the order: page tokens are bounded."""

LOADED_AT_ONCE = 2048


class IndexedCamera(NamedTuple):
    """What the index knows of a camera; fields are columns of the table."""

    id: str
    name: str
    description: str = ""
    place: str = ""
    code: str | None = None
    management_unit: str = ""
    network: str | None = None
    point_class: int | None = None
    sharing_mode: str = SharingMode.CONDITIONAL.value
    enabled: bool = True


class CameraFilter(NamedTuple):
    """`None`: any. A camera must fit all."""

    network: Network | None = None
    point_class: int | None = None
    sharing_mode: SharingMode | None = None
    enabled: bool | None = None


_COLUMNS = tuple(cameras.c[name] for name in IndexedCamera._fields)


class CatalogueIndex:
    """`ordinal`: the PDP's number of a camera, which it must know before the index does."""

    def __init__(self, ordinal: Callable[[str], int | None]) -> None:
        self._ordinal = ordinal
        self._texts = BigramIndex()
        self._order = ListingOrder(self._texts.text)
        self._known = BitMap()
        self._having: dict[tuple[str, object], BitMap] = {}

    async def load(self, conn: AsyncConnection) -> None:
        """Read every camera, some thousand for each turn of the loop, in about the order of the listing."""
        collation = "C" if conn.dialect.name == "postgresql" else "BINARY"
        query = sa.select(*_COLUMNS).order_by(cameras.c.name.collate(collation), cameras.c.id)
        rows = await conn.stream(query)
        async for page in rows.partitions(LOADED_AT_ONCE):
            self.set_many([IndexedCamera._make(row) for row in page])
            await asyncio.sleep(0)

    def set(self, camera: IndexedCamera) -> None:
        """Add or change a camera. To be called after a commit, when the PDP knows the camera."""
        self.set_many((camera,))

    def set_many(self, entries: Iterable[IndexedCamera]) -> None:
        """Add or change distinct cameras; a camera that the PDP does not know is left out."""
        texts: list[tuple[int, str]] = []
        having: defaultdict[tuple[str, object], list[int]] = defaultdict(list)
        for camera in entries:
            number = self._ordinal(camera.id)
            if number is None:
                continue
            self._forget(number)
            texts.append((number, _text_of(camera)))
            having["network", camera.network].append(number)
            having["point_class", camera.point_class].append(number)
            having["sharing_mode", camera.sharing_mode].append(number)
            having["enabled", camera.enabled].append(number)
        for value, numbers in having.items():
            self._having.setdefault(value, BitMap()).update(numbers)
        numbers = [number for number, _ in texts]
        self._texts.set_many(texts)
        self._order.add_many(numbers)
        self._known.update(numbers)

    def remove(self, camera_id: str) -> None:
        number = self._ordinal(camera_id)
        if number is not None:
            self._forget(number)
            self._texts.discard(number)

    async def find(self, within: BitMap, wanted: CameraFilter, search: str) -> BitMap:
        """The cameras among `within` that fit the filter and contain every word of `search`, in any case.

        Searched are name, description, place, code, id and management unit.
        """
        found = self._known & within
        for name, value in wanted._asdict().items():
            if value is not None:
                found &= self._having.get((name, value), BitMap())
        for word in sorted(set(fold(search).split()), key=len):
            found &= await self._texts.matching(word, found)
        return found

    def page(self, found: BitMap, after: bytes, size: int) -> Sequence[int]:
        """The numbers that follow a sort key, in the order of (name, id); after b"": the first."""
        return self._order.page(found, after and after + b"\xff", size)

    def sort_key(self, number: int) -> bytes:
        """Where a camera stands in the order: its folded name and its id, each with its end mark."""
        name, identifier, _ = self._texts.text(number).split(b"\0", 2)
        return b"%b\0%b\0" % (name, identifier)

    def _forget(self, number: int) -> None:
        if number in self._known:
            self._order.discard(number)
            self._known.discard(number)
            for numbers in self._having.values():
                numbers.discard(number)


def _text_of(camera: IndexedCamera) -> str:
    """The searchable text. It begins with the sort key: texts sort as their cameras do."""
    name = fold(camera.name)
    fields = [name[:MAX_SORTED_CHARACTERS], camera.id]
    rest = (camera.description, camera.place, camera.code, camera.management_unit)
    fields += [fold(field) for field in rest if field]
    if len(name) > MAX_SORTED_CHARACTERS:
        fields.append(name)
    if (folded := fold(camera.id)) != camera.id:
        fields.append(folded)
    return "".join(field + END_OF_FIELD for field in fields)
