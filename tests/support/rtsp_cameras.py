"""Both ends of a simulated camera for tests: a producer of test clips, and a publisher that remembers."""

import asyncio
import contextlib
import ipaddress

import msgspec
from support.units import FRAME_TICKS, encode_clip

from streams.errors import StreamError
from streams.media import TIME_BASE_HZ
from streams.sources.egress import EgressSettings
from streams.sources.rtsp import RtspSource, RtspSourceSettings
from streams.sources.source import CameraAddress

LOOPBACK = EgressSettings(allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))
PASSWORD = 'p"ä\\ß:secret'


class ClipProducer:
    """Repeats a clip forever, up to 500 pictures a second, with timestamps as of 25 a second."""

    def __init__(self, codec, *, interval_seconds=0.002, **clip):
        self.interval_seconds = interval_seconds
        self.track, self.units = encode_clip(codec, **clip)
        self.subscriptions = 0

    async def open(self):
        self.subscriptions += 1
        offset = TIME_BASE_HZ
        while True:
            for unit in self.units:
                yield msgspec.structs.replace(unit, pts=unit.pts + offset, dts=unit.dts + offset)
                await asyncio.sleep(self.interval_seconds)
            offset += len(self.units) * FRAME_TICKS


class Collector:
    """A publisher: `tracks`, `units`, `sounds`, and `reached(n)`, which waits for n access units."""

    def __init__(self):
        self.tracks = []
        self.units = []
        self.sounds = []
        self.reading = None
        self._grown = asyncio.Event()

    def offer_turns(self, reading):
        self.reading = reading

    def configure(self, track):
        self.tracks.append(track)

    def publish(self, unit):
        assert self.tracks
        self.units.append(unit)
        self._grown.set()

    def publish_audio(self, unit):
        assert self.tracks[-1].audio is not None
        self.sounds.append(unit)
        self._grown.set()

    async def reached(self, count, sounds=0):
        while len(self.units) < count or len(self.sounds) < sounds:
            self._grown.clear()
            await self._grown.wait()


def rtsp_source(url, **options):
    settings = RtspSourceSettings(
        **{name: options.pop(name) for name in list(options) if name.endswith(("_seconds", "_bps"))}
    )
    return RtspSource(CameraAddress(url=url, **options), settings, LOOPBACK)


async def pull(url, count, *, sounds=0, **options):
    """Pull until `count` access units and so many pieces of sound came, then cancel."""
    collector = Collector()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rtsp_source(url, **options).run(collector))
        await collector.reached(count, sounds)
        task.cancel()
    return collector


async def failure_of(url, **options):
    """The StreamError with which a run ends by itself."""
    async with asyncio.timeout(20):
        try:
            await rtsp_source(url, **options).run(Collector())
        except StreamError as error:
            return error
    raise AssertionError("the source returned")


@contextlib.asynccontextmanager
async def serve_tcp(handle):
    """A server on loopback whose connections have ended when the block ends; yields the port."""

    async def connected(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await handle(reader, writer)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        server = await asyncio.start_server(
            lambda reader, writer: tasks.create_task(connected(reader, writer)) and None, "127.0.0.1", 0
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
