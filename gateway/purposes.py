"""The managed list of purposes (事由): nobody looks without one of them."""

from typing import Annotated

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from gateway.audit.records import AuditKind
from gateway.authentication import Principal
from gateway.enforcement import Circumstances, Enforcement, Grant, Purpose, Refused
from gateway.forms import END, Line, Name, Text
from gateway.problems import Problem
from gateway.store.schema import purposes
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import INSTALLATION, Action

Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}" + END)]


class DeclaredPurpose(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A purpose as a caller states it."""

    code: Line = ""
    reference: Line | None = None
    note: Text | None = None


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zh: Name
    en: Name


class PurposeEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`needs_reference`: whoever declares it must name a case, a roster or a work order."""

    code: Code
    text: Texts
    needs_reference: bool = False


INITIAL = (
    PurposeEntry(code="patrol", text=Texts("日常巡查", "Routine patrol")),
    PurposeEntry(code="emergency", text=Texts("突发事件处置", "Emergency response"), needs_reference=True),
    PurposeEntry(code="case", text=Texts("案件办理", "Case work"), needs_reference=True),
    PurposeEntry(code="maintenance", text=Texts("设备维护", "Equipment maintenance")),
    PurposeEntry(code="analysis", text=Texts("城市管理分析", "Scene analysis for city management")),
)
"""What a new installation starts with."""


class Purposes:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    async def all(self) -> list[PurposeEntry]:
        query = sa.select(purposes).where(purposes.c.enabled).order_by(purposes.c.code)
        async with self._store.read() as conn:
            return [_entry(row) for row in await conn.execute(query)]

    async def check(self, declared: DeclaredPurpose | None) -> Purpose:
        """Raises Problem `purpose_required`, `purpose_unknown` or `purpose_reference_required`."""
        if declared is None or not declared.code:
            raise Problem("purpose_required")
        query = sa.select(purposes).where(purposes.c.code == declared.code, purposes.c.enabled)
        async with self._store.read() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise Problem("purpose_unknown", declared.code)
        if row.needs_reference and not (declared.reference or "").strip():
            raise Problem("purpose_reference_required", declared.code)
        return Purpose(code=declared.code, reference=declared.reference, note=declared.note)

    async def create(
        self, principal: Principal, entry: PurposeEntry, circumstances: Circumstances
    ) -> PurposeEntry:
        """Raises Problem `access_denied` or `conflict`."""

        async def act(work: Unit, grant: Grant) -> PurposeEntry | Refused:
            taken = await work.conn.execute(sa.select(purposes.c.code).where(purposes.c.code == entry.code))
            if taken.first() is not None:
                return Refused(Problem("conflict", f"purpose {entry.code} exists"))
            await work.conn.execute(sa.insert(purposes).values(**_values(entry)))
            work.record(grant.event(AuditKind.PURPOSE_CHANGED, f"{entry.code}: {entry.text.en}"))
            return entry

        return await self._enforcement.perform(
            principal,
            Action.PURPOSE_MANAGE,
            INSTALLATION,
            circumstances,
            f"create purpose {entry.code}",
            act,
        )


async def insert_initial(store: Store) -> None:
    """Give a new installation its first purposes; one that has any keeps them."""

    async def unit(work: Unit) -> None:
        if (await work.conn.execute(sa.select(purposes.c.code).limit(1))).first() is None:
            await work.conn.execute(sa.insert(purposes), [_values(entry) for entry in INITIAL])

    await store.run(unit)


def _values(entry: PurposeEntry) -> dict[str, object]:
    return {
        "code": entry.code,
        "text_zh": entry.text.zh,
        "text_en": entry.text.en,
        "needs_reference": entry.needs_reference,
        "enabled": True,
    }


def _entry(row: sa.Row[tuple[object, ...]]) -> PurposeEntry:
    return PurposeEntry(
        code=row.code, text=Texts(row.text_zh, row.text_en), needs_reference=row.needs_reference
    )
