"""Accounts: persons, jobs and walls, their department, their roles. Nobody raises his own rights here."""

from datetime import timedelta

import msgspec
import sqlalchemy as sa

from gateway.account_entries import (
    AccountSettings,
    CreatedUser,
    IssuedKey,
    NewUser,
    User,
    UserChange,
    account_of,
    read_user,
)
from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.authentication import Authentication
from gateway.clock import Clock, to_micros
from gateway.duty import Duties
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.jobs import JobParticulars, acts_until, check_particulars, jobs_of, may_act
from gateway.passwords import PasswordHashingBusyError, Passwords, generate_password
from gateway.policy_feed import PolicyFacts, PolicyFeed
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.self_grants import grant_serving
from gateway.store.identifiers import fold_username, new_id
from gateway.store.schema import departments, login_sessions, user_roles, users
from gateway.store.sealed_rows import Sealed
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action, Object, ObjectKind, Reason, RoleAssignment
from policies.administration import AccountRefusedError, Refusal


class Accounts:
    def __init__(
        self,
        enforcement: Enforcement,
        feed: PolicyFeed,
        passwords: Passwords,
        authentication: Authentication,
        duties: Duties,
        settings: AccountSettings,
        clock: Clock,
    ) -> None:
        self._enforcement = enforcement
        self._feed = feed
        self._passwords = passwords
        self._authentication = authentication
        self._duties = duties
        self._key_life = timedelta(days=settings.key_days)
        self._clock = clock

    async def create(self, principal: Principal, new: NewUser, circumstances: Circumstances) -> CreatedUser:
        """Raises Problem `access_denied`, `account_refused` (role), `conflict` (name or id taken) or
        `invalid_field`.
        """
        if new.kind == "job" and new.password is not None:
            raise Problem("invalid_field", "password: a job's key is generated")
        generated = None if new.password is not None else generate_password()
        password_hash = await self._hash(new.password or generated or "")
        user = User(
            id=new.id or new_id(),
            username=new.username,
            display_name=new.display_name,
            department_id=new.department_id,
            kind=new.kind,
            enabled=True,
            locale=new.locale,
            roles=sorted(set(new.roles)),
            job=new.job,
            key_expires_at=self._clock() + self._key_life if new.kind == "job" else None,
        )

        async def act(work: Unit, grant: Grant) -> CreatedUser | Refused:
            if (refused := self._refused(principal, user)) is not None:
                return refused
            if (problem := await self._misfit(work, user)) is not None:
                return Refused(problem)
            if await _taken(work, user):
                return Refused(Problem("conflict", f"user {user.username} exists"))
            await insert_user(work, user, password_hash)
            event = grant.event(AuditKind.USER_CREATED, _described(user))
            await work.seal(event, (Sealed.USER, user.id))
            await self._write_facts(work, [user.id])
            return CreatedUser(user=user, password=generated)

        return await self._enforcement.perform(
            principal,
            Action.USER_MANAGE,
            Object(ObjectKind.DEPARTMENT, user.department_id),
            circumstances,
            f"create user {user.username}",
            act,
        )

    async def change(
        self, principal: Principal, user: User, change: UserChange, circumstances: Circumstances
    ) -> User:
        """Raises Problem `access_denied`, `account_refused` (nobody administers his own account) or
        `invalid_field`.
        """
        given = {k: v for k, v in msgspec.structs.asdict(change).items() if v is not msgspec.UNSET}
        password = given.pop("password", None)
        password_hash = None if password is None else await self._hash(password)
        if "roles" in given:
            given["roles"] = sorted(set(given["roles"]))

        async def act(work: Unit, grant: Grant) -> User | Refused:
            # as it is now: whoever changed it a moment ago must not have his change undone
            present = await read_user(work.conn, user.id) or user
            changed = msgspec.structs.replace(present, **given)
            if (refused := self._refused(principal, present, changed)) is not None:
                return refused
            if present.kind == "job" and password_hash is not None:
                return Refused(Problem("invalid_field", "password: a job's key is issued, not chosen"))
            if given.keys() & {"roles", "job"} and (problem := await self._misfit(work, changed)):
                return Refused(problem)
            if not await work.is_sealed((Sealed.USER, user.id)):
                return Refused(Problem("conflict", f"user {user.id}", reason=Reason.NOT_IN_LEDGER))
            await self._write(work, changed, password_hash)
            if password_hash is not None:
                await self._authentication.end_logins(work, user.id, principal)
            told = f"{_described(changed)}: {', '.join(sorted(msgspec.to_builtins(change)))}"
            await work.seal(grant.event(AuditKind.USER_CHANGED, told), (Sealed.USER, user.id))
            await self._write_facts(work, [user.id, *await jobs_of(work.conn, user.id)])
            if not changed.enabled:
                await self._duties.end_of(work, principal, user.id)
            return changed

        return await self._enforcement.perform(
            principal,
            Action.USER_MANAGE,
            Object(ObjectKind.DEPARTMENT, user.department_id),
            circumstances,
            f"change user {user.username}",
            act,
        )

    async def issue_key(self, principal: Principal, user: User, circumstances: Circumstances) -> IssuedKey:
        """A new key for a job: the old one, and all that logged in with it, opens nothing any more.

        Raises Problem `access_denied`, `account_refused` or `invalid_field`.
        """
        password = generate_password()
        password_hash = await self._hash(password)

        async def act(work: Unit, grant: Grant) -> IssuedKey | Refused:
            present = await read_user(work.conn, user.id) or user
            if (refused := self._refused(principal, present)) is not None:
                return refused
            if present.kind != "job":
                return Refused(Problem("invalid_field", "only jobs have keys"))
            if not await work.is_sealed((Sealed.USER, user.id)):
                return Refused(Problem("conflict", f"user {user.id}", reason=Reason.NOT_IN_LEDGER))
            expires_at = grant.at + self._key_life
            values = {"password_hash": password_hash, "password_expires_at": to_micros(expires_at)}
            await work.conn.execute(sa.update(users).where(users.c.id == user.id).values(**values))
            await self._authentication.end_logins(work, user.id, principal)
            told = f"{user.username}: a new key until {expires_at.isoformat(timespec='seconds')}"
            await work.seal(grant.event(AuditKind.KEY_ISSUED, told), (Sealed.USER, user.id))
            await self._write_facts(work, [user.id])
            return IssuedKey(password=password, expires_at=expires_at)

        return await self._enforcement.perform(
            principal,
            Action.USER_MANAGE,
            Object(ObjectKind.DEPARTMENT, user.department_id),
            circumstances,
            f"issue a key for {user.username}",
            act,
        )

    async def _hash(self, password: str) -> str:
        try:
            return await self._passwords.hash(password)
        except PasswordHashingBusyError:
            raise Problem("login_busy", headers={"Retry-After": "1"}) from None

    async def _write(self, work: Unit, user: User, password_hash: str | None) -> None:
        values: dict[str, object] = {
            "display_name": user.display_name,
            "enabled": user.enabled,
            "locale": user.locale,
            **_job_columns(user.job),
        }
        if password_hash is not None:
            values["password_hash"] = password_hash
        await work.conn.execute(sa.update(users).where(users.c.id == user.id).values(**values))
        if not user.enabled:
            ended = sa.select(users.c.id).where(
                sa.or_(users.c.id == user.id, users.c.responsible_id == user.id)
            )
            await work.conn.execute(sa.delete(login_sessions).where(login_sessions.c.user_id.in_(ended)))
        await work.conn.execute(sa.delete(user_roles).where(user_roles.c.user_id == user.id))
        await _insert_roles(work, user)

    async def _write_facts(self, work: Unit, user_ids: list[str]) -> None:
        """Accounts as they now are in the database: a job acts while its responsible person may.

        One that is not what the ledger has of it, holds and does nothing, as after a start.
        """
        sealed = [each for each in user_ids if await work.is_sealed((Sealed.USER, each))]
        found = await work.conn.execute(
            sa.select(users, may_act.label("acts")).where(users.c.id.in_(user_ids))
        )
        rows = found.all()
        roles: dict[str, list[RoleAssignment]] = {row.id: [] for row in rows}
        for held in await work.conn.execute(sa.select(user_roles).where(user_roles.c.user_id.in_(user_ids))):
            roles[held.user_id].append(RoleAssignment(held.role, held.department_id))

        def write(engine: PolicyFacts) -> None:
            for row in rows:
                if row.id in sealed:
                    held, until = roles[row.id], acts_until(row)
                    engine.set_user(row.id, row.department_id, held, enabled=row.acts, until=until)
                else:
                    engine.set_user(row.id, row.department_id, enabled=False)

        await self._feed.write(work, write, about=[f"user:{row.id}" for row in rows])

    async def _misfit(self, work: Unit, user: User) -> Problem | None:
        """What does not go with an account's kind."""
        if (user.kind == "job") is (user.job is None):
            return Problem("invalid_field", "job: every job has its particulars, and nobody else has any")
        if user.kind == "wall" and user.roles:
            return Problem("invalid_field", "roles: a wall holds none")
        if user.kind == "job" and any(map(self._enforcement.is_office, user.roles)):
            return Problem("invalid_field", "roles: a program holds no office")
        if user.job is None:
            return None
        answering = user.job.responsible_id
        given = await grant_serving(work.conn, account_of(user), answering, work.now)
        if given is not None:
            told = f"{answering} gave grant {given}, which reaches {user.username}: he cannot answer for it"
            return Problem("account_refused", told, reason=Refusal.SELF_GRANT.value)
        return await check_particulars(work.conn, user.job, user.department_id)

    def _refused(self, principal: Principal, *users: User) -> Refused | None:
        """Whether the principal may not administer an account as it is, or as it shall be."""
        try:
            for user in users:
                self._enforcement.check_account(account_of(user), principal.id)
            if users[-1].enabled:
                self._enforcement.check_separation(account_of(users[-1]))
        except AccountRefusedError as error:
            return Refused(Problem("account_refused", str(error), reason=error.code.value))
        return None


