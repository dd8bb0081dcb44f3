"""Jobs: accounts of programs. Somebody answers for each, and says what it does, for whom, and from where.

A job acts only while its responsible person may: a program whose person has left is nobody's, hence denied.
What it runs ends with its key, unless that is renewed in time.
"""

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import from_micros
from gateway.forms import Identifier, Name
from gateway.problems import Problem
from gateway.store.schema import departments, users

MAX_RECIPIENTS = 16
MAX_NETWORKS = 16
MAX_RESULT_DAYS = 3650
MAX_KEY_DAYS = 90

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class JobParticulars(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job is for (PIPL article 21, Network Data Regulations article 12).

    `responsible_id`: the person who answers for it. `processing`: what it does with the pictures.
    `recipients`: who gets its results, which are kept for `result_days`. `networks`: where it may come from,
    in CIDR notation.
    """

    responsible_id: Identifier
    processing: Name
    recipients: Annotated[list[Name], Meta(min_length=1, max_length=MAX_RECIPIENTS)]
    result_days: Annotated[int, Meta(ge=0, le=MAX_RESULT_DAYS)]
    networks: Annotated[
        list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=MAX_NETWORKS)
    ]


_responsible = users.alias("responsible_person")
may_act = sa.and_(
    users.c.enabled,
    sa.or_(
        users.c.kind != "job",
        sa.exists().where(_responsible.c.id == users.c.responsible_id, _responsible.c.enabled),
    ),
)
"""Of a row of `users`: whether the account may do anything at all."""


def acts_until(row: sa.Row[Any]) -> datetime | None:
    """When an account of `users` may do nothing any more: a job without a key never could."""
    return from_micros(row.password_expires_at or 0) if row.kind == "job" else None


def may_come_from(networks: Sequence[str], remote: str) -> bool:
    """Whether an address lies in one of a job's networks. One that cannot be read lies in none."""
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _parsed(tuple(networks)))


@lru_cache(maxsize=1024)
def _parsed(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, networks))


async def check_particulars(conn: AsyncConnection, job: JobParticulars, department_id: str) -> Problem | None:
    """Why a job of the department cannot have these particulars; None if it can."""
    try:
        _parsed(tuple(job.networks))
    except ValueError as error:
        return Problem("invalid_field", f"job.networks: {error}")
    query = sa.select(users.c.department_id).where(
        users.c.id == job.responsible_id, users.c.kind == "person", users.c.enabled
    )
    place = (await conn.execute(query)).scalar_one_or_none()
    if place is not None and (
        place in await upward(conn, department_id) or department_id in await upward(conn, place)
    ):
        return None
    told = "an enabled person of the job's department, of one above it or of one below it"
    return Problem("invalid_field", f"job.responsible_id: not {told}")


async def upward(conn: AsyncConnection, department_id: str) -> set[str]:
    """A department and those above it."""
    line = (
        sa.select(departments.c.id, departments.c.parent_id)
        .where(departments.c.id == department_id)
        .cte(recursive=True)
    )
    line = line.union(
        sa.select(departments.c.id, departments.c.parent_id).join(line, departments.c.id == line.c.parent_id)
    )
    return set((await conn.execute(sa.select(line.c.id))).scalars())


async def jobs_of(conn: AsyncConnection, person_id: str) -> list[str]:
    """Ids of the jobs that a person answers for."""
    query = sa.select(users.c.id).where(users.c.responsible_id == person_id).order_by(users.c.id)
    return list((await conn.execute(query)).scalars())
