"""What people may write into the catalogue: the shapes of bodies and of lines of a file, and their checks.

A shape is checked by msgspec when it is read; what one field says about another by `check_item`.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.national_codes import NationalCodeError, Network, check_civil_code, check_device_code
from gateway.problems import Problem
from policies.access import SharingMode

MAX_GROUPS_OF_A_CAMERA = 64
MAX_TAGS_OF_A_CAMERA = 32
MAX_SHARING_DEPARTMENTS = 256
MAX_SHARING_PURPOSES = 64

END = r"(?![\s\S])"
"""The end of a text in Python's and in JSON schema's patterns; Python's `$` lets a line feed follow."""

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+" + END)]
Line = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*" + END)]
Text = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00\x7f]*" + END)]
Identifier = Annotated[
    str,
    Meta(min_length=1, max_length=64, pattern=r"^(?!(ex|im)port(?![\s\S]))[A-Za-z0-9._-]+" + END),
]
"""Not `export` or `import`, which are addresses of their own beside the cameras'."""
_LETTERS = r"[^\x00-\x20\x7f,;\u3000\uff0c\uff1b\u3001]+"
Tag = Annotated[str, Meta(min_length=1, max_length=32, pattern=f"^{_LETTERS}( {_LETTERS})*{END}")]
"""A word of one's own for cameras; without what separates words in a list, and no space at its ends."""

