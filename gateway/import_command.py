"""`custos import` and `custos export`: cameras as files, through the API and as a person."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gateway.client import (
    DEFAULT_URL,
    ApiClient,
    ApiError,
    PasswordFileOption,
    UrlOption,
    UserOption,
    read_password,
)
from gateway.terminal import console, errors
from gateway.terminal import output as printed

SHOWN_ERRORS = 50
EXIT_INVALID = 1
_PIECE_BYTES = 256 * 1024
_TYPES = {".csv": "text/csv", ".jsonl": "application/x-ndjson", ".ndjson": "application/x-ndjson"}


class _Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


def import_cameras(
    file: Annotated[Path, typer.Argument(help="A file of cameras: .csv, .jsonl or .ndjson.")],
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Create and change cameras from a file: all of it, or nothing.

    Exit code 0: done. 1: lines of the file are wrong. 2: it could not be tried.
    """
    with errors():
        kind = _TYPES.get(file.suffix.lower())
        if kind is None:
            raise ApiError("file_type_unknown", f"a file ends in {', '.join(_TYPES)}")
        password = read_password(password_file)
        with _uploading(file) as advance:
            report = asyncio.run(_import(url, user, password, file, kind, advance, dry_run=dry_run))
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print_report(report)
    raise typer.Exit(EXIT_INVALID if report["error_count"] else 0)


async def _import(
    url: str,
    user: str,
    password: str,
    file: Path,
    kind: str,
    advance: Callable[[int], None],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    async with ApiClient.open(url, user, password) as client:
        try:
            report: dict[str, Any] = await client.request(
                "POST",
                "/cameras/import",
                params={"dry_run": "1"} if dry_run else None,
                data=_pieces(file, advance),
                headers={"Content-Type": kind},
            )
        except ApiError as error:
            told = error.document.get("report")
            if error.code != "import_invalid" or not isinstance(told, dict):
                raise
            return told
        return report


async def _pieces(file: Path, advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as content:
        while piece := await asyncio.to_thread(content.read, _PIECE_BYTES):
            yield piece
            advance(len(piece))


@contextmanager
def _uploading(file: Path) -> Iterator[Callable[[int], None]]:
    """A bar of what is sent; the gateway then needs a moment for checking and writing."""
    try:
        size = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        raise ApiError("file_unreadable", f"{file}: {error.strerror}") from None
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("sending", total=size)

    def advance(count: int) -> None:
        bar.start()  # no sooner: the log-in may ask for a code
        bar.update(task, advance=count)
        if bar.tasks[task].finished:
            bar.update(task, description="importing")

    try:
        yield advance
    finally:
        bar.stop()


def _print_report(report: dict[str, Any]) -> None:
    if not report["error_count"]:
        done = "would be" if report["dry_run"] else "were"
        counts = ", ".join(f"{report[what]} {what}" for what in ("created", "updated", "unchanged"))
        printed.print(f"{report['lines']} cameras: {counts} ({done})", highlight=False)
        return
    table = Table("line", "column", "code", "reason")
    for error in report["errors"][:SHOWN_ERRORS]:
        # text, not markup: a file's own words may look like it
        table.add_row(
            str(error["line"]), Text(error.get("column") or ""), error["code"], Text(error["message"])
        )
    printed.print(table)
    more = report["error_count"] - min(SHOWN_ERRORS, len(report["errors"]))
    rest = f", {more} of them not shown" if more > 0 else ""
    printed.print(f"{report['error_count']} errors{rest}: nothing was imported", highlight=False)


def export_cameras(
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    form: Annotated[_Format, typer.Option("--format", help="CSV or JSON lines.")] = _Format.CSV,
    output: Annotated[
        Path | None, typer.Option("--output", help="A new file; standard output without it.")
    ] = None,
) -> None:
    """Write the cameras that somebody may see to a file that `import` takes back. No passwords are in it."""
    with errors():
        password = read_password(password_file)
        asyncio.run(_export(url, user, password, form, output))


async def _export(url: str, user: str, password: str, form: _Format, output: Path | None) -> None:
    async with ApiClient.open(url, user, password) as client:
        pieces = client.download("/cameras/export", {"format": form.value})
        if output is None:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        try:
            # how cameras are reached is nobody else's business
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ApiError("file_unwritable", f"{output}: {error.strerror}") from None
        with os.fdopen(descriptor, "wb") as file:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
