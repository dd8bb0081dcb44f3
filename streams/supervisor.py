"""Keeps one source running for each camera that somebody wants, and only for those.

States of a camera: idle until the first `acquire`; connecting until the first access unit; live; then, when
the source failed, backing_off before the next attempt, or failed when the camera refuses us or has nothing
to relay (it is tried again, rarely: see `streams.backoff`). Idle again some time after the last `release`.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import structlog

from streams.backoff import Backoff, BackoffSettings
from streams.errors import SourceBugError, SourceUnreachableError, StreamError
from streams.hub import Hub, Stream
from streams.hub.faults import FAULT_KEPT_SECONDS, PACKET_LOSS
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources.source import ReadInTurns, Source

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings(BackoffSettings):
    """`idle_seconds`: how long a source goes on when nobody wants it any more."""

    idle_seconds: float = 20.0


class CameraState(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    BACKING_OFF = "backing_off"
    FAILED = "failed"


class CameraStatus(msgspec.Struct, frozen=True):
    """What a camera is doing.

    `error`: the code of the last attempt's StreamError, until the camera is live again. `since`: when the
    state began, in seconds of the supervisor's clock; None for a camera that nobody holds. `fault`: what is
    wrong though it is live, see `streams.hub.faults`; or None. `lost_packets`: since somebody holds it.
    """

    state: CameraState
    error: str | None
    since: float | None
    fault: str | None = None
    lost_packets: int = 0


class StreamSupervisor:
    """Runs sources on demand; its tasks live in the group of `run`, which is awaited by the owner.

    A `StreamError` is the camera's fault: counted, shown, tried again. Anything else that leaves a source is
    a bug which that camera's bytes met: logged, and that camera alone fails with `source_bug`. A bug of the
    supervisor itself ends `run`.
    """

    def __init__(
        self,
        hub: Hub,
        open_source: Callable[[str], Source],
        settings: SupervisorSettings,
        *,
        random: Callable[[], float],
        on_change: Callable[[str, CameraStatus], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`open_source` makes a camera's source for one connection. `on_change` is told each change of state.

        `random` gives numbers in [0, 1), for the jitter.
        """
        self._hub = hub
        self._open_source = open_source
        self._settings = settings
        self._random = random
        self._on_change = on_change
        self._clock = clock
        self._sleep = sleep
        self._cameras: dict[str, _Camera] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled. Streams that are open then are ended with reason "closed"."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    def acquire(self, camera_id: str) -> Stream:
        """The camera's stream; its source runs until as many `release`s. Only while `run` is running."""
        if self._group is None:
            raise RuntimeError("the stream supervisor is not running")
        camera = self._cameras.get(camera_id)
        if camera is None:
            camera = _Camera(camera_id, self._hub.open(camera_id), self._clock())
            self._cameras[camera_id] = camera
            self._group.create_task(self._supervise(camera), name=f"camera {camera_id}")
        camera.references += 1
        camera.unwanted.clear()
        return camera.stream

    def release(self, camera_id: str) -> None:
        """Undo one `acquire`. Raises KeyError if there is none to undo."""
        camera = self._cameras[camera_id]
        if camera.references == 0:
            raise KeyError(camera_id)
        camera.references -= 1
        if camera.references == 0:
            camera.unwanted_since = self._clock()
            camera.unwanted.set()

    def restart(self, camera_id: str) -> None:
        """The camera is elsewhere now, or asks for another password: connect anew, at once.

        Its viewers stay. Without effect if nobody wants the camera.
        """
        camera = self._cameras.get(camera_id)
        if camera is not None:
            camera.moved.set()

    def status(self, camera_id: str) -> CameraStatus:
        camera = self._cameras.get(camera_id)
        if camera is None:
            return CameraStatus(CameraState.IDLE, None, None)
        lost_packets, is_losing = camera.losses.look(self._clock())
        fault = None
        if camera.status.state is CameraState.LIVE:
            fault = camera.stream.fault or (PACKET_LOSS if is_losing else None)
        status = camera.status
        return CameraStatus(status.state, status.error, status.since, fault, lost_packets)

    async def _supervise(self, camera: "_Camera") -> None:
        """The life of one camera's entry: from its first `acquire` until nobody has wanted it for a while."""
        try:
            while True:
                camera.moved.clear()
                async with asyncio.TaskGroup() as group:
                    attempts = group.create_task(self._attempt_for_ever(camera))
                    reasons = (
                        group.create_task(self._unwanted(camera)),
                        group.create_task(camera.moved.wait()),
                    )
                    await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
                    for task in (attempts, *reasons):
                        task.cancel()
                # Somebody may have come back while the source was saying goodbye to the camera.
                if camera.unwanted.is_set() and not camera.moved.is_set():
                    return
        finally:
            del self._cameras[camera.id]
            self._hub.close(camera.id, "closed")
            self._enter(camera, CameraState.IDLE, None)

    async def _unwanted(self, camera: "_Camera") -> None:
        """Return once nobody has held the camera for `idle_seconds`."""
        while True:
            await camera.unwanted.wait()
            remaining = camera.unwanted_since + self._settings.idle_seconds - self._clock()
            if remaining <= 0:
                return
            await self._sleep(remaining)

    async def _attempt_for_ever(self, camera: "_Camera") -> None:
        backoff = Backoff(self._settings, self._random)
        while True:
            self._enter(camera, CameraState.CONNECTING, camera.status.error)
            error = await self._attempt(camera)
            pause, is_long = backoff.after(error, self._clock(), camera.live_since)
            _log.warning("source_failed", camera=camera.id, code=error.code, retry_in_seconds=round(pause, 1))
            self._enter(camera, CameraState.FAILED if is_long else CameraState.BACKING_OFF, error.code)
            await self._sleep(pause)

    async def _attempt(self, camera: "_Camera") -> StreamError:
        """One connection, to its end; returns why it ended."""
        camera.live_since = math.inf
        try:
            source = self._open_source(camera.id)
            camera.losses.follow(source)
            await source.run(_Publisher(camera.stream, lambda: self._enter_live(camera)))
        except StreamError as error:
            return error
        except Exception:  # noqa: BLE001 - no camera's bytes may end the pictures of all others
            _log.exception("source_met_a_bug", camera=camera.id)
            return SourceBugError("a bug of the gateway")
        finally:
            camera.stream.interrupt()
        return SourceUnreachableError("the source ended by itself")

    def _enter_live(self, camera: "_Camera") -> None:
        camera.live_since = self._clock()
        self._enter(camera, CameraState.LIVE, None)

    def _enter(self, camera: "_Camera", state: CameraState, error: str | None) -> None:
        camera.status = CameraStatus(state, error, self._clock())
        self._on_change(camera.id, camera.status)


