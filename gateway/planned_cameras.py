"""What one line of a file of cameras asks for, given what the catalogue has: a camera to write, or an error.

Pure but for `file:` addresses, which are tried; run it off the loop.
"""

import os
import re
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.camera_rows import column_values
from gateway.catalogue import MIN_PUBLISHER_PASSWORD_LENGTH
from gateway.catalogue_columns import Fields
from gateway.catalogue_reading import CameraLine, LineError
from gateway.clock import from_micros
from gateway.forms import (
    NewCamera,
    SharingTerms,
    check_item,
    check_sharing_departments,
    check_sharing_purposes,
)
from gateway.keys import InstallationKeys, KeyFileError
from gateway.messages import PUSH_URL
from gateway.problems import Problem
from gateway.store.identifiers import new_id
from policies.access import Sharing, SharingMode
from streams.errors import StreamError
from streams.sources.egress import EgressSettings, check_url
from streams.sources.pyav import open_media_file

_PLAIN = (
    "department_id",
    "name",
    "description",
    "url",
    "sub_url",
    "username",
    "allow_basic",
    "enabled",
    "declared_bandwidth_bps",
    "code",
    "civil_code",
    "point_class",
    "network",
    "place",
    "longitude",
    "latitude",
    "direction",
    "management_unit",
    "retention_days",
)
_TERMS = (
    "sharing_mode",
    "sharing_departments",
    "sharing_scope",
    "sharing_purpose",
    "sharing_frequency",
    "sharing_until",
    "sharing_purposes",
)
ROW = (*_PLAIN, *_TERMS)
"""The columns of the table that a file can change, the sealed password aside."""

_AT = {column: index for index, column in enumerate(ROW)}
_REQUIRED = ("name", "department_id", "url")
_POLICY = frozenset(
    {
        "department_id",
        "sharing_mode",
        "sharing_departments",
        "sharing_until",
        "sharing_purposes",
        "groups",
        "tags",
    }
)
_NEW = frozenset({*ROW, "groups", "tags", "password"})
"""What a new camera changes."""
_NEW_WITHOUT_TERMS = _NEW - frozenset(_TERMS)
_NO_TERMS = SharingTerms()
_CONNECTION = frozenset({"url", "sub_url", "username", "password", "allow_basic"})
_LOGIN = frozenset({"url", "username", "password"})
_PLACE = re.compile(r"(.*) - at `\$\.?([a-z_]*)(?:\.([a-z_]+))?.*`", re.DOTALL)
"""How msgspec ends a message: where the value is that it refuses."""


@dataclass(frozen=True, slots=True)
class Existing:
    """A camera as the catalogue has it."""

    row: sa.Row[Any]
    groups: frozenset[str]
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class PlannedCamera:
    """A camera as the file wants it. `row`: values of `ROW`; `changed`: columns, groups, tags, password.

    `seen_at`: `updated_at` of what it changes, None for a new one.
    """

    line: int
    id: str
    row: tuple[Any, ...]
    secret: bytes | None
    groups: frozenset[str]
    tags: frozenset[str]
    changed: frozenset[str]
    seen_at: int | None
    old_department: str | None
    old_code: str | None

    def value(self, column: str) -> Any:
        return self.row[_AT[column]]

    @property
    def is_new(self) -> bool:
        return self.seen_at is None

    @property
    def is_policy(self) -> bool:
        """Whether the PDP must hear of it."""
        return self.is_new or bool(self.changed & _POLICY)

    @property
    def is_moved(self) -> bool:
        """Whether it is now reached in another way, or not at all any more."""
        return not self.is_new and bool(self.changed & {*_CONNECTION, "enabled"})

    @property
    def is_switched_off(self) -> bool:
        return not self.is_new and "enabled" in self.changed and not self.value("enabled")

    @property
    def shares(self) -> str | None:
        """The column that lets others reach the camera, for whose writing its owner's share must be held.

        Grants on a group, a tag or a department reach its cameras, and an owner's terms give without a grant.
        """
        for column, given in (("groups", self.groups), ("tags", self.tags)):
            if given and column in self.changed:
                return column
        if not self.is_new and "department_id" in self.changed:
            return "department_id"
        return "sharing_mode" if not self.changed.isdisjoint(_TERMS) else None

    @property
    def sharing(self) -> Sharing:
        until, purposes = self.value("sharing_until"), self.value("sharing_purposes")
        return Sharing(
            mode=SharingMode(self.value("sharing_mode")),
            departments=tuple(self.value("sharing_departments") or ()),
            until=None if until is None else from_micros(until),
            purposes=None if purposes is None else frozenset(purposes),
        )

    def __repr__(self) -> str:
        return f"PlannedCamera(line={self.line})"