class BootstrapRefusedError(Exception):
    """The installation has its first administrator already."""

    code = "already_bootstrapped"


async def bootstrap(store: Store, password_hash: str, username: str, department_name: str) -> None:
    """Make the root department and the first system administrator, once. Raises BootstrapRefusedError."""

    async def unit(work: Unit) -> bool:
        if (await work.conn.execute(sa.select(sa.func.count()).select_from(users))).scalar_one():
            return False
        department_id = new_id()
        await work.conn.execute(
            sa.insert(departments).values(
                id=department_id, parent_id=None, name=department_name, civil_code=None, created_at=work.now
            )
        )
        user = User(
            id=new_id(),
            username=username,
            display_name=username,
            department_id=department_id,
            kind="person",
            enabled=True,
            locale=None,
            roles=["system-administrator"],
        )
        await insert_user(work, user, password_hash)
        event = AuditEvent(
            kind=AuditKind.INSTALLATION,
            outcome=Outcome.OK,
            content=f"first administrator {username} of {department_name}",
            actor_id=user.id,
            actor_name=user.display_name,
            unit_id=department_id,
            unit_name=department_name,
        )
        await work.seal(event, (Sealed.DEPARTMENT, department_id), (Sealed.USER, user.id))
        await work.bump_revision()
        return True

    if not await store.run(unit):
        raise BootstrapRefusedError("this installation has accounts already")


