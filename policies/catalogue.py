"""Casbin's `g2`: what lies in what. A camera lies in a department and in groups, each with its ancestors.

The links come from the catalogue: there is no policy row per camera, and moving one is one write.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from casbin.rbac import RoleManager
from pyroaring import BitMap

from policies.access import Object, ObjectKind, Sharing
from policies.sharing import PurposeLists, SharingIndex
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


class Home(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Where a camera lies and how it is shared (None: by grants); one object for many cameras."""

    department_id: str
    groups: tuple[str, ...]
    tags: tuple[str, ...]
    sharing: Sharing | None


CameraEntry = tuple[str, str, tuple[str, ...], tuple[str, ...], Sharing | None]
"""A camera's id, department, groups and tags (distinct, in order), and how it is shared (None: by grants)."""


def object_key(resource: Object) -> str:
    """The Casbin name of an object."""
    return _PREFIX[resource.kind] + resource.id


class Catalogue(RoleManager):  # type: ignore[misc] # casbin has no type information
    """Cameras and groups, over a tree of departments that is shared with the subjects.

    Cameras have numbers, and sets of cameras are bitmaps of them. A camera whose department, group or any
    ancestor of them is unknown has no ancestors: it is denied to all. Unknown names are never remembered:
    asking for them costs no memory.
    """

    def __init__(self, departments: Tree) -> None:
        self._departments = departments
        self._groups = Tree()
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._homes: list[Home | None] = []
        self._known_homes: dict[tuple[Any, ...], Home] = {}
        self._all = BitMap()
        self._in_department: dict[str, BitMap] = {}
        self._in_group: dict[str, BitMap] = {}
        self._in_tag: dict[str, BitMap] = {}
        self._sharing = SharingIndex()
        self._ancestors: dict[str | Home, frozenset[str]] = {}

    def set_camera(
        self,
        camera_id: str,
        department_id: str,
        group_ids: Iterable[str],
        tags: Iterable[str] = (),
        sharing: Sharing | None = None,
    ) -> None:
        require_id(camera_id)
        number = self._numbers.get(camera_id)
        if number is None:
            number = self._numbers[camera_id] = len(self._ids)
            self._ids.append(camera_id)
            self._homes.append(None)
        elif self._homes[number] is not None:
            self.remove_camera(camera_id)
        home = self._homes[number] = self._home(department_id, group_ids, tags, sharing)
        self._all.add(number)
        _put(self._in_department, home.department_id, number)
        for group_id in home.groups:
            _put(self._in_group, group_id, number)
        for tag in home.tags:
            _put(self._in_tag, tag, number)
        if home.sharing is not None:
            self._sharing.add(number, home.sharing)

    def set_cameras(self, entries: Iterable[CameraEntry]) -> None:
        """The same as `set_camera` for each, at a fraction of its time for those that are new."""
        members: tuple[defaultdict[str, list[int]], ...] = tuple(defaultdict(list) for _ in range(3))
        in_department, in_group, in_tag = members
        numbers, ids, homes, known = self._numbers, self._ids, self._homes, self._known_homes
        first, others = len(ids), []
        for entry in entries:
            camera_id, department_id, groups, tags, sharing = entry
            if not camera_id or camera_id in numbers:
                others.append(entry)
                continue
            number = numbers[camera_id] = len(ids)
            ids.append(camera_id)
            home = known.get(entry[1:]) or self._home(department_id, groups, tags, sharing)
            homes.append(home)
            in_department[department_id].append(number)
            for group_id in groups:
                in_group[group_id].append(number)
            for tag in tags:
                in_tag[tag].append(number)
            if home.sharing is not None:
                self._sharing.add(number, home.sharing)
        self._all.add_range(first, len(ids))
        for sets, found in zip((self._in_department, self._in_group, self._in_tag), members, strict=True):
            for key, few in found.items():
                sets.setdefault(key, BitMap()).update(few)
        for entry in others:
            self.set_camera(*entry)

    def remove_camera(self, camera_id: str) -> None:
        number = self._numbers.get(camera_id)
        home = None if number is None else self._homes[number]
        if number is None or home is None:
            return
        self._homes[number] = None
        self._all.discard(number)
        for index, key in self._sets_of(home):
            numbers = index[key]
            numbers.discard(number)
            if not numbers:
                del index[key]
        if home.sharing is not None:
            self._sharing.remove(number, home.sharing)

    def ordinal(self, camera_id: str) -> int | None:
        """A camera's number, in the order in which cameras became known; it keeps it. None if never known."""
        return self._numbers.get(camera_id)

    def ordinals(self, camera_ids: Iterable[str]) -> list[int | None]:
        """`ordinal` of each."""
        return list(map(self._numbers.get, camera_ids))

    def camera_of(self, ordinal: int) -> str:
        """Raises IndexError."""
        return self._ids[ordinal]

    def home_of(self, key: str) -> Home | None:
        """Of a camera's Casbin name; None for any other."""
        number = self._numbers.get(key[2:]) if key.startswith("c:") else None
        return None if number is None else self._homes[number]

    def check_group(self, group_id: str, parent_id: str | None) -> None:
        self._groups.check(group_id, parent_id)

    def set_group(self, group_id: str, parent_id: str | None) -> None:
        self._groups.set(group_id, parent_id)
        self._ancestors.clear()

    def remove_group(self, group_id: str) -> None:
        if group_id in self._in_group:
            raise FactRefusedError("in_use", f"group {group_id!r} still has cameras")
        self._groups.remove(group_id)
        self._ancestors.clear()

    def forget_group(self, group_id: str) -> None:
        self._groups.forget(group_id)
        self._ancestors.clear()

    def has_camera_in(self, department_id: str) -> bool:
        return department_id in self._in_department

    def departments_changed(self) -> None:
        self._ancestors.clear()

    def ancestors(self, key: str) -> frozenset[str] | None:
        """Everything that the object lies in, apart from a camera itself; None if it is unknown or broken."""
        return self.find(key)[1]

    def find(self, key: str) -> tuple[Home | None, frozenset[str] | None]:
        """A camera's home (None for other objects), and the object's ancestors."""
        home = self.home_of(key)
        place = home or key
        ancestors = self._ancestors.get(place)
        if ancestors is None:
            ancestors = self._find_ancestors(place)
            if ancestors is not None and not key.startswith("t:"):  # a tag is known while a camera has it
                _make_room(self._ancestors)
                self._ancestors[place] = ancestors
        return home, ancestors

    def has_link(self, name1: str, name2: str, *domain: str) -> bool:
        """Casbin's question: is the object `name1` the object `name2`, or in it? There are no domains."""
        ancestors = None if domain else self.ancestors(name1)
        return ancestors is not None and (name1 == name2 or name2 in ancestors)

    def ordinals_in(self, key: str) -> BitMap:
        """The numbers of the cameras in an object, broken ones included."""
        identifier = key[2:]
        match key[:2]:
            case "c:":
                number = self._numbers.get(identifier)
                return BitMap() if number is None or self._homes[number] is None else BitMap((number,))
            case "d:":
                return _union(self._in_department, self._departments.subtree(identifier))
            case "g:":
                return _union(self._in_group, self._groups.subtree(identifier))
            case "t:":
                return _union(self._in_tag, (identifier,))
            case "i:":
                return self._all.copy()
            case _:
                return BitMap()

    def broken(self) -> BitMap:
        """The numbers of the cameras whose department or group, or an ancestor of them, is unknown."""
        if self._is_complete():
            return BitMap()
        departments = (d for d in self._in_department if self._departments.path(d) is None)
        groups = (g for g in self._in_group if self._groups.path(g) is None)
        return _union(self._in_department, departments) | _union(self._in_group, groups)

    def open_to(self, departments: Iterable[str], at: datetime) -> BitMap:
        """The numbers of the cameras that are shared with the departments without a grant."""
        return self._sharing.open_to(departments, at)

    def closed_to(self, departments: Iterable[str], at: datetime) -> BitMap:
        """The numbers of the cameras that are not shared, apart from those that the departments own."""
        closed = self._sharing.closed(at)
        return closed - _union(self._in_department, departments) if closed else closed

    @property
    def purpose_lists(self) -> PurposeLists:
        return self._sharing.purpose_lists

    def _is_complete(self) -> bool:
        """Whether every department and group that a camera, or another of them, names is known."""
        return (
            self._departments.is_complete()
            and self._groups.is_complete()
            and all(department_id in self._departments for department_id in self._in_department)
            and all(group_id in self._groups for group_id in self._in_group)
        )

    def _home(
        self, department_id: str, group_ids: Iterable[str], tags: Iterable[str], sharing: Sharing | None
    ) -> Home:
        if sharing is not None and sharing.is_default:
            sharing = None
        fields = department_id, _distinct(group_ids), _distinct(tags), sharing
        home = self._known_homes.get(fields)
        if home is None:
            _make_room(self._known_homes)
            home = self._known_homes[fields] = Home(*fields)
        return home

    def _sets_of(self, home: Home) -> Iterator[tuple[dict[str, BitMap], str]]:
        yield self._in_department, home.department_id
        for group_id in home.groups:
            yield self._in_group, group_id
        for tag in home.tags:
            yield self._in_tag, tag

    def _find_ancestors(self, home: str | Home) -> frozenset[str] | None:
        departments: Iterable[str] = ()
        groups: Iterable[str] = ()
        tags: Iterable[str] = ()
        match home:
            case Home():
                departments, groups, tags = (home.department_id,), home.groups, home.tags
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


def _put(sets: dict[str, BitMap], key: str, number: int) -> None:
    numbers = sets.get(key)
    if numbers is None:
        numbers = sets[key] = BitMap()
    numbers.add(number)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """In one order. Most cameras have one name or none, and a city has a million cameras."""
    names = tuple(names)
    return names if len(names) <= 1 else tuple(sorted(set(names)))


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= MAX_REMEMBERED_HOMES:
        remembered.clear()


def _union(sets: dict[str, BitMap], keys: Iterable[str]) -> BitMap:
    found = [numbers for key in keys if (numbers := sets.get(key)) is not None]
    return BitMap.union(*found) if found else BitMap()
