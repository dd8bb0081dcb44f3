"""CPU microseconds of the whole path of one access unit: a camera's bytes in, a viewer's FLV out.

    PYTHONPATH=.:tests .venv/bin/python tests/bench/bench_path.py

No kernel in it: no read, no write, no poll. With one camera again and again everything is in the processor's
caches; with hundreds in turn, as in a city, little is. The median of several rounds counts.
"""

import asyncio
import statistics
import time

from bench_ingest import PICTURES_PER_SECOND, UNITS, AnySession, camera_writes

from streams.hub import BoundedReader, Hub, HubSettings, ReaderSettings
from streams.media import Codec
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_connection import RtspConnection
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.rtsp_session import InterleavedDelivery, TrackReceiver
from streams.wire.depacketizer import H264Depacketizer

CAMERAS = (1, 100, 400)
ROUNDS = 5


class NoTransport:
    """Takes everything at once."""

    def backlog_bytes(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass

    def write_marked(self, head: bytes, tail: bytes) -> None:
        pass


async def open_camera(hub: Hub, name: str) -> RtspConnection:
    stream = hub.open(name)
    reader = BoundedReader(NoTransport(), None, ReaderSettings(), time.monotonic_ns, lambda _reason: None)
    stream.subscribe(reader, "flv", "chunked")
    receiver = MediaReceiver(stream, H264Depacketizer(), 0)
    connection = RtspConnection(time.monotonic_ns, BitRateLimit(1_000_000_000))
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
    hub = Hub(settings)
    connections = [await open_camera(hub, f"camera-{number}") for number in range(cameras)]
    spent = 0.0
    for write in writes:
        copies = [bytes(bytearray(write)) for _ in connections]
        began = time.process_time()
        for connection, data in zip(connections, copies, strict=True):
            connection.data_received(data)
        spent += time.process_time() - began
    return spent / len(writes) / cameras * 1e6


async def main() -> None:
    for mbit in (1, 4):
        writes, _ = camera_writes(Codec.H264, mbit * 1_000_000)
        for cameras in CAMERAS:
            rounds = [await cost_us(cameras, writes, HubSettings(merge_seconds=0)) for _ in range(ROUNDS)]
            each = statistics.median(rounds)
            print(  # noqa: T201
                f"{mbit} Mbit/s, {cameras:3} cameras in turn: {each:6.2f} per access unit, "
                f"{each * PICTURES_PER_SECOND:5.0f} per camera-second ({UNITS} pictures, {ROUNDS} rounds)"
            )


if __name__ == "__main__":
    asyncio.run(main())
