"""Casbin's `g2`: what lies in what. A camera lies in a department and in groups, each with its ancestors.

The links come from the catalogue: there is no policy row per camera, and moving one is one write.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from casbin.rbac import RoleManager

from policies.access import Object, ObjectKind
from policies.tree import FactRefusedError, Tree, require_id

INSTALLATION_KEY = "i:"
_PREFIX = {
    ObjectKind.CAMERA: "c:",
    ObjectKind.GROUP: "g:",
    ObjectKind.TAG: "t:",
    ObjectKind.DEPARTMENT: "d:",
    ObjectKind.INSTALLATION: INSTALLATION_KEY,
}

MAX_REMEMBERED_HOMES = 65_536
"""Distinct places whose ancestors are remembered; beyond it all are forgotten, and found again when asked."""

_Home = tuple[str, frozenset[str], frozenset[str]]  # the department, the groups and the tags of a camera


def object_key(resource: Object) -> str:
    """The Casbin name of an object."""
    return _PREFIX[resource.kind] + resource.id


class Catalogue(RoleManager):  # type: ignore[misc] # casbin has no type information
    """Cameras and groups, over a tree of departments that is shared with the subjects.

    A camera whose department, group or any ancestor of them is unknown has no ancestors: it is denied to all.
    Unknown names are never remembered: asking for them costs no memory.
    """

    def __init__(self, departments: Tree) -> None:
        self._departments = departments
        self._groups = Tree()
        self._homes: dict[str, _Home] = {}
        self._shared_homes: dict[_Home, _Home] = {}  # one object for all cameras of a place
        self._in_department: dict[str, set[str]] = {}
        self._in_group: dict[str, set[str]] = {}
        self._in_tag: dict[str, set[str]] = {}
        self._ordinals: dict[str, int] = {}
        self._ids: list[str] = []
        self._ancestors: dict[str | _Home, frozenset[str]] = {}

    def set_camera(
        self, camera_id: str, department_id: str, group_ids: Iterable[str], tags: Iterable[str] = ()
    ) -> None:
        require_id(camera_id)
        self.remove_camera(camera_id)
        groups, tagged = frozenset(group_ids), frozenset(tags)
        _make_room(self._shared_homes)
        home = (department_id, groups, tagged)
        self._homes[camera_id] = self._shared_homes.setdefault(home, home)
        self._in_department.setdefault(department_id, set()).add(camera_id)
        for group_id in groups:
            self._in_group.setdefault(group_id, set()).add(camera_id)
        for tag in tagged:
            self._in_tag.setdefault(tag, set()).add(camera_id)
        if camera_id not in self._ordinals:
            self._ordinals[camera_id] = len(self._ids)
            self._ids.append(camera_id)

    def ordinal(self, camera_id: str) -> int | None:
        """A camera's number, in the order in which cameras became known; it keeps it. None if never known."""
        return self._ordinals.get(camera_id)

    def camera_of(self, ordinal: int) -> str:
        """Raises IndexError."""
        return self._ids[ordinal]

    def remove_camera(self, camera_id: str) -> None:
        home = self._homes.pop(camera_id, None)
        if home is None:
            return
        department_id, groups, tags = home
        _discard(self._in_department, department_id, camera_id)
        for group_id in groups:
            _discard(self._in_group, group_id, camera_id)
        for tag in tags:
            _discard(self._in_tag, tag, camera_id)

    def check_group(self, group_id: str, parent_id: str | None) -> None:
        self._groups.check(group_id, parent_id)

    def set_group(self, group_id: str, parent_id: str | None) -> None:
        self._groups.set(group_id, parent_id)
        self._ancestors.clear()

    def remove_group(self, group_id: str) -> None:
        if self._in_group.get(group_id):
            raise FactRefusedError("in_use", f"group {group_id!r} still has cameras")
        self._groups.remove(group_id)
        self._ancestors.clear()

    def has_camera_in(self, department_id: str) -> bool:
        return department_id in self._in_department

    def departments_changed(self) -> None:
        self._ancestors.clear()

    def ancestors(self, key: str) -> frozenset[str] | None:
        """Everything that the object lies in, apart from a camera itself; None if it is unknown or broken."""
        home = self._homes.get(key[2:], key) if key.startswith("c:") else key
        ancestors = self._ancestors.get(home)
        if ancestors is None:
            ancestors = self._find_ancestors(home)
            if ancestors is not None:
                _make_room(self._ancestors)
                self._ancestors[home] = ancestors
        return ancestors

    def has_link(self, name1: str, name2: str, *domain: str) -> bool:
        """Casbin's question: is the object `name1` the object `name2`, or in it? There are no domains."""
        ancestors = None if domain else self.ancestors(name1)
        return ancestors is not None and (name1 == name2 or name2 in ancestors)

    def cameras_in(self, key: str) -> Iterator[str]:
        """Ids of the cameras in an object, possibly with repetitions; broken ones included."""
        identifier = key[2:]
        match key[:2]:
            case "c:" if identifier in self._homes:
                yield identifier
            case "d:":
                for department_id in self._departments.subtree(identifier):
                    yield from self._in_department.get(department_id, ())
            case "g:":
                for group_id in self._groups.subtree(identifier):
                    yield from self._in_group.get(group_id, ())
            case "t:":
                yield from self._in_tag.get(identifier, ())
            case "i:":
                yield from self._homes
            case _:
                pass

    def is_complete(self) -> bool:
        """Whether every department and group that a camera, or another of them, names is known."""
        return (
            self._departments.is_complete()
            and self._groups.is_complete()
            and all(department_id in self._departments for department_id in self._in_department)
            and all(group_id in self._groups for group_id in self._in_group)
        )

    def _find_ancestors(self, home: str | _Home) -> frozenset[str] | None:
        departments: Iterable[str] = ()
        groups: Iterable[str] = ()
        tags: Iterable[str] = ()
        match home:
            case (department_id, group_ids, tagged):
                departments, groups, tags = (department_id,), group_ids, tagged
            case "i:":
                pass
            case str() if home.startswith("d:"):
                departments = (home[2:],)
            case str() if home.startswith("g:"):
                groups = (home[2:],)
            case str() if home.startswith("t:") and home[2:] in self._in_tag:
                tags = (home[2:],)
            case _:
                return None
        keys = {INSTALLATION_KEY, *("t:" + tag for tag in tags)}
        for tree, prefix, nodes in ((self._departments, "d:", departments), (self._groups, "g:", groups)):
            for node in nodes:
                path = tree.path(node)
                if path is None:
                    return None
                keys.update(prefix + ancestor for ancestor in path)
        return frozenset(keys)


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= MAX_REMEMBERED_HOMES:
        remembered.clear()


def _discard(index: dict[str, set[str]], key: str, camera_id: str) -> None:
    cameras = index[key]
    cameras.discard(camera_id)
    if not cameras:
        del index[key]
