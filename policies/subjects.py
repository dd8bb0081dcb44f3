"""Casbin's `g`: which subjects a user counts as. Links are facts about users, never policy rows."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import msgspec
from casbin.rbac import RoleManager
from pyroaring import BitMap

from policies.access import Reason, RoleAssignment, Subject, SubjectKind
from policies.roles import Role
from policies.tree import Tree, require_id

_PREFIX = {SubjectKind.USER: "u:", SubjectKind.ROLE: "r:", SubjectKind.DEPARTMENT: "o:"}


def subject_key(subject: Subject) -> str:
    """The Casbin name of a subject. The prefix keeps a user named like a role from being that role."""
    return _PREFIX[subject.kind] + subject.id


def user_key(user_id: str) -> str:
    return "u:" + user_id


def member_key(department_id: str) -> str:
    """The Casbin name of the users of a department and of those below it."""
    return "o:" + department_id


def assignment_key(role: str, department_id: str) -> str:
    """The Casbin name of those who hold a role in a department; no grant can name it."""
    return f"a:{role}@{department_id}"


class _User(msgspec.Struct, frozen=True, gc=False):
    number: int
    department_id: str | None
    roles: tuple[RoleAssignment, ...]
    enabled: bool


class Subjects(RoleManager):  # type: ignore[misc] # casbin has no type information
    """Users, and for each all subjects he counts as: himself, roles, departments upward.

    Users have numbers, and sets of users are bitmaps of them. Unknown names are never remembered: asking for
    them costs no memory.
    """

    def __init__(self, departments: Tree, roles: Mapping[str, Role]) -> None:
        self._departments = departments
        self._roles = roles
        self._users: dict[str, _User] = {}
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._enabled = BitMap()
        self._ending: dict[int, datetime] = {}
        self._with_role: dict[str, BitMap] = {}
        self._in_department: dict[str | None, BitMap] = {}
        self._closures: dict[str, tuple[str, ...]] = {}
        self._member_keys: dict[str, tuple[str, ...]] = {}

    def set_user(
        self,
        user_id: str,
        department_id: str | None,
        roles: Iterable[RoleAssignment],
        enabled: bool,
        until: datetime | None,
    ) -> None:
        require_id(user_id)
        self.remove_user(user_id)
        number = self._numbers.get(user_id)
        if number is None:
            number = self._numbers[user_id] = len(self._ids)
            self._ids.append(user_id)
        user = self._users[user_key(user_id)] = _User(number, department_id, tuple(roles), enabled)
        if enabled:
            self._enabled.add(number)
        if until is not None:
            self._ending[number] = until
        self._in_department.setdefault(department_id, BitMap()).add(number)
        for key in _role_keys(user):
            self._with_role.setdefault(key, BitMap()).add(number)

    def remove_user(self, user_id: str) -> None:
        key = user_key(user_id)
        user = self._users.pop(key, None)
        self._closures.pop(key, None)
        if user is None:
            return
        self._enabled.discard(user.number)
        self._ending.pop(user.number, None)
        _discard(self._in_department, user.department_id, user.number)
        for role_key in set(_role_keys(user)):
            _discard(self._with_role, role_key, user.number)

    def has_member(self, department_id: str) -> bool:
        return department_id in self._in_department

    def unmet_by(self, key: str, at: datetime) -> Reason | None:
        """Why a user may do nothing at all; None if he may."""
        user = self._users.get(key)
        if user is None:
            return Reason.UNKNOWN_PRINCIPAL
        if not user.enabled:
            return Reason.PRINCIPAL_DISABLED
        until = self._ending.get(user.number)
        return Reason.PRINCIPAL_EXPIRED if until is not None and until <= at else None

    def end_of(self, key: str) -> datetime | None:
        """From when on a user may do nothing any more; None: that is not known."""
        user = self._users.get(key)
        return None if user is None else self._ending.get(user.number)

    def is_known(self, subject: Subject) -> bool:
        match subject.kind:
            case SubjectKind.USER:
                return subject_key(subject) in self._users
            case SubjectKind.ROLE:
                return subject.id in self._roles
            case SubjectKind.DEPARTMENT:
                return subject.id in self._departments

    def departments_changed(self) -> None:
        self._closures.clear()
        self._member_keys.clear()

    def closure(self, key: str) -> tuple[str, ...] | None:
        """All subjects that the user counts as; None if he, or a department above him, is unknown."""
        closure = self._closures.get(key)
        if closure is None and (user := self._users.get(key)) is not None:
            members = self._members_upward(user.department_id)
            if members is None:
                return None
            closure = (key, *members, *dict.fromkeys(_role_keys(user)))
            self._closures[key] = closure
        return closure

    def has_link(self, name1: str, name2: str, *domain: str) -> bool:
        """Casbin's question: does the user `name1` count as `name2`? There are no domains."""
        closure = None if domain else self.closure(name1)
        return closure is not None and name2 in closure

    def everybody(self, at: datetime) -> BitMap:
        """The numbers of all who may act, but for those whose department, or one above it, is unknown."""
        found = self._enabled - BitMap(number for number, until in self._ending.items() if until <= at)
        for department_id, members in self._in_department.items():
            if department_id is not None and self._departments.path(department_id) is None:
                found -= members
        return found

    def counting_as(self, key: str) -> BitMap:
        """The numbers of the users who count as a subject, disabled ones included."""
        match key[:2]:
            case "u:":
                user = self._users.get(key)
                return BitMap() if user is None else BitMap((user.number,))
            case "o:":
                below = self._departments.subtree(key[2:])
                found = [members for d in below if (members := self._in_department.get(d)) is not None]
                return BitMap.union(*found) if found else BitMap()
            case _:
                return self._with_role.get(key, BitMap()).copy()

    def number_of(self, user_id: str) -> int | None:
        """None if he was never known."""
        return self._numbers.get(user_id)

    def ids_of(self, numbers: BitMap) -> set[str]:
        ids = self._ids
        return {ids[number] for number in numbers}

    def _members_upward(self, department_id: str | None) -> tuple[str, ...] | None:
        if department_id is None:
            return ()
        members = self._member_keys.get(department_id)
        if members is None and (path := self._departments.path(department_id)) is not None:
            members = self._member_keys[department_id] = tuple(map(member_key, path))
        return members


def _role_keys(user: _User) -> Iterator[str]:
    for assignment in user.roles:
        yield "r:" + assignment.role
        if assignment.department_id is not None and "@" not in assignment.role:  # it would pass for another
            yield assignment_key(assignment.role, assignment.department_id)


def _discard(index: dict[str, BitMap] | dict[str | None, BitMap], key: str | None, number: int) -> None:
    numbers = index[key]  # type: ignore[index]
    numbers.discard(number)
    if not numbers:
        del index[key]  # type: ignore[arg-type]
