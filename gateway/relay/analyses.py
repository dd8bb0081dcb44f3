"""The analyses that control wants of this worker: each holds its camera's stream and reports its events."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from analytics.events import Event
from analytics.runner import AnalysisRunner
from analytics.sampling import AnalysisStatus
from gateway.messages import AnalysisEvent, AnalysisState, StartAnalysis
from gateway.relay.cameras import Cameras
from gateway.relay.control_link import ControlLink, ControlUnavailableError, RefusedError
from streams.hub import Stream

RETRY_SECONDS = 5.0
"""After control refused the camera, or was not there."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_log = structlog.get_logger(__name__)


class Analyses:
    """One per worker; its tasks live in the group of `run`."""

    def __init__(
        self,
        link: ControlLink,
        cameras: Cameras,
        runner: AnalysisRunner,
    ) -> None:
        self._link = link
        self._cameras = cameras
        self._runner = runner
        self._running: dict[str, tuple[StartAnalysis, asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled; all analyses end with it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    def start(self, wanted: StartAnalysis) -> None:
        """Run an analysis; one that runs so already goes on. Only while `run` is running."""
        if self._group is None:
            raise RuntimeError("the analyses are not running")
        if wanted.analysis in self._running:
            if self._running[wanted.analysis][0] == wanted:
                return
            self.stop(wanted.analysis)
        task = self._group.create_task(self._keep(wanted), name=f"analysis {wanted.analysis}")
        self._running[wanted.analysis] = wanted, task

    def stop(self, analysis: str) -> None:
        """End an analysis at once. Nothing happens if there is none."""
        _, task = self._running.pop(analysis, (None, None))
        if task is not None:
            task.cancel()

    def stop_all(self) -> None:
        for analysis in tuple(self._running):
            self.stop(analysis)

    async def _keep(self, wanted: StartAnalysis) -> None:
        """Hold the camera and the analysis until cancelled."""
        while True:
            try:
                async with self._cameras.stream(wanted.camera) as stream:
                    await self._run_on(stream, wanted)
            except RefusedError as error:
                self._report_error(wanted, error.code)
            except ControlUnavailableError:
                self._report_error(wanted, "control_unavailable")
            await asyncio.sleep(RETRY_SECONDS)

    async def _run_on(self, stream: Stream, wanted: StartAnalysis) -> None:
        """Until cancelled; returns at once if the camera has as many analyses as it may."""
        try:
            self._runner.start(
                wanted.analysis,
                wanted.camera,
                stream,
                analyser=wanted.analyser,
                parameters=wanted.parameters,
                period_seconds=wanted.period_seconds,
                on_event=lambda event: self._link.deliver(_event(wanted, event)),
                on_status=lambda status: self._link.report(_state(status)),
            )
        except ValueError:
            self._report_error(wanted, "limit_analyses")
            return
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._runner.stop(wanted.analysis)

    def _report_error(self, wanted: StartAnalysis, code: str) -> None:
        _log.warning("analysis_waits", analysis=wanted.analysis, camera=wanted.camera, code=code)
        self._link.report(AnalysisState(analysis=wanted.analysis, achieved_period_seconds=None, error=code))


def _event(wanted: StartAnalysis, event: Event) -> AnalysisEvent:
    return AnalysisEvent(
        analysis=wanted.analysis,
        camera=wanted.camera,
        event=event.id,
        kind=event.kind,
        started_at=_microseconds(event.started_at),
        ended_at=_microseconds(event.ended_at) if event.ended_at is not None else None,
        region=list(event.region.points),
        score=event.score,
    )


def _state(status: AnalysisStatus) -> AnalysisState:
    return AnalysisState(
        analysis=status.analysis,
        achieved_period_seconds=status.achieved_period_seconds,
        error=status.error,
    )


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND
