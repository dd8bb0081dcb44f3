"""One relay worker: its parts, wired together, and their life from the first connection to the drain."""

import asyncio
import contextlib
import ipaddress
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog
from aiohttp import web

from analytics.runner import AnalysisRunner
from gateway.messages import (
    CameraReport,
    Claimed,
    Drain,
    End,
    Hello,
    Lease,
    StartAnalysis,
    StopAnalysis,
    StreamMoved,
    Usage,
)
from gateway.relay.analyses import Analyses
from gateway.relay.answering import answered
from gateway.relay.camera_tests import CameraTestRoutes
from gateway.relay.cameras import Cameras
from gateway.relay.claimed_source import ClaimedSource
from gateway.relay.claims import Claims
from gateway.relay.client_address import is_trusted, of_the_client
from gateway.relay.control_link import ControlLink, Pushed
from gateway.relay.elsewhere import OtherWorkers, serving_others
from gateway.relay.guard import ConnectionGuard, track_request
from gateway.relay.hls import HlsRoutes
from gateway.relay.hls_sessions import HlsSessions
from gateway.relay.ingest import source_opener
from gateway.relay.lease import Lease as PictureLease
from gateway.relay.link_server import LinkServer
from gateway.relay.listening import TlsServer, listening
from gateway.relay.media import MediaRoutes
from gateway.relay.mjpeg import MjpegRoutes
from gateway.relay.pictures import PictureRoutes
from gateway.relay.proxy import ControlProxy
from gateway.relay.publishers import Publishers
from gateway.relay.rtmp_server import RtmpServer
from gateway.relay.rtsp_server import RtspServer
from gateway.relay.sessions import OverReason, ViewerSessions
from gateway.relay.settings import RelaySettings, link_socket
from gateway.relay.thumbnails import ThumbnailRoutes
from gateway.relay.tls import Certificate
from streams.hub import Hub
from streams.sources.source import CameraAddress, Source
from streams.supervisor import CameraState, CameraStatus, StreamSupervisor

_LEASE_CHECK_SECONDS = 0.25

_log = structlog.get_logger(__name__)


