"""Setting a second factor up, taking it away, and resetting another's who has lost it."""

import msgspec
import sqlalchemy as sa

from gateway.accounts import User, read_user
from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.authentication import Authentication, Principal, actor_of
from gateway.clock import Clock, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.keys import InstallationKeys
from gateway.login_failures import FailureKind
from gateway.problems import Problem
from gateway.second_factor import (
    forget,
    new_recovery_codes,
    new_secret,
    provisioning_uri,
    qr_code,
    recovery_code_hash,
    step_of,
    use_code,
)
from gateway.store.identifiers import fold_username
from gateway.store.schema import login_sessions, recovery_codes, users
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action, Object, ObjectKind, RoleAssignment
from policies.administration import Account, AccountRefusedError

WRONG_CODE = "wrong_code"


class OfferedFactor(msgspec.Struct, frozen=True, kw_only=True):
    """For an authenticator app, shown this once. `qr`: a data URI of an SVG that says the same as `uri`."""

    secret: str
    uri: str
    qr: str

    def __repr__(self) -> str:
        return "OfferedFactor(...)"


class RecoveryCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Each replaces one code of the app, once. Shown this once; only hashes are kept."""

    recovery_codes: list[str]

    def __repr__(self) -> str:
        return "RecoveryCodes(...)"


class Enrolment:
    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        authentication: Authentication,
        keys: InstallationKeys,
        clock: Clock,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._authentication = authentication
        self._keys = keys
        self._clock = clock

    async def offer(self, principal: Principal) -> OfferedFactor:
        """A new secret, in place of one that was not confirmed. Raises Problem `second_factor_refused`."""
        secret = new_secret()
        sealed = self._keys.seal_second_factor(principal.id, secret)

        async def unit(work: Unit) -> bool:
            offered = await work.conn.execute(
                sa.update(users)
                .where(users.c.id == principal.id, users.c.totp_enabled_at.is_(None))
                .values(totp_secret=sealed, totp_last_step=None)
            )
            return offered.rowcount == 1

        if not await self._store.run(unit):
            raise Problem("second_factor_refused", "there is one already: take it away first")
        uri = provisioning_uri(secret, principal.username)
        return OfferedFactor(secret=secret, uri=uri, qr=qr_code(uri))

    async def confirm(self, principal: Principal, code: str, remote: str, request_id: str) -> RecoveryCodes:
        """From now on each log-in needs a code. Raises Problem `second_factor_refused`, `login_throttled`."""
        recovery = new_recovery_codes()

        async def unit(work: Unit) -> bool | None:
            query = sa.select(users.c.totp_secret).where(
                users.c.id == principal.id, users.c.totp_enabled_at.is_(None)
            )
            sealed = (await work.conn.execute(query)).scalar_one_or_none()
            if sealed is None:
                return None
            now = self._clock()
            step = step_of(self._keys.unseal_second_factor(principal.id, sealed), code, now, None)
            if step is None:
                return False
            await work.conn.execute(
                sa.update(users)
                .where(users.c.id == principal.id)
                .values(totp_last_step=step, totp_enabled_at=to_micros(now))
            )
            await work.conn.execute(
                sa.insert(recovery_codes),
                [{"user_id": principal.id, "code_hash": recovery_code_hash(text)} for text in recovery],
            )
            work.record(_changed(principal, "set up his second factor", remote, request_id))
            return True

        async with self._authentication.attempts.one(fold_username(principal.username), remote):
            confirmed = await self._store.run(unit)
            if confirmed is None:
                raise Problem("second_factor_refused", "none was offered, or it is confirmed already")
            if not confirmed:
                await self._wrong(principal, remote)
        return RecoveryCodes(recovery_codes=recovery)

    async def remove(self, principal: Principal, code: str, remote: str, request_id: str) -> None:
        """Take one's own away. Raises Problem `second_factor_refused`, `login_throttled`."""

        async def unit(work: Unit) -> bool:
            if await use_code(work, self._keys, principal.id, code, self._clock()) is None:
                return False
            await forget(work, principal.id)
            work.record(_changed(principal, "take his second factor away", remote, request_id))
            return True

        async with self._authentication.attempts.one(fold_username(principal.username), remote):
            if not await self._store.run(unit):
                await self._wrong(principal, remote)

    async def reset(self, principal: Principal, user: User, circumstances: Circumstances) -> None:
        """Somebody has lost his: he logs in anew with his password alone, and sets up another.

        Raises Problem `access_denied` or `account_refused`.
        """
        content = f"reset {user.username}'s second factor"

        async def act(work: Unit, grant: Grant) -> Refused | None:
            present = await read_user(work.conn, user.id) or user
            try:
                self._enforcement.check_account(_account(present), principal.id)
            except AccountRefusedError as error:
                return Refused(Problem("account_refused", str(error), reason=error.code.value))
            await forget(work, user.id)
            await work.conn.execute(sa.delete(login_sessions).where(login_sessions.c.user_id == user.id))
            work.record(grant.event(AuditKind.SECOND_FACTOR_CHANGED, content))
            return None

        await self._enforcement.perform(
            principal,
            Action.USER_MANAGE,
            Object(ObjectKind.DEPARTMENT, user.department_id),
            circumstances,
            content,
            act,
        )

    async def _wrong(self, principal: Principal, remote: str) -> None:
        await self._authentication.attempts.failed(
            FailureKind.CODE, fold_username(principal.username), remote
        )
        raise Problem("second_factor_refused", "the code is wrong", reason=WRONG_CODE)


def _account(user: User) -> Account:
    roles = tuple(RoleAssignment(role, user.department_id) for role in user.roles)
    return Account(user_id=user.id, department_id=user.department_id, roles=roles)


def _changed(principal: Principal, content: str, remote: str, request_id: str) -> AuditEvent:
    return AuditEvent(
        kind=AuditKind.SECOND_FACTOR_CHANGED,
        outcome=Outcome.OK,
        content=content,
        **actor_of(principal),
        resource=f"user:{principal.id}",
        remote=remote,
        request_id=request_id,
    )