CameraUrl = Annotated[str, Meta(min_length=1, max_length=2048)]
CivilCode = Annotated[str, Meta(min_length=2, max_length=12)]
DeviceCode = Annotated[str, Meta(min_length=20, max_length=20)]
PointClass = Annotated[int, Meta(ge=1, le=3)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
Latitude = Annotated[float, Meta(ge=-90, le=90)]
RetentionDays = Annotated[int, Meta(ge=0, le=36_500)]
Bandwidth = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Groups = Annotated[list[Identifier], Meta(max_length=MAX_GROUPS_OF_A_CAMERA)]
Tags = Annotated[list[Tag], Meta(max_length=MAX_TAGS_OF_A_CAMERA)]


class Direction(StrEnum):
    """Where a camera looks: GB/T 28181-2022 DirectionType 1 to 8, in this order."""

    EAST = "east"
    WEST = "west"
    SOUTH = "south"
    NORTH = "north"
    SOUTHEAST = "southeast"
    NORTHEAST = "northeast"
    SOUTHWEST = "southwest"
    NORTHWEST = "northwest"


_Purposes = Annotated[list[Identifier], Meta(max_length=MAX_SHARING_PURPOSES)]


class _Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mode: SharingMode = SharingMode.CONDITIONAL
    departments: Annotated[list[Identifier], Meta(max_length=MAX_SHARING_DEPARTMENTS)] = []
    scope: Text = ""
    purpose: Text = ""
    frequency: Line = ""
    until: Annotated[datetime, Meta(tz=True)] | None = None


class SharingTerms(_Terms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On what terms the owner shares a camera (共享方式、共享范围、用途、提供频度、时效).

    `departments`, of mode unconditional only: who needs no grant to watch it live. `until`: from then on it
    counts as not shared. Scope, purpose and frequency are words for people. `purposes`: codes of those for
    which alone anybody, the owner's people too, may look at it; null means any, an empty list none.
    """

    purposes: _Purposes | None = None


class SharingChange(_Terms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """New terms: what is left out is as in a new camera, but for `purposes`, which then stay as they are.

    Else whoever changes a word would lift the owner's list without knowing of it.
    """

    purposes: _Purposes | None | UnsetType = UNSET

    def of(self, before: SharingTerms) -> SharingTerms:
        purposes = before.purposes if self.purposes is UNSET else self.purposes
        return SharingTerms(**msgspec.structs.asdict(self) | {"purposes": purposes})


class NewDepartment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`civil_code`: administrative division code after GB/T 2260."""

    name: Name
    id: Identifier | None = None
    parent_id: Identifier | None = None
    civil_code: CivilCode | None = None


class DepartmentChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes; another `parent_id` moves it, with all that it has."""

    name: Name | UnsetType = UNSET
    parent_id: Identifier | None | UnsetType = UNSET
    civil_code: CivilCode | None | UnsetType = UNSET


class NewGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    department_id: Identifier
    id: Identifier | None = None
    parent_id: Identifier | None = None


class GroupChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes; another `parent_id` moves it, with all that it has."""

    name: Name | UnsetType = UNSET
    parent_id: Identifier | None | UnsetType = UNSET


class NewCamera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url` must not contain a credential; `password` is stored sealed and never answered again.

    `url` is `push:` for a camera that cannot be pulled: its encoder publishes to the gateway, with `username`
    and `password`. `sub_url`: of its second, smaller stream, with the same login. `point_class`: 1, 2 or 3
    (GB/T 28181-2022 PointType). Longitude and latitude: degrees, WGS 84, both or none. `retention_days`: how
    long the source keeps its recordings.
    """

    name: Name
    department_id: Identifier
    url: CameraUrl
    sub_url: CameraUrl | None = None
    id: Identifier | None = None
    description: Text = ""
    username: Line | None = None
    password: Line | None = None
    allow_basic: bool = False
    enabled: bool = True
    declared_bandwidth_bps: Bandwidth | None = None
    groups: Groups = []
    code: DeviceCode | None = None
    civil_code: CivilCode | None = None
    point_class: PointClass | None = None
    network: Network | None = None
    place: Line = ""
    longitude: Longitude | None = None
    latitude: Latitude | None = None
    direction: Direction | None = None
    management_unit: Line = ""
    retention_days: RetentionDays | None = None
    tags: Tags = []
    sharing: SharingTerms = SharingTerms()

    def __repr__(self) -> str:
        return f"NewCamera(name={self.name!r})"


class CameraChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes; lists and `sharing` are replaced as a whole.

    Another `department_id` gives the camera to another owner: who changes it must manage cameras of both.
    """

    name: Name | UnsetType = UNSET
    department_id: Identifier | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    url: CameraUrl | UnsetType = UNSET
    sub_url: CameraUrl | None | UnsetType = UNSET
    username: Line | None | UnsetType = UNSET
    password: Line | None | UnsetType = UNSET
    allow_basic: bool | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    declared_bandwidth_bps: Bandwidth | None | UnsetType = UNSET
    groups: Groups | UnsetType = UNSET
    code: DeviceCode | None | UnsetType = UNSET
    civil_code: CivilCode | None | UnsetType = UNSET
    point_class: PointClass | None | UnsetType = UNSET
    network: Network | None | UnsetType = UNSET
    place: Line | UnsetType = UNSET
    longitude: Longitude | None | UnsetType = UNSET
    latitude: Latitude | None | UnsetType = UNSET
    direction: Direction | None | UnsetType = UNSET
    management_unit: Line | UnsetType = UNSET
    retention_days: RetentionDays | None | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    sharing: SharingChange | UnsetType = UNSET

    def __repr__(self) -> str:
        return "CameraChange(...)"


def check_item(
    *,
    code: str | None = None,
    civil_code: str | None = None,
    network: str | None = None,
    longitude: float | None = None,
    latitude: float | None = None,
    sharing: SharingTerms | None = None,
) -> None:
    """What no shape can say of a camera's fields. Raises Problem `invalid_field`, the field's name first."""
    if code is not None:
        _check("code", lambda: check_device_code(code, network))
    if civil_code is not None:
        _check("civil_code", lambda: check_civil_code(civil_code))
    for name, degrees, other in (("longitude", longitude, latitude), ("latitude", latitude, longitude)):
        if degrees is None and other is not None:
            raise _invalid(name, "longitude and latitude, or neither")
    if sharing is not None:
        _check_sharing(sharing)


def check_department(civil_code: str | None) -> None:
    """Raises Problem `invalid_field`."""
    if civil_code is not None:
        _check("civil_code", lambda: check_civil_code(civil_code))


def check_sharing_departments(sharing: SharingTerms, known: Collection[str]) -> None:
    """Raises Problem `invalid_field` for a department that does not exist."""
    for department_id in sharing.departments:
        if department_id not in known:
            raise _invalid("sharing.departments", f"there is no department {department_id}")


def check_sharing_purposes(sharing: SharingTerms, known: Collection[str]) -> None:
    """Raises Problem `invalid_field` for a purpose that does not exist."""
    for code in sharing.purposes or ():
        if code not in known:
            raise _invalid("sharing.purposes", f"there is no purpose {code}")


def _check_sharing(sharing: SharingTerms) -> None:
    if sharing.mode is SharingMode.UNCONDITIONAL:
        if not sharing.departments:
            raise _invalid("sharing.departments", "unconditional sharing names the departments")
    elif sharing.departments:
        raise _invalid("sharing.departments", f"of unconditional sharing only, not of {sharing.mode}")


def _check(field: str, check: Callable[[], None]) -> None:
    try:
        check()
    except NationalCodeError as error:
        raise _invalid(field, str(error)) from None


def _invalid(field: str, why: str) -> Problem:
    return Problem("invalid_field", f"{field}: {why}")
