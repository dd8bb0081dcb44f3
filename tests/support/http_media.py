"""Media over HTTP for tests: clips made with PyAV, a server of every kind that cameras are, and canaries."""

import asyncio
import functools
import io
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import av
import numpy as np
from aiohttp import web

from streams.media import AccessUnit, Track

WIDTH, HEIGHT, RATE = 320, 180, 25
ENCODERS = {"h264": "libx264", "h265": "libx265"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@functools.cache
def make_clip(container: str, codec: str = "h264", seconds: int = 2) -> bytes:
    """A clip with a random access point every second; `container`: flv, mpegts or mp4 (fragmented)."""
    buffer = io.BytesIO()
    options = FRAGMENTED if container == "mp4" else {}
    with av.open(buffer, "w", format=container, options=options) as output:
        stream = output.add_stream(ENCODERS[codec], rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", RATE
        quiet = (
            {"x265-params": "log-level=none:keyint=25"} if codec == "h265" else {"x264-params": "keyint=25"}
        )
        stream.options = {"preset": "ultrafast"} | quiet
        for index in range(seconds * RATE):
            picture = np.full((HEIGHT, WIDTH, 3), index * 5 % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


@functools.cache
def make_hls_segments(container: str, count: int = 4) -> tuple[bytes, ...]:
    """Segments of one second; for mp4 the first one is the initialisation segment."""
    clip = make_clip(container, seconds=count)
    if container == "mp4":
        starts = [index - 4 for index in range(len(clip)) if clip.startswith(b"moof", index)]
        bounds = [0, *starts, clip.rfind(b"mfra") - 4]
        return tuple(clip[start:end] for start, end in pairwise(bounds))
    segments = []
    with av.open(io.BytesIO(clip)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for first in range(0, len(packets), RATE):
            buffer = io.BytesIO()
            with av.open(buffer, "w", format="mpegts") as output:
                stream = output.add_stream_from_template(source.streams.video[0])
                for packet in packets[first : first + RATE]:
                    packet.stream = stream
                    output.mux(packet)
            segments.append(buffer.getvalue())
    return tuple(segments)


class Recorder:
    """A `Publisher` that remembers, and tells when enough has arrived."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.units: list[AccessUnit] = []
        self._arrived = asyncio.Event()

    def configure(self, track: Track) -> None:
        self.tracks.append(track)
        self._arrived.set()

    def publish(self, unit: AccessUnit) -> None:
        assert self.tracks, "an access unit before its track"
        self.units.append(unit)
        self._arrived.set()

    async def wait_for(self, count: int) -> None:
        while len(self.units) < count:
            self._arrived.clear()
            await self._arrived.wait()


@asynccontextmanager
async def serve(
    handler: Callable[[web.Request], object], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve every path on loopback with `handler`; yields the base URL."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def send_and_stay(request: web.Request, body: bytes, content_type: str) -> web.StreamResponse:
    """Send `body` as a live stream does: chunked, and never ending."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    await response.write(body)
    await asyncio.Event().wait()
    return response


class Canary:
    """A listener that nobody must ever reach."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    @asynccontextmanager
    async def listen(self) -> AsyncIterator["Canary"]:
        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
