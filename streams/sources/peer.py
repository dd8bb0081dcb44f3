"""A stream that another worker of this node has already: taken from it over its local socket."""

import asyncio
from pathlib import Path

from streams.errors import ProtocolError, SourceUnreachableError
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources.link import LinkParser, StreamEnd, Wanted, serialize
from streams.sources.source import Publisher


class PeerSource:
    """A `Source` for one stream of another worker; `run` may be called again after it ended.

    What it publishes keeps the time at which its last byte reached the node. As long as the other worker
    waits for its camera, this waits with it.
    """

    def __init__(self, socket: Path, stream: str) -> None:
        self._socket = socket
        self._stream = stream

    async def run(self, publisher: Publisher) -> None:
        """Take the stream until cancelled.

        Raises `SourceUnreachableError` when the other worker ends it, has it no more, or is gone, and the
        `StreamError` of a publisher that refuses it.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        try:
            transport, _ = await loop.create_unix_connection(
                lambda: _Receiver(publisher, over), str(self._socket)
            )
        except OSError as error:
            raise SourceUnreachableError("the worker that has the stream is gone") from error
        try:
            transport.write(serialize(Wanted(stream=self._stream)))
            await over
        finally:
            transport.abort()


class _Receiver(asyncio.Protocol):
    """Publishes straight from the socket's callback: no task wakes up for an access unit."""

    def __init__(self, publisher: Publisher, over: asyncio.Future[None]) -> None:
        self._publisher = publisher
        self._over = over
        self._parser = LinkParser()
        self._has_track = False

    def data_received(self, data: bytes) -> None:
        if self._over.done():
            return
        try:
            for message in self._parser.receive_data(data):
                self._take(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who runs the source
            self._over.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self._over.done():
            self._over.set_exception(SourceUnreachableError("the worker that has the stream is gone"))

    def _take(self, message: Track | AccessUnit | AudioUnit | StreamEnd) -> None:
        match message:
            case AccessUnit() if self._has_track:
                self._publisher.publish(message)
            case AudioUnit() if self._has_track:
                self._publisher.publish_audio(message)
            case Track():
                self._publisher.configure(message)
                self._has_track = True
            case StreamEnd():
                raise SourceUnreachableError(f"the other worker's stream ended: {message.code}")
            case _:
                raise ProtocolError("media before its track")
