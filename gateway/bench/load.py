"""The load client as its parent sees it: a process that is told what to open, and says what it received."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from gateway.bench.errors import BenchError
from gateway.bench.load_messages import Ask, Begin, Command, End, LoadReport, Open, Progress

MAX_REPORT_BYTES = 64 * 1024 * 1024
_ASK_SECONDS = 0.2
_SILENCE_SECONDS = 30.0
"""No further viewer has started for so long: none will."""

Answer = TypeVar("Answer", bound=msgspec.Struct)


class Load:
    """A running load client; made by `running_load`. Raises BenchError when the process has died."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._opened = 0

    async def open(self, url: str, *, sampled: bool = False, ca_file: str | None = None) -> None:
        self._opened += 1
        await self._tell(Open(url=url, sampled=sampled, ca_file=ca_file))

    async def all_started(self, on_progress: Callable[[int], None]) -> None:
        """Wait until every viewer has its first keyframe or has failed, or nothing moves any more."""
        loop = asyncio.get_running_loop()
        moved_at, seen = loop.time(), -1
        while loop.time() - moved_at < _SILENCE_SECONDS:
            await self._tell(Ask())
            progress = await self._answer(Progress)
            on_progress(progress.started)
            settled = progress.started + progress.failed
            if settled >= self._opened:
                return
            if settled != seen:
                moved_at, seen = loop.time(), settled
            await asyncio.sleep(_ASK_SECONDS)

    async def begin(self) -> None:
        await self._tell(Begin())

    async def end(self) -> LoadReport:
        await self._tell(End())
        return await self._answer(LoadReport)

    async def _tell(self, command: Command) -> None:
        if self._process.stdin is None:
            raise BenchError("the load client has no stdin")
        try:
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise BenchError("the load client died") from error

    async def _answer(self, kind: type[Answer]) -> Answer:
        line = await self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            raise BenchError("the load client died")
        return msgspec.json.decode(line, type=kind)


@asynccontextmanager
async def running_load() -> AsyncIterator[Load]:
    """Start a load client; whatever happens, none is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.bench.load_client",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_REPORT_BYTES,
    )
    try:
        yield Load(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
