"""Encoders that deliver a camera's stream to this worker, and the way from there to who watches it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from gateway.messages import Claimed, PublisherFailed
from gateway.relay.claims import Claims
from gateway.relay.control_link import ControlLink, RefusedError
from gateway.relay.publisher_login import LoginThrottle
from streams.errors import LoginRefusedError, SourceUnreachableError, StreamError
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources.source import Publisher, Source
from streams.wire.digest import Credentials

SILENCE_SECONDS = 8.0
"""An encoder without a complete picture for so long is cut."""
MAX_BIT_RATE_BPS = 100_000_000

_NOBODY = Credentials(username="", password="")

_log = structlog.get_logger(__name__)


class _Encoder:
    """One encoder's `Publisher`: hands on what comes while somebody watches, and keeps nothing but the track.

    `over` is done when the encoder has left, with what was wrong with it, or when it may deliver no more.
    """

    def __init__(self, on_replaced: Callable[[], None], lost_packets: Callable[[], int]) -> None:
        self.over: asyncio.Future[StreamError | None] = asyncio.get_running_loop().create_future()
        self.lost_packets = lost_packets
        self._on_replaced = on_replaced
        self._track: Track | None = None
        self._watcher: Publisher | None = None

    def configure(self, track: Track) -> None:
        self._track = track
        if self._watcher is not None:
            self._watcher.configure(track)

    def publish(self, unit: AccessUnit) -> None:
        if self._watcher is not None:
            self._watcher.publish(unit)

    def publish_audio(self, unit: AudioUnit) -> None:
        if self._watcher is not None:
            self._watcher.publish_audio(unit)

    def watch(self, watcher: Publisher | None) -> None:
        self._watcher = watcher
        if watcher is not None and self._track is not None:
            watcher.configure(self._track)

    def leave(self, failure: StreamError | None) -> None:
        if not self.over.done():
            self.over.set_result(failure)

    def replace(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
            self._on_replaced()


class PublishedSource:
    """A `Source` for the stream that an encoder delivers here. `failure`: why the last one was cut off."""

    def __init__(self, encoder: _Encoder | None, failure: StreamError | None) -> None:
        self._encoder = encoder
        self._failure = failure

    @property
    def lost_packets(self) -> int:
        return 0 if self._encoder is None else self._encoder.lost_packets()

    async def run(self, publisher: Publisher) -> None:
        """Until cancelled or the encoder is gone.

        Raises what was wrong with it, `SourceUnreachableError` if nothing was, or as `configure` does.
        """
        encoder, failure = self._encoder, self._failure
        if encoder is not None:
            try:
                encoder.watch(publisher)
                await asyncio.wait({encoder.over})
            finally:
                encoder.watch(None)
            failure = encoder.over.result()
        if failure is None:
            raise SourceUnreachableError("no encoder publishes the camera")
        # Raised at each attempt: it must not gather the attempts before.
        raise failure.with_traceback(None)


class Publishers:
    """The encoders of this worker, by camera: at most one each, the newest. They log in here, all alike."""

    def __init__(self, link: ControlLink, claims: Claims, on_published: Callable[[str], None]) -> None:
        """`on_published` is told a camera when an encoder has come: who waits for it may attach."""
        self._link = link
        self._claims = claims
        self._on_published = on_published
        self._throttle = LoginThrottle()
        self._encoders: dict[str, _Encoder] = {}
        self._failures: dict[str, StreamError] = {}
        self._taken: dict[str, int] = {}

    async def admits(
        self, camera: str, remote: str, proves: Callable[[Credentials], bool]
    ) -> Credentials | None:
        """The camera's login, if an encoder at `remote` `proves` to have it; control is told of failures.

        After a few of them nothing is tried any more, over no protocol. Raises `ControlUnavailableError`.
        """
        log = _log.bind(camera=camera, remote=remote)
        if not self._throttle.is_open(remote, camera):
            log.warning("publisher_login_throttled")
            return None
        expected, is_known = _NOBODY, False
        with suppress(RefusedError):
            login = await self._link.publisher_login(camera)
            expected, is_known = Credentials(username=login.username, password=login.password), True
        if proves(expected) and is_known:
            return expected
        self._throttle.count(remote, camera)
        self._link.report(PublisherFailed(camera=camera, remote=remote))
        log.warning("publisher_login_failed")
        return None

    @asynccontextmanager
    async def publishing(
        self,
        camera: str,
        login: Credentials,
        on_replaced: Callable[[], None],
        *,
        failure: Callable[[], StreamError | None] = lambda: None,
        lost_packets: Callable[[], int] = lambda: 0,
    ) -> AsyncIterator[Publisher]:
        """Where an encoder delivers that `login` has admitted, as long as the context lasts.

        `on_replaced` is called once if a newer encoder of the camera comes, here or at another worker, or if
        the camera's login changes; what is delivered after that goes nowhere. `failure` is asked at the end,
        `lost_packets` at any time. The publisher's `configure` and `publish` may raise a `StreamError`.
        Raises `LoginRefusedError` if the login has changed meanwhile, `RefusedError`,
        `ControlUnavailableError`.
        """
        encoder = _Encoder(on_replaced, lost_packets)
        claimed = await self._claims.publish(camera)
        if _login_of(claimed) != login:
            if camera not in self._encoders:
                self._claims.unpublish(camera)
            raise LoginRefusedError("the camera's login has changed")
        self._install(camera, encoder, claimed.epoch)
        try:
            yield encoder
        finally:
            wrong = failure()
            encoder.leave(wrong)
            if self._encoders.get(camera) is encoder:
                del self._encoders[camera]
                if wrong is not None:
                    self._failures[camera] = wrong
                self._claims.unpublish(camera)
                _log.info("publisher_gone", camera=camera)

    def source(self, camera: str) -> Source:
        """The stream that an encoder delivers here; one connection of a `Source`."""
        return PublishedSource(self._encoders.get(camera), self._failures.get(camera))

    def moved(self, camera: str) -> None:
        """The camera's login may have changed: who knows it comes again, and is cut off till then."""
        encoder = self._encoders.pop(camera, None)
        if encoder is not None:
            self._claims.unpublish(camera)
            encoder.replace()

    def taken(self, camera: str, epoch: int) -> None:
        """Another worker has a newer encoder of the camera, by the claim of this epoch."""
        self._taken[camera] = epoch
        self._replace(camera)

    def _install(self, camera: str, encoder: _Encoder, epoch: int) -> None:
        # The word that another worker has taken the camera may have overtaken our own claim's answer.
        if self._taken.pop(camera, 0) > epoch:
            self._claims.forget(camera)
            encoder.replace()
            return
        earlier = self._encoders.get(camera)
        self._encoders[camera] = encoder
        self._failures.pop(camera, None)
        if earlier is not None:
            earlier.replace()
        _log.info("publisher_came", camera=camera)
        self._on_published(camera)

    def _replace(self, camera: str) -> None:
        encoder = self._encoders.pop(camera, None)
        if encoder is not None:
            self._claims.forget(camera)
            encoder.replace()


def _login_of(claimed: Claimed) -> Credentials | None:
    address = claimed.address
    if address is None:
        return None
    return Credentials(username=address.username or "", password=address.password or "")
