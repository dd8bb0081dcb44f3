"""The runner against fake processes that do as told, and against the real one, killed."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from support.analysis_process import analysis_process, connect, fake_process
from support.scenes import NOON
from support.units import encode_clip

from analytics.events import Event, Phase, Region
from analytics.links import LinkSettings
from analytics.messages import MAX_JOB_BYTES, Answer, Begun, Finding
from analytics.runner import AnalysisRunner, PictureUnavailableError, RunnerSettings
from streams.hub import Hub, HubSettings
from streams.media import Codec

SECOND = 1_000_000_000
QUICK = RunnerSettings(link=LinkSettings(first_retry_seconds=0.01), status_seconds=0)


class Clock:
    """Monotonic nanoseconds and the wall clock, moved by hand."""

    def __init__(self) -> None:
        self.ns = 1000 * SECOND

    def monotonic_ns(self) -> int:
        return self.ns

    def now(self):
        return NOON + timedelta(microseconds=self.ns // 1000)


class Camera:
    """A stream of the hub into which a test publishes keyframes."""

    def __init__(self, clock: Clock, name: str = "c1") -> None:
        self.hub = Hub(HubSettings())
        self.stream = self.hub.open(name)
        self.track, units = encode_clip(Codec.H264)
        self._keyframes = [unit for unit in units if unit.is_random_access]
        self._clock = clock
        self._count = 0
        self.stream.configure(self.track)

    def publish(self, *, after_seconds: float = 2.0, **fields) -> None:
        self._clock.ns += int(after_seconds * SECOND)
        self._count += 1
        unit = self._keyframes[self._count % 2]
        values = {"pts": self._count * 90_000, "dts": self._count * 90_000, "received_ns": self._clock.ns}
        self.stream.publish(msgspec.structs.replace(unit, **(values | fields)))


class Log:
    """What a runner calls back, to be waited for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.statuses: list = []

    def on_event(self, event) -> None:
        self.events.append(event)

    def on_status(self, status) -> None:
        self.statuses.append(status)

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)


def start(
    runner: AnalysisRunner, camera: Camera, log: Log, name: str = "a", period: float = 2.0, **parameters
):
    runner.start(
        name,
        camera.stream.camera_id,
        camera.stream,
        analyser="motion",
        parameters=parameters,
        period_seconds=period,
        on_event=log.on_event,
        on_status=log.on_status,
    )


@asynccontextmanager
async def running(runner: AnalysisRunner) -> AsyncIterator[AnalysisRunner]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        try:
            yield runner
        finally:
            task.cancel()


def new_runner(path, clock: Clock, settings: RunnerSettings = QUICK) -> AnalysisRunner:
    return AnalysisRunner([path], settings, clock=clock.now, monotonic_ns=clock.monotonic_ns)


class Obedient:
    """Answers every job at once, or, while `gate` is closed, when it opens."""

    def __init__(self) -> None:
        self.jobs: list = []
        self.deadly: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: str | None = None

    async def __call__(self, job, send) -> bool:
        self.jobs.append(job)
        send(Begun(job.number))
        await self.gate.wait()
        if self.deadly & {order.analysis for order in job.analyses} or job.number in self.deadly:
            return False
        region = Region(((0, 0), (1, 0), (1, 1)))
        times = {"started_at": job.captured_at, "ended_at": None}
        event = Event(id="e", kind="motion", phase=Phase.START, region=region, score=1, **times)
        findings = [Finding(order.analysis, [event]) for order in job.analyses]
        jpegs = [f"{order.width}x{job.unit.pts}".encode() for order in job.jpegs]
        if self.error:
            send(Answer(number=job.number, error=self.error))
        else:
            send(Answer(number=job.number, findings=findings, jpegs=jpegs))
        return True


