"""The index of the catalogue: it finds what looking through all cameras finds, and pages lose nobody."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

import gateway.bigrams
import gateway.listing_order
from gateway.bigrams import END_OF_FIELD, BigramIndex, fold, pairs_of
from gateway.catalogue_index import CameraFilter, CatalogueIndex, IndexedCamera, prepare
from gateway.listing_order import ListingOrder
from gateway.national_codes import Network
from policies.access import SharingMode

LETTERS = "abA Ａ天河区é1ﬁß\u0301"
NETWORKS = (None, *(network.value for network in Network))

words = st.text(LETTERS, max_size=6)
camera_fields = st.fixed_dictionaries(
    {"name": st.text(LETTERS, min_size=1, max_size=8)},
    optional={
        "description": words,
        "place": words,
        "code": st.sampled_from((None, "11111", "12121")),
        "management_unit": words,
        "network": st.sampled_from(NETWORKS),
        "point_class": st.sampled_from((None, 1, 2, 3)),
        "sharing_mode": st.sampled_from(tuple(mode.value for mode in SharingMode)),
        "enabled": st.booleans(),
    },
)
filters = st.builds(
    CameraFilter,
    st.sampled_from((None, *Network)),
    st.sampled_from((None, 1, 2, 3)),
    st.sampled_from((None, *SharingMode)),
    st.sampled_from((None, True, False)),
)
identifiers = st.sampled_from(("a", "A", "b1", "bA.1", "B-1", "z", "z0"))
steps = st.lists(st.tuples(identifiers, st.none() | camera_fields), max_size=20)


class Catalogue:
    """An index and what it should know."""

    def __init__(self):
        self.numbers = {}
        self.index = CatalogueIndex(lambda ids: [self.numbers.get(camera_id) for camera_id in ids])
        self.cameras = {}

    async def ready(self):
        await self.index.fill(_nothing())
        return self

    def set(self, *cameras):
        for camera in cameras:
            self.numbers.setdefault(camera.id, len(self.numbers))
            self.cameras[camera.id] = camera
        self.index.set_many(cameras)

    def remove(self, identifier):
        self.cameras.pop(identifier, None)
        self.index.remove(identifier)

    def everything(self):
        return BitMap(self.numbers.values())

    def id_of(self, number):
        return next(identifier for identifier, known in self.numbers.items() if known == number)

    def naive(self, wanted, search):
        return {
            camera.id for camera in self.cameras.values() if _fits(camera, wanted) and _has(camera, search)
        }

    def in_order(self):
        return sorted(self.cameras, key=lambda i: (fold(self.cameras[i].name).encode(), i))

    async def find(self, search="", wanted=CameraFilter(), within=None):  # noqa: B008 - frozen
        found = await self.index.find(self.everything() if within is None else within, wanted, search)
        return {self.id_of(number) for number in found}

    async def pages(self, size, between=lambda: None):
        seen, after = [], b""
        while True:
            numbers = self.index.page(self.everything(), after, size)
            if not numbers:
                return seen
            after = self.index.sort_key(numbers[-1])
            seen += map(self.id_of, numbers)
            between()


async def _nothing():
    return
    yield


async def _each(items):
    for item in items:
        yield item


def _fits(camera, wanted):
    return all(value is None or getattr(camera, name) == value for name, value in wanted._asdict().items())


def _has(camera, search):
    texts = (camera.name, camera.description, camera.place, camera.code, camera.management_unit, camera.id)
    folded = [fold(text) for text in texts if text]
    return all(any(word in text for text in folded) for word in fold(search).split())


async def _apply(catalogue, steps):
    for identifier, fields in steps:
        if fields is None:
            catalogue.remove(identifier)
        else:
            catalogue.set(IndexedCamera(id=identifier, **fields))


@settings(max_examples=150, deadline=None)
@given(steps, steps, st.lists(st.text(LETTERS + " ", max_size=7), max_size=4), filters)
async def test_a_search_finds_what_looking_through_all_finds(before, after, searches, wanted):
    """Also when words that are known already are asked again after changes."""
    catalogue = await Catalogue().ready()
    await _apply(catalogue, before)
    for _ in range(2):
        for search in searches:
            assert await catalogue.find(search, wanted) == catalogue.naive(wanted, search), search
        await _apply(catalogue, after)
    assert await catalogue.pages(3) == catalogue.in_order()


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(identifiers, camera_fields, min_size=1),
    st.lists(steps, min_size=4, max_size=4),
    st.lists(st.text(LETTERS, min_size=1, max_size=3), max_size=4),
    filters,
)
async def test_before_its_pairs_are_there_a_text_is_found_as_after(filled, changes, searches, wanted):
    """Whatever is written while the pairs of the pages that filled the index come."""
    catalogue = Catalogue()
    cameras = [IndexedCamera(id=identifier, **fields) for identifier, fields in filled.items()]
    for camera in cameras:
        catalogue.numbers[camera.id] = len(catalogue.numbers)
        catalogue.cameras[camera.id] = camera
    pages = [prepare(cameras[first : first + 2]) for first in range(0, len(cameras), 2)]
    await catalogue.index.fill(_each(pages))
    for page, steps_between in zip((None, *pages[:3]), changes, strict=False):
        if page is not None:
            await catalogue.index.speed_up(_each([page.pairs]))
        for _ in range(2):
            for search in searches:
                assert await catalogue.find(search, wanted) == catalogue.naive(wanted, search), search
            await _apply(catalogue, steps_between)
    await catalogue.index.speed_up(_each([page.pairs for page in pages[3:]]))
    for search in searches:
        assert await catalogue.find(search, wanted) == catalogue.naive(wanted, search), search


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=150), st.integers(1, 7), st.booleans())
async def test_the_order_is_that_of_sorting(changes, size, together):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.listing_order, "BLOCK_NUMBERS", 4)
        patch.setattr(gateway.listing_order, "FEW", 2)
        order = ListingOrder(lambda number: b"%d" % (number * 7919 % 61))
        there = {1, 2, 3, 5, 8, 13, 21, 34, 55} if together else set()
        order.add_many(there)
        for number, add in changes:
            if add and number not in there:
                order.add_many([number])
                there.add(number)
            elif not add:
                order.discard(number)
                there.discard(number)
        seen, after = [], b""
        subset = BitMap(number for number in range(61) if number % 3)
        while page := order.page(subset, after, size):
            seen += page
            after = b"%d" % (page[-1] * 7919 % 61)
        assert seen == sorted(there & set(subset), key=lambda number: b"%d" % (number * 7919 % 61))


async def test_filling_the_order_is_like_adding():
    numbers = [number * 37 % 20_011 for number in range(20_000)]
    order = ListingOrder(lambda number: b"%06d" % number)
    await order.fill(numbers)
    order.add_many([30_000, 30_001, 20_012])
    everything = BitMap(range(40_000))
    assert order.page(everything, b"", 30_000) == [*sorted(numbers), 20_012, 30_000, 30_001]
    assert order.page(everything, b"%06d" % 30_000, 5) == [30_001]
    assert order.page(BitMap([1, 30_000]), b"%06d" % 1, 5) == [30_000]


@given(st.lists(st.text(st.characters(exclude_characters=END_OF_FIELD)), max_size=4))
def test_fields_that_are_folded_at_once_are_as_if_each_were_folded(fields):
    assert fold(END_OF_FIELD.join(fields)) == END_OF_FIELD.join(map(fold, fields))


async def test_two_chinese_characters_are_enough_and_one_is_too():
    catalogue = await Catalogue().ready()
    catalogue.set(
        IndexedCamera(id="1", name="天河区体育西路1号枪机"),
        IndexedCamera(id="2", name="体育天河", place="区庄"),
        IndexedCamera(id="3", name="ＡＢＣ Gate", code="44010600001320000001"),
    )
    for search, found in (
        ("天河", "12"),
        ("河", "12"),
        ("天河区", "1"),
        ("体育 天河", "12"),
        ("河体", ""),
        ("机天", ""),
        ("abc gate", "3"),
        ("ａｂｃ", "3"),
        ("440106", "3"),
        ("  ", "123"),
        ("\ud800\ud800\ud800", ""),
    ):
        assert await catalogue.find(search) == set(found), search
        assert await catalogue.find(search, within=BitMap([1])) == set(found) & {"2"}, search


async def test_pages_go_on_while_cameras_come_move_and_go(monkeypatch):
    """Every camera that stays as it is, is seen once, whatever happens between pages."""
    monkeypatch.setattr(gateway.listing_order, "SAMPLED", 1)
    monkeypatch.setattr(gateway.listing_order, "BLOCK_NUMBERS", 8)
    catalogue = await Catalogue().ready()
    catalogue.set(*(IndexedCamera(id=f"c{n}", name=f"n{n:03}") for n in range(100)))
    turn = iter(range(1000))

    def between():
        n = next(turn)
        catalogue.remove(f"c{3 * n + 1}")
        catalogue.set(IndexedCamera(id=f"c{3 * n + 2}", name=f"n{(3 * n + 40) % 100:03}x"))
        catalogue.set(IndexedCamera(id=f"new{n}", name=f"n{n * 17 % 100:03}y"))

    seen = await catalogue.pages(5, between)
    untouched = [f"c{n}" for n in range(0, 100, 3)]
    assert [identifier for identifier in seen if identifier in set(untouched)] == untouched


async def test_what_is_written_while_it_is_filled_counts_and_what_was_read_does_not():
    catalogue = Catalogue()
    catalogue.numbers.update(a=0, b=1, c=2, d=3)
    index = catalogue.index

    async def pages():
        index.set(IndexedCamera(id="a", name="new"))
        yield prepare([IndexedCamera(id="a", name="old"), IndexedCamera(id="b", name="old")])
        index.remove("b")
        index.set(IndexedCamera(id="d", name="new"))
        yield prepare([IndexedCamera(id="c", name="old")])

    assert not index.is_loaded
    await index.fill(pages())
    assert index.is_loaded
    assert await catalogue.find("new") == {"a", "d"}
    assert await catalogue.find("old") == {"c"}
    assert [catalogue.id_of(n) for n in index.page(BitMap(range(9)), b"", 9)] == ["a", "d", "c"]


@pytest.mark.parametrize("is_filled", [True, False])
async def test_what_is_added_late_does_not_undo_what_was_written_since(is_filled):
    catalogue = Catalogue()
    catalogue.numbers.update(a=0, b=1, c=2)
    index = catalogue.index
    if is_filled:
        await catalogue.ready()
    index.set(IndexedCamera(id="a", name="changed"))
    index.remove("b")
    if is_filled:
        # the PDP forgets it too
        del catalogue.numbers["b"]
    index.add_many(IndexedCamera(id=identifier, name="imported") for identifier in ("a", "b", "c", "unknown"))
    if not is_filled:
        await catalogue.ready()
    assert await catalogue.find("changed") == {"a"}
    assert await catalogue.find("imported") == {"c"}


def _set(index, numbers, texts):
    index.set_texts(numbers, [text.encode() for text in texts])
    index.add_pairs(numbers, pairs_of(texts))


async def test_a_long_word_is_looked_up_in_slices_while_texts_change(monkeypatch):
    monkeypatch.setattr(gateway.bigrams, "CHECKED_AT_ONCE", 2)
    texts = BigramIndex()
    _set(texts, range(20), ["abcabc\0" if n % 2 else "abxbc\0" for n in range(20)])
    async with asyncio.TaskGroup() as tasks:
        found = tasks.create_task(texts.matching("abc", BitMap(range(20))))
        same = tasks.create_task(texts.matching("abc", BitMap(range(10, 20))))
        await asyncio.sleep(0)
        texts.discard(19)
        _set(texts, [17, 0, 20], ["ab\0bc\0", "abc\0", "xabc\0"])
    assert set(found.result()) == {0, 1, 3, 5, 7, 9, 11, 13, 15}
    assert set(same.result()) == {11, 13, 15}
    assert set(await texts.matching("abc", BitMap(range(30)))) == {0, 1, 3, 5, 7, 9, 11, 13, 15, 20}


def test_a_page_of_texts_is_bounded(monkeypatch):
    monkeypatch.setattr(gateway.bigrams, "MAX_PAGE_TEXTS", 2)
    assert pairs_of(["ab\0", "b\0"]).starts
    with pytest.raises(ValueError, match="too many"):
        pairs_of(["ab\0", "b\0", "c\0"])


async def test_kept_words_are_bounded(monkeypatch):
    monkeypatch.setattr(gateway.bigrams, "MAX_KEPT_WORDS", 3)
    texts = BigramIndex()
    _set(texts, [0], ["abcdefgh\0"])
    for word in ("abc", "bcd", "cde", "abc", "def"):
        assert set(await texts.matching(word, BitMap([0]))) == {0}
    assert list(texts._words) == ["cde", "abc", "def"]


async def test_a_very_long_name_is_found_by_its_end_and_its_place_is_bounded():
    catalogue = await Catalogue().ready()
    catalogue.set(IndexedCamera(id="x" * 64, name="\ufdfa" * 200), IndexedCamera(id="y", name="a"))
    assert await catalogue.find(fold("\ufdfa")[-6:]) == {"x" * 64}
    numbers = catalogue.index.page(catalogue.everything(), b"", 5)
    assert len(catalogue.index.sort_key(numbers[-1])) <= 4 * 200 + 64 + 2
