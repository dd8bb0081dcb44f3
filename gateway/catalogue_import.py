"""Importing cameras from a file: all of it in one unit of work, or nothing.

    read, look up, check   `import_check`, in batches
    verify, write, record  one transaction: what was looked up must still be so
    tell                   `import_news`, after the commit: new cameras a batch at a time

Every other writer waits for the transaction, some seconds for a large city; readers and pictures do not.
"""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from gateway.audit.records import AuditKind
from gateway.catalogue_columns import FileFormat
from gateway.catalogue_rows import BATCH, batches, write_rows
from gateway.clock import to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.import_check import Authority, ImportCheck
from gateway.import_news import ImportNews
from gateway.import_plan import ImportPlan, ImportReport
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.schema import cameras
from gateway.store.unit import Unit
from policies.access import Action, Object, ObjectKind

_RETRY_AFTER_SECONDS = 10
_CHANGED_MEANWHILE = "the catalogue changed while the file was checked; import it again"


class ImportInvalidError(Exception):
    """Something is wrong with the file; nothing was imported."""

    code = "import_invalid"

    def __init__(self, report: ImportReport) -> None:
        self.report = report
        super().__init__(f"{report.error_count} errors")


class CatalogueImport:
    def __init__(self, enforcement: Enforcement, check: ImportCheck, news: ImportNews) -> None:
        self._enforcement = enforcement
        self._check = check
        self._news = news
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
        said keeps the file), the owners and the state of each camera: of many, there are more records. A
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
        plan = await self._check.check(principal.id, file, form)
        report = plan.report(dry_run=dry_run)
        if plan.denied is not None and not dry_run:
            await self._record_denial(principal, plan.denied, circumstances, report)
        if plan.error_count:
            raise ImportInvalidError(report)
        if not dry_run:
            await self._write(principal, plan, report, sha256, circumstances)
        return report

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
        plan: ImportPlan,
        report: ImportReport,
        sha256: str,
        circumstances: Circumstances,
    ) -> None:
        content = f"{_words(report)}; SHA-256 {sha256}"
        indexed = asyncio.Event()
        owners = {camera.value("department_id") for camera in plan.writes}
        earlier = {camera.old_department for camera in plan.writes if camera.old_department is not None}
        concerned = tuple(sorted(owners | earlier))

        async def act(work: Unit, grant: Grant) -> None | Refused:
            if await self._is_outdated(work, principal, plan):
                return Refused(Problem("conflict", _CHANGED_MEANWHILE))
            changes = await write_rows(work, plan.writes, to_micros(grant.at))
            event = grant.event(AuditKind.CATALOGUE_IMPORTED, content)
            event = msgspec.structs.replace(
                event, owner_id=None, owner_ids=concerned, detail={"sha256": sha256}
            )
            await work.record_sealed(event, changes)
            await self._news.announce(work, principal, plan.writes, indexed)
            return None

        if not owners:
            # nothing differs: there is nothing to decide
            return
        target = Object(ObjectKind.DEPARTMENT, min(owners))
        try:
            await self._enforcement.perform(
                principal, Action.CAMERA_MANAGE, target, circumstances, content, act
            )
        except IntegrityError:
            raise Problem("conflict", _CHANGED_MEANWHILE) from None
        # whoever asks after the answer finds what he imported
        await indexed.wait()

    async def _is_outdated(self, work: Unit, principal: Principal, plan: ImportPlan) -> bool:
        """Before anything is written: what a unit returns after that stays.

        That a new camera's id or code is still free is said by the table's keys.
        """
        for batch in batches([camera for camera in plan.writes if not camera.is_new], BATCH):
            query = sa.select(cameras.c.id, cameras.c.updated_at)
            found = await work.conn.execute(query.where(cameras.c.id.in_([camera.id for camera in batch])))
            seen = {row.id: row.updated_at for row in found}
            if any(seen.get(camera.id) != camera.seen_at for camera in batch):
                return True
        if plan.revision == self._enforcement.revision:
            return False
        authority = Authority(self._enforcement, principal.id)
        for batch in batches(plan.writes, BATCH):
            if not all(authority.may_write(camera) for camera in batch):
                return True
            # the loop must not stand still
            await asyncio.sleep(0)
        return False


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


def _words(report: ImportReport) -> str:
    return (
        f"import {report.lines} cameras: {report.created} new, {report.updated} changed, "
        f"{report.unchanged} as they were"
    )
