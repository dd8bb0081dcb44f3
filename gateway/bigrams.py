"""Full-text search over short texts in memory: which numbers' texts contain a word, exactly.

The units are characters and pairs of characters, so Chinese needs no dictionary and two characters are enough
(SQLite's trigram index finds no word of two). Pairs alone find a few texts too many for longer words; those
are looked at, a slice per turn of the loop, and what was found is kept while texts change.
"""

import array
import asyncio
import itertools
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

END_OF_FIELD = "\0"
"""Ends every field of a text. No word contains it, so no word is found across two fields."""

MAX_PAGE_TEXTS = 1 << 16
CHECKED_AT_ONCE = 16_384
MAX_KEPT_WORDS = 64

_SECOND_BITS = np.uint64(22)
_FIRST_BITS = np.uint64(43)
_ROW_MASK = np.uint64((1 << 22) - 1)
_CHARACTER_MASK = (1 << 21) - 1


def fold(text: str) -> str:
    """The form in which texts are compared: NFKC and case-folded, so that ＡＢＣ, ABC and abc are one."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class Pairs(msgspec.Struct, frozen=True):
    """What is in a page of texts, at most MAX_PAGE_TEXTS: for any numbers, so made anywhere.

    `pairs`: the distinct pairs of characters, as first << 21 | second. `starts`: where in `places` those of
    each pair begin. `places`: the positions in the page of the texts with a pair, ascending, as 16-bit
    integers of this machine.
    """

    pairs: list[int]
    starts: list[int]
    places: bytes


@dataclass(slots=True)
class _Word:
    """What is known of a word that pairs do not answer: a long one, or while texts have none yet.

    `unchecked`: who has all its pairs, or none of any word yet, and was not looked at.
    """

    encoded: bytes
    unchecked: BitMap
    found: BitMap = field(default_factory=BitMap)


class BigramIndex:
    """Texts by number: small ones, for they index a list. A text is folded fields, each with its end mark.

    Words are found in a text from when it is set; at full speed once its pairs are there as well.
    """

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self.text: Callable[[int], bytes] = self._texts.__getitem__
        """A number's, as UTF-8, whose bytes sort like its characters; empty: none. A C function, for sorting;
        raises IndexError above all numbers that ever had one."""
        self._postings: dict[int, dict[int, BitMap]] = {}  # by the first and the second character of a pair
        self._without_pairs = BitMap()
        self._words: OrderedDict[str, _Word] = OrderedDict()

    def set_texts(self, numbers: Sequence[int], encoded: Sequence[bytes]) -> None:
        """Set the texts of distinct numbers, as UTF-8, in place of those that they had; pairs come apart."""
        if not numbers:
            return
        self._texts += [b""] * (max(numbers) + 1 - len(self._texts))
        texts = self._texts
        for number, text in zip(numbers, encoded, strict=True):
            if texts[number]:
                self.discard(number)
            texts[number] = text
            for word in self._words.values():
                if text.find(word.encoded) >= 0:
                    word.found.add(number)
        self._without_pairs.update(numbers)

    def add_pairs(self, numbers: Sequence[int], page: Pairs) -> None:
        """Of numbers whose texts were set in this order. Those that were set again since are left out."""
        places = np.frombuffer(page.places, dtype=np.uint16)
        found = np.array(numbers, dtype=np.uint32)[places]
        given = BitMap(numbers)
        starts = (*page.starts, len(found))
        if not given.issubset(self._without_pairs):
            kept = np.isin(found, np.array(given & self._without_pairs, dtype=np.uint32))
            starts = tuple(np.append(0, np.cumsum(kept))[list(starts)].tolist())
            found = found[kept]
        members = array.array("I", found.tobytes())
        for pair, start, end in zip(page.pairs, starts[:-1], starts[1:], strict=True):
            following = self._postings.setdefault(pair >> 21, {})
            posting = following.get(pair & _CHARACTER_MASK)
            if posting is None:
                posting = following[pair & _CHARACTER_MASK] = BitMap()
            posting.update(members[start:end])
        self._without_pairs -= given

    def discard(self, number: int) -> None:
        old = self.text(number)
        if not old:
            return
        self._texts[number] = b""
        self._without_pairs.discard(number)
        for word in self._words.values():
            word.found.discard(number)
            word.unchecked.discard(number)
        characters = old.decode()
        for first, second in set(itertools.pairwise(characters)):
            following = self._postings.get(ord(first), {})
            numbers = following.get(ord(second))
            if numbers is not None:
                numbers.discard(number)
                if not numbers:
                    del following[ord(second)]

    async def matching(self, word: str, within: BitMap) -> BitMap:
        """The numbers among `within` whose texts contain the folded word, which has no space."""
        is_short = len(word) <= 2  # noqa: PLR2004 - a pair
        if is_short and not self._without_pairs:
            return within & self._with_pairs(word)
        known = self._words.get(word)
        if known is None:
            unchecked = self._with_pairs(word) | self._without_pairs
            known = self._words[word] = _Word(word.encode(errors="surrogatepass"), unchecked)
            if len(self._words) > MAX_KEPT_WORDS:
                self._words.popitem(last=False)
        self._words.move_to_end(word)
        while todo := known.unchecked & within:
            self._check(known, todo[:CHECKED_AT_ONCE])
            await asyncio.sleep(0)
        return known.found & within

    def _with_pairs(self, word: str) -> BitMap:
        """A new set of the numbers whose texts have every pair of the word's characters, in any place.

        Of a word of one character: those with a pair that it begins, for the end mark makes one of the last.
        """
        if len(word) == 1:
            following = self._postings.get(ord(word), {})
            return BitMap.union(*following.values()) if following else BitMap()
        postings = []
        for first, second in itertools.pairwise(word):
            numbers = self._postings.get(ord(first), {}).get(ord(second))
            if numbers is None:
                return BitMap()
            postings.append(numbers)
        return BitMap.intersection(*sorted(postings, key=len)) if len(postings) > 1 else postings[0].copy()

    def _check(self, word: _Word, numbers: BitMap) -> None:
        texts, encoded = self._texts, word.encoded
        word.found |= BitMap([number for number in numbers if texts[number].find(encoded) >= 0])
        word.unchecked -= numbers


def pairs_of(texts: Sequence[str]) -> Pairs:
    """What the index takes of a page.

    One sort of integers that hold the pair and the text's place in the page: a tenth of what loops over
    characters cost. Raise ValueError for more than MAX_PAGE_TEXTS.
    """
    if not texts:
        return Pairs([], [], b"")
    if len(texts) > MAX_PAGE_TEXTS:
        raise ValueError("too many texts for a page")
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    everything = "".join(texts).encode("utf-32-le")
    characters = np.frombuffer(everything, dtype="<u4").astype(np.uint64)
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    keys = characters[:-1] << _FIRST_BITS
    keys |= characters[1:] << _SECOND_BITS
    keys |= rows[:-1]
    # a pair that reaches into the next text is none
    keys = np.delete(keys, np.cumsum(lengths)[:-1] - 1)
    keys.sort()
    keys = keys[_begins(keys)]
    pairs = keys >> _SECOND_BITS
    starts = np.flatnonzero(_begins(pairs))
    places = (keys & _ROW_MASK).astype(np.uint16)
    return Pairs(pairs[starts].tolist(), starts.tolist(), places.tobytes())


def _begins(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where another value begins in a sorted array."""
    return np.append(True, values[1:] != values[:-1])