def _job_columns(job: JobParticulars | None) -> dict[str, object]:
    return {} if job is None else msgspec.to_builtins(job)


async def insert_user(work: Unit, user: User, password_hash: str) -> None:
    await work.conn.execute(
        sa.insert(users).values(
            id=user.id,
            username=user.username,
            username_folded=fold_username(user.username),
            display_name=user.display_name,
            department_id=user.department_id,
            kind=user.kind,
            password_hash=password_hash,
            enabled=True,
            locale=user.locale,
            created_at=work.now,
            password_expires_at=None if user.key_expires_at is None else to_micros(user.key_expires_at),
            **_job_columns(user.job),
        )
    )
    await _insert_roles(work, user)


async def _insert_roles(work: Unit, user: User) -> None:
    if user.roles:
        await work.conn.execute(
            sa.insert(user_roles),
            [{"user_id": user.id, "role": role, "department_id": user.department_id} for role in user.roles],
        )


async def _taken(work: Unit, user: User) -> bool:
    found = await work.conn.execute(
        sa.select(users.c.id).where(
            sa.or_(users.c.id == user.id, users.c.username_folded == fold_username(user.username))
        )
    )
    return found.first() is not None


def _described(user: User) -> str:
    return f"{user.username} ({user.display_name}), roles: {', '.join(user.roles) or 'none'}"
