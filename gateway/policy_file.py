"""A policy written down: departments, people, cameras, grants and what is expected of them, in one file.

For a city's CI: the expectations are decided by the product's own PDP, on an engine made from the file,
offline. A policies file (`roles:` alone) is such a description, too.
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.forms import Identifier, Tag
from gateway.grant_entries import Moment, Party, Target
from gateway.strict_yaml import Document, FileRefusedError, Finding, read_yaml
from policies.access import (
    Action,
    Effect,
    GrantRule,
    Object,
    Obligations,
    Reason,
    RoleAssignment,
    Schedule,
    Sharing,
    SharingMode,
    Subject,
)
from policies.engine import FactRefusedError, PolicyEngine
from policies.roles import Role, RoleEntry, RolesError, Separate, separated

MAX_FINDINGS = 50


class _Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Identifier


class PlaceItem(_Item, frozen=True, kw_only=True):
    """A department or a group."""

    parent: Identifier | None = None


class UserItem(_Item, frozen=True, kw_only=True):
    department: Identifier
    roles: list[str] = []
    enabled: bool = True


class SharingItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mode: SharingMode
    departments: list[Identifier] = []
    until: Moment | None = None
    purposes: list[str] | None = None


class CameraItem(_Item, frozen=True, kw_only=True):
    department: Identifier
    groups: list[Identifier] = []
    tags: list[Tag] = []
    sharing: SharingItem | None = None


class GrantItem(_Item, frozen=True, kw_only=True):
    subject: Party
    object: Target
    actions: Annotated[list[Action], Meta(min_length=1)]
    effect: Effect = Effect.ALLOW
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    schedule: Schedule | None = None
    purposes: list[str] | None = None
    obligations: Obligations = Obligations()
    granted_by: Identifier | None = None
    parent: Identifier | None = None


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`at`: without it, the file's. `reason`: only compared where it is given."""

    user: Identifier
    camera: Identifier
    effect: Effect
    action: Action = Action.LIVE_VIEW
    purpose: str | None = None
    at: Moment | None = None
    reason: Reason | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `roles_file`: a policies file, seen from this one's folder; or `roles` and `separate` as in
    such a file.
    """

    roles_file: str | None = None
    roles: dict[str, RoleEntry] = {}
    separate: list[Separate] = []
    departments: list[PlaceItem] = []
    groups: list[PlaceItem] = []
    users: list[UserItem] = []
    cameras: list[CameraItem] = []
    grants: list[GrantItem] = []
    at: Moment | None = None
    expect: list[Expectation] = []


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A description that makes sense, and the engine that decides by it. `lines`: of each expectation."""

    description: Description
    roles: dict[str, Role]
    engine: PolicyEngine
    lines: tuple[int, ...]


def read_policy(path: Path) -> Policy:
    """Raises FileRefusedError with up to MAX_FINDINGS findings: read_yaml's, field_invalid, roles_invalid,
    duplicate_id, unknown_department, unknown_group, unknown_role, unknown_user, unknown_camera, unknown_tag,
    unknown_grant, tree_invalid, grant_malformed, time_missing.
    """
    document = read_yaml(path)
    description = _shape(path, document)
    if description.roles_file is None:
        roles = _roles(path, document, description)
    else:
        if description.roles or description.separate:
            line = document.line("$.roles_file")
            message = "give roles and separate, or roles_file, not both"
            raise FileRefusedError(path, [Finding(line, "roles_invalid", message)])
        roles_path = path.parent / description.roles_file
        roles_document = read_yaml(roles_path)
        roles = _roles(roles_path, roles_document, _shape(roles_path, roles_document))
    builder = _Builder(document, description, roles)
    engine = builder.build()
    if builder.findings:
        raise FileRefusedError(path, sorted(builder.findings, key=lambda found: found.line)[:MAX_FINDINGS])
    lines = tuple(document.line(f"$.expect[{index}]") for index in range(len(description.expect)))
    return Policy(description=description, roles=roles, engine=engine, lines=lines)


def _shape(path: Path, document: Document) -> Description:
    try:
        return msgspec.convert(document.value, Description)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        line = document.line(place.rstrip("`")) or 1
        raise FileRefusedError(path, [Finding(line, "field_invalid", message)]) from None


def _roles(path: Path, document: Document, description: Description) -> dict[str, Role]:
    try:
        return separated(description.roles, description.separate)
    except RolesError as error:
        key = str(error).partition(":")[0]
        raise FileRefusedError(
            path, [Finding(document.line(f"$.{key}"), "roles_invalid", str(error))]
        ) from None