async def test_one_job_for_all_analyses_and_pictures_of_a_keyframe(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    camera = Camera(clock)
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        for name in "abc":
            start(runner, camera, log, name)
        for count in (3, 6, 9):
            camera.publish()
            await log.until(lambda count=count: len(log.events) == count)
    assert [len(job.analyses) for job in process.jobs] == [3, 3, 3]
    assert log.events[0].started_at == clock.now() - timedelta(seconds=4)
    assert camera.stream.readers == 1


async def test_the_tap_goes_with_the_last_demand(tmp_path):
    clock, log = Clock(), Log()
    camera = Camera(clock)
    runner = new_runner(tmp_path / "s", clock)
    start(runner, camera, log, "a")
    start(runner, camera, log, "b")
    with pytest.raises(ValueError, match="runs"):
        start(runner, camera, log, "b")
    runner.stop("a")
    assert camera.stream.readers == 1
    assert runner.status("b").samples == 0
    runner.stop("b")
    runner.stop("b")
    assert runner.status("b") is None
    assert camera.stream.readers == 0


async def test_late_keyframes_are_replaced_by_newer_ones_counted_and_the_period_shows_it(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    camera = Camera(clock)
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        start(runner, camera, log)
        camera.publish()
        await log.until(lambda: len(log.events) == 1)
        process.gate.clear()
        camera.publish()
        await log.until(lambda: len(process.jobs) == 2)
        for _ in range(3):
            camera.publish()
        process.gate.set()
        await log.until(lambda: len(log.events) == 3)
        assert [job.unit.pts // 90_000 for job in process.jobs] == [1, 2, 5]
        status = runner.status("a")
    assert status.dropped_keyframes == 2
    assert status.achieved_period_seconds == pytest.approx(4)


async def test_the_earliest_deadline_goes_first(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    cameras = [Camera(clock, f"c{n}") for n in range(4)]
    settings = RunnerSettings(link=LinkSettings(jobs_in_flight=1, first_retry_seconds=0.01))
    async with (
        fake_process(tmp_path / "s", process),
        running(new_runner(tmp_path / "s", clock, settings)) as runner,
    ):
        for number, camera in enumerate(cameras):
            start(runner, camera, log, str(number), period=8 - 2 * number)
            camera.publish(after_seconds=0)
        await log.until(lambda: len(log.events) == 4)
        process.gate.clear()
        for number, camera in enumerate(cameras):
            camera.publish(after_seconds=0 if number else 10)
        process.gate.set()
        await log.until(lambda: len(log.events) == 8)
    # Number 0 comes when nobody waits; the others by what their period asks for.
    assert [job.analyses[0].analysis for job in process.jobs[4:]] == ["0", "3", "2", "1"]


async def test_no_more_jobs_in_flight_than_allowed(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    process.gate.clear()
    cameras = [Camera(clock, f"c{n}") for n in range(5)]
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        for number, camera in enumerate(cameras):
            start(runner, camera, log, str(number))
            camera.publish(after_seconds=0)
        await log.until(lambda: len(process.jobs) == 1)
        assert len(runner._links[0]._in_flight) == QUICK.link.jobs_in_flight == 2
        process.gate.set()
        await log.until(lambda: len(log.events) == 5)


async def test_a_death_costs_the_keyframe_at_work_and_nothing_else(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    cameras = [Camera(clock, f"c{n}") for n in range(2)]
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        start(runner, cameras[0], log, "a")
        start(runner, cameras[1], log, "b")
        process.gate.clear()
        process.deadly = {"a"}
        for camera in cameras:
            camera.publish()
        await log.until(lambda: len(process.jobs) == 1)
        process.gate.set()
        await log.until(lambda: len(log.events) == 1)
        assert runner.status("b").samples == 1
        assert runner.status("a").error == "analysis_process_lost"
        process.deadly = set()
        cameras[0].publish()
        await log.until(lambda: runner.status("a").samples == 1)
        assert runner.status("a").error is None


async def test_a_camera_that_kills_three_times_is_quarantined_for_a_while(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    camera, other = Camera(clock), Camera(clock, "other")
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        start(runner, camera, log)
        process.deadly = {"a"}
        for deaths in range(1, 4):
            camera.publish()
            await log.until(lambda n=deaths: len(process.jobs) == n and not runner._links[0]._in_flight)
        assert runner.status("a").error == "quarantined"
        for _ in range(3):
            camera.publish()
        with pytest.raises(PictureUnavailableError, match="quarantined"):
            await runner.jpeg("c1", camera.stream, 320, 80)
        other.publish()
        assert await runner.jpeg("other", other.stream, 320, 80)
        assert len(process.jobs) == 4
        process.deadly = set()
        camera.publish(after_seconds=QUICK.quarantine_seconds)
        await log.until(lambda: runner.status("a").error is None)


async def test_keyframes_that_cannot_be_decoded_become_an_error_that_passes(tmp_path):
    clock, log, process = Clock(), Log(), Obedient()
    camera = Camera(clock)
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        start(runner, camera, log)
        process.error = "decode_error"
        for jobs in range(1, 4):
            assert runner.status("a").error is None
            camera.publish()
            await log.until(lambda n=jobs: len(process.jobs) == n and not runner._links[0]._in_flight)
        assert runner.status("a").error == "no_usable_keyframe"
        with pytest.raises(PictureUnavailableError, match="decode_error"):
            await runner.jpeg("c1", camera.stream, 320, 80)
        process.error = None
        camera.publish()
        await log.until(lambda: len(log.events) == 1)
        assert runner.status("a").error is None


@pytest.mark.parametrize(
    "answer",
    [
        lambda job: Answer(number=job.number + 1),
        lambda job: Answer(number=job.number, jpegs=[]),
        lambda job: Answer(number=job.number, jpegs=[b"1", b"2"]),
    ],
)
async def test_a_process_that_lies_is_taken_for_dead(tmp_path, answer):
    clock, lies, process = Clock(), [], Obedient()
    camera = Camera(clock)
    camera.publish()

    async def lie_once(job, send) -> bool:
        if lies:
            return await process(job, send)
        lies.append(job)
        send(answer(job))
        return True

    async with fake_process(tmp_path / "s", lie_once), running(new_runner(tmp_path / "s", clock)) as runner:
        assert await runner.jpeg("c1", camera.stream, 320, 80) == b"320x90000"


async def test_a_snapshot_is_taken_of_the_keyframe_that_is_there(tmp_path):
    clock, process = Clock(), Obedient()
    camera = Camera(clock)
    camera.publish()
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        pictures = await asyncio.gather(
            *(runner.jpeg("c1", camera.stream, width, 80) for width in (320, 640, 320, 800, 900, 1000))
        )
    assert [picture.split(b"x")[0] for picture in pictures] == [
        b"320",
        b"640",
        b"320",
        b"800",
        b"900",
        b"1000",
    ]
    assert len(process.jobs) == 2
    assert camera.stream.readers == 0


async def test_a_snapshot_without_a_picture_gives_up(tmp_path):
    clock, process = Clock(), Obedient()
    camera = Camera(clock)
    settings = RunnerSettings(link=QUICK.link, snapshot_seconds=0.05)
    async with (
        fake_process(tmp_path / "s", process),
        running(new_runner(tmp_path / "s", clock, settings)) as runner,
    ):
        with pytest.raises(PictureUnavailableError, match="no_picture"):
            await runner.jpeg("c1", camera.stream, 320, 80)
    assert camera.stream.readers == 0


async def test_frames_come_as_asked_and_a_late_reader_gets_the_latest(tmp_path):
    clock, process = Clock(), Obedient()
    camera = Camera(clock)
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        frames = runner.frames("c1", camera.stream, every_seconds=2, width=320, quality=80)
        camera.publish()
        first = await anext(frames)
        assert (first.sequence, first.pts, first.jpeg) == (1, 90_000, b"320x90000")
        assert (first.received_ns, first.captured_at) == (clock.ns, clock.now())
        assert (first.dropped_since_last, first.achieved_period_seconds) == (0, None)
        for jobs in (2, 3, 4):
            camera.publish()
            await Log().until(lambda n=jobs: len(process.jobs) == n and not runner._links[0]._in_flight)
        late = await anext(frames)
        assert (late.sequence, late.dropped_since_last) == (4, 2)
        assert late.achieved_period_seconds == pytest.approx(2)
        camera.publish()
        assert (await anext(frames)).dropped_since_last == 0
        camera.hub.close("c1", "gone")
        with pytest.raises(StopAsyncIteration):
            await anext(frames)


async def test_closing_the_frames_closes_the_tap(tmp_path):
    clock, process = Clock(), Obedient()
    camera = Camera(clock)
    async with fake_process(tmp_path / "s", process), running(new_runner(tmp_path / "s", clock)) as runner:
        camera.publish()
        async with contextlib.aclosing(
            runner.frames("c1", camera.stream, every_seconds=2, width=320, quality=80)
        ) as frames:
            await anext(frames)
            assert camera.stream.readers == 1
        assert camera.stream.readers == 0


async def test_the_end_of_the_stream_is_told(tmp_path):
    clock, log = Clock(), Log()
    camera = Camera(clock)
    runner = new_runner(tmp_path / "s", clock)
    start(runner, camera, log)
    async with asyncio.TaskGroup() as group:
        picture = group.create_task(_refused(runner, camera))
        await asyncio.sleep(0)
        camera.hub.close("c1", "gone")
    assert picture.result() == "stream_ended"
    assert log.statuses[-1].error == "stream_ended"
    runner.stop("a")


async def _refused(runner, camera) -> str:
    try:
        await runner.jpeg("c1", camera.stream, 320, 80)
    except PictureUnavailableError as error:
        return error.code
    return "a picture"


async def test_a_process_that_does_not_answer_is_taken_for_dead(tmp_path):
    clock, process = Clock(), Obedient()
    camera = Camera(clock)
    camera.publish()
    settings = RunnerSettings(link=LinkSettings(answer_seconds=0.05, first_retry_seconds=0.01), max_deaths=2)
    process.gate.clear()
    async with (
        fake_process(tmp_path / "s", process),
        running(new_runner(tmp_path / "s", clock, settings)) as runner,
    ):
        with pytest.raises(PictureUnavailableError, match="quarantined"):
            await runner.jpeg("c1", camera.stream, 320, 80)
    assert len(process.jobs) == 2


async def test_the_real_process_analyses_survives_garbage_and_is_replaced_when_it_is_killed(tmp_path):
    clock, log = Clock(), Log()
    camera = Camera(clock)
    learned = {"warm_up_samples": 1, "needed": 1, "window": 1, "min_area": 0.001}
    async with running(new_runner(tmp_path / "s", clock)) as runner:
        start(runner, camera, log, **learned)
        async with analysis_process(tmp_path / "s") as first:
            camera.publish()
            await log.until(lambda: runner.status("a").samples == 1)
            camera.publish()
            await log.until(lambda: log.events != [])
            assert log.events[0].phase is Phase.START
            for number in range(3):
                camera.publish(nal_units=(b"\x65" + b"\xff" * 500,))
                await log.until(lambda n=number: runner._cameras["c1"].undecodable == n + 1)
            assert runner.status("a").error == "no_usable_keyframe"
            # Stopped, so that the job is in its socket when it dies.
            first.send_signal(signal.SIGSTOP)
            camera.publish()
            first.kill()
        await log.until(lambda: runner.status("a").error == "analysis_process_lost")
        async with analysis_process(tmp_path / "s"):
            camera.publish()
            await log.until(lambda: runner.status("a").samples == 3)
            jpeg = await runner.jpeg("c1", camera.stream, 160, 80)
            assert jpeg.startswith(b"\xff\xd8")


async def test_the_real_process_is_nice_confined_and_refuses_what_is_no_message(tmp_path):
    async with analysis_process(tmp_path / "s") as process:
        reader, writer = await connect(tmp_path / "s")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        assert "NoNewPrivs:\t1\n" in _status(process.pid)
        process.send_signal(signal.SIGINT)
        writer.write((MAX_JOB_BYTES + 1).to_bytes(4, "big"))
        assert await reader.read() == b""
        writer.close()
        reader, writer = await connect(tmp_path / "s")
        writer.write(b"\0\0\0\1x")
        assert await reader.read() == b""
        writer.close()
        assert process.returncode is None


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()
