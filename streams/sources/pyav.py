"""Any camera that is not RTSP: http(s) with FLV, MPEG-TS, MP4 or HLS, rtmp, and files of an allowed folder.

The parent does the networking (addresses checked and pinned, redirects refused) and opens the file; a
confined child (`pyav_child`) demuxes. Of the child the parent believes nothing: its messages are checked by
`link`, its clock is replaced, its silence ends it.
"""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec

from streams.errors import ProtocolError, SourceUnreachableError, StreamError, UnsupportedError
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources import hls
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.egress import EgressSettings
from streams.sources.link import StreamEnd, to_error
from streams.sources.origin import media_type, open_origin, read_body, read_chunks
from streams.sources.pyav_order import FileInput, Order, PipeInput, RtmpInput
from streams.sources.pyav_process import Demuxer, DemuxerSettings, redact
from streams.sources.rtmp import open_tunnel, rtmp_input
from streams.sources.source import CameraAddress, Publisher

HTTP_LEAD_SECONDS = 10.0
"""A server may send its GOP cache at once, but a recording no faster than it plays."""
AVERAGED_SECONDS = 10
"""So that a GOP cache is no flood; one of twice the limit is noticed after half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PyavSettings:
    """`file_folder`: where `file:` addresses may point; None: nowhere.

    `open_timeout_seconds` bounds each connection attempt, and then the time to the first access unit;
    `silence_seconds` the time between two. `max_bit_rate_bps`: what a camera may send, averaged over
    AVERAGED_SECONDS.
    """

    egress: EgressSettings = field(default_factory=EgressSettings)
    demuxer: DemuxerSettings = field(default_factory=DemuxerSettings)
    file_folder: Path | None = None
    open_timeout_seconds: float = 10.0
    silence_seconds: float = 8.0
    max_bit_rate_bps: int = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Feed:
    """What a scheme hands to the child: its input, and a coroutine that runs as long as it does."""

    input: RtmpInput | FileInput | PipeInput
    run: Callable[[asyncio.StreamWriter], Awaitable[None]]
    lead_seconds: float | None = None
    patience_seconds: float = 0.0
    """Silence that the protocol itself allows."""


class PyavSource:
    """A `Source` for one camera; `run` may be called again after it ended.

    `clock_ns`: the monotonic clock that stamps access units, in ns.
    """

    def __init__(
        self, address: CameraAddress, settings: PyavSettings, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._address = address
        self._settings = settings
        self._clock_ns = clock_ns

    async def run(self, publisher: Publisher) -> None:
        """Pull until cancelled. Raises a `StreamError`; then, or when cancelled, no process is left."""
        try:
            async with _open_feed(self._address, self._settings) as feed:
                await self._pull(feed, publisher)
        except ExceptionGroup as failures:
            # The group's first failure has cancelled the other tasks, so it is the cause.
            errors = [error for error in failures.exceptions if isinstance(error, StreamError)]
            if len(errors) < len(failures.exceptions):
                raise
            raise errors[0] from None

    async def _pull(self, feed: _Feed, publisher: Publisher) -> None:
        settings = self._settings
        order = Order(
            input=feed.input,
            memory_bytes=settings.demuxer.memory_bytes,
            open_timeout_seconds=settings.open_timeout_seconds,
            read_timeout_seconds=settings.silence_seconds,
            lead_seconds=feed.lead_seconds,
        )
        files = (feed.input.descriptor,) if isinstance(feed.input, FileInput) else ()
        async with (
            Demuxer.open(order, settings.demuxer, secret=self._address.password, pass_fds=files) as demuxer,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(demuxer.watch())
            tasks.create_task(_run_feed(feed, demuxer.feed))
            await self._publish(demuxer, feed, publisher)

    async def _publish(self, demuxer: Demuxer, feed: _Feed, publisher: Publisher) -> None:
        """Publish until the child ends the stream or falls silent, which is always a `StreamError`."""
        loop = asyncio.get_running_loop()
        silence = self._settings.silence_seconds + feed.patience_seconds
        patience = self._settings.open_timeout_seconds + feed.patience_seconds
        limit = BitRateLimit(self._settings.max_bit_rate_bps, AVERAGED_SECONDS)
        has_track = False
        try:
            async with asyncio.timeout(patience) as deadline:
                while True:
                    for message in await demuxer.read():
                        match message:
                            case Track():
                                publisher.configure(message)
                                has_track = True
                            case AccessUnit() if has_track:
                                now_ns = self._clock_ns()
                                limit.take(message.size_bytes, now_ns)
                                publisher.publish(msgspec.structs.replace(message, received_ns=now_ns))
                                deadline.reschedule(loop.time() + silence)
                            case AudioUnit() if has_track:
                                now_ns = self._clock_ns()
                                limit.take(len(message.data), now_ns)
                                publisher.publish_audio(msgspec.structs.replace(message, received_ns=now_ns))
                            case AccessUnit() | AudioUnit():
                                raise ProtocolError("an access unit before its track")
                            case StreamEnd():
                                raise self._error_of(message)
        except TimeoutError:
            raise SourceUnreachableError("the camera sends no pictures") from None

    def _error_of(self, end: StreamEnd) -> StreamError:
        return to_error(StreamEnd(code=end.code, detail=redact(end.detail, self._address.password)))


def _open_feed(address: CameraAddress, settings: PyavSettings) -> AbstractAsyncContextManager[_Feed]:
    match address.url.partition(":")[0].lower():
        case "http" | "https":
            return _open_http(address, settings)
        case "rtmp":
            return _open_rtmp(address, settings)
        case "file":
            return _open_file(address, settings)
        case "srt":
            raise UnsupportedError("SRT is not supported: the FFmpeg in PyAV's wheels is built without it")
        case _:
            raise UnsupportedError("the address's scheme is not supported")


@asynccontextmanager
async def _open_http(address: CameraAddress, settings: PyavSettings) -> AsyncIterator[_Feed]:
    timeout = settings.open_timeout_seconds
    async with open_origin(address, settings.egress, timeout_seconds=timeout) as origin:
        async with origin.get(address.url) as response:
            if not hls.is_playlist(address.url, media_type(response)):
                yield _Feed(
                    input=PipeInput(), run=partial(_copy_body, response), lead_seconds=HTTP_LEAD_SECONDS
                )
                return
            body = await read_body(response, hls.MAX_PLAYLIST_BYTES)
        url, playlist = await hls.open_playlist(origin, address.url, body)
        yield _Feed(
            input=PipeInput(),
            run=partial(hls.play, origin, url, playlist),
            lead_seconds=0.0,
            patience_seconds=hls.RELOAD_PATIENCE * playlist.target_duration_seconds,
        )


@asynccontextmanager
async def _open_rtmp(address: CameraAddress, settings: PyavSettings) -> AsyncIterator[_Feed]:
    timeout = settings.open_timeout_seconds
    async with open_tunnel(address, settings.egress, timeout_seconds=timeout) as tunnel:
        yield _Feed(input=rtmp_input(address, tunnel.port), run=tunnel.run)


@asynccontextmanager
async def _open_file(address: CameraAddress, settings: PyavSettings) -> AsyncIterator[_Feed]:
    descriptor = await asyncio.to_thread(open_media_file, address.url, settings.file_folder)
    try:
        yield _Feed(input=FileInput(descriptor=descriptor), run=_feed_nothing, lead_seconds=0.0)
    finally:
        os.close(descriptor)


def open_media_file(url: str, folder: Path | None) -> int:
    """Open a `file:` URL (RFC 8089) for reading and return the descriptor; blocking.

    The path that counts is the open file's own, after every symbolic link. Raises `UnsupportedError` if it
    is outside `folder` or not a regular file, `SourceUnreachableError` if it cannot be opened.
    """
    try:
        parts = urlsplit(url)
        real_path = Path(unquote(parts.path)).resolve()
        is_local = parts.netloc in {"", "localhost"} and not parts.query
        if folder is None or not is_local or not real_path.is_relative_to(folder.resolve()):
            raise UnsupportedError("the address names no file in the folder for files")
        # Not to hang on a named pipe.
        descriptor = os.open(real_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise SourceUnreachableError(f"the file cannot be opened ({type(error).__name__})") from None
    # A folder on the way may have been exchanged meanwhile.
    opened_path = Path(f"/proc/self/fd/{descriptor}").readlink()
    if stat.S_ISREG(os.fstat(descriptor).st_mode) and opened_path == real_path:
        return descriptor
    os.close(descriptor)
    raise UnsupportedError("the address names no regular file")


async def _run_feed(feed: _Feed, sink: asyncio.StreamWriter) -> None:
    """Run the feed to its end, and tell the child that there is no more."""
    with suppress(ConnectionError):  # the child has ended, and its last message says why
        await feed.run(sink)
    sink.close()


async def _copy_body(response: aiohttp.ClientResponse, sink: asyncio.StreamWriter) -> None:
    async for chunk in read_chunks(response):
        sink.write(chunk)
        await sink.drain()


async def _feed_nothing(_: asyncio.StreamWriter) -> None:
    """A file needs no feeding."""
