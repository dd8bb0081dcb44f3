"""The freeze: where nobody can say that grants are those that were given, none allows until owners confirm.

Every grant carries the epoch in which it was given or last confirmed; a freeze raises the policy's. Denials,
and what comes by roles, go on. Decided at each start (`settle`) and by the patrol (`hold`): rows are gone, an
older state of the tables or of the whole database is back, or a denial says something else than what was
sealed.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.clock import Clock, from_micros, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.policy_feed import PolicyFacts, PolicyFeed, stored_grants
from gateway.policy_history import newest_mark, strayed_head
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.sealed_facts import SealedFacts
from gateway.store.schema import departments, grants
from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import (
    PolicyState,
    policy_mark,
    read_policy_state,
    read_totals,
    seals_of,
    write_policy_state,
    write_totals,
)
from gateway.store.seals import Total
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action, Effect, GrantRule, Object, ObjectKind, Reason
from policies.administration import GrantRefusedError

log = structlog.get_logger(__name__)


MAX_STRAYED = 16
"""Heads that are remembered, so that no start freezes for one of them again."""


class Confirmed(msgspec.Struct, frozen=True):
    """How many grants an owner answers for again."""

    confirmed: int


class Freeze:
    """`unfit`: ids of the rows that do not count, by kind, as the last start and the patrol since found.

    `witnessed` asks outside: the root (base64) of a head that this ledger does not continue; see `witnessed`.
    """

    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        feed: PolicyFeed,
        data_folder: Path,
        witnessed: Callable[[], Awaitable[str | None]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._feed = feed
        self._data_folder = data_folder
        self._witnessed = witnessed
        self._clock = clock
        self.unfit: dict[Sealed, set[str]] = {}

    async def settle(self, found: SealedFacts) -> None:
        """Judge what was read at a start: record what does not count, and freeze where that is not enough.

        Call when the facts are in memory, before anything is decided.
        """
        witnessed = await self._witnessed()
        self.unfit = {kind: set(identifiers) for kind, identifiers in found.unfit.items()}
        if found.unfit:
            await self._store.record(found.alarm())
        async with self._store.read() as conn:
            state = await read_policy_state(conn, self._store.seals)
            heads = {witnessed, await strayed_head(conn, self._data_folder)}
            reasons = await self._reasons(conn, found, state)
        remembered = state.strayed if state else ()
        strayed = sorted(head for head in heads if head is not None and head not in remembered)
        if strayed:
            reasons.append("ledger_went_back")
        if reasons:
            await self._freeze(reasons, found, strayed)

    async def hold(self, conn: AsyncConnection, found: SealedFacts) -> None:
        """Ask of whole tables what a start asks of them, while control runs; freeze if they do not hold.

        `found.totals` were read on `conn`, in its snapshot.
        """
        state = await read_policy_state(conn, self._store.seals)
        if reasons := await self._reasons(conn, found, state):
            await self._freeze(reasons, found)

    @property
    def void(self) -> dict[str, int]:
        """How many rows of each kind do not count."""
        return {kind.value: len(unfit) for kind, unfit in self.unfit.items() if unfit}

    async def status(self) -> tuple[datetime | None, int]:
        """Since when grants are frozen (None: none is), and how many wait for their owners."""
        async with self._store.read() as conn:
            state = await read_policy_state(conn, self._store.seals)
            if state is None:
                return None, 0
            query = sa.select(sa.func.count()).select_from(grants).where(*self._unconfirmed(state))
            count: int = (await conn.execute(query)).scalar_one()
        if state.frozen_since is None or count == 0:
            return None, count
        return from_micros(state.frozen_since), count

    async def confirm(
        self, principal: Principal, department_id: str, circumstances: Circumstances
    ) -> Confirmed:
        """The owner says of all frozen grants on cameras of a department, and below it, that they stand.

        A group's or a tag's grant is his to confirm if all its cameras are. Whoever finds one that he never
        gave revokes it first. Raises Problem `access_denied` or `grant_refused`.
        """
        place = Object(ObjectKind.DEPARTMENT, department_id)

        async def act(work: Unit, grant: Grant) -> Confirmed | Refused:
            try:
                self._enforcement.check_sharing(principal.id, place)
            except GrantRefusedError as error:
                return Refused(Problem("grant_refused", str(error), reason=error.code.value))
            state = await read_policy_state(work.conn, work.seals)
            if state is None:
                return Refused(Problem("conflict", "the policy's state is not what the ledger knows"))
            below = await _subtree(work.conn, department_id)
            wanted = [
                rule
                async for rules in stored_grants(work.conn, SealedFacts(work.seals), state.epoch)
                for rule in rules
                if rule.void is Reason.FROZEN and self._lies_in(rule.object, place, below)
            ]
            event = grant.event(AuditKind.POLICY_CONFIRMED, f"{len(wanted)} grants on {department_id}")
            event = msgspec.structs.replace(event, detail={"grants": len(wanted), "epoch": state.epoch})
            names = [(Sealed.GRANT, rule.id) for rule in wanted]
            await work.seal(event, *names, epoch=state.epoch)
            await self._rewrite_grants(work, state.epoch, {rule.id for rule in wanted})
            return Confirmed(len(wanted))

        return await self._enforcement.perform(
            principal, Action.CAMERA_SHARE, place, circumstances, f"confirm grants on {department_id}", act
        )

    async def _reasons(
        self, conn: AsyncConnection, found: SealedFacts, state: PolicyState | None
    ) -> list[str]:
        found.stored = await read_totals(conn, self._store.seals)
        reasons = [f"{kind}_sum" for kind in Sealed if found.stored.get(kind) != found.totals[kind]]
        if state is None:
            reasons.append("state_unknown")
        if found.lost_denials:
            reasons.append("denial_lost")
        mark = await newest_mark(conn)
        if mark is not None and mark != await policy_mark(conn, self._store.seals):
            reasons.append("older_policy")
        return reasons

    async def _freeze(self, reasons: list[str], found: SealedFacts, strayed: Sequence[str] = ()) -> None:
        async def unit(work: Unit) -> None:
            state = await read_policy_state(work.conn, work.seals)
            newest = (await work.conn.execute(sa.select(sa.func.max(grants.c.epoch)))).scalar_one_or_none()
            # whoever broke the state cannot make any role of the policies file count by it
            state = state or PolicyState(file="", roles={})
            state = msgspec.structs.replace(
                state,
                epoch=max(state.epoch, newest or 0) + 1,
                frozen_since=to_micros(self._clock()),
                strayed=(*state.strayed, *strayed)[-MAX_STRAYED:],
            )
            await write_policy_state(work.conn, work.seals, state)
            await _take_as_found(work, found)
            event = AuditEvent(
                kind=AuditKind.POLICY_FROZEN,
                outcome=Outcome.ERROR,
                content="all grants are frozen until the owners of the cameras confirm them",
                reason=reasons[0],
                detail={"reasons": reasons, "epoch": state.epoch},
            )
            await work.record_sealed(event, [])
            await self._rewrite_grants(work, state.epoch)

        log.error("policy_frozen", reasons=reasons)
        await self._store.run(unit)

    async def _rewrite_grants(self, work: Unit, epoch: int, only: set[str] | None = None) -> None:
        """Tell the PDP which grants are void now; `only`: of these."""
        rules: list[GrantRule] = []
        async for page in stored_grants(work.conn, SealedFacts(work.seals), epoch):
            rules += page if only is None else [rule for rule in page if rule.id in only]
        if only is not None:
            await self._feed.write(work, partial(_set_grants, rules))
            return
        names = [f"grant:{rule.id}" for rule in rules]
        await self._feed.write(work, partial(_set_all_grants, rules), about=names)

    def _lies_in(self, target: Object, place: Object, below: set[str]) -> bool:
        if target.kind == ObjectKind.DEPARTMENT:
            return target.id in below
        cameras = self._enforcement.cameras_in(Object(ObjectKind(target.kind), target.id))
        return bool(cameras) and cameras <= self._enforcement.cameras_in(place)

    def _unconfirmed(self, state: PolicyState) -> list[sa.ColumnElement[bool]]:
        now = to_micros(self._clock())
        return [
            grants.c.revoked_at.is_(None),
            grants.c.effect == Effect.ALLOW.value,
            grants.c.epoch != state.epoch,
            sa.or_(grants.c.valid_to.is_(None), grants.c.valid_to > now),
        ]


def _set_grants(rules: Sequence[GrantRule], engine: PolicyFacts) -> None:
    for rule in rules:
        engine.set_grant(rule)


def _set_all_grants(rules: Sequence[GrantRule], engine: PolicyFacts) -> None:
    """One whose row is gone was given nevertheless: it is as frozen as the others."""
    present = {rule.id for rule in rules}
    gone = [rule for rule in engine.grants if rule.id not in present]
    _set_grants([*rules, *(msgspec.structs.replace(rule, void=Reason.FROZEN) for rule in gone)], engine)


async def _take_as_found(work: Unit, found: SealedFacts) -> None:
    """What is there is what tables are held against later; a lost denial has been answered for.

    What was sealed since it was found counts too.
    """
    now = await read_totals(work.conn, work.seals)
    for kind, total in found.totals.items():
        total.follow(found.stored.get(kind, Total()), now.get(kind, Total()))
    seals = await seals_of(work.conn, Sealed.GRANT, list(found.lost_denials))
    lost = {name: seal for name, seal in found.lost_denials.items() if seals.get(name) == seal}
    for seal in lost.values():
        found.totals[Sealed.GRANT].take(work.seals.summand(seal))
    forget = sa.update(grants).where(grants.c.id == sa.bindparam("_id")).values(seal=None)
    if lost:
        await work.conn.execute(forget, [{"_id": identifier} for identifier in lost])
    await write_totals(work.conn, work.seals, found.totals)


async def _subtree(conn: AsyncConnection, department_id: str) -> set[str]:
    below = sa.select(departments.c.id).where(departments.c.id == department_id).cte(recursive=True)
    below = below.union(sa.select(departments.c.id).where(departments.c.parent_id == below.c.id))
    return set((await conn.execute(sa.select(below.c.id))).scalars())
