"""Who acts: a person, a job or a wall that has proven who it is, and how the ledger names it."""

from typing import TypedDict

import msgspec

from gateway.audit.records import DetailValue


class RoleHeld(msgspec.Struct, frozen=True):
    """A role, and the department in whose subtree it was assigned."""

    role: str
    department: str


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed on at a wall, and until when (microseconds since the epoch, UTC)."""

    id: str
    person_id: str
    person_name: str
    unit_id: str
    unit_name: str
    ends_at: int


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A person, a job or a wall that has proven who it is."""

    id: str
    username: str
    display_name: str
    department_id: str
    department_name: str
    kind: str
    locale: str
    roles: tuple[RoleHeld, ...]
    login: bytes
    """The hash of the token that it came with: names this log-in, opens nothing."""
    must_enrol: bool = False
    """An administrator without a second factor: may set one up, and nothing else."""
    has_second_factor: bool = False
    undertaking_version: int | None = None
    """The newest undertaking that this person accepted; a job's responsible person's."""
    on_duty: Duty | None = None
    """Of a wall: the person who answers for what it shows now."""
    networks: tuple[str, ...] | None = None
    """Of a job: where it may come from, in CIDR notation; None: anywhere."""


class Actor(TypedDict):
    actor_id: str
    actor_name: str
    unit_id: str
    unit_name: str


def actor_of(principal: Principal) -> Actor:
    """The ledger's columns for who acted: unit and name (单位、姓名); at a wall, of who is on duty."""
    if principal.on_duty is not None:
        return person_of(principal.on_duty)
    return {
        "actor_id": principal.id,
        "actor_name": principal.display_name,
        "unit_id": principal.department_id,
        "unit_name": principal.department_name,
    }


def person_of(duty: Duty) -> Actor:
    """The ledger's columns for who is on duty at a wall."""
    return {
        "actor_id": duty.person_id,
        "actor_name": duty.person_name,
        "unit_id": duty.unit_id,
        "unit_name": duty.unit_name,
    }


def wall_of(wall_id: str, duty: Duty) -> dict[str, DetailValue]:
    """What a record of something done at a wall says beside who did it."""
    return {"wall": wall_id, "duty": duty.id}
