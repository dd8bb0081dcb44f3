"""A relay worker's connection to one analysis process, made again whenever it is lost."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from analytics.messages import (
    LENGTH_BYTES,
    MAX_ANSWER_BYTES,
    Answer,
    Begun,
    Job,
    MessageError,
    ToProcess,
    parse_length,
    parse_to_worker,
    serialize,
)

_log = structlog.get_logger(__name__)

Work = TypeVar("Work")


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """`jobs_in_flight`: sent and not answered: one that is worked on, and one that waits for it.

    `answer_seconds`: a process that is silent for so long, with a job, is taken for dead.
    """

    jobs_in_flight: int = 2
    answer_seconds: float = 30.0
    first_retry_seconds: float = 0.1
    max_retry_seconds: float = 2.0


class ProcessLink(Generic[Work]):
    """Jobs out, answers in, in order. `Work` is what the owner remembers with each job.

    `on_ready` is called when there may be room for a job; `on_answer` for each answer; `on_lost` when the
    process is gone, with the work that it had begun, if any, and the work that it had not.
    """

    def __init__(
        self,
        path: Path,
        settings: LinkSettings,
        *,
        on_ready: Callable[["ProcessLink[Work]"], None],
        on_answer: Callable[[Work, Answer], None],
        on_lost: Callable[["ProcessLink[Work]", Work | None, list[Work]], None],
    ) -> None:
        self._path = path
        self._settings = settings
        self._on_ready = on_ready
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._writer: asyncio.StreamWriter | None = None
        self._in_flight: deque[tuple[Job, Work]] = deque()
        self._has_begun = False
        self._patience: asyncio.Timeout | None = None

    @property
    def is_connected(self) -> bool:
        return self._writer is not None

    @property
    def has_room(self) -> bool:
        return self.is_connected and len(self._in_flight) < self._settings.jobs_in_flight

    def send(self, job: Job, work: Work) -> None:
        """The caller has seen that there is room."""
        self._in_flight.append((job, work))
        self._write(job)
        self._be_patient()

    def tell(self, message: ToProcess) -> None:
        """Something without an answer; lost if the process is."""
        if self.is_connected:
            self._write(message)

    async def run(self) -> None:
        """Connect, and again when it is lost, until cancelled."""
        pause = self._settings.first_retry_seconds
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._settings.max_retry_seconds)
                continue
            pause = self._settings.first_retry_seconds
            try:
                await self._serve(reader, writer)
            finally:
                writer.transport.abort()
                self._writer = self._patience = None
            self._lose()
            await asyncio.sleep(pause)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, MessageError):
            async with asyncio.timeout(None) as self._patience:
                self._on_ready(self)
                while True:
                    length = parse_length(await reader.readexactly(LENGTH_BYTES), MAX_ANSWER_BYTES)
                    self._receive(parse_to_worker(await reader.readexactly(length)))

    def _receive(self, message: Begun | Answer) -> None:
        if not self._in_flight or self._in_flight[0][0].number != message.number:
            raise MessageError("not about the job that is next")
        if isinstance(message, Begun):
            self._has_begun = True
            return
        job, work = self._in_flight[0]
        if message.error is None and len(message.jpegs) != len(job.jpegs):
            raise MessageError("not the pictures that were ordered")
        self._in_flight.popleft()
        self._has_begun = False
        self._be_patient()
        self._on_answer(work, message)
        self._on_ready(self)

    def _be_patient(self) -> None:
        if self._patience is not None:
            deadline = asyncio.get_running_loop().time() + self._settings.answer_seconds
            self._patience.reschedule(deadline if self._in_flight else None)

    def _write(self, message: ToProcess) -> None:
        if self._writer is not None:
            self._writer.write(serialize(message))

    def _lose(self) -> None:
        lost = [work for _, work in self._in_flight]
        begun = lost.pop(0) if lost and self._has_begun else None
        self._in_flight.clear()
        self._has_begun = False
        _log.error("analysis_process_lost", socket=str(self._path), jobs_lost=int(begun is not None))
        self._on_lost(self, begun, lost)
