"""CPU microseconds of the whole path of one access unit: a camera's bytes in, a viewer's FLV out.

    PYTHONPATH=.:tests:tests/bench .venv/bin/python tests/bench/bench_path.py

Each picture is written at once, or merged with others for up to 100 ms of a clock that goes on by a picture's
time after each. No kernel in it: no read, no write, no poll. With one camera again and again everything is in
the processor's caches; with hundreds in turn, as in a city, little is. The median of several rounds counts;
the best one is beside it, since other load only ever adds.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from itertools import product

from bench_ingest import PICTURES_PER_SECOND, UNITS, AnySession, camera_writes

from streams.hub import BoundedReader, Hub, HubSettings, ReaderSettings
from streams.media import Codec
from streams.mux import Marker
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_connection import RtspConnection
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.rtsp_session import InterleavedDelivery, TrackReceiver
from streams.wire.depacketizer import H264Depacketizer

CAMERAS = (1, 100, 400)
ROUNDS = 5


class SteppedClock:
    """The hub's clock and timers. `now_ns` begins when the first picture comes."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self._timers: list[tuple[int, Callable[[], None]]] = []

    def read(self) -> int:
        return self.now_ns

    def schedule(self, seconds: float, call: Callable[[], None]) -> "SteppedClock":
        self._timers.append((self.now_ns + int(seconds * 1e9), call))
        return self

    def cancel(self) -> None:
        """Nothing ends before its timers."""

    def step(self) -> list[Callable[[], None]]:
        """A picture's time later: what is due."""
        self.now_ns += 1_000_000_000 // PICTURES_PER_SECOND
        due = [call for at_ns, call in self._timers if at_ns <= self.now_ns]
        self._timers = [(at_ns, call) for at_ns, call in self._timers if at_ns > self.now_ns]
        return due


class NoTransport:
    """Takes everything at once."""

    def backlog_bytes(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass

    plain_write = write

    def write_marked(self, head: bytes, tail: bytes) -> None:
        pass


async def open_camera(hub: Hub, name: str, clock: SteppedClock) -> RtspConnection:
    stream = hub.open(name)
    marker = Marker(bytes(32), bytes(16), name)
    reader = BoundedReader(NoTransport(), marker, ReaderSettings(), clock.read, lambda _reason: None)
    stream.subscribe(reader, "flv", "chunked")
    receiver = MediaReceiver(stream, H264Depacketizer(), 0)
    connection = RtspConnection(clock.read, BitRateLimit(1_000_000_000))
    delivery = InterleavedDelivery(connection)
    video = TrackReceiver(
        payload_type=96,
        clock_rate=90_000,
        take_packet=receiver.take_video,
        take_control=receiver.take_video_control,
        codec=Codec.H264,
    )
    await delivery.set_up(AnySession(), "", video)
    delivery.start(receiver)
    return connection


async def cost_us(cameras: int, writes: list[bytes], settings: HubSettings) -> float:
    """Of one access unit. Each camera gets its own copy of the bytes, as reading would make."""
    clock = SteppedClock()
    hub = Hub(settings, clock_ns=clock.read, schedule=clock.schedule)
    connections = [await open_camera(hub, f"camera-{number}", clock) for number in range(cameras)]
    spent = 0.0
    for write in writes:
        copies = [bytes(bytearray(write)) for _ in connections]
        began = time.process_time()
        for connection, data in zip(connections, copies, strict=True):
            connection.data_received(data)
        spent += time.process_time() - began
        due = clock.step()
        began = time.process_time()
        for call in due:
            call()
        spent += time.process_time() - began
    return spent / len(writes) / cameras * 1e6


WAYS = {
    "at once": HubSettings(merge_seconds=0),
    "merged": HubSettings(merge_seconds=0.1, merge_above_load=0),
}


async def main() -> None:
    for mbit, (way, settings) in product((1, 4), WAYS.items()):
        writes, _ = camera_writes(Codec.H264, mbit * 1_000_000)
        for cameras in CAMERAS:
            rounds = [await cost_us(cameras, writes, settings) for _ in range(ROUNDS)]
            each = statistics.median(rounds)
            print(  # noqa: T201
                f"{mbit} Mbit/s, {way:7}, {cameras:3} cameras in turn: {each:6.2f} ({min(rounds):6.2f}) "
                f"per access unit, {each * PICTURES_PER_SECOND:5.0f} per camera-second "
                f"({UNITS} pictures, {ROUNDS} rounds)"
            )


if __name__ == "__main__":
    asyncio.run(main())
