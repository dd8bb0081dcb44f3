"""Control's end of the relay workers: leases out, redemptions and reports in, claims of cameras.

One connection per worker, in a TaskGroup of its own. A message to a worker that is gone is dropped: its
sessions end by their deadline. A stream belongs to the worker that claimed it first, with an epoch; the
others are sent to that one. What a dead worker had is free at once, and who took it from there asks again.

All that a connection says is handled here: which message comes before which is what makes it right.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import msgspec
import structlog

from gateway.channel import Channel, ChannelError
from gateway.messages import (
    PUSH_URL,
    AnalysisEvent,
    AnalysisState,
    CameraReport,
    Claim,
    Claimed,
    End,
    Hello,
    Lease,
    PublisherExpected,
    PublisherFailed,
    PublisherLogin,
    Redeem,
    Redeemed,
    Refused,
    Release,
    RunningSession,
    SessionOver,
    SessionUsage,
    Streaming,
    StreamMoved,
    ToControl,
    ToWorker,
    Usage,
    camera_of,
)
from gateway.private_socket import private_socket
from gateway.problems import Problem
from gateway.store.errors import StoreError
from gateway.stream_claims import StreamClaims
from streams.sources.source import CameraAddress

log = structlog.get_logger(__name__)

LEASE_SECONDS = 0.25
MAX_REQUESTS_AT_ONCE = 256
"""Redemptions and claims of one worker under way; the store groups them, so few are ever waiting."""
MAX_WORKERS = 256
ASSEMBLY_SECONDS = 3.0
"""After its start control waits so long for its workers to say what they pull, before it gives any claim."""


class WorkerEvents:
    """What the link tells the rest of control. Each is set once by the composition root, before `serve`."""

    redeem: Callable[[int, Redeem], Awaitable[Redeemed | Refused]]
    streaming: Callable[[int, str], Awaitable[None]]
    address: Callable[[str], Awaitable[CameraAddress]]
    """Of a stream, by its key. Raises Problem."""
    hello: Callable[[int, int, list[RunningSession]], list[str]]
    """A worker, its process, what runs there. Returns what must not."""
    gone: Callable[[int], None]
    usage: Callable[[int, list[SessionUsage]], None]
    over: Callable[[int, SessionOver], None]
    publisher_failed: Callable[[PublisherFailed], None]
    analysis_event: Callable[[AnalysisEvent], Awaitable[None]]
    analysis_state: Callable[[AnalysisState], None]
    placed: Callable[[int], None]
    """A worker came or went: what it alone ran must run elsewhere, or again."""
    may_renew: Callable[[int | None], bool]
    """Whether a worker that was last told this revision may go on showing pictures."""
    decided_revision: Callable[[], int | None]
    """Of the policy under which every session is decided; None if some are to be decided again."""


@dataclass(slots=True)
class _Link:
    """`revision`: what the worker was told last, by this control or by one before it.

    `is_cut_off`: it did not read, and comes again.
    """

    worker: int
    pid: int
    channel: Channel[ToControl, ToWorker]
    revision: int | None
    is_cut_off: bool = False
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REQUESTS_AT_ONCE))


_Request = Redeem | Claim | PublisherLogin | Streaming


def _not_begun(session: str) -> SessionOver:
    """Of a session whose start was committed for a connection that was gone: no worker will ever name it."""
    return SessionOver(session=session, reason="lost", lost=True, bytes_sent=0, dropped_access_units=0)


async def _hello(channel: Channel[ToControl, ToWorker]) -> Hello:
    first = await channel.receive()
    if not isinstance(first, Hello):
        raise ChannelError("the first message is no Hello")
    return first


class RelayWorkers:
    def __init__(
        self, events: WorkerEvents, workers: int, assembly_seconds: float = ASSEMBLY_SECONDS
    ) -> None:
        """`workers`: how many there will be."""
        self._events = events
        self._workers = workers
        self._assembly_seconds = assembly_seconds
        self._assembled = asyncio.Event()
        self._links: dict[int, _Link] = {}
        self._claims = StreamClaims(time.time_ns())
        self._reports: dict[int, dict[str, CameraReport]] = {}
        self._sequence = 0

    @property
    def connected(self) -> int:
        return len(self._links)

    def numbers(self) -> list[int]:
        return sorted(self._links)

    def send(self, worker: int, message: ToWorker) -> None:
        """Queue a message; dropped if the worker is gone or stuck."""
        link = self._links.get(worker)
        if link is None or link.is_cut_off:
            return
        try:
            link.channel.send(message)
        except ChannelError as error:
            link.is_cut_off = True
            log.warning("worker_unreachable", worker=worker, error=str(error))

    def cameras_moved(self, cameras: Collection[str]) -> None:
        """Whoever pulls a stream of these cameras is to connect anew, and an encoder to log in anew.

        A file may move a whole city: only what somebody has or wants is told, and who is away just now hears
        of it when he comes.
        """
        if not cameras:
            return
        self._claims.moved(cameras)
        for stream, workers in self._wanted().items():
            if camera_of(stream) in cameras:
                self._announce(stream, workers & self._links.keys())

    def _wanted(self) -> dict[str, set[int]]:
        """The workers that take each stream, from whomever, or try to."""
        wanted = self._claims.takers()
        for worker, reports in self._reports.items():
            for stream in reports:
                wanted.setdefault(stream, set()).add(worker)
        return wanted

    def worker_for(self, stream: str) -> int | None:
        """The worker that pulls the stream, else any that is there."""
        holder = self._claims.holder(stream)
        return holder if holder in self._links else min(self._links, default=None)

    def report(self, stream: str) -> CameraReport | None:
        """What the worker that has the stream last said of it; of one that nobody has, any that tries."""
        holder = self._claims.holder(stream)
        reports = self._reports.values() if holder is None else [self._reports.get(holder, {})]
        return next((report[stream] for report in reports if stream in report), None)

    def reports(self) -> list[CameraReport]:
        streams = {stream for reports in self._reports.values() for stream in reports}
        return [report for report in map(self.report, sorted(streams)) if report is not None]

    def bit_rate(self, stream: str) -> int | None:
        report = self.report(stream)
        return report.bit_rate_bps or None if report is not None else None

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        """Listen on a Unix socket that only this user may open, and renew leases, until the context ends."""
        decoder = msgspec.msgpack.Decoder(ToControl)
        async with asyncio.TaskGroup() as tasks:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                channel: Channel[ToControl, ToWorker] = Channel(reader, writer, decoder)
                running.append(tasks.create_task(self._serve_one(channel, tasks)))
                running[:] = [task for task in running if not task.done()]

            running: list[asyncio.Task[None]] = [
                tasks.create_task(self._renew_leases()),
                tasks.create_task(self._assemble()),
            ]
            async with private_socket(path) as name:
                server = await asyncio.start_unix_server(connected, name)
            try:
                yield
            finally:
                server.close()
                for task in running:
                    task.cancel()

    async def _renew_leases(self) -> None:
        while True:
            self._sequence += 1
            for link in list(self._links.values()):
                self._renew_lease(link)
            await asyncio.sleep(LEASE_SECONDS)

    def _renew_lease(self, link: _Link) -> None:
        if not self._events.may_renew(link.revision):
            return
        # what the worker heard stays true until all its sessions are decided under a later revision
        if (revision := self._events.decided_revision()) is not None:
            link.revision = revision
        self.send(link.worker, Lease(sequence=self._sequence, revision=link.revision))

    async def _assemble(self) -> None:
        """A worker that does not come back must not keep the others' pictures from starting."""
        await asyncio.sleep(self._assembly_seconds)
        self._assembled.set()

    async def _serve_one(self, channel: Channel[ToControl, ToWorker], tasks: asyncio.TaskGroup) -> None:
        link: _Link | None = None
        try:
            hello = await _hello(channel)
            link = self._enlist(channel, hello)
            self._welcome(link, hello)
            async for message in channel:
                await self._handle(link, message, tasks)
        except ChannelError as error:
            log.warning("worker_link_failed", worker=link.worker if link else None, error=str(error))
        # One worker's message that nobody thought of costs its own connection, not everybody's.
        except Exception:
            log.exception("worker_link_failed", worker=link.worker if link else None)
        finally:
            if link is not None and self._links.get(link.worker) is link:
                del self._links[link.worker]
                self._reports.pop(link.worker, None)
                self._free(self._claims.drop(link.worker))
                self._events.gone(link.worker)
                self._events.placed(link.worker)
            await channel.aclose()

    def _enlist(self, channel: Channel[ToControl, ToWorker], hello: Hello) -> _Link:
        """A worker that comes again takes the place of its earlier connection."""
        earlier = self._links.get(hello.worker)
        if earlier is not None:
            earlier.channel.abort()
        elif len(self._links) >= MAX_WORKERS:
            raise ChannelError("too many workers")
        link = _Link(hello.worker, hello.pid, channel, hello.revision)
        self._links[hello.worker] = link
        return link

    def _welcome(self, link: _Link, hello: Hello) -> None:
        self._free(self._claims.drop(link.worker, hello.streams))
        moved = self._claims.moved_since(hello.streams)
        for stream in (*self._claims.restore(link.worker, hello.streams), *moved):
            link.channel.send(StreamMoved(stream=stream))
        if len(self._links) >= self._workers:
            self._assembled.set()
        for session in self._events.hello(link.worker, link.pid, hello.sessions):
            link.channel.send(End(session=session, reason="worker_lost"))
        self._renew_lease(link)
        self._events.placed(link.worker)
        log.info("worker_connected", worker=link.worker, pid=link.pid, sessions=len(hello.sessions))

    async def _handle(self, link: _Link, message: ToControl, tasks: asyncio.TaskGroup) -> None:
        match message:
            case Redeem() | Claim() | PublisherLogin() | Streaming():
                await link.slots.acquire()
                tasks.create_task(self._answer(link, message))
            case Usage():
                self._events.usage(link.worker, message.sessions)
                self._reports[link.worker] = {report.stream: report for report in message.cameras}
            case SessionOver():
                self._events.over(link.worker, message)
            case PublisherFailed():
                self._events.publisher_failed(message)
            case Release():
                peers = self._claims.release(message.stream, link.worker, message.epoch)
                if peers is not None:
                    self._reports.get(link.worker, {}).pop(message.stream, None)
                    self._free({message.stream: peers})
            case AnalysisEvent():
                await self._events.analysis_event(message)
            case AnalysisState():
                self._events.analysis_state(message)
            case Hello():
                raise ChannelError("a second Hello")
            case _:
                assert_never(message)

    async def _answer(self, link: _Link, message: _Request) -> None:
        answer = None
        try:
            answer = await self._answer_to(link, message)
            if answer is not None:
                link.channel.send(answer)
        except ChannelError as error:
            log.warning("worker_unreachable", worker=link.worker, error=str(error))
            if isinstance(answer, Redeemed):
                self._events.over(link.worker, _not_begun(answer.session))
        finally:
            link.slots.release()

    async def _answer_to(self, link: _Link, message: _Request) -> ToWorker | None:
        try:
            return await self._act(link, message)
        except Problem as error:
            problem = error
        except StoreError as error:
            problem = Problem(error.code)
        except ChannelError:
            raise
        # An answer that fails must not end every worker's connection: they share this task group.
        except Exception:
            log.exception("worker_request_failed", worker=link.worker, request=type(message).__name__)
            problem = Problem("internal_error")
        if isinstance(message, Streaming):
            log.warning("ticket_not_used_up", session=message.session, code=problem.code)
            return None
        return Refused(
            request=message.request, status=problem.status, code=problem.code, detail=problem.detail
        )

    async def _act(self, link: _Link, message: _Request) -> ToWorker | None:
        match message:
            case Redeem():
                return await self._events.redeem(link.worker, message)
            case Claim():
                return await self._claim(link, message)
            case PublisherLogin():
                return await self._expected(message)
            case Streaming():
                await self._events.streaming(link.worker, message.session)
                return None
            case _:
                assert_never(message)

    async def _claim(self, link: _Link, message: Claim) -> Claimed:
        """Raises Problem, `ChannelError` if the worker has gone meanwhile."""
        stream = message.stream
        await self._assembled.wait()
        address = await self._current_address(stream)
        is_pushed = address.url == PUSH_URL
        if self._links.get(link.worker) is not link:
            raise ChannelError("the worker has gone")
        if message.publishing:
            if not is_pushed:
                raise Problem("not_found", stream)
            holding = self._claims.take_over(stream, link.worker)
            self._announce(stream, self._links.keys() - {link.worker}, holding.epoch)
        elif is_pushed and self._claims.holder(stream) is None:
            raise Problem("not_publishing", stream)
        else:
            holding = self._claims.ask(stream, link.worker)
        is_own = holding.worker == link.worker
        return Claimed(
            request=message.request,
            stream=stream,
            epoch=holding.epoch,
            address=address if is_own else None,
            peer=None if is_own else holding.worker,
        )

    async def _current_address(self, stream: str) -> CameraAddress:
        """As it is when this returns: whoever is told it next must not miss the word that it has changed."""
        while True:
            moves = self._claims.moves
            address = await self._events.address(stream)
            if moves == self._claims.moves:
                return address

    async def _expected(self, message: PublisherLogin) -> PublisherExpected:
        """Whatever cannot be published is not there: who asks has not logged in. Raises Problem."""
        try:
            address = await self._events.address(message.camera)
        except Problem as problem:
            raise Problem("not_found", message.camera) from problem
        if address.url != PUSH_URL or not address.password:
            raise Problem("not_found", message.camera)
        return PublisherExpected(
            request=message.request,
            camera=message.camera,
            username=address.username or "",
            password=address.password,
        )

    def _free(self, streams: dict[str, set[int]]) -> None:
        """Nobody has these streams any more; the first peer that asks again gets each."""
        for stream, peers in streams.items():
            self._announce(stream, peers)

    def _announce(self, stream: str, workers: Iterable[int], epoch: int = 0) -> None:
        for worker in sorted(workers):
            self.send(worker, StreamMoved(stream=stream, epoch=epoch))
