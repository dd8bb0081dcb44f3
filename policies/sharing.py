"""How owners share their cameras (共享方式), as sets of the cameras' numbers."""

from bisect import bisect_right, insort
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from pyroaring import BitMap

from policies.access import Sharing, SharingMode


class PurposeLists(NamedTuple):
    """The numbers that have a list of purposes, all of them and by each purpose that one lists."""

    listed: BitMap
    by_purpose: dict[str, BitMap]


class SharingIndex:
    """Numbers of cameras by how they are shared, but for those that are by grants and without an end."""

    def __init__(self) -> None:
        self._not_shared = BitMap()
        self._unconditional: dict[str, BitMap] = {}
        self._by_end: dict[datetime, BitMap] = {}
        self._ends: list[datetime] = []
        self._ended: tuple[int, BitMap] = (0, BitMap())  # how many of the ends, and what ended with them
        self.purpose_lists = PurposeLists(BitMap(), {})

    def add(self, number: int, sharing: Sharing) -> None:
        if sharing.purposes is not None:
            self.purpose_lists.listed.add(number)
            for purpose in sharing.purposes:
                self.purpose_lists.by_purpose.setdefault(purpose, BitMap()).add(number)
        if sharing.mode is SharingMode.NOT_SHARED:
            self._not_shared.add(number)
            return
        if sharing.mode is SharingMode.UNCONDITIONAL:
            for department_id in sharing.departments:
                self._unconditional.setdefault(department_id, BitMap()).add(number)
        if sharing.until is not None:
            if sharing.until not in self._by_end:
                self._by_end[sharing.until] = BitMap()
                insort(self._ends, sharing.until)
            self._by_end[sharing.until].add(number)
            self._ended = (0, BitMap())

    def remove(self, number: int, sharing: Sharing) -> None:
        self._not_shared.discard(number)
        self.purpose_lists.listed.discard(number)
        for purpose in sharing.purposes or ():
            _take_out(number, self.purpose_lists.by_purpose, purpose)
        for department_id in sharing.departments:
            _take_out(number, self._unconditional, department_id)
        numbers = BitMap() if sharing.until is None else self._by_end.get(sharing.until, BitMap())
        if number in numbers:
            numbers.discard(number)
            self._ended = (0, BitMap())
            if not numbers:
                del self._by_end[sharing.until]  # type: ignore[arg-type] # it has an end, or was in no set
                self._ends.remove(sharing.until)  # type: ignore[arg-type]

    def closed(self, at: datetime) -> BitMap:
        """Cameras that are not shared, or no longer."""
        return self._not_shared | self._ended_by(at)

    def open_to(self, departments: Iterable[str], at: datetime) -> BitMap:
        """Cameras shared with one of the departments without a grant."""
        found = BitMap()
        for department_id in departments:
            numbers = self._unconditional.get(department_id)
            if numbers is not None:
                found |= numbers
        return found - self._ended_by(at)

    def _ended_by(self, at: datetime) -> BitMap:
        count = bisect_right(self._ends, at)
        if count != self._ended[0]:
            self._ended = count, BitMap.union(BitMap(), *(self._by_end[end] for end in self._ends[:count]))
        return self._ended[1]


def _take_out(number: int, sets: dict[str, BitMap], key: str) -> None:
    numbers = sets.get(key, BitMap())
    numbers.discard(number)
    if not numbers:
        sets.pop(key, None)


def is_closed(sharing: Sharing, at: datetime) -> bool:
    """Whether a camera is not shared, or no longer."""
    return sharing.mode is SharingMode.NOT_SHARED or (sharing.until is not None and at >= sharing.until)
