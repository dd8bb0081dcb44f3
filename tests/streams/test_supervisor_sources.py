"""The stream supervisor over a scripted source, a clock and a sleep that only move when told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from support.units import RecordingReader, encode_clip, synthetic_unit

from streams.errors import (
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.hub import Hub, HubSettings
from streams.media import Codec
from streams.sources.source import Publisher
from streams.supervisor import CameraState, StreamSupervisor, SupervisorSettings

SETTINGS = SupervisorSettings()


class Time:
    """A clock and its sleepers; `advance` wakes them in order and lets the loop settle after each."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        await future

    @property
    def pending(self) -> list[float]:
        return sorted(at - self.now for at, future in self._sleepers if not future.done())

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        await settle()
        while due := [entry for entry in self._sleepers if entry[0] <= end and not entry[1].done()]:
            at, future = min(due, key=lambda entry: entry[0])
            self.now = max(self.now, at)
            future.set_result(None)
            await settle()
        self.now = end


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class ScriptedSource:
    """Publishes on demand until told to fail; says how often it was opened and closed."""

    def __init__(self, camera: "ScriptedCamera", camera_id: str) -> None:
        self.camera = camera
        self.camera_id = camera_id
        self.lost_packets = 0

    async def run(self, publisher: Publisher) -> None:
        self.camera.running += 1
        self.camera.opened.append(self.camera_id)
        self.camera.publisher = publisher
        self.camera.source = self
        self.camera.failure = asyncio.get_running_loop().create_future()
        try:
            if self.camera.fails_at_once is not None:
                raise self.camera.fails_at_once
            await self.camera.failure
        except asyncio.CancelledError:
            await self.camera.farewell.wait()
            raise
        finally:
            self.camera.running -= 1


class ScriptedCamera:
    def __init__(self) -> None:
        self.opened: list[str] = []
        self.running = 0
        self.fails_at_once: Exception | None = None
        self.failure: asyncio.Future[None] | None = None
        self.publisher: Publisher | None = None
        self.source: ScriptedSource | None = None
        self.farewell = asyncio.Event()
        self.farewell.set()
        self._number = 0

    def show(self) -> None:
        assert self.publisher is not None
        self.publisher.configure(encode_clip(Codec.H264, 1)[0])
        self.publisher.publish(synthetic_unit(self._number, random_access=True))
        self._number += 1

    async def fail(self, error: Exception | None) -> None:
        assert self.failure is not None
        if error is None:
            self.failure.set_result(None)
        else:
            self.failure.set_exception(error)
        await settle()


class World:
    def __init__(self, random: Callable[[], float] = lambda: 1.0) -> None:
        self.time = Time()
        self.camera = ScriptedCamera()
        self.hub = Hub(HubSettings())
        self.changes: list[tuple[str, str, str | None]] = []
        self.supervisor = StreamSupervisor(
            self.hub,
            lambda camera_id: ScriptedSource(self.camera, camera_id),
            SETTINGS,
            random=random,
            on_change=lambda camera, status: self.changes.append((camera, status.state, status.error)),
            clock=self.time.clock,
            sleep=self.time.sleep,
        )

    @property
    def states(self) -> list[str]:
        return [state for _, state, _ in self.changes]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.supervisor.run())
            await settle()
            yield self
            task.cancel()


async def test_one_source_for_many_holders_closed_after_an_idle_time() -> None:
    async with World().running() as world:
        assert world.supervisor.status("cam").state is CameraState.IDLE
        first = world.supervisor.acquire("cam")
        assert world.supervisor.acquire("cam") is first
        await settle()
        assert world.supervisor.status("cam").state is CameraState.CONNECTING
        world.camera.show()
        status = world.supervisor.status("cam")
        assert (status.state, status.error, status.since) == (CameraState.LIVE, None, 1000.0)
        world.supervisor.release("cam")
        await world.time.advance(1000)
        world.supervisor.release("cam")
        await world.time.advance(SETTINGS.idle_seconds - 0.1)
        assert world.camera.running == 1
        await world.time.advance(0.1)
        assert (world.camera.running, len(world.camera.opened), list(world.hub)) == (0, 1, [])
        assert world.states == ["connecting", "live", "idle"]


async def test_coming_back_within_the_idle_time_keeps_the_source() -> None:
    async with World().running() as world:
        stream = world.supervisor.acquire("cam")
        for _ in range(5):
            world.supervisor.release("cam")
            await world.time.advance(SETTINGS.idle_seconds - 1)
            assert world.supervisor.acquire("cam") is stream
            await world.time.advance(2)
        assert len(world.camera.opened) == 1
        world.supervisor.release("cam")
        await world.time.advance(SETTINGS.idle_seconds)
        assert world.camera.running == 0


