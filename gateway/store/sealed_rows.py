"""What a row of the policy decides, as canonical bytes: of them are its seal and the ledger's digest of it.

A grant, a user with his roles and recovery codes, a department, a group, a camera with its groups and tags,
and a role that was made over the API. Whatever is not in these bytes may be altered in the database without
anybody's noticing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.store import schema

_encode = msgspec.json.Encoder(order="sorted").encode


SharingTerms = tuple[str, Sequence[str] | None, int | None, Sequence[str] | None]
"""How a camera is shared, as its columns say: mode, departments, until when, for which purposes."""


class Sealed(StrEnum):
    """The kinds of rows that decide who may do what. The values are those of a record's `resource`."""

    GRANT = "grant"
    USER = "user"
    DEPARTMENT = "department"
    GROUP = "group"
    CAMERA = "camera"
    ROLE = "role"


_CAMERA = Sealed.CAMERA.value  # encoding an enumeration's member takes as long as all the rest

TABLES = {
    Sealed.GRANT: schema.grants,
    Sealed.USER: schema.users,
    Sealed.DEPARTMENT: schema.departments,
    Sealed.GROUP: schema.groups,
    Sealed.CAMERA: schema.cameras,
    Sealed.ROLE: schema.roles,
}


def key_of(kind: Sealed) -> sa.Column[str]:
    """The primary key of a kind's table."""
    return TABLES[kind].c.name if kind is Sealed.ROLE else TABLES[kind].c.id


def state_of(content: bytes) -> str:
    """What the ledger records of a row: the SHA-256 of its content, in hexadecimal. Of a removed row: ""."""
    return hashlib.sha256(content).hexdigest()


def grant_content(row: Any) -> bytes:
    """Of one that is not revoked: a revoked grant is a removed row."""
    return _encode(
        (
            Sealed.GRANT,
            row.id,
            row.subject_kind,
            row.subject_id,
            row.object_kind,
            row.object_id,
            row.actions,
            row.effect,
            row.valid_from,
            row.valid_to,
            row.purposes,
            row.obligations,
            row.schedule,
            row.parent_id,
            row.created_by,
            row.epoch,
        )
    )


def user_content(row: Any, roles: Iterable[Sequence[str]], recovery_codes: Iterable[bytes]) -> bytes:
    """`roles`: pairs of role and department. Who he is, how he proves it, and what he holds."""
    return _encode(
        (
            Sealed.USER,
            row.id,
            row.username_folded,
            row.department_id,
            row.kind,
            bool(row.enabled),
            row.password_hash,
            row.password_expires_at,
            row.totp_enabled_at,
            row.totp_secret if row.totp_enabled_at is not None else None,
            row.responsible_id,
            row.networks,
            sorted(map(tuple, roles)),
            sorted(recovery_codes),
        )
    )


def tree_content(kind: Sealed, row: Any) -> bytes:
    """Of a department or a group."""
    owner = row.department_id if kind is Sealed.GROUP else None
    return _encode((kind, row.id, row.parent_id, owner))


def role_content(row: Any) -> bytes:
    return _encode((Sealed.ROLE, row.name, row.department, row.installation))


def camera_content(
    camera_id: str,
    department_id: str,
    enabled: bool,
    terms: SharingTerms,
    groups: Iterable[str],
    tags: Iterable[str],
) -> bytes:
    """Positions, for a million of them are taken at a start."""
    return _encode((_CAMERA, camera_id, department_id, enabled, *terms, sorted(groups), sorted(tags)))
