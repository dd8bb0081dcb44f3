"""Numbers in the order of their keys, cut into blocks, so that a page of any subset is found at once."""

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence

from pyroaring import BitMap

BLOCK_NUMBERS = 4096
FEW = 64
"""So many are put into a block one by one; for more it is sorted anew."""
SAMPLED = 64
"""One of so many is looked at to guess where blocks will begin."""


class ListingOrder:
    """`key(number)`: distinct bytes that do not change while the number is in here."""

    def __init__(self, key: Callable[[int], bytes]) -> None:
        self._key = key
        self._blocks: list[array[int]] = []
        self._members: list[BitMap] = []
        """The numbers of each block as a set: one question for each block that a page skips."""

    async def fill(self, numbers: Sequence[int]) -> None:
        """Take many at once in any order, a block per turn of the loop. Nothing may be in here yet."""
        key = self._key
        bounds = sorted(map(key, numbers[::SAMPLED]))[:: BLOCK_NUMBERS // 2 // SAMPLED]
        blocks: list[list[int]] = [[] for _ in range(len(bounds) + 1)]
        for start in range(0, len(numbers), BLOCK_NUMBERS):
            for number in numbers[start : start + BLOCK_NUMBERS]:
                blocks[bisect_right(bounds, key(number))].append(number)
            await asyncio.sleep(0)
        for block in filter(None, blocks):
            self._merge(len(self._blocks), block)
            await asyncio.sleep(0)

    def add_many(self, numbers: Iterable[int]) -> None:
        """Add numbers that are not in here: cheap for one, and for many that are neighbours."""
        key = self._key
        run = sorted(numbers, key=key)
        start = 0
        while start < len(run):
            at = max(self._block_of(key(run[start])), 0)
            end = len(run)
            if at + 1 < len(self._blocks):
                end = bisect_left(run, key(self._blocks[at + 1][0]), lo=start, key=key)
            if end - start <= FEW and at < len(self._blocks) and len(self._blocks[at]) < 2 * BLOCK_NUMBERS:
                self._insert(at, run[start:end])
            else:
                self._merge(at, run[start:end])
            start = end

    def discard(self, number: int) -> None:
        at = self._block_of(self._key(number))
        if at < 0 or number not in self._members[at]:
            return
        self._blocks[at].remove(number)
        self._members[at].discard(number)
        if not self._blocks[at]:
            del self._blocks[at], self._members[at]

    def page(self, subset: BitMap, after: bytes, size: int) -> list[int]:
        """The first `size` numbers of the subset whose keys are above `after`, in order."""
        page: list[int] = []
        if not subset or size < 1:
            return page
        for at in range(max(self._block_of(after), 0), len(self._blocks)):
            wanted = self._members[at] & subset
            if not wanted:
                continue
            block = self._blocks[at]
            first = bisect_right(block, after, key=self._key) if not page else 0
            for number in block[first:]:
                if number in wanted:
                    page.append(number)
                    if len(page) == size:
                        return page
        return page

    def _block_of(self, key: bytes) -> int:
        """The block where a key is or would be; -1 if before all."""
        return bisect_right(self._blocks, key, key=lambda block: self._key(block[0])) - 1

    def _insert(self, at: int, few: list[int]) -> None:
        block = self._blocks[at]
        for number in few:
            block.insert(bisect_left(block, self._key(number), key=self._key), number)
        self._members[at].update(few)

    def _merge(self, at: int, run: list[int]) -> None:
        merged = sorted((*(self._blocks[at] if at < len(self._blocks) else ()), *run), key=self._key)
        blocks = [
            array("I", merged[start : start + BLOCK_NUMBERS])
            for start in range(0, len(merged), BLOCK_NUMBERS)
        ]
        self._blocks[at : at + 1] = blocks
        self._members[at : at + 1] = [BitMap(block) for block in blocks]
