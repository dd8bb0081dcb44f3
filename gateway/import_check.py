"""Checking a file of cameras: each line by itself, with the others, the catalogue and the policy."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.catalogue_columns import FileFormat
from gateway.catalogue_reading import CameraLine, LineError, read_lines
from gateway.catalogue_rows import BATCH, KnownCameras, is_sealed, look_up
from gateway.enforcement import Enforcement
from gateway.import_plan import ImportPlan
from gateway.planned_cameras import Existing, PlannedCamera, Planner, Trees
from gateway.store.schema import departments, groups, purposes
from gateway.store.store import Store
from policies.access import Action, Object, ObjectKind, Reason
from policies.administration import GrantRefusedError

T = TypeVar("T")


class ImportCheck:
    """`check` parses and plans in a thread; it reads the database and decides on the loop."""

    def __init__(self, store: Store, enforcement: Enforcement, planner: Planner) -> None:
        self._store = store
        self._enforcement = enforcement
        self._planner = planner

    async def check(self, user_id: str, file: BinaryIO, form: FileFormat) -> ImportPlan:
        """What the file asks for, in the name of this user; nothing is written."""
        plan = ImportPlan(revision=self._enforcement.revision)
        async with self._store.read() as conn:
            trees = Trees(
                await _values(conn, departments.c.id),
                await _values(conn, groups.c.id),
                await _values(conn, purposes.c.code),
            )
        authority = Authority(self._enforcement, user_id)
        lines = read_lines(file, form)
        while batch := await asyncio.to_thread(_batch_of, lines, BATCH):
            await self._check_batch(batch, trees, authority, plan)
        codes = {camera.id: camera.value("code") for camera in plan.writes} if plan.taken else {}
        for code, (number, owner) in plan.taken.items():
            if codes.get(owner, code) == code:
                plan.refuse(_error(number, "code", "another camera has this code", "duplicate_code"))
        if not plan.lines and not plan.error_count:
            plan.refuse(LineError(line=1, code="file_empty", message="no line holds a camera"))
        plan.denied = authority.denied
        return plan

    async def _check_batch(
        self, batch: list[CameraLine | LineError], trees: Trees, authority: "Authority", plan: ImportPlan
    ) -> None:
        lines = []
        for line in batch:
            if isinstance(line, LineError):
                plan.refuse(line)
            else:
                lines.append(line)
        plan.lines += len(lines)
        # one snapshot for the whole file would keep SQLite's log from being emptied
        async with self._store.read() as conn:
            known = await look_up(conn, _texts(lines, "id"), _texts(lines, "code"))
        tasks = []
        for line in lines:
            found = known.of(line)
            if found is not None and not authority.manages(found):
                plan.refuse(_denied(line.line, "id" if line.fields.get("id") else "code"))
            elif found is not None and not is_sealed(found, self._store.seals):
                told = "the camera is not what the ledger says that it is"
                plan.refuse(_error(line.line, "id", told, Reason.NOT_IN_LEDGER))
            else:
                tasks.append((line, found))
        planned = await asyncio.to_thread(
            lambda: [self._planner.plan(line, found, trees) for line, found in tasks]
        )
        for camera in planned:
            error = camera if isinstance(camera, LineError) else _refusal(camera, known, authority, plan)
            if error is not None:
                plan.refuse(error)
            elif isinstance(camera, PlannedCamera) and (camera.is_new or camera.changed):
                plan.writes.append(camera)
            else:
                plan.unchanged += 1


class Authority:
    """What one person may do with cameras and departments; of each department it is asked once."""

    def __init__(self, enforcement: Enforcement, user_id: str) -> None:
        self._enforcement = enforcement
        self._user_id = user_id
        self._departments: dict[str, bool] = {}
        self._shared: dict[str, bool] = {}
        self.denied: Object | None = None
        """The first that was."""

    def manages(self, existing: Existing) -> bool:
        return self._is_allowed(Object(ObjectKind.CAMERA, existing.row.id))

    def manages_department(self, department_id: str) -> bool:
        if department_id not in self._departments:
            target = Object(ObjectKind.DEPARTMENT, department_id)
            self._departments[department_id] = self._is_allowed(target)
        return self._departments[department_id]

    def shares(self, camera: PlannedCamera) -> bool:
        """A new camera is shared by who shares its department's."""
        if not camera.is_new:
            return self._may_share(Object(ObjectKind.CAMERA, camera.id))
        department_id = camera.value("department_id")
        if department_id not in self._shared:
            self._shared[department_id] = self._may_share(Object(ObjectKind.DEPARTMENT, department_id))
        return self._shared[department_id]

    def _may_share(self, target: Object) -> bool:
        try:
            self._enforcement.check_sharing(self._user_id, target)
        except GrantRefusedError:
            return False
        return True

    def may_write(self, camera: PlannedCamera) -> bool:
        may = camera.is_new or self._is_allowed(Object(ObjectKind.CAMERA, camera.id))
        if camera.old_department != camera.value("department_id"):
            may = may and self.manages_department(camera.value("department_id"))
        return may and (camera.shares is None or self.shares(camera))

    def _is_allowed(self, target: Object) -> bool:
        is_allowed = self._enforcement.decide(self._user_id, Action.CAMERA_MANAGE, target).allowed
        if not is_allowed and self.denied is None:
            self.denied = target
        return is_allowed


def _refusal(
    camera: PlannedCamera, known: KnownCameras, authority: Authority, plan: ImportPlan
) -> LineError | None:
    """What only the other lines, the catalogue and the policy can say against a camera."""
    if (earlier := plan.line_of.setdefault(camera.id, camera.line)) != camera.line:
        return _error(camera.line, "id", f"the camera of line {earlier}", "duplicate_id")
    code = camera.value("code")
    if code is not None:
        if (earlier := plan.line_of_code.setdefault(code, camera.line)) != camera.line:
            return _error(camera.line, "code", f"the code of line {earlier}", "duplicate_code")
        owner = known.by_code.get(code)
        if owner is not None and owner.row.id != camera.id:
            plan.taken[code] = camera.line, owner.row.id
    if camera.old_department != camera.value("department_id") and not authority.manages_department(
        camera.value("department_id")
    ):
        return _denied(camera.line, "department_id")
    column = camera.shares
    if column is not None and not authority.shares(camera):
        return _error(camera.line, column, "you may not share this camera", "grant_refused")
    return None


def _error(line: int, column: str, message: str, code: str) -> LineError:
    return LineError(line=line, column=column, code=code, message=message)


def _denied(line: int, column: str) -> LineError:
    what = "of this department" if column == "department_id" else "with it"
    return _error(line, column, f"you may not manage the camera {what}", "access_denied")


def _batch_of(lines: Iterator[T], size: int) -> list[T]:
    return list(islice(lines, size))


async def _values(conn: AsyncConnection, column: sa.Column[str]) -> frozenset[str]:
    return frozenset((await conn.execute(sa.select(column))).scalars())


def _texts(lines: Iterable[CameraLine], column: str) -> list[str]:
    """Values that an id or a code can be: the others would not all pass a driver."""
    values = {line.fields.get(column) for line in lines if isinstance(line.fields.get(column), str)}
    return sorted(value for value in values if value and value.isascii() and value.isprintable())
