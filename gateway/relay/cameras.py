"""The streams that this worker's viewers want: claimed from control at the first use, released when idle."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from gateway.relay.claims import Claims
from gateway.relay.refusals import Refusal
from gateway.relay.sessions import OverReason, ViewerSession
from streams.hub import Stream
from streams.media import AccessUnit, Track
from streams.supervisor import StreamSupervisor


class Cameras:
    """Streams by key, over the supervisor that takes them from wherever control says."""

    def __init__(self, claims: Claims, supervisor: StreamSupervisor) -> None:
        self._claims = claims
        self._supervisor = supervisor
        self._claiming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def stream(self, key: str) -> AsyncIterator[Stream]:
        """The stream of this key, kept as long as the context lasts.

        Raises `RefusedError`, `ControlUnavailableError`.
        """
        async with self._claiming.setdefault(key, asyncio.Lock()):
            if not self._claims.knows(key):
                await self._claims.ask(key)
                # If earlier viewers wait because control had refused, they need not wait any longer.
                self._supervisor.restart(key)
            stream = self._supervisor.acquire(key)
        try:
            yield stream
        finally:
            self._supervisor.release(key)

    def move(self, key: str) -> None:
        """The stream is elsewhere now: ask control and connect anew, if anybody here wants it."""
        self._claims.moved(key)
        self._supervisor.restart(key)

    def release(self, key: str) -> None:
        """The supervisor has closed the stream after its idle time."""
        self._claims.release(key)


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
        raise Refusal("session_over", session.why)
    if not first.arrived.done():
        session.end(OverReason.CAMERA_GONE)
        raise Refusal("camera_unavailable")
