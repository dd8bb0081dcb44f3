"""No grant serves its giver. The PDP holds it for himself; this, for the accounts whose looks he answers for.

These are programs, and walls while he is on duty there. Whoever gave them access, or a department or role
of theirs, cannot answer for them; and whoever answers for them gives them none.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs import upward
from gateway.store.schema import duty_sessions, grants, user_roles, users
from policies.access import Effect, RoleAssignment, Subject, SubjectKind
from policies.administration import Account


async def account_served(
    conn: AsyncConnection, giver_id: str, subject: Subject, effect: Effect, at: int
) -> str | None:
    """The id of an account that a grant would serve, and that its giver answers for at `at` (µs)."""
    if effect is Effect.DENY and subject.kind is not SubjectKind.USER:
        return None
    on_duty = sa.select(duty_sessions.c.wall_id).where(
        duty_sessions.c.person_id == giver_id,
        duty_sessions.c.ended_at.is_(None),
        duty_sessions.c.ends_at > at,
    )
    query = sa.select(users.c.id, users.c.department_id).where(
        sa.or_(users.c.responsible_id == giver_id, users.c.id.in_(on_duty))
    )
    for row in (await conn.execute(query.order_by(users.c.id))).all():
        held = await conn.execute(sa.select(user_roles.c.role).where(user_roles.c.user_id == row.id))
        roles = tuple(RoleAssignment(role) for role in held.scalars())
        if subject in await _reaching(
            conn, Account(user_id=row.id, department_id=row.department_id, roles=roles)
        ):
            return str(row.id)
    return None


async def grant_serving(conn: AsyncConnection, account: Account, giver_id: str, at: int) -> str | None:
    """The id of a grant that serves an account, that a person gave, and that is not over at `at` (µs)."""
    subjects = [(subject.kind.value, subject.id) for subject in await _reaching(conn, account)]
    query = sa.select(grants.c.id).where(
        sa.tuple_(grants.c.subject_kind, grants.c.subject_id).in_(subjects),
        sa.or_(grants.c.subject_kind == SubjectKind.USER.value, grants.c.effect == Effect.ALLOW.value),
        grants.c.created_by == giver_id,
        grants.c.revoked_at.is_(None),
        sa.or_(grants.c.valid_to.is_(None), grants.c.valid_to > at),
    )
    return (await conn.execute(query.order_by(grants.c.id).limit(1))).scalar_one_or_none()


async def _reaching(conn: AsyncConnection, account: Account) -> set[Subject]:
    """Whom a grant can name to reach an account."""
    departments = () if account.department_id is None else await upward(conn, account.department_id)
    return {
        Subject(SubjectKind.USER, account.user_id),
        *(Subject(SubjectKind.DEPARTMENT, each) for each in departments),
        *(Subject(SubjectKind.ROLE, each.role) for each in account.roles),
    }
