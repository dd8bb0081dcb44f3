"""One process of a node: started with its settings on stdin, watched, replaced when it dies or stands still.

It dies with the supervisor (PR_SET_PDEATHSIG), does not see Ctrl-C, and says on a pipe when it is ready and,
from then on, that its event loop turns.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from gateway.child import BEAT_SECONDS, READY_FD
from gateway.node_errors import ChildKeepsDyingError, StartFailedError

_PR_SET_PDEATHSIG = 1
_MAX_BEATS = 4096
_LIBC = ctypes.CDLL(None, use_errno=True)

_log = structlog.get_logger(__name__)


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
    may hold a key. `announces_readiness`: the child calls `gateway.child.announce_ready`, or
    `announce_and_beat` where `still_seconds` is set: it is killed once it has not beaten for so long.
    """

    name: str
    argv: Sequence[str]
    settings: bytes = field(default=b"{}", repr=False)
    start_order: int = 0
    stop_order: int = 0
    announces_readiness: bool = True
    still_seconds: float | None = None
    restart: RestartPolicy = RestartPolicy()


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


class SupervisedChild:
    """The process of one spec: at most one at a time, replaced when it dies."""

    def __init__(self, spec: ChildSpec, start_seconds: float) -> None:
        self.spec = spec
        self.was_killed = False
        self._start_seconds = start_seconds
        self._deaths = DeathRecord(spec.restart)
        self._process: asyncio.subprocess.Process | None = None
        self._pipe = -1

    async def start(self) -> None:
        """Spawn, hand over the settings, wait until ready. Raises `StartFailedError`, leaving nothing."""
        self._close_pipe()
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
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
                is_ready = not self.spec.announces_readiness or await self._says_ready(process)
        except (TimeoutError, OSError) as error:
            await self._discard()
            raise StartFailedError(f"{self.spec.name} was not ready: {type(error).__name__}") from error
        if not is_ready:
            await self._discard()
            raise StartFailedError(f"{self.spec.name} ended before it was ready; its own message is above")
        _log.info("child_started", child=self.spec.name, pid=process.pid)

    async def _says_ready(self, process: asyncio.subprocess.Process) -> bool:
        """False if it ended before; its own children may hold the pipe open."""
        async with asyncio.TaskGroup() as group:
            said, ended = group.create_task(_read_byte(self._pipe)), group.create_task(process.wait())
            await asyncio.wait({said, ended}, return_when=asyncio.FIRST_COMPLETED)
            # Who said so and died at once is restarted, as whoever dies later.
            is_ready = said.result() if said.done() else self._has_beaten()
            said.cancel()
            ended.cancel()
        return is_ready

    async def keep(self) -> None:
        """Restart it whenever it dies. Raises `ChildKeepsDyingError`."""
        loop = asyncio.get_running_loop()
        while True:
            status = await self._ended_or_still()
            delay = self._deaths.died(loop.time())
            _log.error("child_died", child=self.spec.name, status=status, restart_in_seconds=delay)
            if delay is None:
                raise ChildKeepsDyingError(f"{self.spec.name} died too often; its own messages are above")
            await asyncio.sleep(delay)
            with contextlib.suppress(StartFailedError):
                await self.start()

    async def _ended_or_still(self) -> int | None:
        """Wait until the process has ended; kill it if its event loop stands still.

        Counted in looks of our own, and not by the clock: when a machine wakes, nobody has beaten for hours.
        """
        missed = 0
        # One task for all looks: asyncio keeps every waiter of a process, a cancelled one too.
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(self.ended())
            while self.spec.still_seconds is not None:
                done, _ = await asyncio.wait({ended}, timeout=BEAT_SECONDS)
                if done:
                    break
                missed = 0 if self._has_beaten() else missed + 1
                if missed * BEAT_SECONDS >= self.spec.still_seconds and self._process is not None:
                    _log.error("child_stands_still", child=self.spec.name, seconds=missed * BEAT_SECONDS)
                    self._process.kill()
                    break
        return ended.result()

    def _has_beaten(self) -> bool:
        try:
            return bool(os.read(self._pipe, _MAX_BEATS))
        except BlockingIOError:
            return False

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    async def ended(self) -> int | None:
        """Wait until the process has ended and is reaped; its exit status, None if there was none."""
        status = await self._process.wait() if self._process is not None else None
        self._close_pipe()
        return status

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
