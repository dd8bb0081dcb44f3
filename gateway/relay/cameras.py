"""The cameras that this worker pulls: claimed from control at the first use, released when idle."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from gateway.messages import Release
from gateway.relay.control_link import ControlLink, ControlUnavailableError
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import OverReason, ViewerSession
from streams.hub import Stream
from streams.media import AccessUnit, Track
from streams.sources.source import CameraAddress
from streams.supervisor import StreamSupervisor


class Cameras:
    """Claims by camera id, over the stream supervisor that pulls them."""

    def __init__(self, link: ControlLink, supervisor: StreamSupervisor) -> None:
        self._link = link
        self._supervisor = supervisor
        self._addresses: dict[str, CameraAddress] = {}
        self._claiming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def stream(self, camera: str) -> AsyncIterator[Stream]:
        """The camera's stream, pulled as long as the context lasts.

        Raises `RefusedError`, `ControlUnavailableError`.
        """
        stream = self._supervisor.acquire(camera, await self._address(camera))
        try:
            yield stream
        finally:
            self._supervisor.release(camera)

    async def _address(self, camera: str) -> CameraAddress:
        async with self._claiming.setdefault(camera, asyncio.Lock()):
            if camera not in self._addresses:
                address = (await self._link.claim(camera)).address
                if address is None:
                    raise ControlUnavailableError("another worker pulls the camera")
                self._addresses[camera] = address
            return self._addresses[camera]

    def move(self, camera: str) -> None:
        """Control changed the camera's address; the next viewer finds out."""
        self._addresses.pop(camera, None)

    def release(self, camera: str) -> None:
        """The supervisor has closed the camera after its idle time."""
        if self._addresses.pop(camera, None) is not None:
            self._link.report(Release(stream=camera))

    def claimed(self) -> list[str]:
        return list(self._addresses)


class _FirstPicture:
    """A reader of access units that only waits for one."""

    def __init__(self) -> None:
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def configure(self, track: Track) -> None: ...

    def publish(self, unit: AccessUnit) -> None:  # noqa: ARG002 - the Protocol's
        if not self.arrived.done():
            self.arrived.set_result(None)

    def end(self, reason: str) -> None: ...


async def wait_for_picture(stream: Stream, session: ViewerSession, seconds: float) -> None:
    """Return once the stream has a picture; end the session if it has none after `seconds`.

    Raises Refusal `camera_unavailable`, or `session_over` if it was ended meanwhile.
    """
    first = _FirstPicture()
    stream.subscribe_units(first)
    try:
        await asyncio.wait(
            {first.arrived, session.over}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        stream.unsubscribe(first)
    if session.over.done():
        raise Refusal("session_over", session.reason)
    if not first.arrived.done():
        session.end(OverReason.CAMERA_GONE)
        raise Refusal("camera_unavailable")
