"""A forest of named nodes that may be written in any order: departments, or camera groups."""

from collections import deque
from collections.abc import Iterator

MAX_DEPTH = 32


class FactRefusedError(ValueError):
    """A fact would make the catalogue contradictory; nothing was changed. `code` is stable.

    cycle: the node would be its own ancestor. too_deep: more than MAX_DEPTH levels. in_use: something
    still hangs below what should be removed. empty_id: names are never empty.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def require_id(identifier: str) -> None:
    """Refuse the empty name: Casbin compares it equal to the fields of an empty policy."""
    if not identifier:
        raise FactRefusedError("empty_id", "an id must not be empty")


class Tree:
    """Parents by id. A node whose parent is not (yet) known is *broken*, and so is all below it.

    Broken nodes have no path: whoever asks must deny, since a rule on the missing ancestor cannot be seen.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str | None] = {}
        self._children: dict[str, set[str]] = {}
        self._paths: dict[str, tuple[str, ...]] = {}

    def __contains__(self, node: str) -> bool:
        return node in self._parents

    def __iter__(self) -> Iterator[str]:
        return iter(self._parents)

    def check(self, node: str, parent: str | None) -> None:
        """Raise what `set` would raise."""
        require_id(node)
        above = list(self._upwards(parent)) if parent is not None else []
        if node in above:
            raise FactRefusedError("cycle", f"{node!r} would be its own ancestor")
        if len(above) + self._height(node) > MAX_DEPTH:
            raise FactRefusedError("too_deep", f"{node!r} would be deeper than {MAX_DEPTH} levels")

    def set(self, node: str, parent: str | None) -> None:
        """Add or move a node. Raises FactRefusedError: cycle, too_deep, empty_id."""
        self.check(node, parent)
        self._unlink(node)
        self._parents[node] = parent
        if parent is not None:
            self._children.setdefault(parent, set()).add(node)
        self._paths.clear()

    def remove(self, node: str) -> None:
        """Forget a node; no-op if unknown. Raises FactRefusedError(in_use) while it has children."""
        if self._children.get(node):
            raise FactRefusedError("in_use", f"{node!r} still has children")
        self.forget(node)

    def forget(self, node: str) -> None:
        """As if the node had never been known: what lies below it is broken. No-op if unknown."""
        self._unlink(node)
        self._parents.pop(node, None)
        self._paths.clear()

    def path(self, node: str) -> tuple[str, ...] | None:
        """Ids from the node up to its root; None if the node is unknown or broken."""
        path = self._paths.get(node)
        if path is None and node in self._parents:
            path = tuple(self._upwards(node))
            if path[-1] not in self._parents:
                return None
            self._paths[node] = path
        return path

    def subtree(self, node: str) -> Iterator[str]:
        """The node and everything below it, in no particular order."""
        pending = deque([node])
        while pending:
            current = pending.popleft()
            yield current
            pending.extend(self._children.get(current, ()))

    def is_complete(self) -> bool:
        """Whether no node is broken."""
        return all(parent in self._parents for parent in self._children)

    def _upwards(self, node: str) -> Iterator[str]:
        current: str | None = node
        while current is not None:
            yield current
            current = self._parents.get(current)

    def _height(self, node: str) -> int:
        level, height = {node}, 0
        while level:
            height += 1
            level = {child for current in level for child in self._children.get(current, ())}
        return height

    def _unlink(self, node: str) -> None:
        parent = self._parents.get(node)
        if parent is not None:
            siblings = self._children[parent]
            siblings.discard(node)
            if not siblings:
                del self._children[parent]