@dataclass(frozen=True, slots=True)
class Trees:
    """What departments, groups and purposes there are."""

    departments: frozenset[str]
    groups: frozenset[str]
    purposes: frozenset[str]


class Planner:
    """What lines are checked with. `file_folder`: where `file:` addresses may point; None: nowhere."""

    def __init__(self, keys: InstallationKeys, egress: EgressSettings, file_folder: Path | None) -> None:
        self._keys = keys
        self._egress = egress
        self._file_folder = file_folder

    def plan(self, line: CameraLine, existing: Existing | None, trees: Trees) -> PlannedCamera | LineError:
        given = line.fields
        if existing is not None:
            given = fields_of(existing) | given | {"id": existing.row.id}
        elif missing := [column for column in _REQUIRED if given.get(column) is None]:
            return _error(line, missing[0], "a new camera needs one", "required")
        try:
            camera = camera_of(given)
        except msgspec.ValidationError as error:
            return _invalid(line, error)
        if (unknown := _unknown(line, camera, trees)) is not None:
            return unknown
        try:
            check_item(
                code=camera.code,
                civil_code=camera.civil_code,
                network=camera.network,
                longitude=camera.longitude,
                latitude=camera.latitude,
                sharing=camera.sharing,
            )
            check_sharing_departments(camera.sharing, trees.departments)
            check_sharing_purposes(camera.sharing, trees.purposes)
            planned = self._planned(line, camera, existing)
            self._check_connection(planned, camera)
        except Problem as problem:
            column, _, why = problem.detail.partition(": ")
            return _error(line, column.replace(".", "_"), why)
        return planned

    def _planned(self, line: CameraLine, camera: NewCamera, existing: Existing | None) -> PlannedCamera:
        camera_id = camera.id or new_id()
        row, groups, tags = _row_of(camera), frozenset(camera.groups), frozenset(camera.tags)
        if existing is None:
            secret = None if camera.password is None else self._keys.seal(camera_id, camera.password)
            changed = _NEW_WITHOUT_TERMS if camera.sharing == _NO_TERMS else _NEW
            return PlannedCamera(line.line, camera_id, row, secret, groups, tags, changed, None, None, None)
        was = existing.row
        changes = {column for column, old, new in zip(ROW, _stored(was), row, strict=True) if old != new}
        if groups != existing.groups:
            changes.add("groups")
        if tags != existing.tags:
            changes.add("tags")
        secret = was.secret
        if "password" in line.fields and camera.password != self._password(existing):
            changes.add("password")
            secret = None if camera.password is None else self._keys.seal(camera_id, camera.password)
        return PlannedCamera(
            line.line,
            camera_id,
            row,
            secret,
            groups,
            tags,
            frozenset(changes),
            was.updated_at,
            was.department_id,
            was.code,
        )

    def _password(self, existing: Existing) -> str | None:
        if existing.row.secret is None:
            return None
        try:
            return self._keys.unseal(existing.row.id, existing.row.secret)
        except KeyFileError:
            return None

    def _check_connection(self, planned: PlannedCamera, camera: NewCamera) -> None:
        if camera.url == PUSH_URL:
            if planned.changed & _LOGIN:
                self._check_publisher(planned, camera)
        elif "url" in planned.changed:
            self._check_url("url", camera.url)
        if "sub_url" in planned.changed and camera.sub_url is not None:
            self._check_url("sub_url", camera.sub_url)

    def _check_publisher(self, planned: PlannedCamera, camera: NewCamera) -> None:
        if not camera.username:
            raise Problem("invalid_field", "username: an encoder that publishes needs one")
        password = None if planned.secret is None else self._keys.unseal(planned.id, planned.secret)
        if len(password or "") < MIN_PUBLISHER_PASSWORD_LENGTH:
            least = f"an encoder's has at least {MIN_PUBLISHER_PASSWORD_LENGTH} characters"
            raise Problem("invalid_field", f"password: {least}")

    def _check_url(self, column: str, url: str) -> None:
        try:
            if url.lower().startswith("file:"):
                os.close(open_media_file(url, self._file_folder))
            else:
                check_url(url, self._egress)
        except StreamError as error:
            raise Problem("invalid_field", f"{column}: {error}") from None


