"""Importing cameras from a file: all of it in one unit of work, or nothing.

    read, look up, check   in batches; parsing and checking in a thread, decisions on the loop
    verify, write, record  one transaction: what was looked up must still be so
    feed                   after the commit: the PDP of changed cameras at once; of new ones, and the index,
                           a batch at a time

Every other writer waits for the transaction, some seconds for a large city; readers and pictures do not.
"""

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import BinaryIO, TypeVar

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditKind
from gateway.catalogue_columns import FileFormat
from gateway.catalogue_index import IndexedCamera
from gateway.catalogue_reading import CameraLine, LineError, read_lines
from gateway.catalogue_rows import BATCH, KnownCameras, batches, is_sealed, look_up, write_rows
from gateway.causes import MAX_CAUSES
from gateway.clock import to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.planned_cameras import Existing, PlannedCamera, Planner, Trees
from gateway.policy_feed import PolicyFacts, PolicyFeed
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.errors import StoreError
from gateway.store.schema import cameras, departments, groups, purposes
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action, Object, ObjectKind, Reason
from policies.administration import GrantRefusedError

log = structlog.get_logger(__name__)

MAX_ERRORS = 1000
"""So many are told; all are counted."""
INDEXED_AT_ONCE = 2000
MAX_RECORDED_DEPARTMENTS = 64
_RETRY_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 10
_CHANGED_MEANWHILE = "the catalogue changed while the file was checked; import it again"

T = TypeVar("T")


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or with `dry_run` or errors: what would be. `lines`: those that hold a camera."""

    created: int
    updated: int
    unchanged: int
    lines: int
    errors: list[LineError]
    error_count: int
    dry_run: bool


class ImportInvalidError(Exception):
    """Something is wrong with the file; nothing was imported."""

    code = "import_invalid"

    def __init__(self, report: ImportReport) -> None:
        self.report = report
        super().__init__(f"{report.error_count} errors")


@dataclass
class _Plan:
    """All that a file asks for."""

    lines: int = 0
    unchanged: int = 0
    writes: list[PlannedCamera] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    error_count: int = 0
    revision: int = 0
    line_of: dict[str, int] = field(default_factory=dict)
    """By camera id; for duplicates, and who gives up a code."""
    line_of_code: dict[str, int] = field(default_factory=dict)
    taken: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Codes that another camera of the catalogue has: the line that wants it, and who has it."""
    denied: Object | None = None

    def refuse(self, error: LineError) -> None:
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def report(self, *, dry_run: bool) -> ImportReport:
        created = sum(camera.is_new for camera in self.writes)
        return ImportReport(
            created=created,
            updated=len(self.writes) - created,
            unchanged=self.unchanged,
            lines=self.lines,
            errors=sorted(self.errors, key=lambda error: error.line),
            error_count=self.error_count,
            dry_run=dry_run,
        )


