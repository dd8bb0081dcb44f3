"""Publishing signed heads to a file beside the database, for witnesses to fetch and keep."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.audit.heads import HEADS_FILE, MAX_HEAD_BYTES, HeadFormatError, SignedHead, parse_head
from gateway.audit.line_files import append_line, last_lines

_log = structlog.get_logger(__name__)


class HeadPublisher:
    """Appends the newest head to `heads.jsonl`: every `seconds`, after `records` records, and when asked."""

    def __init__(self, folder: Path, seconds: float, records: int) -> None:
        self._path = folder / HEADS_FILE
        self._seconds = seconds
        self._records = records
        self._newest: SignedHead | None = None
        published = last_published(folder)
        self._published_size = 0 if published is None else published.head.size
        self._due = asyncio.Event()
        self.listeners: list[Callable[[SignedHead], None]] = []
        """Called with each head once it is published; they must not raise."""

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
        await asyncio.to_thread(append_line, self._path, newest.to_line(), MAX_HEAD_BYTES)
        self._published_size = newest.head.size
        for listener in self.listeners:
            listener(newest)


def last_published(folder: Path) -> SignedHead | None:
    """The newest head in the data folder's file; None if there is none. Its signature is not verified."""
    for line in reversed(last_lines(folder / HEADS_FILE, 2 * MAX_HEAD_BYTES)):
        try:
            return parse_head(line)
        except HeadFormatError:
            continue
    return None
