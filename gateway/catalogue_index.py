"""What a listing of cameras asks, by their numbers in the PDP: which is first, fits a filter, has a word.

In control's memory: built from the database at the start, then written after each commit, like the PDP.
"""

import asyncio
import re
from array import array
from collections import defaultdict
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
from pyroaring import BitMap

from gateway.bigrams import END_OF_FIELD, BigramIndex, Pairs, fold, pairs_of
from gateway.listing_order import ListingOrder
from gateway.national_codes import Network
from policies.access import SharingMode

MAX_SORTED_CHARACTERS = 200
"""Of a folded name, which may be longer than the name, these decide the order: page tokens are bounded."""

PREPARED_AT_ONCE = 1024
"""Cameras that are set at once: some 10 ms of work."""


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


FilteredValues = tuple[str | None, int | None, str, bool]
"""Those of a `CameraFilter`, in its order."""


class ListingPage(msgspec.Struct, frozen=True):
    """Cameras as the index takes them, one at least: their searchable texts as UTF-8, and in `alike`, by what
    filters ask, positions in the page.
    """

    ids: list[str]
    texts: list[bytes]
    alike: list[tuple[FilteredValues, list[int]]]

    @property
    def pairs(self) -> "PairsPage":
        """What makes searches in these cameras fast: most of the work, so it may come later."""
        return PairsPage(self.ids[0], pairs_of([text.decode() for text in self.texts]))


class PairsPage(msgspec.Struct, frozen=True):
    """`first`: the first of the cameras' ids."""

    first: str
    pairs: Pairs


_filtered = attrgetter(*CameraFilter._fields)


class CatalogueIndex:
    """`ordinals`: the PDP's numbers of cameras, which it must know before the index does; None: not known."""

    def __init__(self, ordinals: Callable[[Iterable[str]], list[int | None]]) -> None:
        self._ordinals = ordinals
        self._texts = BigramIndex()
        self._order = ListingOrder(self._texts.text)
        self._known = BitMap()
        self._having: dict[tuple[str, object], BitMap] = {}
        self._pages: dict[str, Sequence[int]] = {}
        """The numbers of the pages that filled it and whose pairs are to come, by the first id of each."""
        self._waiting: dict[str, IndexedCamera | None] | None = {}
        """Until it is filled: what was written meanwhile, of which older rows may be read; None: removed."""

    @property
    def is_loaded(self) -> bool:
        return self._waiting is None

    async def fill(self, pages: AsyncIterable[ListingPage]) -> None:
        """Take all cameras there are, once; writes wait for the end. The loop turns after each page.

        From then on all is answered. A search looks through texts until `speed_up`: 0.2 s over a million.
        """
        numbers: list[int] = []
        async for page in pages:
            put = self._put(page)
            self._pages[page.ids[0]] = array("I", put)
            numbers += put
            await asyncio.sleep(0)
        await self._order.fill(numbers)
        waiting, self._waiting = self._waiting or {}, None
        self.set_many(camera for camera in waiting.values() if camera is not None)
        for camera_id, camera in waiting.items():
            if camera is None:
                self.remove(camera_id)

    async def speed_up(self, pages: AsyncIterable[PairsPage]) -> None:
        """Take the pairs of the pages that filled it. The loop turns after each."""
        async for page in pages:
            self._texts.add_pairs(self._pages.pop(page.first), page.pairs)
            await asyncio.sleep(0)

    def set(self, camera: IndexedCamera) -> None:
        """Add or change a camera. To be called after a commit, when the PDP knows the camera."""
        self.set_many((camera,))

    def set_many(self, entries: Iterable[IndexedCamera]) -> None:
        """Add or change distinct cameras; a camera that the PDP does not know is left out."""
        if self._waiting is not None:
            self._waiting.update((camera.id, camera) for camera in entries)
        else:
            given = list(entries)
            numbers = self._ordinals(camera.id for camera in given)
            known = [camera for camera, number in zip(given, numbers, strict=True) if number is not None]
            for start in range(0, len(known), PREPARED_AT_ONCE):
                page = prepare(known[start : start + PREPARED_AT_ONCE])
                put = self._put(page)
                self._texts.add_pairs(put, page.pairs.pairs)
                self._order.add_many(put)

    def add_many(self, entries: Iterable[IndexedCamera]) -> None:
        """Add distinct new cameras that the PDP knows, some time after the commit that made them.

        What was changed or removed since stays as it is.
        """
        if self._waiting is not None:
            for camera in entries:
                self._waiting.setdefault(camera.id, camera)
        else:
            self.set_many(camera for camera in entries if not self._knows(camera.id))

    def remove(self, camera_id: str) -> None:
        if self._waiting is not None:
            self._waiting[camera_id] = None
            return
        (number,) = self._ordinals((camera_id,))
        if number is not None and number in self._known:
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

    def _knows(self, camera_id: str) -> bool:
        (number,) = self._ordinals((camera_id,))
        return number is not None and number in self._known

    def _put(self, page: ListingPage) -> list[int]:
        """Write all but their order; return their numbers. Raise ValueError if the PDP never knew one."""
        numbers = [number for number in self._ordinals(page.ids) if number is not None]
        if len(numbers) != len(page.ids):
            raise ValueError("the index is to know a camera that the decision point does not")
        for number in self._known.intersection(BitMap(numbers)):
            self._forget(number)
        for values, positions in page.alike:
            alike = [numbers[position] for position in positions]
            for name_and_value in zip(CameraFilter._fields, values, strict=True):
                self._having.setdefault(name_and_value, BitMap()).update(alike)
        self._texts.set_texts(numbers, page.texts)
        self._known.update(numbers)
        return numbers

    def _forget(self, number: int) -> None:
        self._order.discard(number)
        self._known.discard(number)
        for numbers in self._having.values():
            numbers.discard(number)


def is_sort_key(key: bytes) -> bool:
    """Whether these bytes have the form of one: a name and an id, each with its end mark."""
    return re.fullmatch(rb"[^\0]*\0[^\0]+\0", key) is not None


def prepare(entries: Sequence[IndexedCamera]) -> ListingPage:
    """A page for the index; needs nothing of it, so that another process can do this part."""
    alike: defaultdict[FilteredValues, list[int]] = defaultdict(list)
    for position, camera in enumerate(entries):
        alike[_filtered(camera)].append(position)
    texts = [_text_of(camera).encode() for camera in entries]
    return ListingPage([camera.id for camera in entries], texts, list(alike.items()))


def _text_of(camera: IndexedCamera) -> str:
    """The searchable text. It begins with the sort key: texts sort as their cameras do."""
    fields = (camera.description, camera.place, camera.code, camera.management_unit)
    # at once: each for itself would come out the same
    folded = fold(END_OF_FIELD.join((camera.name, *filter(None, fields), "")))
    name, _, rest = folded.partition(END_OF_FIELD)
    text = f"{name[:MAX_SORTED_CHARACTERS]}{END_OF_FIELD}{camera.id}{END_OF_FIELD}{rest}"
    if len(name) > MAX_SORTED_CHARACTERS:
        text += name + END_OF_FIELD
    if (folded_id := fold(camera.id)) != camera.id:
        text += folded_id + END_OF_FIELD
    return text
