"""Cameras in the database, many at a time: what an import and an export read and write."""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue_reading import CameraLine
from gateway.planned_cameras import ROW, Existing, PlannedCamera
from gateway.store.bulk_insert import insert_rows
from gateway.store.schema import camera_tags, cameras, group_cameras
from gateway.store.sealed_rows import Sealed, camera_content, state_of
from gateway.store.sealing import RowChange, seals_of
from gateway.store.seals import Seals
from gateway.store.unit import Unit

BATCH = 500
"""Lines checked, and cameras changed, between two turns of the loop."""
INSERTED_AT_ONCE = 4000
"""New cameras, with their groups and tags."""

T = TypeVar("T")


@dataclass(frozen=True)
class KnownCameras:
    """Cameras as the catalogue has them."""

    by_id: dict[str, Existing]
    by_code: dict[str, Existing]

    def of(self, line: CameraLine) -> Existing | None:
        identifier, code = line.fields.get("id"), line.fields.get("code")
        if identifier is not None:
            return self.by_id.get(identifier) if isinstance(identifier, str) else None
        return self.by_code.get(code) if isinstance(code, str) else None


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def look_up(
    conn: AsyncConnection, identifiers: Collection[str], codes: Collection[str]
) -> KnownCameras:
    """Every camera that has one of the ids or codes; not more of each than a statement may name."""
    rows: dict[str, sa.Row[Any]] = {}
    for column, values in ((cameras.c.id, identifiers), (cameras.c.code, codes)):
        if values:
            found = await conn.execute(sa.select(cameras).where(column.in_(values)))
            rows |= {row.id: row for row in found}
    member_of: dict[str, set[str]] = {camera_id: set() for camera_id in rows}
    tagged: dict[str, set[str]] = {camera_id: set() for camera_id in rows}
    if rows:
        async for camera_id, group_id in _pairs(conn, group_cameras.c.group_id, group_cameras, rows):
            member_of[camera_id].add(group_id)
        async for camera_id, tag in _pairs(conn, camera_tags.c.tag, camera_tags, rows):
            tagged[camera_id].add(tag)
    by_id = {
        camera_id: Existing(row, frozenset(member_of[camera_id]), frozenset(tagged[camera_id]))
        for camera_id, row in rows.items()
    }
    by_code = {found.row.code: found for found in by_id.values() if found.row.code is not None}
    return KnownCameras(by_id, by_code)


async def _pairs(
    conn: AsyncConnection, column: sa.Column[Any], table: sa.Table, identifiers: Iterable[str]
) -> AsyncIterator[tuple[str, str]]:
    query = sa.select(table.c.camera_id, column).where(table.c.camera_id.in_(list(identifiers)))
    for camera_id, value in await conn.execute(query):
        yield camera_id, value


def is_sealed(found: Existing, seals: Seals) -> bool:
    """Whether a camera is as it was sealed: only such a one is changed, for what is sealed then counts."""
    row = found.row
    terms = (row.sharing_mode, row.sharing_departments, row.sharing_until, row.sharing_purposes)
    content = camera_content(row.id, row.department_id, row.enabled, terms, found.groups, found.tags)
    return seals.fits(row.seal, content)


async def write_rows(work: Unit, writes: Sequence[PlannedCamera], now: int) -> list[RowChange]:
    """Write the cameras with their seals; return what changed, in their order, for `Unit.record_sealed`."""
    conn, seals = work.conn, work.seals
    new = [camera for camera in writes if camera.is_new]
    changed = [camera for camera in writes if not camera.is_new]
    # two cameras may exchange their codes
    without_code = sa.update(cameras).where(cameras.c.id == sa.bindparam("_id")).values(code=None)
    for batch in batches([c for c in changed if c.old_code is not None and "code" in c.changed], BATCH):
        await conn.execute(without_code, [{"_id": camera.id} for camera in batch])
    changes: list[RowChange] = []
    for batch in batches(changed, BATCH):
        changes += await _update(conn, batch, now, seals)
        work.step()
    for batch in batches(new, INSERTED_AT_ONCE):
        changes += await _insert(conn, batch, now, seals)
        work.step()
    change_of = {change.id: change for change in changes}
    return [change_of[camera.id] for camera in writes]


async def _insert(
    conn: AsyncConnection, batch: Sequence[PlannedCamera], now: int, seals: Seals
) -> list[RowChange]:
    changes: list[RowChange] = []

    def rows() -> Iterator[tuple[Any, ...]]:
        for camera in batch:
            change = _sealed(camera, None, seals)
            changes.append(change)
            yield (camera.id, now, now, change.new, camera.secret, *camera.row)

    await insert_rows(conn, cameras, ("id", "created_at", "updated_at", "seal", "secret", *ROW), rows())
    for link in _LINKS:
        await link.insert(conn, batch)
    return changes


async def _update(
    conn: AsyncConnection, batch: Sequence[PlannedCamera], now: int, seals: Seals
) -> list[RowChange]:
    before = await seals_of(conn, Sealed.CAMERA, [camera.id for camera in batch])
    changes = [_sealed(camera, before.get(camera.id), seals) for camera in batch]
    names = (*ROW, "secret", "updated_at", "seal")
    changing = sa.update(cameras).where(cameras.c.id == sa.bindparam("_id"))
    await conn.execute(
        changing.values({name: sa.bindparam(f"_{name}") for name in names}),
        [
            {"_id": camera.id, "_secret": camera.secret, "_updated_at": now, "_seal": change.new}
            | {f"_{name}": value for name, value in zip(ROW, camera.row, strict=True)}
            for camera, change in zip(batch, changes, strict=True)
        ],
    )
    for link in _LINKS:
        linked = [camera for camera in batch if link.name in camera.changed]
        if linked:
            camera_id = link.table.c.camera_id
            await conn.execute(sa.delete(link.table).where(camera_id.in_([camera.id for camera in linked])))
            await link.insert(conn, linked)
    return changes


def _sealed(camera: PlannedCamera, old: bytes | None, seals: Seals) -> RowChange:
    columns = ("sharing_mode", "sharing_departments", "sharing_until", "sharing_purposes")
    mode, departments, until, purposes = map(camera.value, columns)
    content = camera_content(
        camera.id,
        camera.value("department_id"),
        camera.value("enabled"),
        (mode, departments, until, purposes),
        camera.groups,
        camera.tags,
    )
    return RowChange(Sealed.CAMERA, camera.id, old, seals.seal(content), state_of(content))


@dataclass(frozen=True)
class _Link:
    """A table of what cameras lie in. `name`: of a planned camera's attribute, and in its `changed`."""

    name: str
    table: sa.Table
    column: str

    async def insert(self, conn: AsyncConnection, batch: Sequence[PlannedCamera]) -> None:
        rows = ((value, camera.id) for camera in batch for value in sorted(getattr(camera, self.name)))
        await insert_rows(conn, self.table, (self.column, "camera_id"), rows)


_LINKS = (_Link("groups", group_cameras, "group_id"), _Link("tags", camera_tags, "tag"))
