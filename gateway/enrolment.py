"""Setting a second factor up, taking it away, and resetting another's who has lost it."""

import msgspec
import sqlalchemy as sa

from gateway.account_entries import User, account_of, read_user
from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.authentication import Authentication
from gateway.clock import Clock, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.keys import InstallationKeys
from gateway.login_failures import FailureKind
from gateway.principals import Principal, actor_of
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
from gateway.store.schema import recovery_codes, users
from gateway.store.sealed_rows import Sealed
from gateway.store.store import Store
from gateway.store.unit import Unit, UnitFunction
from policies.access import Action, Object, ObjectKind, Reason
from policies.administration import AccountRefusedError

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

        async def unit(work: Unit) -> Problem | None:
            query = sa.select(users.c.totp_secret).where(
                users.c.id == principal.id, users.c.totp_enabled_at.is_(None)
            )
            sealed = (await work.conn.execute(query)).scalar_one_or_none()
            if sealed is None:
                return Problem("second_factor_refused", "none was offered, or it is confirmed already")
            if not await work.is_sealed((Sealed.USER, principal.id)):
                return _not_in_ledger(principal.id)
            now = self._clock()
            step = step_of(self._keys.unseal_second_factor(principal.id, sealed), code, now, None)
            if step is None:
                return _wrong_code()
            await work.conn.execute(
                sa.update(users)
                .where(users.c.id == principal.id)
                .values(totp_last_step=step, totp_enabled_at=to_micros(now))
            )
            await work.conn.execute(
                sa.insert(recovery_codes),
                [{"user_id": principal.id, "code_hash": recovery_code_hash(text)} for text in recovery],
            )
            event = _changed(principal, "set up his second factor", remote, request_id)
            await work.seal(event, (Sealed.USER, principal.id))
            return None

        await self._try(principal, remote, unit)
        return RecoveryCodes(recovery_codes=recovery)

    async def remove(self, principal: Principal, code: str, remote: str, request_id: str) -> None:
        """Take one's own away. Raises Problem `second_factor_refused`, `login_throttled`."""

        async def unit(work: Unit) -> Problem | None:
            if not await work.is_sealed((Sealed.USER, principal.id)):
                return _not_in_ledger(principal.id)
            if await use_code(work, self._keys, principal.id, code, self._clock()) is None:
                return _wrong_code()
            await forget(work, principal.id)
            event = _changed(principal, "take his second factor away", remote, request_id)
            await work.seal(event, (Sealed.USER, principal.id))
            return None

        await self._try(principal, remote, unit)

    async def reset(self, principal: Principal, user: User, circumstances: Circumstances) -> None:
        """Somebody has lost his: he logs in anew with his password alone, and sets up another.

        Raises Problem `access_denied` or `account_refused`.
        """
        content = f"reset {user.username}'s second factor"

        async def act(work: Unit, grant: Grant) -> Refused | None:
            present = await read_user(work.conn, user.id) or user
            try:
                self._enforcement.check_account(account_of(present), principal.id)
            except AccountRefusedError as error:
                return Refused(Problem("account_refused", str(error), reason=error.code.value))
            if not await work.is_sealed((Sealed.USER, user.id)):
                return Refused(_not_in_ledger(user.id))
            await forget(work, user.id)
            await self._authentication.end_logins(work, user.id, principal)
            await work.seal(grant.event(AuditKind.SECOND_FACTOR_CHANGED, content), (Sealed.USER, user.id))
            return None

        await self._enforcement.perform(
            principal,
            Action.USER_MANAGE,
            Object(ObjectKind.DEPARTMENT, user.department_id),
            circumstances,
            content,
            act,
        )

    async def _try(self, principal: Principal, remote: str, unit: UnitFunction[Problem | None]) -> None:
        """A wrong code counts as a failed log-in."""
        name = fold_username(principal.username)
        attempts = self._authentication.attempts
        async with attempts.one(name, remote):
            problem = await self._store.run(unit)
            if problem is not None:
                if problem.reason == WRONG_CODE:
                    await attempts.failed(FailureKind.CODE, name, remote)
                raise problem


def _wrong_code() -> Problem:
    return Problem("second_factor_refused", "the code is wrong", reason=WRONG_CODE)


def _not_in_ledger(user_id: str) -> Problem:
    """To seal the row anew would make good what somebody has altered."""
    return Problem("conflict", f"user {user_id}", reason=Reason.NOT_IN_LEDGER)


def _changed(principal: Principal, content: str, remote: str, request_id: str) -> AuditEvent:
    return AuditEvent(
        kind=AuditKind.SECOND_FACTOR_CHANGED,
        outcome=Outcome.OK,
        content=content,
        **actor_of(principal),
        remote=remote,
        request_id=request_id,
    )
