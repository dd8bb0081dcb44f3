"""The policies file counts as it was accepted: a role that somebody changed in it gives nothing until then.

Who can edit the file on the host is not who may decide what a role carries. The SHA-256 of the file and of
each role's definition stand sealed in the database; the first start accepts what it finds, and records it.
"""

import hashlib
from collections.abc import Mapping

import msgspec
import structlog

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.policy_feed import PolicyFeed
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.roles import RoleFacts
from gateway.store.sealing import PolicyState, read_policy_state, write_policy_state
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action
from policies.roles import Role

log = structlog.get_logger(__name__)


class PolicyFileStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`sha256`: of the file that was read at the start. `changed_roles`: those that give nothing now."""

    sha256: str
    is_accepted: bool
    changed_roles: list[str]


class PolicyFileAcceptance:
    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        feed: PolicyFeed,
        facts: RoleFacts,
        known: dict[str, Role],
        text: str,
    ) -> None:
        """`text`: the file's; `known`: all roles by name, when this is made exactly the file's."""
        self._store = store
        self._enforcement = enforcement
        self._feed = feed
        self._facts = facts
        self._known = known
        self._of_the_file = dict(known)
        self._sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._accepted: str | None = None
        self._changed: list[str] = []

    async def load(self) -> None:
        """Take their rights from the roles that are not as they were accepted, and record an alarm.

        Call when the facts are in memory, before anything is decided.
        """
        async with self._store.read() as conn:
            state = await read_policy_state(conn, self._store.seals)
        if state is None or state.roles is None:
            state = await self._store.run(self._first)
        accepted = state.roles or {}
        self._accepted = state.file
        self._changed = [
            name for name, role in self._of_the_file.items() if accepted.get(name) != _digest(role)
        ]
        for name in self._changed:
            self._facts.set_role(name, Role())
            self._known[name] = Role()
        if self._changed or state.file != self._sha256:
            log.error("policy_file_not_accepted", changed_roles=self._changed)
            await self._store.record(
                AuditEvent(
                    kind=AuditKind.POLICY_ALARM,
                    outcome=Outcome.ERROR,
                    content="the policies file is not the one that was accepted",
                    reason="policy_file_changed",
                    detail={"sha256": self._sha256, "changed_roles": self._changed},
                )
            )

    @property
    def status(self) -> PolicyFileStatus:
        return PolicyFileStatus(
            sha256=self._sha256,
            is_accepted=self._accepted == self._sha256,
            changed_roles=list(self._changed),
        )

    async def accept(
        self, principal: Principal, sha256: str, circumstances: Circumstances
    ) -> PolicyFileStatus:
        """From now on the roles of the file that was read at the start give what they say.

        Raises Problem `access_denied`, or `conflict` if that is not the file's SHA-256.
        """

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if sha256 != self._sha256:
                return Refused(Problem("conflict", f"the file that was read has SHA-256 {self._sha256}"))
            state = await read_policy_state(work.conn, work.seals)
            if state is None:
                return Refused(Problem("conflict", "the policy's state is not what the ledger knows"))
            event = grant.event(AuditKind.POLICY_FILE_ACCEPTED, f"accept policies file {sha256}")
            await self._write(work, state, event)
            await self._feed.write(work, lambda _: self._honour())
            return None

        await self._enforcement.perform(
            principal, Action.SECURITY_MANAGE, INSTALLATION, circumstances, "accept the policies file", act
        )
        return self.status

    def _honour(self) -> None:
        for name in self._changed:
            self._facts.set_role(name, self._of_the_file[name])
            self._known[name] = self._of_the_file[name]
        self._changed, self._accepted = [], self._sha256

    async def _first(self, work: Unit) -> PolicyState:
        state = await read_policy_state(work.conn, work.seals)
        if state is None:
            return PolicyState(file="", roles={})
        event = AuditEvent(
            kind=AuditKind.POLICY_FILE_ACCEPTED,
            outcome=Outcome.OK,
            content=f"policies file {self._sha256}, as the first start found it",
        )
        return await self._write(work, state, event)

    async def _write(self, work: Unit, state: PolicyState, event: AuditEvent) -> PolicyState:
        digests = _digests(self._of_the_file)
        state = msgspec.structs.replace(state, file=self._sha256, roles=digests)
        await write_policy_state(work.conn, work.seals, state)
        detail = {"sha256": self._sha256, "roles": [f"{name} {digest}" for name, digest in digests.items()]}
        await work.record_sealed(msgspec.structs.replace(event, detail=detail), [])
        return state


def _digests(roles: Mapping[str, Role]) -> dict[str, str]:
    return {name: _digest(role) for name, role in roles.items()}


def _digest(role: Role) -> str:
    content = msgspec.json.encode((sorted(role.department), sorted(role.installation)))
    return hashlib.sha256(content).hexdigest()
