"""Roles and the actions they carry by office, read from `config/policies.yaml`.

Pure: text in, values out. Media actions are refused here: only a grant may give them.
"""

import re
from collections.abc import Collection, Hashable, Mapping

import msgspec
import yaml

from policies.access import MEDIA_ACTIONS, Action

MAX_ROLES = 64
_ROLE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")


class RolesError(ValueError):
    """The roles file is wrong: the operator must correct it; the message says where and what."""

    code = "roles_invalid"


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Actions by scope: in the department of the assignment and below it, or in the whole installation."""

    department: frozenset[Action] = frozenset()
    installation: frozenset[Action] = frozenset()


def parse_roles(text: str) -> Mapping[str, Role]:
    """Parse the text of `policies.yaml` into roles by name, in the order of the file.

    Raises RolesError on bad YAML, a duplicate or unknown key, an unknown action, a media action in a
    role, a name outside `[a-z][a-z0-9-]*`, or more than MAX_ROLES roles.
    """
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RolesError(f"not YAML: {error}") from error
    match document:
        case {"roles": dict() as entries, **rest} if not rest:
            pass
        case _:
            raise RolesError("expected exactly one key, `roles`, a mapping of role names")
    roles = {_parse_name(name): _parse_role(name, entry) for name, entry in entries.items()}
    for name, role in roles.items():
        check_role(name, role, roles)
    return roles


def check_role(name: str, role: Role, all_names: Collection[str]) -> None:
    """Refuse what no role may be, wherever it was written. Raises RolesError."""
    if not _ROLE_NAME.fullmatch(name):
        raise RolesError(f"roles.{name}: a role's name is made of a-z, 0-9 and '-'")
    if len(all_names) > MAX_ROLES:
        raise RolesError(f"more than {MAX_ROLES} roles")
    if forbidden := sorted((role.department | role.installation) & MEDIA_ACTIONS):
        raise RolesError(f"roles.{name}: {', '.join(forbidden)} can only be granted, never come with a role")


def _parse_name(name: object) -> str:
    if not isinstance(name, str):
        raise RolesError(f"roles.{name}: a role's name is made of a-z, 0-9 and '-'")
    return name


def _parse_role(name: str, entry: object) -> Role:
    try:
        return msgspec.convert(entry, Role)
    except msgspec.ValidationError as error:
        raise RolesError(f"roles.{name}: {error}") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; half of a role would vanish so."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "duplicate key", node.start_mark)
        return mapping
