"""The node supervisor: holds the data folder, starts the processes of a node, keeps them, ends them.

Children are data (`ChildSpec`), and `SupervisedChild` keeps each. The supervisor alone reacts to signals: the
first drains, stop order by stop order; a second kills at once.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.node_errors import AddressInUseError, DataFolderLockedError, NodeError, NotDrainedError
from gateway.supervised_child import ChildSpec, RestartPolicy, SupervisedChild

_SHARE_OF_A_BATCH = 0.7
_STILL_SECONDS = 6.0
"""Longer than the workers' lease of 5 s: whatever stood still for so long shows nothing any more."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SupervisorSettings:
    """`drain_seconds` bounds the whole stop; what still runs then is killed."""

    data_folder: Path
    start_seconds: float = 60.0
    drain_seconds: float = 10.0


def control_child(settings: bytes) -> ChildSpec:
    """The one process with the database: first to start, last to stop, given up when it keeps dying."""
    return ChildSpec(
        name="control",
        argv=(sys.executable, "-m", "gateway.app"),
        settings=settings,
        start_order=0,
        stop_order=1,
        # Within the workers' lease of 5 s: until control is back, no picture may stop.
        restart=RestartPolicy(first_delay_seconds=0.1, max_deaths=5),
        still_seconds=_STILL_SECONDS,
    )


def relay_child(number: int, settings: bytes) -> ChildSpec:
    """Relay workers stop first: control must still be there to record how their sessions ended."""
    return ChildSpec(
        name=f"relay-{number}",
        argv=(sys.executable, "-m", "gateway.relay"),
        settings=settings,
        start_order=1,
        stop_order=0,
        still_seconds=_STILL_SECONDS,
    )


def analysis_child(number: int, socket: Path) -> ChildSpec:
    """A process that decodes what cameras sent, and may die of it; workers connect when it is there."""
    return ChildSpec(
        name=f"analysis-{number}",
        argv=(sys.executable, "-m", "analytics.process", "--socket", str(socket)),
        start_order=1,
        stop_order=1,
        announces_readiness=False,
    )


@contextlib.contextmanager
def locked_data_folder(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone. Raises `DataFolderLockedError` if another one holds it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderLockedError(f"another Custos runs on the data folder {folder}") from None
        yield
    finally:
        os.close(descriptor)


def reserve_port(host: str, port: int) -> socket.socket:
    """Bind without listening, so that the port (0: a free one) is known and ours before children listen.

    Children bind with SO_REUSEPORT; since that would also share the port with a foreign node, a bind without
    it is tried first. Raises `AddressInUseError`. The caller keeps the socket open as long as the node runs.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        raise AddressInUseError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return reserved


class NodeSupervisor:
    """Runs the children of one node; `run` returns when all have ended. One use."""

    def __init__(self, children: Sequence[ChildSpec], settings: SupervisorSettings) -> None:
        self._children = [SupervisedChild(spec, settings.start_seconds) for spec in children]
        self._settings = settings
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """What SIGTERM and SIGINT do: drain; a second time: kill."""
        if self._stopping.is_set():
            for child in self._children:
                child.kill()
        self._stopping.set()

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Start all, call `on_ready`, keep them until a signal or a failure, end them.

        Raises a `NodeError`; whatever happens, no child is left.
        """
        with locked_data_folder(self._settings.data_folder), self._signals():
            try:
                await self._keep_until_stopped(on_ready)
            finally:
                try:
                    await self._drain()
                finally:
                    for child in self._children:
                        child.kill()
            if killed := [child.spec.name for child in self._children if child.was_killed]:
                raise NotDrainedError(f"killed before it had ended: {', '.join(killed)}")

    async def _keep_until_stopped(self, on_ready: Callable[[], None] | None) -> None:
        failure: NodeError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self._start_and_keep(on_ready))
                await self._stopping.wait()
                keeping.cancel()
        except* NodeError as errors:
            failure = _first(errors)
        if failure is not None:
            raise failure

    async def _start_and_keep(self, on_ready: Callable[[], None] | None) -> None:
        async with asyncio.TaskGroup() as group:
            for batch in _batches(self._children, lambda spec: spec.start_order):
                async with asyncio.TaskGroup() as starting:
                    for child in batch:
                        starting.create_task(child.start())
                for child in batch:
                    group.create_task(child.keep())
            _log.info("node_ready", children=[child.spec.name for child in self._children])
            if on_ready is not None:
                on_ready()

    async def _drain(self) -> None:
        """Every batch but the last may use most of the time that is left; then it is killed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_seconds
        batches = _batches(self._children, lambda spec: spec.stop_order)
        for index, batch in enumerate(batches):
            left = deadline - loop.time()
            share = left if index == len(batches) - 1 else left * _SHARE_OF_A_BATCH
            for child in batch:
                child.terminate()
            late = [loop.call_later(share, child.kill) for child in batch]
            try:
                for child in batch:
                    await child.ended()
            finally:
                for timer in late:
                    timer.cancel()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _batches(
    children: Sequence[SupervisedChild], order: Callable[[ChildSpec], int]
) -> list[list[SupervisedChild]]:
    return [
        [child for child in children if order(child.spec) == number]
        for number in sorted({order(child.spec) for child in children})
    ]


def _first(errors: BaseExceptionGroup[NodeError]) -> NodeError:
    error = errors.exceptions[0]
    return error if isinstance(error, NodeError) else _first(error)
