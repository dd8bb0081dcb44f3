"""A test of a camera's connection: what its stream is like, or why there is none; never a picture.

Control says whether the caller may, and records it; then the stream is taken as for any viewer, past the same
checks of its address, for a few seconds. A camera that is being watched is measured where it runs.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from gateway.relay.cameras import Cameras
from gateway.relay.control_link import RefusedError
from gateway.relay.pictures import Answered
from gateway.relay.proxy import ControlProxy
from gateway.relay.refusals import Refusal
from streams.hub import Stream
from streams.media import TIME_BASE_HZ, AccessUnit, Track
from streams.supervisor import CameraState, CameraStatus

TESTS_AT_ONCE = 2
TEST_SECONDS = 5.0
MEASURE_SECONDS = 2.5
_LOOK_SECONDS = 0.1
_OK = 200


class ConnectionTest(msgspec.Struct, frozen=True, kw_only=True):
    """`frame_rate` per second and `bit_rate_bps` of the pictures, measured; null from fewer than two.

    `error`: as a camera's, why it is not reachable.
    """

    reachable: bool = False
    codec: str | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    bit_rate_bps: int | None = None
    audio: str | None = None
    error: str | None = None


class _Measurement:
    """A reader of access units that counts them, and keeps none. On a time line that jumps it begins anew."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self._first_dts = self._last_dts = 0
        self._access_units = self._bytes = 0

    def configure(self, track: Track) -> None: ...

    def publish(self, unit: AccessUnit) -> None:
        if unit.discontinuity or not self._access_units:
            self._first_dts, self._access_units, self._bytes = unit.dts, 0, 0
        else:
            self._bytes += unit.size_bytes
        self._last_dts = unit.dts
        self._access_units += 1
        self.began.set()

    def end(self, reason: str) -> None: ...

    @property
    def frame_rate(self) -> float | None:
        seconds = self._seconds
        return round((self._access_units - 1) / seconds, 2) if seconds else None

    @property
    def bit_rate_bps(self) -> int | None:
        seconds = self._seconds
        return round(8 * self._bytes / seconds) if seconds else None

    @property
    def _seconds(self) -> float:
        return (self._last_dts - self._first_dts) / TIME_BASE_HZ


class CameraTestRoutes:
    def __init__(
        self, cameras: Cameras, control: ControlProxy, status: Callable[[str], CameraStatus]
    ) -> None:
        self._cameras = cameras
        self._control = control
        self._status = status
        self._slots = asyncio.Semaphore(TESTS_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/cameras/{camera}/test", self.test)]

    async def test(self, request: web.Request) -> web.StreamResponse:
        if self._slots.locked():
            raise Refusal("test_busy")
        async with self._slots:
            camera = request.match_info["camera"]
            path = f"/api/v1/cameras/{quote(camera, safe='')}/test"
            status, body = await self._control.ask(request, hdrs.METH_POST, path, b"")
            if status != _OK:
                return Answered(status, body).response
            found = await self._look(camera)
        return web.json_response(msgspec.to_builtins(found), headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _look(self, camera: str) -> ConnectionTest:
        try:
            async with asyncio.timeout(TEST_SECONDS) as deadline, self._cameras.stream(camera) as stream:
                measured = _Measurement()
                stream.subscribe_units(measured)
                try:
                    return await self._measure(camera, stream, measured, deadline)
                finally:
                    stream.unsubscribe(measured)
        except RefusedError as refused:
            return ConnectionTest(error=refused.code)
        except TimeoutError:
            return ConnectionTest(error=self._status(camera).error or "no_picture")

    async def _measure(
        self, camera: str, stream: Stream, measured: _Measurement, deadline: asyncio.Timeout
    ) -> ConnectionTest:
        """Until it is known well enough, or there is an error. Raises TimeoutError without a picture."""
        while not measured.began.is_set():
            status = self._status(camera)
            if status.state in {CameraState.BACKING_OFF, CameraState.FAILED}:
                return ConnectionTest(error=status.error)
            await asyncio.sleep(_LOOK_SECONDS)
        deadline.reschedule(None)
        await asyncio.sleep(MEASURE_SECONDS)
        track = stream.track
        if track is None:
            return ConnectionTest(error=self._status(camera).error or "no_picture")
        return ConnectionTest(
            reachable=True,
            codec=track.codec.value,
            width=track.width,
            height=track.height,
            frame_rate=measured.frame_rate,
            bit_rate_bps=measured.bit_rate_bps,
            audio=None if track.audio is None else track.audio.codec.value,
        )
