"""Whose change it was: so that a viewer can be told which unit took away what his picture rested on.

The ledger knows who did it, by name. A viewer is told the unit (谁使用，谁负责: whoever decides is
answerable too), never a private name.
"""

from collections import OrderedDict
from collections.abc import Iterable

MAX_CAUSES = 10_000
"""A cause is asked for within a second of its change; those of long ago are forgotten first."""


class Causes:
    """Of each `grant:id`, `user:id` and `camera:id` that was changed lately: the revision and the unit."""

    def __init__(self) -> None:
        self._latest: OrderedDict[str, tuple[int, str]] = OrderedDict()

    def note(self, revision: int, unit: str, about: Iterable[str]) -> None:
        for name in about:
            self._latest.pop(name, None)
            self._latest[name] = (revision, unit)
        while len(self._latest) > MAX_CAUSES:
            self._latest.popitem(last=False)

    def since(self, revision: int, about: Iterable[str]) -> str:
        """The unit that changed the first of these that was changed after a revision; empty if none was."""
        for name in about:
            at, unit = self._latest.get(name, (revision, ""))
            if at > revision:
                return unit
        return ""