def fields_of(existing: Existing) -> Fields:
    """The columns of a file, but for the password."""
    row = existing.row
    fields: Fields = {"id": row.id, **dict(zip(ROW, _stored(row), strict=True))}
    fields["sharing_departments"] = fields["sharing_departments"] or []
    if fields["sharing_until"] is not None:
        fields["sharing_until"] = from_micros(fields["sharing_until"]).isoformat()
    return fields | {"groups": sorted(existing.groups), "tags": sorted(existing.tags)}


def camera_of(fields: Fields) -> NewCamera:
    """Raises msgspec.ValidationError."""
    given: Fields = {}
    sharing: Fields = {}
    for column, value in fields.items():
        if column.startswith("sharing_"):
            sharing[column.removeprefix("sharing_")] = value
        else:
            given[column] = value
    if sharing:
        given["sharing"] = sharing
    return msgspec.convert(given, NewCamera)


def _unknown(line: CameraLine, camera: NewCamera, trees: Trees) -> LineError | None:
    if camera.department_id not in trees.departments:
        message = f"there is no department {camera.department_id}"
        return _error(line, "department_id", message, "unknown_department")
    for group in camera.groups:
        if group not in trees.groups:
            return _error(line, "groups", f"there is no group {group}", "unknown_group")
    return None


def _row_of(camera: NewCamera) -> tuple[Any, ...]:
    terms = _VALUES_OF_NO_TERMS if camera.sharing == _NO_TERMS else _values_of(camera.sharing)
    return (*_read_plain(camera), *terms)


def _values_of(terms: SharingTerms) -> tuple[Any, ...]:
    values = column_values({"sharing": terms})
    return tuple(values[column] for column in _TERMS)


_read_plain = attrgetter(*_PLAIN)
_read_row = attrgetter(*ROW)
_VALUES_OF_NO_TERMS = _values_of(_NO_TERMS)


def _stored(row: sa.Row[Any]) -> tuple[Any, ...]:
    """The values of `ROW`."""
    values: tuple[Any, ...] = _read_row(row)
    # no departments are stored as null, or as an empty list
    at = _AT["sharing_departments"]
    return (*values[:at], values[at] or None, *values[at + 1 :])


def _invalid(line: CameraLine, error: msgspec.ValidationError) -> LineError:
    found = _PLACE.fullmatch(str(error))
    if found is None:
        return LineError(line=line.line, code="invalid_field", message=str(error))
    message, field, inner = found.groups()
    return _error(line, f"{field}_{inner}" if inner else field, message)


def _error(line: CameraLine, column: str, message: str, code: str = "invalid_field") -> LineError:
    return LineError(line=line.line, column=column, code=code, message=message)