class CatalogueImport:
    """`run` is the task that writes the index of what was imported."""

    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        feed: PolicyFeed,
        planner: Planner,
        index: Callable[[list[IndexedCamera]], None],
        switched_off: Callable[[str, Principal], None],
        moved: Callable[[str], None],
    ) -> None:
        """`index`: takes distinct cameras. `switched_off` and `moved`: see `Catalogue`."""
        self._store = store
        self._enforcement = enforcement
        self._feed = feed
        self._planner = planner
        self._index = index
        self._switched_off = switched_off
        self._moved = moved
        self._to_index: deque[tuple[list[str], asyncio.Event]] = deque()
        self._wake = asyncio.Event()
        self._is_importing = False

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One file at a time: each takes memory, and the disk of its upload. Raises Problem `import_busy`."""
        if self._is_importing:
            raise Problem("import_busy", headers={"Retry-After": str(_RETRY_AFTER_SECONDS)})
        self._is_importing = True
        try:
            yield
        finally:
            self._is_importing = False

    async def import_file(
        self,
        principal: Principal,
        file: BinaryIO,
        form: FileFormat,
        sha256: str,
        circumstances: Circumstances,
        *,
        dry_run: bool = False,
    ) -> ImportReport:
        """Create cameras, or change those that have a line's id (without an id: its code).

        The principal must manage cameras of every department that a line names, and every camera that it
        changes. The ledger's record names the counts and the file's SHA-256 (who wants to know what the lines
        said keeps the file) and the state of each camera: of many, there are more records of the same. A
        refused import is recorded by its first refused decision.

        Raises ImportInvalidError, or Problem `conflict` when somebody else wrote meanwhile.
        """
        with _collector_asleep():
            return await self._import(principal, file, form, sha256, circumstances, dry_run=dry_run)

    async def _import(
        self,
        principal: Principal,
        file: BinaryIO,
        form: FileFormat,
        sha256: str,
        circumstances: Circumstances,
        *,
        dry_run: bool,
    ) -> ImportReport:
        plan = await self._checked(principal, file, form)
        report = plan.report(dry_run=dry_run)
        if plan.denied is not None and not dry_run:
            await self._record_denial(principal, plan.denied, circumstances, report)
        if plan.error_count:
            raise ImportInvalidError(report)
        if not dry_run:
            await self._write(principal, plan, report, sha256, circumstances)
        return report

    async def run(self) -> None:
        """Give the index what was imported, until it is cancelled. A failing store is tried again."""
        while True:
            await self._wake.wait()
            while self._to_index:
                # the index takes only what the PDP knows
                await self._feed.catch_up()
                identifiers, done = self._to_index[0]
                try:
                    await self._store.run(partial(self._index_batch, identifiers))
                except StoreError as error:
                    log.error("import_not_indexed", code=error.code)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    self._to_index.popleft()
                    done.set()
            self._wake.clear()

    async def _index_batch(self, identifiers: list[str], work: Unit) -> None:
        # read and given in a unit: whatever is written later comes later into the index too
        query = sa.select(*(cameras.c[name] for name in IndexedCamera._fields))
        rows = (await work.conn.execute(query.where(cameras.c.id.in_(identifiers)))).all()
        entries = [IndexedCamera._make(row) for row in rows]
        work.after_commit(lambda: self._index(entries))

    async def _checked(self, principal: Principal, file: BinaryIO, form: FileFormat) -> _Plan:
        plan = _Plan(revision=self._enforcement.revision)
        async with self._store.read() as conn:
            trees = Trees(
                await _values(conn, departments.c.id),
                await _values(conn, groups.c.id),
                await _values(conn, purposes.c.code),
            )
        authority = _Authority(self._enforcement, principal.id)
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
        self, batch: list[CameraLine | LineError], trees: Trees, authority: "_Authority", plan: _Plan
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

    async def _record_denial(
        self, principal: Principal, target: Object, circumstances: Circumstances, report: ImportReport
    ) -> None:
        async def act(work: Unit, grant: Grant) -> Refused:
            del work, grant
            return Refused(Problem("conflict", _CHANGED_MEANWHILE))

        try:
            await self._enforcement.perform(
                principal, Action.CAMERA_MANAGE, target, circumstances, _words(report), act
            )
        except Problem as problem:
            if problem.code != "access_denied":
                raise

    async def _write(
        self,
        principal: Principal,
        plan: _Plan,
        report: ImportReport,
        sha256: str,
        circumstances: Circumstances,
    ) -> None:
        content = f"{_words(report)}; SHA-256 {sha256}"
        indexed = asyncio.Event()
        owners = sorted({camera.value("department_id") for camera in plan.writes})

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if await self._is_outdated(work, principal, plan):
                return Refused(Problem("conflict", _CHANGED_MEANWHILE))
            changes = await write_rows(work, plan.writes, to_micros(grant.at))
            event = grant.event(AuditKind.CATALOGUE_IMPORTED, content)
            detail = {"sha256": sha256, "departments": owners[:MAX_RECORDED_DEPARTMENTS]}
            await work.record_sealed(msgspec.structs.replace(event, detail=detail), changes)
            await self._announce(work, principal, plan.writes, indexed)
            return None

        if not owners:
            # nothing differs: there is nothing to decide
            return
        target = Object(ObjectKind.DEPARTMENT, owners[0])
        try:
            await self._enforcement.perform(
                principal, Action.CAMERA_MANAGE, target, circumstances, content, act
            )
        except IntegrityError:
            raise Problem("conflict", _CHANGED_MEANWHILE) from None
        # whoever asks after the answer finds what he imported
        await indexed.wait()

    async def _is_outdated(self, work: Unit, principal: Principal, plan: _Plan) -> bool:
        """Before anything is written: what a unit returns after that stays."""
        authority = _Authority(self._enforcement, principal.id)
        is_same_policy = plan.revision == self._enforcement.revision
        for batch in batches(plan.writes, BATCH):
            query = sa.select(cameras.c.id, cameras.c.updated_at)
            found = await work.conn.execute(query.where(cameras.c.id.in_([camera.id for camera in batch])))
            seen = {row.id: row.updated_at for row in found}
            if any(seen.get(camera.id) != camera.seen_at for camera in batch):
                return True
            if not is_same_policy and not all(authority.may_write(camera) for camera in batch):
                return True
        return False

    async def _announce(
        self, work: Unit, principal: Principal, writes: Sequence[PlannedCamera], indexed: asyncio.Event
    ) -> None:
        changed = [camera for camera in writes if not camera.is_new]
        facts = [partial(_set_camera, camera) for camera in changed if camera.is_policy]
        additions = [partial(_set_camera, camera) for camera in writes if camera.is_new]
        if facts or additions:
            about = (f"camera:{camera.id}" for camera in writes[:MAX_CAUSES] if camera.is_policy)
            await self._feed.write(work, *facts, about=about, additions=additions)

        def announce() -> None:
            for camera in changed:
                if camera.is_switched_off:
                    self._switched_off(camera.id, principal)
                if camera.is_moved:
                    self._moved(camera.id)
            *earlier, last = ([camera.id for camera in batch] for batch in batches(writes, INDEXED_AT_ONCE))
            self._to_index.extend((batch, asyncio.Event()) for batch in earlier)
            self._to_index.append((last, indexed))
            self._wake.set()

        work.after_commit(announce)


class _Authority:
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


@contextmanager
def _collector_asleep() -> Iterator[None]:
    """No cyclic garbage is looked for in the block: among a city's cameras that stops the loop for 0.5 s.

    What a unit, a decision or a picture leaves behind meanwhile is found afterwards.
    """
    was_awake = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # a start lets it sleep too
        if was_awake:
            gc.enable()


def _refusal(
    camera: PlannedCamera, known: KnownCameras, authority: _Authority, plan: _Plan
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


def _words(report: ImportReport) -> str:
    return (
        f"import {report.lines} cameras: {report.created} new, {report.updated} changed, "
        f"{report.unchanged} as they were"
    )


def _batch_of(lines: Iterator[T], size: int) -> list[T]:
    return list(islice(lines, size))


async def _values(conn: AsyncConnection, column: sa.Column[str]) -> frozenset[str]:
    return frozenset((await conn.execute(sa.select(column))).scalars())


def _texts(lines: Iterable[CameraLine], column: str) -> list[str]:
    """Values that an id or a code can be: the others would not all pass a driver."""
    values = {line.fields.get(column) for line in lines if isinstance(line.fields.get(column), str)}
    return sorted(value for value in values if value and value.isascii() and value.isprintable())


def _set_camera(camera: PlannedCamera, engine: PolicyFacts) -> None:
    engine.set_camera(
        camera.id,
        camera.value("department_id"),
        camera.groups,
        tags=camera.tags,
        sharing=camera.sharing,
    )
