"""Control's end of the relay workers: leases out, redemptions and reports in, claims of cameras.

One connection per worker, in a TaskGroup of its own. A message to a worker that is gone is dropped: its
sessions end by their deadline. A camera belongs to the worker that claimed it first, with an epoch.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import msgspec
import structlog

from gateway.channel import Channel, ChannelError
from gateway.messages import (
    AnalysisEvent,
    AnalysisState,
    CameraReport,
    Claim,
    Claimed,
    End,
    Hello,
    Lease,
    Redeem,
    Redeemed,
    Refused,
    Release,
    RunningSession,
    SessionOver,
    SessionUsage,
    StreamMoved,
    ToControl,
    ToWorker,
    Usage,
)
from gateway.problems import Problem
from gateway.store.errors import StoreError
from streams.sources.source import CameraAddress

log = structlog.get_logger(__name__)

LEASE_SECONDS = 0.25
MAX_REQUESTS_AT_ONCE = 256
"""Redemptions and claims of one worker under way; the store groups them, so few are ever waiting."""
MAX_WORKERS = 256


async def private_unix_server(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None], path: Path
) -> asyncio.Server:
    """Listen on a Unix socket that only this user may open; one left by a killed process is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - one system call, before anything runs
    old_mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(connected, path)
    finally:
        os.umask(old_mask)


class WorkerEvents:
    """What the link tells the rest of control. Each is set once by the composition root, before `serve`."""

    redeem: Callable[[int, Redeem], Awaitable[Redeemed | Refused]]
    address: Callable[[str], Awaitable[CameraAddress]]
    hello: Callable[[int, list[RunningSession]], list[str]]
    gone: Callable[[int], None]
    usage: Callable[[list[SessionUsage]], None]
    over: Callable[[int, SessionOver], None]
    analysis_event: Callable[[AnalysisEvent], Awaitable[None]]
    analysis_state: Callable[[AnalysisState], None]
    placed: Callable[[int], None]
    """A worker came or went: what it alone ran must run elsewhere, or again."""


@dataclass(slots=True)
class _Link:
    worker: int
    pid: int
    channel: Channel[ToControl, ToWorker]
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REQUESTS_AT_ONCE))


async def _hello(channel: Channel[ToControl, ToWorker]) -> Hello:
    first = await channel.receive()
    if not isinstance(first, Hello):
        raise ChannelError("the first message is no Hello")
    return first


class RelayWorkers:
    def __init__(self, events: WorkerEvents) -> None:
        self._events = events
        self._links: dict[int, _Link] = {}
        self._claims: dict[str, tuple[int, int]] = {}
        self._epoch = 0
        self._reports: dict[str, CameraReport] = {}
        self._sequence = 0

    @property
    def connected(self) -> int:
        return len(self._links)

    def numbers(self) -> list[int]:
        return sorted(self._links)

    def send(self, worker: int, message: ToWorker) -> None:
        """Queue a message; dropped if the worker is gone or stuck."""
        link = self._links.get(worker)
        if link is None:
            return
        try:
            link.channel.send(message)
        except ChannelError as error:
            log.warning("worker_unreachable", worker=worker, error=str(error))

    def camera_moved(self, camera_id: str) -> None:
        """Whoever pulls the camera is to connect anew."""
        for worker in self.numbers():
            self.send(worker, StreamMoved(stream=camera_id))

    def worker_for(self, camera_id: str) -> int | None:
        """The worker that pulls the camera, else any that is there."""
        claim = self._claims.get(camera_id)
        if claim is not None and claim[0] in self._links:
            return claim[0]
        return min(self._links, default=None)

    def report(self, camera_id: str) -> CameraReport | None:
        return self._reports.get(camera_id)

    def reports(self) -> list[CameraReport]:
        return list(self._reports.values())

    def bit_rate(self, camera_id: str) -> int | None:
        report = self._reports.get(camera_id)
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

            running: list[asyncio.Task[None]] = [tasks.create_task(self._renew_leases())]
            server = await private_unix_server(connected, path)
            try:
                yield
            finally:
                server.close()
                for task in running:
                    task.cancel()

    async def _renew_leases(self) -> None:
        while True:
            self._sequence += 1
            for worker in list(self._links):
                self.send(worker, Lease(sequence=self._sequence))
            await asyncio.sleep(LEASE_SECONDS)

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
                self._drop_claims(link.worker)
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
        self._drop_claims(hello.worker)
        link = _Link(hello.worker, hello.pid, channel)
        self._links[hello.worker] = link
        return link

    def _welcome(self, link: _Link, hello: Hello) -> None:
        for camera in hello.streams:
            self._claim(camera, link.worker)
        for session in self._events.hello(link.worker, hello.sessions):
            link.channel.send(End(session=session, reason="worker_lost"))
        link.channel.send(Lease(sequence=self._sequence))
        self._events.placed(link.worker)
        log.info("worker_connected", worker=link.worker, pid=link.pid, sessions=len(hello.sessions))

    async def _handle(self, link: _Link, message: ToControl, tasks: asyncio.TaskGroup) -> None:
        match message:
            case Redeem() | Claim():
                await link.slots.acquire()
                tasks.create_task(self._answer(link, message))
            case Usage():
                self._events.usage(message.sessions)
                for report in message.cameras:
                    self._reports[report.stream] = report
            case SessionOver():
                self._events.over(link.worker, message)
            case Release():
                if self._claims.get(message.stream, (None, 0))[0] == link.worker:
                    del self._claims[message.stream]
                self._reports.pop(message.stream, None)
            case AnalysisEvent():
                await self._events.analysis_event(message)
            case AnalysisState():
                self._events.analysis_state(message)
            case Hello():
                raise ChannelError("a second Hello")
            case _:
                assert_never(message)

    async def _answer(self, link: _Link, message: Redeem | Claim) -> None:
        try:
            answer = await self._answer_to(link.worker, message)
            link.channel.send(answer)
        except ChannelError as error:
            log.warning("worker_unreachable", worker=link.worker, error=str(error))
        finally:
            link.slots.release()

    async def _answer_to(self, worker: int, message: Redeem | Claim) -> ToWorker:
        try:
            if isinstance(message, Redeem):
                return await self._events.redeem(worker, message)
            address = await self._events.address(message.stream)
            return Claimed(
                request=message.request,
                stream=message.stream,
                epoch=self._claim(message.stream, worker),
                address=address,
            )
        except Problem as error:
            problem = error
        except StoreError as error:
            problem = Problem(error.code)
        # An answer that fails must not end every worker's connection: they share this task group.
        except Exception:
            log.exception("worker_request_failed", worker=worker, request=type(message).__name__)
            problem = Problem("internal_error")
        return Refused(
            request=message.request, status=problem.status, code=problem.code, detail=problem.detail
        )

    def _claim(self, camera_id: str, worker: int) -> int:
        self._epoch += 1
        self._claims[camera_id] = (worker, self._epoch)
        return self._epoch

    def _drop_claims(self, worker: int) -> None:
        for camera in [camera for camera, claim in self._claims.items() if claim[0] == worker]:
            del self._claims[camera]
            self._reports.pop(camera, None)
