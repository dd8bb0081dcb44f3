"""Principals as the database has them: with their roles, and at a wall with who is on duty, in one query."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from gateway.jobs import may_act
from gateway.principals import Duty, Principal, RoleHeld
from gateway.store.schema import departments, duty_sessions, login_sessions, user_roles, users

_person = users.alias("person")
_person_unit = departments.alias("person_unit")
_responsible = users.alias("responsible")
_undertaking_of_job = sa.select(_responsible.c.undertaking_version).where(
    _responsible.c.id == users.c.responsible_id, _responsible.c.enabled
)
_WITH_ROLES = (
    sa.select(
        users.c.id,
        users.c.username,
        users.c.display_name,
        users.c.department_id,
        departments.c.name.label("department_name"),
        users.c.kind,
        users.c.locale,
        users.c.totp_enabled_at,
        users.c.networks,
        sa.case(
            (users.c.kind == "job", _undertaking_of_job.scalar_subquery()),
            (users.c.kind == "wall", _person.c.undertaking_version),
            else_=users.c.undertaking_version,
        ).label("undertaking_version"),
        user_roles.c.role,
        user_roles.c.department_id.label("role_department_id"),
        duty_sessions.c.id.label("duty_id"),
        duty_sessions.c.ends_at.label("duty_ends_at"),
        _person.c.id.label("person_id"),
        _person.c.display_name.label("person_name"),
        _person_unit.c.id.label("person_unit_id"),
        _person_unit.c.name.label("person_unit_name"),
    )
    .join(departments, departments.c.id == users.c.department_id)
    .outerjoin(user_roles, user_roles.c.user_id == users.c.id)
    .outerjoin(
        duty_sessions,
        sa.and_(
            duty_sessions.c.wall_id == users.c.id,
            duty_sessions.c.ended_at.is_(None),
            duty_sessions.c.ends_at > sa.bindparam("now"),
        ),
    )
    .outerjoin(_person, sa.and_(_person.c.id == duty_sessions.c.person_id, _person.c.enabled))
    .outerjoin(_person_unit, _person_unit.c.id == _person.c.department_id)
    .where(may_act)
    .order_by(user_roles.c.role, user_roles.c.department_id)
)
"""One row for each role that the user holds; one without a role if he holds none."""
OF_USER = _WITH_ROLES.where(users.c.id == sa.bindparam("user"))
OF_TOKEN = _WITH_ROLES.join(login_sessions, login_sessions.c.user_id == users.c.id).where(
    login_sessions.c.token_hash == sa.bindparam("hashed"),
    login_sessions.c.expires_at > sa.bindparam("now"),
)


def _duty(row: sa.Row[Any]) -> Duty | None:
    """Of a wall; a person who was disabled answers for nothing any more."""
    if row.person_id is None:
        return None
    return Duty(
        id=row.duty_id,
        person_id=row.person_id,
        person_name=row.person_name,
        unit_id=row.person_unit_id,
        unit_name=row.person_unit_name,
        ends_at=row.duty_ends_at,
    )


def principal_of(rows: Sequence[Any], login: bytes) -> Principal | None:
    """Of the rows of one user, who must enrol for nothing; None without any. `login`: the token's hash."""
    if not rows:
        return None
    row = rows[0]
    return Principal(
        id=row.id,
        username=row.username,
        display_name=row.display_name,
        department_id=row.department_id,
        department_name=row.department_name,
        kind=row.kind,
        locale=row.locale,
        roles=tuple(RoleHeld(row.role, row.role_department_id) for row in rows if row.role is not None),
        login=login,
        has_second_factor=row.totp_enabled_at is not None,
        undertaking_version=row.undertaking_version,
        on_duty=_duty(row),
        networks=tuple(row.networks or ()) if row.kind == "job" else None,
    )
