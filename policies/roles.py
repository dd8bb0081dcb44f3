"""Roles and the actions they carry by office, read from `config/policies.yaml`.

Pure: text in, values out. Media actions are refused here: only a grant may give them.
"""

import re
from collections.abc import Collection, Hashable, Mapping
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from policies.access import MEDIA_ACTIONS, Action

MAX_ROLES = 64
Separate = Annotated[frozenset[str], Meta(min_length=2, max_length=MAX_ROLES)]
"""Roles of which nobody holds two."""
_ROLE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")


class RolesError(ValueError):
    """The roles file is wrong: the operator must correct it; the message says where and what."""

    code = "roles_invalid"


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Actions by scope: in the department of the assignment and below it, or in the whole installation.

    `separate_from`: the roles that nobody holds beside it.
    """

    department: frozenset[Action] = frozenset()
    installation: frozenset[Action] = frozenset()
    separate_from: frozenset[str] = frozenset()

    @property
    def actions(self) -> frozenset[Action]:
        return self.department | self.installation


class RoleEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role as the file has it."""

    department: frozenset[Action] = frozenset()
    installation: frozenset[Action] = frozenset()


def parse_roles(text: str) -> Mapping[str, Role]:
    """Parse the text of `policies.yaml` into roles by name, in the order of the file.

    Raises RolesError on bad YAML, a duplicate or unknown key, an unknown action, a media action in a
    role, a name outside `[a-z][a-z0-9-]*`, more than MAX_ROLES roles, or duties that are to be separate and
    are not.
    """
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RolesError(f"not YAML: {error}") from error
    match document:
        case {"roles": dict() as entries, **rest} if rest.keys() <= {"separate"}:
            pass
        case _:
            raise RolesError("expected `roles`, a mapping of role names, and `separate` or nothing else")
    roles = {_parse_name(name): _parse_role(name, entry) for name, entry in entries.items()}
    return separated(roles, _parse_separate(rest.get("separate", [])))


def separated(entries: Mapping[str, RoleEntry], separate: Collection[Collection[str]]) -> dict[str, Role]:
    """Roles from their entries, each with those that nobody holds beside it. Raises RolesError."""
    roles = {name: Role(entry.department, entry.installation) for name, entry in entries.items()}
    for names in map(frozenset, separate):
        for name in names:
            if name not in roles:
                raise RolesError(f"separate: there is no role {name}")
            others = roles[name].separate_from | names - {name}
            roles[name] = msgspec.structs.replace(roles[name], separate_from=others)
    for name, role in roles.items():
        check_role(name, role, roles)
        if (joined := joined_duties([name], roles)) is not None:
            raise RolesError(f"roles.{name}: joins the duties of {' and '.join(joined)}, which are separate")
    return roles


def check_role(name: str, role: Role, all_names: Collection[str]) -> None:
    """Refuse what no role may be, wherever it was written. Raises RolesError."""
    if not _ROLE_NAME.fullmatch(name):
        raise RolesError(f"roles.{name}: a role's name is made of a-z, 0-9 and '-'")
    if len(all_names) > MAX_ROLES:
        raise RolesError(f"more than {MAX_ROLES} roles")
    if forbidden := sorted(role.actions & MEDIA_ACTIONS):
        raise RolesError(f"roles.{name}: {', '.join(forbidden)} can only be granted, never come with a role")


def joined_duties(names: Collection[str], roles: Mapping[str, Role]) -> tuple[str, str] | None:
    """Two roles whose duties one person would have who held all of `names`, although they are separate.

    A role's own duties are the actions that none of those it is separate from carries: so a role that was
    made elsewhere, under another name, joins them as well.
    """
    held = frozenset().union(*(roles[name].actions for name in names if name in roles))
    worn = [
        name
        for name, role in roles.items()
        if role.separate_from and (name in names or held & _own_duties(role, roles))
    ]
    return next(
        ((name, other) for name in worn for other in worn if other in roles[name].separate_from), None
    )


def _own_duties(role: Role, roles: Mapping[str, Role]) -> frozenset[Action]:
    return role.actions.difference(*(roles[name].actions for name in role.separate_from if name in roles))


def _parse_separate(document: object) -> list[Separate]:
    try:
        return msgspec.convert(document, list[Separate])
    except msgspec.ValidationError as error:
        raise RolesError(f"separate: {error}") from error


def _parse_name(name: object) -> str:
    if not isinstance(name, str):
        raise RolesError(f"roles.{name}: a role's name is made of a-z, 0-9 and '-'")
    return name


def _parse_role(name: str, entry: object) -> RoleEntry:
    try:
        return msgspec.convert(entry, RoleEntry)
    except msgspec.ValidationError as error:
        raise RolesError(f"roles.{name}: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; half of a role would vanish so."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "duplicate key", node.start_mark)
        return mapping