class _Builder:
    """Puts a description into an engine, and notes what contradicts itself."""

    def __init__(self, document: Document, description: Description, roles: dict[str, Role]) -> None:
        self._document = document
        self._is = description
        self._roles = roles
        self.findings: list[Finding] = []
        self._departments = self._ids("departments", description.departments)
        self._groups = self._ids("groups", description.groups)
        self._users = self._ids("users", description.users)
        self._cameras = self._ids("cameras", description.cameras)
        self._grants = self._ids("grants", description.grants)
        self._tags = {tag for camera in description.cameras for tag in camera.tags}

    def build(self) -> PolicyEngine:
        engine = PolicyEngine(self._roles)
        self._put_trees(engine)
        self._put_users(engine)
        self._put_cameras(engine)
        self._put_grants(engine)
        for index, expectation in enumerate(self._is.expect):
            if expectation.at is None and self._is.at is None:
                self._note(f"$.expect[{index}]", "time_missing", "give `at` here or for the file")
        return engine

    def _note(self, path: str, code: str, message: str) -> None:
        self.findings.append(Finding(self._document.line(path), code, message))

    def _ids(
        self, section: str, items: "list[PlaceItem] | list[UserItem] | list[CameraItem] | list[GrantItem]"
    ) -> set[str]:
        ids: set[str] = set()
        for index, item in enumerate(items):
            if item.id in ids:
                self._note(f"$.{section}[{index}].id", "duplicate_id", f"{item.id} stands here twice")
            ids.add(item.id)
        return ids

    def _know(self, path: str, kind: str, name: str | None, known: Collection[str]) -> None:
        if name is not None and name not in known:
            self._note(path, f"unknown_{kind}", f"there is no {kind} {name}")

    def _put_trees(self, engine: PolicyEngine) -> None:
        for section, items, known, put in (
            ("departments", self._is.departments, self._departments, engine.set_department),
            ("groups", self._is.groups, self._groups, engine.set_group),
        ):
            for index, item in enumerate(items):
                path = f"$.{section}[{index}].parent"
                self._know(path, section[:-1], item.parent, known)
                try:
                    put(item.id, item.parent)
                except FactRefusedError as error:
                    self._note(path, "tree_invalid", str(error))

    def _put_users(self, engine: PolicyEngine) -> None:
        for index, user in enumerate(self._is.users):
            path = f"$.users[{index}]"
            self._know(f"{path}.department", "department", user.department, self._departments)
            for number, role in enumerate(user.roles):
                self._know(f"{path}.roles[{number}]", "role", role, self._roles)
            assignments = [RoleAssignment(role, user.department) for role in user.roles]
            engine.set_user(user.id, user.department, assignments, enabled=user.enabled)

    def _put_cameras(self, engine: PolicyEngine) -> None:
        for index, camera in enumerate(self._is.cameras):
            path = f"$.cameras[{index}]"
            self._know(f"{path}.department", "department", camera.department, self._departments)
            for number, group in enumerate(camera.groups):
                self._know(f"{path}.groups[{number}]", "group", group, self._groups)
            sharing = camera.sharing
            for number, department in enumerate(sharing.departments if sharing else ()):
                place = f"{path}.sharing.departments[{number}]"
                self._know(place, "department", department, self._departments)
            engine.set_camera(
                camera.id,
                camera.department,
                camera.groups,
                tags=camera.tags,
                sharing=None
                if sharing is None
                else Sharing(
                    mode=sharing.mode,
                    departments=tuple(sharing.departments),
                    until=sharing.until,
                    purposes=None if sharing.purposes is None else frozenset(sharing.purposes),
                ),
            )

    def _put_grants(self, engine: PolicyEngine) -> None:
        known = {
            "user": self._users, "role": self._roles, "department": self._departments,
            "camera": self._cameras, "group": self._groups, "tag": self._tags,
        }  # fmt: skip
        for index, grant in enumerate(self._is.grants):
            path = f"$.grants[{index}]"
            for part, party in (("subject", grant.subject), ("object", grant.object)):
                self._know(
                    f"{path}.{part}.id", party.kind.value, party.id, known.get(party.kind.value, set())
                )
            self._know(f"{path}.granted_by", "user", grant.granted_by, self._users)
            self._know(f"{path}.parent", "grant", grant.parent, self._grants)
            engine.set_grant(_rule(grant))
            if (why := engine.malformed_grants.get(grant.id)) is not None:
                self._note(path, "grant_malformed", why)


def _rule(grant: GrantItem) -> GrantRule:
    return GrantRule(
        id=grant.id,
        subject=Subject(grant.subject.kind, grant.subject.id),
        object=Object(grant.object.kind, grant.object.id),
        actions=frozenset(grant.actions),
        effect=grant.effect,
        valid_from=grant.valid_from,
        valid_to=grant.valid_to,
        schedule=grant.schedule,
        purposes=None if grant.purposes is None else frozenset(grant.purposes),
        obligations=grant.obligations,
        granted_by=grant.granted_by,
        parent=grant.parent,
    )


def moment_of(expectation: Expectation, description: Description) -> datetime:
    """When an expectation is asked for. Raises ValueError if neither says; `read_policy` has seen to that."""
    at = expectation.at or description.at
    if at is None:
        raise ValueError("no time")
    return at
