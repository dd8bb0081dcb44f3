"""Cameras as files: import and export."""

import asyncio
import hashlib
import tempfile
from typing import BinaryIO

import msgspec
from aiohttp import hdrs, web

from gateway.catalogue_columns import FileFormat
from gateway.catalogue_import import ImportInvalidError
from gateway.catalogue_reading import MAX_FILE_BYTES
from gateway.import_plan import ImportReport
from gateway.problems import Problem, ProblemDocument
from gateway.web.routing import API, Access, Call, Route
from policies.access import Action

CSV_TYPE = "text/csv"
JSON_LINES_TYPES = ("application/x-ndjson", "application/jsonl")
_PIECE_BYTES = 1024 * 1024


class ImportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dry_run`: say what would be done."""

    dry_run: bool = False


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: FileFormat = FileFormat.CSV


class ImportProblem(ProblemDocument, frozen=True, kw_only=True, omit_defaults=True):
    """The problem `import_invalid`, with what is wrong with each line."""

    report: ImportReport


async def import_cameras(call: Call, _: None) -> ImportReport | web.Response:
    dry_run = call.query(ImportQuery).dry_run
    form = FileFormat.CSV if call.request.content_type == CSV_TYPE else FileFormat.JSON_LINES
    imports = call.services.imports
    with imports.admitted(), tempfile.TemporaryFile() as file:
        sha256 = await _spool(call.request, file)
        try:
            return await imports.import_file(
                call.who, file, form, sha256, call.circumstances(), dry_run=dry_run
            )
        except ImportInvalidError as error:
            return _refusal(error.report, call.request_id)


async def _spool(request: web.Request, file: BinaryIO) -> str:
    """Take the body into the file, and return its SHA-256. Raises Problem `body_too_large`."""
    too_large = Problem("body_too_large", f"a file has at most {MAX_FILE_BYTES} bytes")
    if (request.content_length or 0) > MAX_FILE_BYTES:
        raise too_large
    digest = hashlib.sha256()
    size = 0

    def keep(piece: bytes) -> None:
        digest.update(piece)
        file.write(piece)

    async for piece in request.content.iter_chunked(_PIECE_BYTES):
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise too_large
        await asyncio.to_thread(keep, piece)
    return digest.hexdigest()


def _refusal(report: ImportReport, request_id: str) -> web.Response:
    problem = Problem("import_invalid", f"{report.error_count} errors")
    document = msgspec.structs.asdict(problem.document(request_id))
    return web.Response(
        body=msgspec.json.encode(ImportProblem(**document, report=report)),
        status=problem.status,
        content_type="application/problem+json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


async def export_cameras(call: Call, _: None) -> web.StreamResponse:
    form = call.query(ExportQuery).format
    pieces = await call.services.exports.export(call.who, form, call.circumstances())
    kind = f"{CSV_TYPE}; charset=utf-8" if form is FileFormat.CSV else JSON_LINES_TYPES[0]
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: kind,
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="cameras.{form.value}"',
            hdrs.CACHE_CONTROL: "no-store",
        }
    )
    await response.prepare(call.request)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


ROUTES = (
    Route(
        method="POST",
        path=f"{API}/cameras/import",
        handler=import_cameras,
        access=Action.CAMERA_MANAGE,
        summary="Create and change cameras from a file: all of it, or nothing",
        query=ImportQuery,
        answer=ImportReport,
        upload=(CSV_TYPE, *JSON_LINES_TYPES),
    ),
    Route(
        method="GET",
        path=f"{API}/cameras/export",
        handler=export_cameras,
        access=Access.AUTHENTICATED,
        summary="The cameras that the caller may see, as a file that the import takes back",
        query=ExportQuery,
        stream=CSV_TYPE,
    ),
)
"""To be declared before `/cameras/{id}`."""