class _Camera:
    """What the supervisor knows of one wanted camera."""

    def __init__(self, camera_id: str, stream: Stream, now: float) -> None:
        self.id = camera_id
        self.stream = stream
        self.references = 0
        self.unwanted = asyncio.Event()
        self.moved = asyncio.Event()
        self.unwanted_since = now
        self.live_since = math.inf
        self.losses = _PacketLosses()
        self.status = CameraStatus(CameraState.IDLE, None, now)


class _PacketLosses:
    """What a camera's connections have lost in all. A source that can lose packets has `lost_packets`."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._earlier = 0
        self._seen = 0
        self._grew_at = -math.inf

    def follow(self, source: Source) -> None:
        """The next connection's."""
        self._earlier, self._source = self._count(), source

    def look(self, now: float) -> tuple[int, bool]:
        """How many there are, and whether any came lately."""
        count = self._count()
        if count > self._seen:
            self._seen, self._grew_at = count, now
        return count, now - self._grew_at < FAULT_KEPT_SECONDS

    def _count(self) -> int:
        return self._earlier + int(getattr(self._source, "lost_packets", 0))


class _Publisher:
    """A source's way to the stream, which notices its first access unit."""

    def __init__(self, stream: Stream, on_first: Callable[[], None]) -> None:
        self.publish: Callable[[AccessUnit], None] = self._publish_first
        self._stream = stream
        self._on_first = on_first

    def offer_turns(self, reading: ReadInTurns | None) -> None:
        self._stream.offer_turns(reading)

    def configure(self, track: Track) -> None:
        self._stream.configure(track)

    def publish_audio(self, unit: AudioUnit) -> None:
        self._stream.publish_audio(unit)

    def _publish_first(self, unit: AccessUnit) -> None:
        self._stream.publish(unit)
        self.publish = self._stream.publish
        self._on_first()
