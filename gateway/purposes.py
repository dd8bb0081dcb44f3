"""The managed list of purposes (事由): nobody looks without one of them.

City-level security administrators write it (`purpose:manage`); which of them a camera may be used for is its
owner's to say (`sharing.purposes`), and which of them a grant serves is said by who gives it.
"""

from typing import Annotated

import msgspec
import sqlalchemy as sa
from msgspec import UNSET, Meta, UnsetType

from gateway.audit.records import AuditKind
from gateway.enforcement import Act, Circumstances, Enforcement, Grant, Purpose, Refused
from gateway.forms import END, Identifier, Line, Name, Text
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.schema import departments, purposes
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, MEDIA_ACTIONS, Action

MAX_PURPOSE_SECONDS = 7 * 86_400
PURPOSED_ACTIONS = MEDIA_ACTIONS | {Action.AUDIT_READ}
"""Whoever does these says what for."""

Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}" + END)]
Actions = Annotated[list[Action], Meta(min_length=1, max_length=len(PURPOSED_ACTIONS))]
Seconds = Annotated[int, Meta(ge=1, le=MAX_PURPOSE_SECONDS)]


class DeclaredPurpose(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A purpose as a caller states it."""

    code: Line = ""
    reference: Line | None = None
    note: Text | None = None


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zh: Name
    en: Name


class PurposeEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`needs_reference`: whoever declares it must name a case, a roster or a work order.

    `department_id`: for its people and those of the departments below it; None: for all. `actions`: what may
    be done for it, of PURPOSED_ACTIONS; None: each of them. A use for it ends after `max_seconds`; None: when
    others do.
    """

    code: Code
    text: Texts
    needs_reference: bool = False
    department_id: Identifier | None = None
    actions: Actions | None = None
    max_seconds: Seconds | None = None
    enabled: bool = True


class PurposeChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is given changes. What runs for it already goes on as it was opened."""

    text: Texts | UnsetType = UNSET
    needs_reference: bool | UnsetType = UNSET
    department_id: Identifier | None | UnsetType = UNSET
    actions: Actions | None | UnsetType = UNSET
    max_seconds: Seconds | None | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


_WATCHING = [Action.LIVE_VIEW, Action.LIVE_SNAPSHOT, Action.PTZ_CONTROL]
_MEDIA = [*_WATCHING, Action.FRAMES_CONSUME]

INITIAL = (
    # its reference is the roster's number or the shift's
    PurposeEntry(
        code="patrol",
        text=Texts("日常巡查", "Routine patrol"),
        needs_reference=True,
        actions=_MEDIA,
        max_seconds=8 * 3600,
    ),
    PurposeEntry(
        code="emergency",
        text=Texts("突发事件处置", "Emergency response"),
        needs_reference=True,
        actions=_MEDIA,
    ),
    PurposeEntry(code="case", text=Texts("案件办理", "Case work"), needs_reference=True),
    PurposeEntry(code="maintenance", text=Texts("设备维护", "Equipment maintenance"), actions=_WATCHING),
    PurposeEntry(
        code="analysis",
        text=Texts("城市管理分析", "Scene analysis for city management"),
        actions=[Action.FRAMES_CONSUME, Action.LIVE_SNAPSHOT],
    ),
    PurposeEntry(code="audit", text=Texts("审计监督", "Audit and supervision"), actions=[Action.AUDIT_READ]),
)
"""What a new installation starts with."""


class Purposes:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    async def all(self) -> list[PurposeEntry]:
        """Those that are in use, whoever may declare them: for who allows them."""
        return [entry for entry in await self._read() if entry.enabled]

    async def declarable(self, principal: Principal) -> list[PurposeEntry]:
        """Those that the principal may declare."""
        return [entry for entry in await self.all() if self._is_for(entry, principal)]

    async def managed(self, principal: Principal) -> list[PurposeEntry]:
        """As `all`; for who manages them, those out of use too."""
        manages = self._enforcement.decide(principal.id, Action.PURPOSE_MANAGE, INSTALLATION).allowed
        return [entry for entry in await self._read() if entry.enabled or manages]

    async def check(self, declared: DeclaredPurpose | None, action: Action, principal: Principal) -> Purpose:
        """What a use may be recorded for.

        Raises Problem `purpose_required`, `purpose_unknown`, `purpose_not_yours`, `purpose_not_for_this` or
        `purpose_reference_required`.
        """
        if declared is None or not declared.code:
            raise Problem("purpose_required")
        query = sa.select(purposes).where(purposes.c.code == declared.code, purposes.c.enabled)
        async with self._store.read() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise Problem("purpose_unknown", declared.code)
        entry = _entry(row)
        if not self._is_for(entry, principal):
            raise Problem("purpose_not_yours", entry.code)
        if entry.actions is not None and action not in entry.actions:
            raise Problem("purpose_not_for_this", f"{entry.code}: {', '.join(entry.actions)}, not {action}")
        if entry.needs_reference and not (declared.reference or "").strip():
            raise Problem("purpose_reference_required", entry.code)
        return Purpose(
            code=entry.code,
            reference=declared.reference,
            note=declared.note,
            max_seconds=entry.max_seconds,
        )

    async def create(
        self, principal: Principal, entry: PurposeEntry, circumstances: Circumstances
    ) -> PurposeEntry:
        """Raises Problem `access_denied`, `conflict` or `invalid_field`."""
        _check_actions(entry.actions)

        async def act(work: Unit, grant: Grant) -> PurposeEntry | Refused:
            if await _row_of(work, entry.code) is not None:
                return Refused(Problem("conflict", f"purpose {entry.code} exists"))
            if not await _is_department(work, entry.department_id):
                return Refused(_unknown_department(entry.department_id))
            await work.conn.execute(sa.insert(purposes).values(code=entry.code, **_values(entry)))
            work.record(grant.event(AuditKind.PURPOSE_CHANGED, f"new: {_told(entry)}"))
            return entry

        return await self._perform(principal, circumstances, f"create purpose {entry.code}", act)

    async def change(
        self, principal: Principal, code: str, change: PurposeChange, circumstances: Circumstances
    ) -> PurposeEntry:
        """Raises Problem `access_denied`, `not_found` or `invalid_field`."""
        given = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
        _check_actions(given.get("actions"))

        async def act(work: Unit, grant: Grant) -> PurposeEntry | Refused:
            row = await _row_of(work, code)
            if row is None:
                return Refused(Problem("not_found", code))
            entry = msgspec.structs.replace(_entry(row), **given)
            if not await _is_department(work, entry.department_id):
                return Refused(_unknown_department(entry.department_id))
            await work.conn.execute(
                sa.update(purposes).where(purposes.c.code == code).values(**_values(entry))
            )
            work.record(grant.event(AuditKind.PURPOSE_CHANGED, _told(entry)))
            return entry

        return await self._perform(principal, circumstances, f"change purpose {code}", act)

    async def _perform(
        self, principal: Principal, circumstances: Circumstances, content: str, act: Act[PurposeEntry]
    ) -> PurposeEntry:
        return await self._enforcement.perform(
            principal, Action.PURPOSE_MANAGE, INSTALLATION, circumstances, content, act
        )

    async def _read(self) -> list[PurposeEntry]:
        async with self._store.read() as conn:
            return [_entry(row) for row in await conn.execute(sa.select(purposes).order_by(purposes.c.code))]

    def _is_for(self, entry: PurposeEntry, principal: Principal) -> bool:
        return entry.department_id is None or self._enforcement.is_within(
            principal.department_id, entry.department_id
        )


async def insert_initial(store: Store) -> None:
    """Give a new installation its first purposes; one that has any keeps them."""

    async def unit(work: Unit) -> None:
        if (await work.conn.execute(sa.select(purposes.c.code).limit(1))).first() is None:
            rows = [{"code": entry.code, **_values(entry)} for entry in INITIAL]
            await work.conn.execute(sa.insert(purposes), rows)

    await store.run(unit)


async def _row_of(work: Unit, code: str) -> sa.Row[tuple[object, ...]] | None:
    return (await work.conn.execute(sa.select(purposes).where(purposes.c.code == code))).one_or_none()


async def _is_department(work: Unit, department_id: str | None) -> bool:
    if department_id is None:
        return True
    query = sa.select(departments.c.id).where(departments.c.id == department_id)
    return (await work.conn.execute(query)).first() is not None


def _unknown_department(department_id: str | None) -> Problem:
    return Problem("invalid_field", f"department_id: there is no department {department_id}")


def _check_actions(actions: list[Action] | None) -> None:
    if other := sorted(set(actions or ()) - PURPOSED_ACTIONS):
        raise Problem("invalid_field", f"actions: needs no purpose: {', '.join(other)}")


def _values(entry: PurposeEntry) -> dict[str, object]:
    return {
        "text_zh": entry.text.zh,
        "text_en": entry.text.en,
        "needs_reference": entry.needs_reference,
        "department_id": entry.department_id,
        "actions": None if entry.actions is None else [action.value for action in entry.actions],
        "max_seconds": entry.max_seconds,
        "enabled": entry.enabled,
    }


def _told(entry: PurposeEntry) -> str:
    """All of it, for the ledger: what a code meant when somebody declared it."""
    said = [f"{entry.code}: {entry.text.zh}, {entry.text.en}"]
    if entry.needs_reference:
        said.append("needs a reference")
    if entry.department_id is not None:
        said.append(f"for department {entry.department_id}")
    if entry.actions is not None:
        said.append(f"for {', '.join(entry.actions)}")
    if entry.max_seconds is not None:
        said.append(f"ends after {entry.max_seconds} s")
    if not entry.enabled:
        said.append("out of use")
    return "; ".join(said)


def _entry(row: sa.Row[tuple[object, ...]]) -> PurposeEntry:
    return PurposeEntry(
        code=row.code,
        text=Texts(row.text_zh, row.text_en),
        needs_reference=row.needs_reference,
        department_id=row.department_id,
        actions=None if row.actions is None else [Action(action) for action in row.actions],
        max_seconds=row.max_seconds,
        enabled=row.enabled,
    )
