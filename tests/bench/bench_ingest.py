"""CPU microseconds of the input: from a camera's bytes, as the kernel gives them, to access units.

    PYTHONPATH=.:tests .venv/bin/python tests/bench/bench_ingest.py

25 pictures a second, a keyframe every 50, interleaved RTSP. The camera's writes arrive whole (a busy gateway,
or a camera on the same machine), in TCP segments of 1,448 bytes (an idle one reads each as it comes), or as
much as one read holds (a gateway that is behind). The best of several rounds counts, since other load only
ever adds. The cost of the read itself is the kernel's and not in it.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import chain

import msgspec
from support.units import encode_clip

from streams.media import AccessUnit, AudioUnit, Codec, Track
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_connection import RtspConnection
from streams.sources.rtsp_receiver import MediaReceiver
from streams.sources.rtsp_session import InterleavedDelivery, TrackReceiver
from streams.wire.depacketizer import H264Depacketizer, H265Depacketizer
from streams.wire.packetizer import Packetizer, RtpSender
from streams.wire.rtsp import serialize_interleaved

GOP, UNITS, ROUNDS = 50, 100, 40
PICTURES_PER_SECOND = 25
KEYFRAME_FACTOR, OTHER_FACTOR = 4, 0.94
SEGMENT_BYTES, READ_BYTES = 1448, 256_000
DEPACKETIZERS = {Codec.H264: H264Depacketizer, Codec.H265: H265Depacketizer}


class Counter:
    """A publisher that only counts."""

    def __init__(self) -> None:
        self.units = 0

    def configure(self, track: Track) -> None:
        pass

    def publish(self, unit: AccessUnit) -> None:
        self.units += 1

    def publish_audio(self, unit: AudioUnit) -> None:
        pass


class AnySession:
    """Agrees to every transport."""

    async def set_up(self, _url: str, transport: str) -> str:
        return transport


def camera_writes(codec: Codec, bit_rate_bps: int) -> tuple[list[bytes], int]:
    """What the camera writes for each access unit, and how many packets that are."""
    track, (first, second, *_) = encode_clip(codec, 2)
    average = bit_rate_bps // 8 // PICTURES_PER_SECOND
    packetizer = Packetizer(
        codec, RtpSender(payload_type=96, ssrc=1, first_sequence_number=0, timestamp_offset=0)
    )
    writes, packets = [], 0
    for number in range(UNITS):
        is_key = number % GOP == 0
        template = first if is_key else second
        size = int(average * (KEYFRAME_FACTOR if is_key else OTHER_FACTOR))
        nal_unit = template.nal_units[-1][:16].ljust(size, b"\x55")
        unit = msgspec.structs.replace(template, pts=number * 3600, dts=number * 3600, nal_units=(nal_unit,))
        group = packetizer.packetize(unit, track.parameter_sets if is_key else ())
        packets += len(group)
        writes.append(b"".join(serialize_interleaved(0, packet) for packet in group))
    return writes, packets


def pieces(writes: Sequence[bytes], size: int) -> list[bytes]:
    stream = b"".join(writes)
    return [stream[start : start + size] for start in range(0, len(stream), size)]


async def cost_seconds(codec: Codec, chunks: Sequence[bytes]) -> float:
    """CPU seconds for all chunks once: the best round."""
    rounds = []
    for _ in range(ROUNDS):
        counter, depacketizer = Counter(), DEPACKETIZERS[codec]()
        receiver = MediaReceiver(counter, depacketizer, 0)
        connection = RtspConnection(time.monotonic_ns, BitRateLimit(1_000_000_000))
        delivery = InterleavedDelivery(connection)
        video = TrackReceiver(
            payload_type=96,
            clock_rate=90_000,
            take_packet=receiver.take_video,
            take_control=receiver.take_video_control,
            codec=codec,
        )
        await delivery.set_up(AnySession(), "", video)
        delivery.start(receiver)
        began = time.process_time()
        for chunk in chunks:
            connection.data_received(chunk)
        rounds.append(time.process_time() - began)
        assert counter.units == UNITS
    return min(rounds)


async def main() -> None:
    for codec, mbit in chain.from_iterable(((codec, 1), (codec, 4)) for codec in Codec):
        writes, packets = camera_writes(codec, mbit * 1_000_000)
        ways = {
            "whole writes": writes,
            "TCP segments": pieces(writes, SEGMENT_BYTES),
            "full reads": pieces(writes, READ_BYTES),
        }
        for name, chunks in ways.items():
            cost_us = await cost_seconds(codec, chunks) * 1e6
            print(  # noqa: T201
                f"{codec} {mbit} Mbit/s, {name:12}: {cost_us / packets:5.2f} per packet, "
                f"{cost_us / UNITS:6.2f} per access unit, {cost_us / UNITS * 25:5.0f} per camera-second"
            )


if __name__ == "__main__":
    asyncio.run(main())
