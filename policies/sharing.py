"""How owners share their cameras (共享方式), as sets of the cameras' numbers."""

from bisect import bisect_right, insort
from collections.abc import Iterable
from datetime import datetime

from pyroaring import BitMap

from policies.access import Sharing, SharingMode


class SharingIndex:
    """Numbers of cameras by how they are shared, but for those that are by grants and without an end."""

    def __init__(self) -> None:
        self._not_shared = BitMap()
        self._unconditional: dict[str, BitMap] = {}
        self._by_end: dict[datetime, BitMap] = {}
        self._ends: list[datetime] = []
        self._ended: tuple[int, BitMap] = (0, BitMap())  # how many of the ends, and what ended with them

    def add(self, number: int, sharing: Sharing) -> None:
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
        for department_id in sharing.departments:
            numbers = self._unconditional.get(department_id, BitMap())
            numbers.discard(number)
            if not numbers:
                self._unconditional.pop(department_id, None)
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


def is_closed(sharing: Sharing, at: datetime) -> bool:
    """Whether a camera is not shared, or no longer."""
    return sharing.mode is SharingMode.NOT_SHARED or (sharing.until is not None and at >= sharing.until)
