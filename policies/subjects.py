"""Casbin's `g`: which subjects a user counts as. Links are facts about users, never policy rows."""

from collections.abc import Iterable, Mapping

import msgspec
from casbin.rbac import RoleManager

from policies.access import RoleAssignment, Subject, SubjectKind
from policies.roles import Role
from policies.tree import Tree, require_id

_PREFIX = {SubjectKind.USER: "u:", SubjectKind.ROLE: "r:", SubjectKind.DEPARTMENT: "o:"}


def subject_key(subject: Subject) -> str:
    """The Casbin name of a subject. The prefix keeps a user named like a role from being that role."""
    return _PREFIX[subject.kind] + subject.id


def user_key(user_id: str) -> str:
    return "u:" + user_id


def assignment_key(role: str, department_id: str) -> str:
    """The Casbin name of those who hold a role in a department; no grant can name it."""
    return f"a:{role}@{department_id}"


class _User(msgspec.Struct, frozen=True):
    department_id: str | None
    roles: tuple[RoleAssignment, ...]
    enabled: bool


class Subjects(RoleManager):  # type: ignore[misc] # casbin has no type information
    """Users, and for each the closed set of subjects he counts as: himself, roles, departments upward.

    Unknown names are never remembered: asking for them costs no memory.
    """

    def __init__(self, departments: Tree, roles: Mapping[str, Role]) -> None:
        self._departments = departments
        self._roles = roles
        self._users: dict[str, _User] = {}
        self._closures: dict[str, frozenset[str]] = {}

    def set_user(
        self, user_id: str, department_id: str | None, roles: Iterable[RoleAssignment], enabled: bool
    ) -> None:
        require_id(user_id)
        key = user_key(user_id)
        self._users[key] = _User(department_id, tuple(roles), enabled)
        self._closures.pop(key, None)

    def remove_user(self, user_id: str) -> None:
        key = user_key(user_id)
        self._users.pop(key, None)
        self._closures.pop(key, None)

    def has_member(self, department_id: str) -> bool:
        return any(user.department_id == department_id for user in self._users.values())

    def is_enabled(self, key: str) -> bool:
        user = self._users.get(key)
        return user is not None and user.enabled

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

    def closure(self, key: str) -> frozenset[str] | None:
        """All subjects that the user counts as; None if he, or a department above him, is unknown."""
        closure = self._closures.get(key)
        if closure is None and (user := self._users.get(key)) is not None:
            path = () if user.department_id is None else self._departments.path(user.department_id)
            if path is None:
                return None
            closure = frozenset((key, *("o:" + department for department in path), *self._role_keys(user)))
            self._closures[key] = closure
        return closure

    def has_link(self, name1: str, name2: str, *domain: str) -> bool:
        """Casbin's question: does the user `name1` count as `name2`? There are no domains."""
        closure = None if domain else self.closure(name1)
        return closure is not None and name2 in closure

    def _role_keys(self, user: _User) -> Iterable[str]:
        for assignment in user.roles:
            yield "r:" + assignment.role
            if assignment.department_id is not None and assignment.role in self._roles:
                yield assignment_key(assignment.role, assignment.department_id)
