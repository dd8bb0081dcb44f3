"""Scene analysis as the relay worker sees it: taps keyframes, hands them to analysis processes, delivers.

Keyframes only, newest wins, one at work per camera, one decode for all that want it; the earliest deadline
goes first. Overload stretches the achieved period, visibly; the relay never waits. A process that dies costs
the keyframe that it was working on; a camera whose keyframes kill it again and again is quarantined.
"""

import asyncio
import itertools
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from analytics.events import Event
from analytics.links import LinkSettings, ProcessLink
from analytics.messages import (
    MAX_ANALYSES_OF_CAMERA,
    MAX_JPEGS,
    AnalysisOrder,
    Answer,
    Finding,
    Forget,
    Job,
    JpegOrder,
)
from analytics.pictures import FrameFeed, PictureUnavailableError, SampledFrame, open_snapshot
from analytics.sampling import AnalysisDemand, AnalysisStatus, Batch, FrameDemand, Keyframe, Schedule
from analytics.taps import Tap, TapQueue
from streams.hub import Stream

MAX_CONSUMERS_OF_CAMERA = 64
"""Snapshots that wait, and subscriptions to frames, each."""

__all__ = ["AnalysisRunner", "AnalysisStatus", "PictureUnavailableError", "RunnerSettings", "SampledFrame"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """`max_deaths`: so many deaths of the process in a row by one camera's keyframes quarantine the camera
    for `quarantine_seconds`. `status_seconds`: how often an analysis' status is reported while nothing but
    its period changes. `undecodable_keyframes`: so many in a row are reported as an error.
    """

    link: LinkSettings = field(default_factory=LinkSettings)
    max_deaths: int = 3
    quarantine_seconds: float = 300.0
    status_seconds: float = 5.0
    snapshot_seconds: float = 10.0
    undecodable_keyframes: int = 3


Work = tuple[Tap, Batch]


class AnalysisRunner:
    """One per relay worker; `run` keeps the connections to the analysis processes at `sockets`.

    A camera's samples all go to the same process, where its analyses keep what they have learned. `clock`
    returns aware UTC, `monotonic_ns` the clock that access units are stamped with.
    """

    def __init__(
        self,
        sockets: Sequence[Path],
        settings: RunnerSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not sockets:
            raise ValueError("an AnalysisRunner needs at least one analysis process")
        self._settings = settings
        self._clock = clock
        self._monotonic_ns = monotonic_ns
        self._cameras: dict[str, Tap] = {}
        self._cameras_of_analyses: dict[str, Tap] = {}
        self._jobs = itertools.count(1)
        self._links: list[ProcessLink[Work]] = []
        self._queues: dict[ProcessLink[Work], TapQueue] = {}
        for path in sockets:
            link: ProcessLink[Work] = ProcessLink(
                path,
                settings.link,
                on_ready=self._dispatch,
                on_answer=self._deliver,
                on_lost=self._survive,
            )
            self._links.append(link)
            self._queues[link] = TapQueue()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for link in self._links:
                group.create_task(link.run())

    # Analyses

    def start(
        self,
        analysis: str,
        camera_id: str,
        stream: Stream,
        *,
        analyser: str,
        parameters: Mapping[str, Any],
        period_seconds: float,
        on_event: Callable[[Event], None],
        on_status: Callable[[AnalysisStatus], None],
    ) -> None:
        """Run an analysis until `stop`. The callbacks are called on the loop and must not block.

        Raises ValueError if the analysis runs, or if the camera has MAX_ANALYSES_OF_CAMERA.
        """
        camera = self._camera(camera_id, stream)
        if analysis in self._cameras_of_analyses:
            raise ValueError(f"analysis {analysis} runs")
        if len(camera.demands.analyses) >= MAX_ANALYSES_OF_CAMERA:
            raise ValueError("too many analyses of one camera")
        order = AnalysisOrder(analysis, analyser, dict(parameters))
        schedule = Schedule(round(period_seconds * 1e9))
        camera.demands.analyses[analysis] = AnalysisDemand(order, schedule, on_event, on_status)
        self._cameras_of_analyses[analysis] = camera
        self._tap(camera)

    def stop(self, analysis: str) -> None:
        """End an analysis; nothing of it is delivered any more. Nothing happens if there is none."""
        camera = self._cameras_of_analyses.pop(analysis, None)
        if camera is not None:
            del camera.demands.analyses[analysis]
            self._link_of(camera).tell(Forget(analysis))
            self._release(camera)

    def status(self, analysis: str) -> AnalysisStatus | None:
        """How an analysis is doing, None if it does not run."""
        camera = self._cameras_of_analyses.get(analysis)
        return None if camera is None else camera.demands.analyses[analysis].status()

    # Pictures

    async def jpeg(self, camera_id: str, stream: Stream, width: int, quality: int) -> bytes:
        """A JPEG of the newest keyframe, at most `width` wide. Raises PictureUnavailableError."""
        camera = self._camera(camera_id, stream)
        if len(camera.demands.snapshots) >= MAX_CONSUMERS_OF_CAMERA:
            raise PictureUnavailableError("busy")
        picture: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        snapshot = open_snapshot(JpegOrder(width, quality), picture)
        camera.demands.snapshots.append(snapshot)
        try:
            self._tap(camera)
            async with asyncio.timeout(self._settings.snapshot_seconds):
                return await picture
        except TimeoutError:
            raise PictureUnavailableError("no_picture") from None
        finally:
            if snapshot in camera.demands.snapshots:
                camera.demands.snapshots.remove(snapshot)
            self._release(camera)

    async def frames(
        self, camera_id: str, stream: Stream, *, every_seconds: float, width: int, quality: int
    ) -> AsyncGenerator[SampledFrame, None]:
        """Sampled pictures until closed (`aclose`), or until the stream ends; a late reader gets the latest.

        Raises PictureUnavailableError ("busy").
        """
        camera = self._camera(camera_id, stream)
        if len(camera.demands.frames) >= MAX_CONSUMERS_OF_CAMERA:
            raise PictureUnavailableError("busy")
        feed = FrameFeed(Schedule(round(every_seconds * 1e9)), self._captured_at)
        camera.demands.frames[feed] = FrameDemand(
            JpegOrder(width, quality), feed.schedule, feed.deliver, feed.end
        )
        try:
            self._tap(camera)
            while (frame := await feed.next()) is not None:
                yield frame
        finally:
            del camera.demands.frames[feed]
            self._release(camera)

    # Cameras and their taps

    def _camera(self, camera_id: str, stream: Stream) -> Tap:
        """The camera's entry. A new stream of the same camera replaces one that has ended."""
        camera = self._cameras.get(camera_id)
        if camera is None or camera.stream is not stream:
            camera = Tap(camera_id, stream, self._offer)
        return camera

    def _tap(self, camera: Tap) -> None:
        """Subscribe to the stream for the camera's first demand; offer what is known for a later one."""
        if self._cameras.get(camera.camera_id) is not camera:
            self._cameras[camera.camera_id] = camera
            camera.stream.subscribe_units(camera)
            if camera.newest is None and camera.stream.last_random_access is not None:
                camera.accept(*camera.stream.last_random_access)
        else:
            self._offer(camera)

    def _release(self, camera: Tap) -> None:
        if not camera.demands:
            camera.stream.unsubscribe(camera)
            if self._cameras.get(camera.camera_id) is camera:
                del self._cameras[camera.camera_id]

    def _link_of(self, camera: Tap) -> ProcessLink[Work]:
        return self._links[zlib.crc32(camera.camera_id.encode()) % len(self._links)]

    # Jobs

    def _offer(self, camera: Tap) -> None:
        """Let the camera wait for its process, if it has a keyframe that somebody wants."""
        if (
            camera.newest is None
            or camera.is_queued
            or camera.at_work is not None
            or self._is_quarantined(camera)
        ):
            return
        deadline_ns = camera.demands.deadline_ns(camera.newest)
        if deadline_ns is not None:
            link = self._link_of(camera)
            self._queues[link].push(camera, deadline_ns)
            self._dispatch(link)

    def _dispatch(self, link: ProcessLink[Work]) -> None:
        while link.has_room and (camera := self._queues[link].pop()) is not None:
            if camera.newest is None:
                continue
            batch = camera.demands.batch(
                camera.newest, max_analyses=MAX_ANALYSES_OF_CAMERA, max_jpegs=MAX_JPEGS
            )
            if batch is None:
                continue
            camera.at_work = batch.keyframe
            job = Job(
                number=next(self._jobs),
                track=batch.keyframe.track,
                unit=batch.keyframe.unit,
                captured_at=self._captured_at(batch.keyframe),
                analyses=[demand.order for demand in batch.analyses],
                jpegs=batch.jpegs,
            )
            link.send(job, (camera, batch))

    def _captured_at(self, keyframe: Keyframe) -> datetime:
        age_ns = self._monotonic_ns() - keyframe.unit.received_ns
        return self._clock() - timedelta(microseconds=age_ns // 1000)

    def _deliver(self, work: Work, answer: Answer) -> None:
        camera, batch = work
        camera.at_work = None
        camera.deaths = 0
        camera.undecodable = 0 if answer.error is None else camera.undecodable + 1
        _take(batch)
        if answer.error is None:
            for snapshot in batch.snapshots:
                snapshot.resolve(batch.jpeg(answer.jpegs, snapshot.order))
            for frames in batch.frames:
                frames.deliver(batch.keyframe, batch.jpeg(answer.jpegs, frames.order))
            for finding in answer.findings:
                self._report_finding(camera, finding)
        else:
            for snapshot in batch.snapshots:
                snapshot.refuse(answer.error)
            if camera.undecodable >= self._settings.undecodable_keyframes:
                self._report_error(camera, "no_usable_keyframe")
        camera.demands.snapshots[:] = [s for s in camera.demands.snapshots if s not in batch.snapshots]
        self._offer(camera)

    def _survive(self, link: ProcessLink[Work], begun: Work | None, waiting: list[Work]) -> None:
        """The process is gone: what it had not begun is offered again, what it had is lost."""
        for camera in self._cameras.values():
            if self._link_of(camera) is link:
                self._report_error(camera, "analysis_process_lost")
        for camera, _ in waiting:
            camera.at_work = None
        if begun is not None:
            camera, batch = begun
            camera.at_work = None
            camera.deaths += 1
            _take(batch)
            if camera.deaths >= self._settings.max_deaths:
                self._quarantine(camera)
            self._offer(camera)
        for camera, _ in waiting:
            self._offer(camera)

    # Errors and states

    def _quarantine(self, camera: Tap) -> None:
        pause_ns = round(self._settings.quarantine_seconds * 1e9)
        camera.quarantined_until_ns = self._monotonic_ns() + pause_ns
        _log.error("camera_quarantined", camera=camera.camera_id, deaths=camera.deaths)
        self._report_error(camera, "quarantined")

    def _is_quarantined(self, camera: Tap) -> bool:
        """Whether the camera's keyframes are not to be touched now; snapshots of it are refused."""
        if self._monotonic_ns() >= camera.quarantined_until_ns:
            return False
        for snapshot in camera.demands.snapshots:
            snapshot.refuse("quarantined")
        camera.demands.snapshots.clear()
        return True

    def _report_error(self, camera: Tap, error: str) -> None:
        for demand in tuple(camera.demands.analyses.values()):
            demand.error = error
            self._report_status(demand)

    def _report_finding(self, camera: Tap, finding: Finding) -> None:
        demand = camera.demands.analyses.get(finding.analysis)
        if demand is None:
            return  # stopped meanwhile
        demand.samples += 1
        demand.error = finding.error
        for event in finding.events:
            demand.on_event(event)
        self._report_status(demand)

    def _report_status(self, demand: AnalysisDemand) -> None:
        now_ns, last = self._monotonic_ns(), demand.reported
        is_time = now_ns - demand.reported_ns >= self._settings.status_seconds * 1e9
        if last is None or last.error != demand.error or is_time:
            demand.reported, demand.reported_ns = demand.status(), now_ns
            demand.on_status(demand.reported)


def _take(batch: Batch) -> None:
    for schedule in [d.schedule for d in batch.analyses] + [d.schedule for d in batch.frames]:
        schedule.take(batch.keyframe)
