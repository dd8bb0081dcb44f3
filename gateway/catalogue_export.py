"""The catalogue as a file: the cameras that somebody may see, in a form that the import takes back."""

from collections.abc import AsyncIterator, Sequence

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.catalogue_columns import COLUMNS, CONNECTION_COLUMNS, Fields, FileFormat
from gateway.catalogue_rows import look_up
from gateway.catalogue_writing import write_csv_line, write_header, write_json_line
from gateway.enforcement import Circumstances, Enforcement
from gateway.planned_cameras import Existing, fields_of
from gateway.principals import Principal, actor_of
from gateway.store.store import Store
from policies.access import Action, Object, ObjectKind

PAGE = 500
_BYTE_ORDER_MARK = "\ufeff"
"""Without it, Excel reads UTF-8 as the machine's own encoding."""

_WRITTEN = tuple(column for column in COLUMNS if column != "password")


class CatalogueExport:
    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement

    async def export(
        self, principal: Principal, form: FileFormat, circumstances: Circumstances
    ) -> AsyncIterator[bytes]:
        """The file in pieces; it is in the ledger before the first.

        In the order of ids. How a camera is reached is there only if the principal manages it, and never its
        password. What changes meanwhile may be there or not.
        """
        revision = self._enforcement.revision
        visible = sorted(self._enforcement.visible_cameras(principal.id))
        await self._store.record(
            AuditEvent(
                kind=AuditKind.EXPORT,
                outcome=Outcome.OK,
                content=f"export {len(visible)} cameras as {form.value}",
                **actor_of(principal),
                action=Action.CAMERA_READ.value,
                resource="catalogue:cameras",
                revision=revision,
                remote=circumstances.remote,
                request_id=circumstances.request_id,
            )
        )
        return self._pieces(principal, form, visible, revision)

    async def _pieces(
        self, principal: Principal, form: FileFormat, visible: Sequence[str], revision: int
    ) -> AsyncIterator[bytes]:
        if form is FileFormat.CSV:
            yield (_BYTE_ORDER_MARK + write_header(_WRITTEN)).encode()
        for start in range(0, len(visible), PAGE):
            async with self._store.read() as conn:
                found = await look_up(conn, visible[start : start + PAGE], ())
            lines = [
                self._fields(principal, found.by_id[camera_id])
                for camera_id in sorted(found.by_id)
                # an export may take its reader a while
                if self._enforcement.revision == revision
                or self._enforcement.is_visible(principal.id, camera_id)
            ]
            if form is FileFormat.CSV:
                yield "".join(write_csv_line(_WRITTEN, fields) for fields in lines).encode()
            else:
                yield b"".join(write_json_line(_WRITTEN, fields) for fields in lines)

    def _fields(self, principal: Principal, camera: Existing) -> Fields:
        fields = fields_of(camera)
        target = Object(ObjectKind.CAMERA, camera.row.id)
        if not self._enforcement.decide(principal.id, Action.CAMERA_MANAGE, target).allowed:
            for column in CONNECTION_COLUMNS:
                del fields[column]
        return fields
