"""Cameras in the database, many at a time: what an import and an export read and write."""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue_files import CameraLine
from gateway.planned_cameras import ROW, Existing, PlannedCamera
from gateway.store.schema import camera_tags, cameras, group_cameras
from gateway.store.sealed_rows import Sealed, camera_content, state_of
from gateway.store.sealing import RowChange, seals_of
from gateway.store.seals import Seals

BATCH = 500
"""Lines checked, and rows written, between two turns of the loop."""

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


async def write_rows(
    conn: AsyncConnection, writes: Sequence[PlannedCamera], now: int, seals: Seals
) -> list[RowChange]:
    """Write the cameras with their seals; return what changed, for `Unit.record_sealed`."""
    before = await seals_of(conn, Sealed.CAMERA, [camera.id for camera in writes if not camera.is_new])
    changes = [_sealed(camera, before.get(camera.id), seals) for camera in writes]
    new_seal = {change.id: change.new for change in changes}
    update = sa.update(cameras).where(cameras.c.id == sa.bindparam("_id"))
    # two cameras may exchange their codes
    for batch in batches([c for c in writes if c.old_code is not None and "code" in c.changed], BATCH):
        await conn.execute(update.values(code=None), [{"_id": camera.id} for camera in batch])
    names = (*ROW, "secret", "updated_at", "seal")
    changing = update.values({name: sa.bindparam(f"_{name}") for name in names})
    for batch in batches([camera for camera in writes if not camera.is_new], BATCH):
        await conn.execute(
            changing,
            [
                {"_id": camera.id, "_seal": new_seal[camera.id]}
                | {f"_{name}": value for name, value in _values(camera, now).items()}
                for camera in batch
            ],
        )
    for batch in batches([camera for camera in writes if camera.is_new], BATCH):
        await conn.execute(
            sa.insert(cameras),
            [
                {"id": camera.id, "created_at": now, "seal": new_seal[camera.id], **_values(camera, now)}
                for camera in batch
            ],
        )
    for name, table in (("groups", group_cameras), ("tags", camera_tags)):
        for batch in batches([camera for camera in writes if name in camera.changed], BATCH):
            await _replace_members(conn, name, table, batch)
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


def _values(camera: PlannedCamera, now: int) -> dict[str, Any]:
    return {**dict(zip(ROW, camera.row, strict=True)), "secret": camera.secret, "updated_at": now}


async def _replace_members(
    conn: AsyncConnection, name: str, table: sa.Table, batch: Sequence[PlannedCamera]
) -> None:
    changed = [camera.id for camera in batch if not camera.is_new]
    if changed:
        await conn.execute(sa.delete(table).where(table.c.camera_id.in_(changed)))
    column = "group_id" if name == "groups" else "tag"
    rows = [
        {"camera_id": camera.id, column: value}
        for camera in batch
        for value in sorted(camera.groups if name == "groups" else camera.tags)
    ]
    if rows:
        await conn.execute(sa.insert(table), rows)
