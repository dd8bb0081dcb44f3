"""Publishing signed heads to a file beside the database, for witnesses to fetch and keep."""

import asyncio
import os
from pathlib import Path

import structlog

from gateway.audit.heads import (
    HEADS_FILE,
    MAX_HEAD_BYTES,
    HeadFormatError,
    SignedHead,
    parse_head,
    sync_folder,
)

_log = structlog.get_logger(__name__)


class HeadPublisher:
    """Appends the newest head to `heads.jsonl`: every `seconds`, after `records` records, and when asked."""

    def __init__(self, folder: Path, seconds: float, records: int) -> None:
        self._path = folder / HEADS_FILE
        self._seconds = seconds
        self._records = records
        self._newest: SignedHead | None = None
        self._published_size = _last_published_size(self._path)
        self._due = asyncio.Event()

    def offer(self, head: SignedHead) -> None:
        """Take note of a head that is durable in the database."""
        self._newest = head
        if head.head.size - self._published_size >= self._records:
            self._due.set()

    async def run(self) -> None:
        """Publish on time until cancelled. A file that cannot be written is logged and tried again."""
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self.publish()
            except OSError as error:
                _log.error("ledger_head_not_published", error=type(error).__name__, errno=error.errno)

    async def publish(self) -> None:
        """Append the newest head, durably, unless it is there already. Raise OSError."""
        newest = self._newest
        if newest is None or newest.head.size <= self._published_size:
            return
        await asyncio.to_thread(_append_line, self._path, newest.to_line())
        self._published_size = newest.head.size


def _append_line(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        _drop_torn_line(file.fileno())
        file.write(line)
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _drop_torn_line(descriptor: int) -> None:
    """Remove what a crash left of a line: without its end it was never published."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, MAX_HEAD_BYTES, max(0, size - MAX_HEAD_BYTES))
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(descriptor, size - torn)


def _last_published_size(path: Path) -> int:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 2 * MAX_HEAD_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return 0
    for line in reversed(lines[:-1]):
        try:
            return parse_head(line).head.size
        except HeadFormatError:
            continue
    return 0
