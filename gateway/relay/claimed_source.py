"""The one source of every stream: asks control whose the stream is, and takes it from there."""

from collections.abc import Callable
from pathlib import Path

from gateway.messages import PUSH_URL, Claimed
from gateway.relay.claims import Claims
from gateway.relay.publishers import Publishers
from streams.sources.peer import PeerSource
from streams.sources.source import CameraAddress, Source, StreamPublisher


class ClaimedSource:
    """One connection: to the camera, to an encoder that publishes here, or to the worker that has the stream.

    `lost_packets`: what the source behind it counts, if it does.
    """

    def __init__(
        self,
        stream: str,
        claims: Claims,
        publishers: Publishers,
        open_camera: Callable[[CameraAddress], Source],
        socket_of: Callable[[int], Path],
    ) -> None:
        """`socket_of`: where a worker of this number hands over its streams."""
        self._stream = stream
        self._claims = claims
        self._publishers = publishers
        self._open_camera = open_camera
        self._socket_of = socket_of
        self._source: Source | None = None

    @property
    def lost_packets(self) -> int:
        return getattr(self._source, "lost_packets", 0)

    async def run(self, publisher: StreamPublisher) -> None:
        """Pull until cancelled. Raises a `StreamError`, also if control refuses or was never there."""
        self._source = self._open(await self._claims.renew(self._stream))
        await self._source.run(publisher)

    def _open(self, claimed: Claimed) -> Source:
        if claimed.address is not None and claimed.address.url == PUSH_URL:
            return self._publishers.source(self._stream)
        if claimed.address is not None:
            return self._open_camera(claimed.address)
        if claimed.peer is None:
            raise RuntimeError("control's answer to a claim names neither address nor peer")
        return PeerSource(self._socket_of(claimed.peer), self._stream)
