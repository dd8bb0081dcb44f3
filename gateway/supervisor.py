"""The node supervisor: holds the data folder, starts the processes of a node, keeps them, ends them.

Children are data (`ChildSpec`). Each gets its settings on stdin, dies with the supervisor
(PR_SET_PDEATHSIG), does not see Ctrl-C, and says on a pipe when it is ready. The supervisor alone reacts to
signals: the first drains, stop order by stop order; a second kills at once.

NodeError
├── DataFolderLockedError   another node runs on this data folder
├── AddressInUseError       another program listens on the address
├── StartFailedError        a child ended, or was silent too long, before it was ready
├── ChildKeepsDyingError    a child died too often in too short a time
└── NotDrainedError         a child did not end in time, or was killed by a second signal
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from gateway.child import READY_FD

_PR_SET_PDEATHSIG = 1
_SHARE_OF_A_BATCH = 0.7
_LIBC = ctypes.CDLL(None, use_errno=True)

_log = structlog.get_logger(__name__)


class NodeError(Exception):
    """The node cannot run; the message is for the person who started it."""

    code = "node_error"


class DataFolderLockedError(NodeError):
    code = "data_folder_locked"


class AddressInUseError(NodeError):
    code = "address_in_use"


class StartFailedError(NodeError):
    code = "start_failed"


class ChildKeepsDyingError(NodeError):
    code = "child_keeps_dying"


class NotDrainedError(NodeError):
    code = "not_drained"


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """Back-off between restarts; `max_deaths` within `window_seconds` is one too many (None: never)."""

    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 4.0
    window_seconds: float = 60.0
    max_deaths: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """One process of the node.

    Children start in ascending `start_order`, each order once the one before is ready, and stop in ascending
    `stop_order`, each order once the one before has ended. `settings` is JSON, hidden from repr because it
    may hold a key. `announces_readiness`: the child calls `gateway.child.announce_ready`.
    """

    name: str
    argv: Sequence[str]
    settings: bytes = field(default=b"{}", repr=False)
    start_order: int = 0
    stop_order: int = 0
    announces_readiness: bool = True
    restart: RestartPolicy = RestartPolicy()


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
    )


def relay_child(number: int, settings: bytes) -> ChildSpec:
    """Relay workers stop first: control must still be there to record how their sessions ended."""
    return ChildSpec(
        name=f"relay-{number}",
        argv=(sys.executable, "-m", "gateway.relay"),
        settings=settings,
        start_order=1,
        stop_order=0,
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


class DeathRecord:
    """When a child died, and hence when it may start again. Pure; `now` is monotonic seconds."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._deaths: deque[float] = deque(maxlen=64)

    def died(self, now: float) -> float | None:
        """Count a death. Return the seconds to wait before the restart, None to give up."""
        self._deaths.append(now)
        while self._deaths[0] < now - self._policy.window_seconds:
            self._deaths.popleft()
        recent = len(self._deaths)
        if self._policy.max_deaths is not None and recent >= self._policy.max_deaths:
            return None
        return min(self._policy.first_delay_seconds * 2.0 ** (recent - 1), self._policy.max_delay_seconds)


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
        self._children = [_Child(spec, settings.start_seconds) for spec in children]
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


class _Child:
    """The process of one spec: at most one at a time, replaced when it dies."""

    def __init__(self, spec: ChildSpec, start_seconds: float) -> None:
        self.spec = spec
        self.was_killed = False
        self._start_seconds = start_seconds
        self._deaths = DeathRecord(spec.restart)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Spawn, hand over the settings, wait until ready. Raises `StartFailedError`, leaving nothing."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._process = process = await asyncio.create_subprocess_exec(
                    *self.spec.argv,
                    stdin=asyncio.subprocess.PIPE,
                    pass_fds=(write_end,),
                    env={**os.environ, READY_FD: str(write_end)},
                    preexec_fn=_bind_to(os.getpid()),
                )
            finally:
                os.close(write_end)
            async with asyncio.timeout(self._start_seconds):
                await _hand_over(process, self.spec.settings)
                is_ready = not self.spec.announces_readiness or await _read_byte(read_end)
        except (TimeoutError, OSError) as error:
            await self._discard()
            raise StartFailedError(f"{self.spec.name} was not ready: {type(error).__name__}") from error
        finally:
            os.close(read_end)
        if not is_ready:
            await self._discard()
            raise StartFailedError(f"{self.spec.name} ended before it was ready; its own message is above")
        _log.info("child_started", child=self.spec.name, pid=process.pid)

    async def keep(self) -> None:
        """Restart it whenever it dies. Raises `ChildKeepsDyingError`."""
        loop = asyncio.get_running_loop()
        while True:
            status = await self.ended()
            delay = self._deaths.died(loop.time())
            _log.error("child_died", child=self.spec.name, status=status, restart_in_seconds=delay)
            if delay is None:
                raise ChildKeepsDyingError(f"{self.spec.name} died too often; its own messages are above")
            await asyncio.sleep(delay)
            with contextlib.suppress(StartFailedError):
                await self.start()

    async def ended(self) -> int | None:
        """Wait until the process has ended and is reaped; its exit status, None if there was none."""
        return await self._process.wait() if self._process is not None else None

    def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.was_killed = True
            self._process.kill()

    async def _discard(self) -> None:
        """Kill and reap a process that did not become ready."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self.ended()


def _batches(children: Sequence[_Child], order: Callable[[ChildSpec], int]) -> list[list[_Child]]:
    return [
        [child for child in children if order(child.spec) == number]
        for number in sorted({order(child.spec) for child in children})
    ]


def _first(errors: BaseExceptionGroup[NodeError]) -> NodeError:
    error = errors.exceptions[0]
    return error if isinstance(error, NodeError) else _first(error)


def _bind_to(supervisor: int) -> Callable[[], None]:
    """What a child does between fork and exec: ignore Ctrl-C, die with the supervisor (prctl(2))."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)

    return prepare


async def _hand_over(process: asyncio.subprocess.Process, settings: bytes) -> None:
    if process.stdin is None:
        raise StartFailedError("the child has no stdin")
    with contextlib.suppress(ConnectionError):  # the child may have died: its readiness pipe tells
        process.stdin.write(settings)
        await process.stdin.drain()
    process.stdin.close()


async def _read_byte(descriptor: int) -> bool:
    """Wait for a byte; False if the pipe was closed instead, which a dying process does."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return bool(os.read(descriptor, 1))