async def test_coming_back_during_the_farewell_waits_for_it() -> None:
    """Never two connections to one camera, and the holder's stream is the one that goes on."""
    async with World().running() as world:
        world.camera.farewell.clear()
        stream = world.supervisor.acquire("cam")
        await settle()
        world.supervisor.release("cam")
        await world.time.advance(SETTINGS.idle_seconds)
        reader = RecordingReader()
        assert world.supervisor.acquire("cam") is stream
        stream.subscribe(reader, "flv", "chunked")
        await settle()
        assert (world.camera.running, len(world.camera.opened)) == (1, 1)
        world.camera.farewell.set()
        await settle()
        assert (world.camera.running, len(world.camera.opened)) == (1, 2)
        world.camera.show()
        assert reader.names == ["start", "write"]


@pytest.mark.parametrize(
    ("error", "state", "pauses"),
    [
        (SourceUnreachableError("gone"), "backing_off", [1, 2, 3, 3, 3]),
        (ProtocolError("garbage"), "backing_off", [1, 2, 3, 3, 3]),
        (SourceRefusedError("no"), "failed", [30, 60, 120, 240, 300, 300]),
        (UnsupportedError("no"), "failed", [30, 60, 120, 240, 300, 300]),
    ],
)
async def test_back_off_doubles_to_a_maximum(error: StreamError, state: str, pauses: list[float]) -> None:
    async with World().running() as world:
        world.camera.fails_at_once = error
        world.supervisor.acquire("cam")
        await settle()
        for pause in pauses:
            assert world.changes[-1] == ("cam", state, error.code)
            assert world.time.pending == [pause]
            await world.time.advance(pause)
        assert len(world.camera.opened) == len(pauses) + 1


async def test_jitter_takes_away_up_to_half() -> None:
    numbers = iter([0.0, 0.5, 0.9])
    async with World(lambda: next(numbers)).running() as world:
        world.camera.fails_at_once = SourceUnreachableError("gone")
        world.supervisor.acquire("cam")
        await settle()
        for pause in (0.5, 1.5, 2.85):
            assert world.time.pending == [pytest.approx(pause)]
            await world.time.advance(pause + 1e-6)
            numbers = iter(list(numbers) or [0.9])


@pytest.mark.parametrize(("live_seconds", "pause"), [(59.9, 3), (60.0, 1)])
async def test_a_healthy_minute_forgives(live_seconds: float, pause: float) -> None:
    async with World().running() as world:
        world.supervisor.acquire("cam")
        await settle()
        for _ in range(2):
            await world.camera.fail(SourceUnreachableError("gone"))
            await world.time.advance(30)
        world.camera.show()
        await world.time.advance(live_seconds)
        await world.camera.fail(SourceUnreachableError("gone"))
        assert world.time.pending == [pause]


async def test_readers_stay_through_a_reconnection_and_the_error_is_shown_until_then() -> None:
    async with World().running() as world:
        stream = world.supervisor.acquire("cam")
        reader = RecordingReader()
        stream.subscribe(reader, "flv", "chunked")
        await settle()
        world.camera.show()
        await world.camera.fail(SourceUnreachableError("gone"))
        assert stream.last_random_access is None
        await world.time.advance(1)
        world.camera.show()
        assert reader.names == ["start", "write", "write"]
        assert world.changes[1:] == [
            ("cam", "live", None),
            ("cam", "backing_off", "source_unreachable"),
            ("cam", "connecting", "source_unreachable"),
            ("cam", "live", None),
        ]
        assert stream.epoch == 1


async def test_a_source_that_returns_is_a_lost_one() -> None:
    async with World().running() as world:
        world.supervisor.acquire("cam")
        await settle()
        await world.camera.fail(None)
        assert world.changes[-1] == ("cam", "backing_off", "source_unreachable")


async def test_a_camera_that_moved_is_connected_anew_at_once_and_keeps_its_readers() -> None:
    async with World().running() as world:
        stream = world.supervisor.acquire("cam")
        await settle()
        world.camera.show()
        world.supervisor.restart("cam")
        await settle()
        assert (world.camera.opened, world.camera.running) == (["cam", "cam"], 1)
        assert world.supervisor.acquire("cam") is stream
        world.supervisor.restart("nobody wants it")


async def test_a_camera_that_moved_while_refused_does_not_wait_for_the_next_attempt() -> None:
    async with World().running() as world:
        world.camera.fails_at_once = SourceRefusedError("wrong password")
        world.supervisor.acquire("cam")
        await settle()
        world.camera.fails_at_once = None
        world.supervisor.restart("cam")
        await settle()
        assert world.camera.opened == ["cam", "cam"]
        assert world.supervisor.status("cam").state is CameraState.CONNECTING