class RelayWorker:
    """Lives as long as `run`; `stop` drains it. Tests replace the cameras and the analysis."""

    def __init__(
        self,
        settings: RelaySettings,
        open_source: Callable[[CameraAddress], Source] | None = None,
        runner: AnalysisRunner | None = None,
    ) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._end_reason = OverReason.DRAINING.value
        self._hub = Hub(settings=settings.hub)
        self._lease = PictureLease(settings.lease_seconds, time.monotonic)
        self._revision: int | None = None
        self._link = ControlLink(settings.control_socket, self._hello, self._receive, settings.link)
        self._sessions = ViewerSessions(self._link, self._lease)
        self._open_camera = open_source or source_opener(settings.ingest)
        self._claims = Claims(self._link, self._stream_lost)
        self._publishers = Publishers(self._link, self._claims, self._stream_published)
        self._streams = StreamSupervisor(
            self._hub,
            self._open_source,
            settings.cameras,
            random=random.random,
            on_change=self._camera_changed,
        )
        self._cameras = Cameras(self._claims, self._streams)
        self._link_server = LinkServer(self._claims, self._streams)
        self._proxy = ControlProxy(settings.control_http_socket)
        self._runner = runner or AnalysisRunner(settings.analysis_sockets, settings.analysis)
        self._analyses = Analyses(self._link, self._cameras, self._runner)
        self._hls = HlsSessions(
            self._sessions,
            self._cameras,
            settings.hls,
            worker=settings.worker,
            first_picture_seconds=settings.viewer.first_picture_seconds,
        )
        self._elsewhere = OtherWorkers(settings.relay_http_sockets)
        self._proxies = tuple(map(ipaddress.ip_network, settings.trusted_proxies))
        self._guard = ConnectionGuard(settings.guard, lambda address: is_trusted(address, self._proxies))
        self._certificate: Certificate | None = None
        if settings.tls_certificate and settings.tls_key:
            self._certificate = Certificate(Path(settings.tls_certificate), Path(settings.tls_key))

    @property
    def is_ready(self) -> bool:
        """Whether sessions can start here: control is there and renews the lease."""
        return self._lease.is_valid

    def stop(self, reason: str = OverReason.DRAINING) -> None:
        """End all sessions with this reason, report them, leave `run`."""
        self._end_reason = reason
        self._stopping.set()

    async def run(self, on_ready: Callable[[int], None]) -> None:
        """Serve until `stop`; `on_ready` gets the port. Raises OSError if the port cannot be had."""
        async with self._proxy, self._elsewhere, asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._link.run()),
                group.create_task(self._streams.run()),
                group.create_task(self._hub.run()),
                group.create_task(self._lease.watch(self._lease_lost, _LEASE_CHECK_SECONDS)),
                group.create_task(self._runner.run()),
                group.create_task(self._analyses.run()),
                group.create_task(self._hls.run()),
                group.create_task(self._report_usage()),
            ]
            if self._certificate is not None:
                background.append(group.create_task(self._certificate.watch()))
            handing_over = self._link_server.serving(
                link_socket(Path(self._settings.run_folder), self._settings.worker)
            )
            async with handing_over, self._serving_rtsp(), self._serving_rtmp(), self._serving() as server:
                on_ready(server.sockets[0].getsockname()[1])
                await self._stopping.wait()
                server.close()
                await self._drain()
            for task in background:
                task.cancel()

    @contextlib.asynccontextmanager
    async def _serving_rtsp(self) -> AsyncIterator[None]:
        if self._settings.rtsp_port is None:
            yield
            return
        rtsp = RtspServer(
            self._guard, self._sessions, self._cameras, self._publishers, self._link, self._settings.viewer
        )
        async with rtsp.serving(self._settings.host, self._settings.rtsp_port, self._tls):
            yield

    @contextlib.asynccontextmanager
    async def _serving_rtmp(self) -> AsyncIterator[None]:
        if self._settings.rtmp_port is None:
            yield
            return
        rtmp = RtmpServer(self._publishers, self._guard)
        async with rtmp.serving(self._settings.host, self._settings.rtmp_port):
            yield

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[asyncio.Server | TlsServer]:
        app = web.Application(
            middlewares=[track_request, answered, of_the_client(self._proxies, self._guard)]
        )
        viewer = self._settings.viewer
        hls = HlsRoutes(self._hls, self._elsewhere, viewer)
        mjpeg = MjpegRoutes(self._sessions, self._cameras, self._runner, self._settings.mjpeg, viewer)
        app.add_routes([*hls.routes(), *mjpeg.routes()])
        app.add_routes(MediaRoutes(self._sessions, self._cameras, viewer).routes())
        app.add_routes(
            PictureRoutes(self._sessions, self._cameras, self._proxy, self._runner, viewer).routes()
        )
        thumbnails = ThumbnailRoutes(self._sessions, self._cameras, self._proxy, self._runner)
        tests = CameraTestRoutes(self._cameras, self._proxy, self._streams.status)
        app.add_routes([*thumbnails.routes(), *tests.routes()])
        app.router.add_route("*", "/{path:.*}", self._proxy.forward)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=0.5
        )
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("aiohttp has no server after its setup")
        own_socket = self._settings.relay_http_sockets[self._settings.worker]
        try:
            async with (
                listening(
                    self._guard.before(runner.server),
                    self._settings.host,
                    self._settings.port,
                    self._guard,
                    self._tls,
                ) as server,
                serving_others(own_socket, hls.local_routes()),
            ):
                yield server
        finally:
            await runner.cleanup()

    @property
    def _tls(self) -> ssl.SSLContext | None:
        return None if self._certificate is None else self._certificate.context

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._sessions.drain(self._end_reason)
                await self._link.flush()
        except TimeoutError:
            _log.error("drain_incomplete", sessions=len(self._sessions.running()))

    async def _report_usage(self) -> None:
        while True:
            await asyncio.sleep(self._settings.usage_seconds)
            self._link.report(Usage(sessions=self._sessions.usage(), cameras=self._camera_reports()))

    def _camera_reports(self) -> list[CameraReport]:
        return [
            CameraReport(
                stream=stream.camera_id,
                state=status.state.value,
                error=status.error,
                fault=status.fault,
                lost_packets=status.lost_packets,
                codec=track.codec.value if track else None,
                width=track.width if track else 0,
                height=track.height if track else 0,
                bit_rate_bps=stream.bit_rate_bps,
                readers=stream.readers,
            )
            for stream in self._hub
            for status, track in ((self._streams.status(stream.camera_id), stream.track),)
        ]

    def _open_source(self, stream: str) -> Source:
        return ClaimedSource(
            stream,
            self._claims,
            self._publishers,
            self._open_camera,
            lambda worker: link_socket(Path(self._settings.run_folder), worker),
        )

    def _camera_changed(self, stream: str, status: CameraStatus) -> None:
        if status.state is not CameraState.LIVE:
            self._link_server.interrupt(stream)
        if status.state is CameraState.IDLE:
            self._cameras.release(stream)

    def _stream_lost(self, stream: str) -> None:
        self._link_server.close(stream)

    def _stream_published(self, stream: str) -> None:
        self._cameras.move(stream)

    def _stream_moved(self, moved: StreamMoved) -> None:
        if moved.epoch:
            self._publishers.taken(moved.stream, moved.epoch)
        else:
            self._publishers.moved(moved.stream)
        self._cameras.move(moved.stream)

    def _lease_lost(self) -> None:
        _log.error("lease_lost")
        self._sessions.end_all(OverReason.LEASE_LOST)
        self._analyses.stop_all()
        self._link.reconnect()

    def _hello(self) -> Hello:
        return Hello(
            worker=self._settings.worker,
            pid=os.getpid(),
            revision=self._revision,
            sessions=self._sessions.running(),
            streams=self._claims.held(),
        )

    def _receive(self, message: Pushed) -> None:
        match message:
            case Lease():
                self._lease.renew()
                self._revision = message.revision
            case End():
                self._sessions.end(message.session, message.reason, message.detail, message.by)
            case Drain():
                self.stop(message.reason)
            case StreamMoved():
                self._stream_moved(message)
            case Claimed():
                self._claims.late(message)
            case StartAnalysis():
                self._analyses.start(message)
            case StopAnalysis():
                self._analyses.stop(message.analysis)
