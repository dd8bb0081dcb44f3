"""The life of one demuxing child as its parent sees it: started, read, kept within its budget, reaped."""

import asyncio
import math
import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

import msgspec
import structlog

from streams.errors import LimitExceededError, SourceUnreachableError, StreamError
from streams.sources.link import LinkParser, Message
from streams.sources.pyav_order import Order

MAX_STDERR_BYTES = 8 * 1024
READ_BYTES = 256 * 1024
FEED_BUFFER_BYTES = 4 * 1024 * 1024
"""What the parent holds for a child that is busy pacing: a segment of HLS in advance."""

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_COMMAND = (sys.executable, "-E", "-s", "-B", "-X", "utf8", "-m", "streams.sources.pyav_child")
_USERINFO = re.compile(r"//[^/\s]*@")
_CPU_WINDOW_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemuxerSettings:
    """What one child may use.

    `memory_bytes` is address space: 130 MB are libav and the interpreter, and probing a 4K stream decodes one
    picture. Remuxing 8 Mbit/s takes about two CPU seconds a minute.
    """

    memory_bytes: int = 768 * 1024 * 1024
    cpu_seconds_per_minute: int = 20
    terminate_seconds: float = 2.0


class Demuxer:
    """A running child; made by `open`, gone when that ends."""

    def __init__(self, process: asyncio.subprocess.Process, settings: DemuxerSettings) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("a child has three pipes")
        self.feed = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._process = process
        self._settings = settings
        self._parser = LinkParser()
        self._complaint = b""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, order: Order, settings: DemuxerSettings, *, secret: str | None, pass_fds: Sequence[int] = ()
    ) -> AsyncIterator[Self]:
        """Start a child on `order`; `secret` is taken out of whatever it may complain about.

        Raises `SourceUnreachableError` if the system has no process or descriptor left.
        """
        try:
            process = await _start(pass_fds)
        except OSError as error:
            raise SourceUnreachableError(f"no demuxer can be started ({type(error).__name__})") from error
        demuxer = cls(process, settings)
        try:
            demuxer.feed.transport.set_write_buffer_limits(high=FEED_BUFFER_BYTES)
            body = msgspec.msgpack.encode(order)
            demuxer.feed.write(len(body).to_bytes(4, "big") + body)
            yield demuxer
        finally:
            await demuxer._reap()
            if demuxer._complaint:
                complaint = redact(demuxer._complaint.decode(errors="replace"), secret)
                _log.warning("demuxer complained", stderr=complaint, returncode=process.returncode)

    async def read(self) -> list[Message]:
        """Return the next messages, at least none. Raises `StreamError` when the child is gone."""
        data = await self._stdout.read(READ_BYTES)
        if not data:
            raise _error_of(await self._process.wait())
        return self._parser.receive_data(data)

    async def watch(self) -> None:
        """Renew the child's CPU budget and take its complaints, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_cpu_budget())
            tasks.create_task(self._collect_stderr())

    async def _renew_cpu_budget(self) -> None:
        pid = self._process.pid
        clock = ~pid << 3 | 2  # clock_getcpuclockid(3), which Python lacks: CPUCLOCK_SCHED of a process
        with suppress(ProcessLookupError):
            while self._process.returncode is None:
                _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
                used = math.ceil(time.clock_gettime(clock))
                resource.prlimit(
                    pid, resource.RLIMIT_CPU, (used + self._settings.cpu_seconds_per_minute, hard)
                )
                await asyncio.sleep(_CPU_WINDOW_SECONDS)

    async def _collect_stderr(self) -> None:
        while data := await self._stderr.read(MAX_STDERR_BYTES):
            self._complaint = (self._complaint + data)[-MAX_STDERR_BYTES:]

    async def _reap(self) -> None:
        process = self._process
        self.feed.close()
        try:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self._settings.terminate_seconds):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            while await self._stdout.read(READ_BYTES):
                pass
            await self._collect_stderr()
        finally:
            if process.returncode is None:  # cancelled again while waiting
                process.kill()


async def _start(pass_fds: Sequence[int]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_COMMAND,
        cwd=_PACKAGE_ROOT,
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C is for the supervisor
        limit=READ_BYTES,
    )


def redact(text: str, secret: str | None) -> str:
    """Take the user information of addresses, and `secret` however it is escaped, out of a text."""
    for spelling in filter(None, (secret, secret and quote(secret, safe=""), secret and repr(secret)[1:-1])):
        text = text.replace(spelling, "***")
    return _USERINFO.sub("//***@", text)


def _error_of(returncode: int) -> StreamError:
    if returncode == -signal.SIGXCPU:
        return LimitExceededError("the demuxer used more than its CPU budget")
    if returncode < 0:
        return SourceUnreachableError(f"the demuxer was ended by {signal.Signals(-returncode).name}")
    return SourceUnreachableError(f"the demuxer ended with status {returncode}")