async def test_a_camera_is_back_within_five_seconds_of_its_faults_end() -> None:
    """However long the fault was, as long as somebody waits; connecting takes the rest."""
    async with World().running() as world:
        world.camera.fails_at_once = SourceUnreachableError("gone")
        world.supervisor.acquire("cam")
        await world.time.advance(3600)
        world.camera.fails_at_once = None
        await world.time.advance(3)
        assert world.camera.running == 1


async def test_lost_packets_are_counted_over_connections_and_named_for_a_while() -> None:
    async with World().running() as world:
        world.supervisor.acquire("cam")
        await settle()
        world.camera.show()
        status = world.supervisor.status("cam")
        assert (status.fault, status.lost_packets) == (None, 0)
        world.camera.source.lost_packets = 3
        status = world.supervisor.status("cam")
        assert (status.state, status.fault, status.lost_packets) == ("live", "packet_loss", 3)
        await world.time.advance(30)
        assert world.supervisor.status("cam").fault is None
        await world.camera.fail(SourceUnreachableError("gone"))
        await world.time.advance(1)
        world.camera.source.lost_packets = 2
        status = world.supervisor.status("cam")
        assert (status.state, status.fault, status.lost_packets) == ("connecting", None, 5)
        world.camera.show()
        assert world.supervisor.status("cam").fault == "packet_loss"


async def test_a_fault_of_the_stream_is_the_cameras() -> None:
    async with World().running() as world:
        stream = world.supervisor.acquire("cam")
        await settle()
        world.camera.show()
        now = time.monotonic_ns()
        stream.publish(synthetic_unit(1, received_ns=now))
        stream.publish(synthetic_unit(2, pts=10**9, dts=10**9, received_ns=now))
        assert world.supervisor.status("cam").fault == "timestamp_jump"


async def test_idle_while_backing_off_closes_too() -> None:
    async with World().running() as world:
        world.camera.fails_at_once = SourceRefusedError("no")
        world.supervisor.acquire("cam")
        await settle()
        world.supervisor.release("cam")
        await world.time.advance(SETTINGS.idle_seconds)
        assert world.supervisor.status("cam").state is CameraState.IDLE
        assert world.states[-1] == "idle"
        assert len(world.camera.opened) == 1


@pytest.mark.parametrize("bug", [ZeroDivisionError(), ExceptionGroup("", [IndexError()])])
async def test_a_bug_that_one_camera_meets_leaves_the_others_alone(bug: Exception) -> None:
    async with World().running() as world:
        world.supervisor.acquire("healthy")
        await settle()
        world.camera.show()
        with structlog.testing.capture_logs() as logs:
            world.supervisor.acquire("cam")
            await settle()
            await world.camera.fail(bug)
        assert logs[0]["event"] == "source_met_a_bug"
        assert logs[0]["camera"] == "cam"
        assert logs[0]["exc_info"] is True
        assert world.changes[-1] == ("cam", "failed", "source_bug")
        assert world.time.pending == [SETTINGS.refused_initial_seconds]
        assert world.supervisor.status("healthy").state is CameraState.LIVE
        assert world.camera.running == 1


async def test_a_bug_of_the_supervisor_escapes() -> None:
    world = World()

    async def never(_seconds: float) -> None:
        raise ZeroDivisionError

    async def meet_a_bug() -> None:
        world.supervisor._sleep = never
        async with world.running():
            world.supervisor.acquire("cam")
            await settle()
            await world.camera.fail(SourceUnreachableError("gone"))

    with pytest.raises(ExceptionGroup) as raised:
        await meet_a_bug()
    assert raised.group_contains(ZeroDivisionError)
    assert list(world.hub) == []


async def test_cancelling_ends_sources_and_readers() -> None:
    world = World()
    reader = RecordingReader()
    async with world.running():
        world.supervisor.acquire("cam").subscribe(reader, "flv", "chunked")
        await settle()
        assert world.camera.running == 1
    assert (world.camera.running, reader.ended) == (0, "closed")
    with pytest.raises(RuntimeError):
        world.supervisor.acquire("cam")


async def test_releasing_too_often_is_an_error() -> None:
    async with World().running() as world:
        with pytest.raises(KeyError):
            world.supervisor.release("cam")
        world.supervisor.acquire("cam")
        world.supervisor.release("cam")
        with pytest.raises(KeyError):
            world.supervisor.release("cam")
