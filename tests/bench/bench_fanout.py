"""CPU microseconds per viewer and access unit of the fan-out itself, over transports that do nothing.

    PYTHONPATH=.:tests .venv/bin/python tests/bench/bench_fanout.py

`bare` is a reader that only writes: the difference is the price of bounds, counts and marks. One GOP is 50
access units at 1 Mbit/s. The best of several rounds counts, since other load only ever adds.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from support.units import encode_clip, synthetic_unit

from streams.hub import BoundedReader, Hub, HubSettings, Reader, ReaderSettings
from streams.media import Codec
from streams.mux import Marker, MuxedUnit

GOP, ROUNDS = 50, 7
KEYFRAME_BYTES, OTHER_BYTES = 20_000, 4_700


class NoTransport:
    """Takes everything at once."""

    __slots__ = ()

    def backlog_bytes(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass


class BareReader:
    """Writes, and nothing else."""

    def __init__(self) -> None:
        self._write = NoTransport().write

    def start(self, init: bytes, mime: str) -> None:
        pass

    restart = start

    def write(self, unit: MuxedUnit) -> None:
        self._write(unit.tail)

    def end(self, reason: str) -> None:
        pass


def bounded_reader() -> BoundedReader:
    marker = Marker(os.urandom(32), os.urandom(16), "camera")
    return BoundedReader(NoTransport(), marker, ReaderSettings(), time.monotonic_ns, lambda _reason: None)


def cost_us(open_reader: Callable[[], Reader], viewers: int) -> float:
    stream = Hub(HubSettings()).open("camera")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    for _ in range(viewers):
        stream.subscribe(open_reader(), "flv", "chunked")
    rounds = []
    for first in range(0, ROUNDS * GOP, GOP):
        keyframe = synthetic_unit(first, random_access=True, size=KEYFRAME_BYTES)
        gop = [keyframe, *(synthetic_unit(first + n, size=OTHER_BYTES) for n in range(1, GOP))]
        began = time.process_time()
        for unit in gop:
            stream.publish(unit)
        rounds.append(time.process_time() - began)
    return min(rounds) / GOP / viewers * 1e6


if __name__ == "__main__":
    for viewers in (1, 100, 1000, 3000):
        measure = partial(cost_us, viewers=viewers)
        print(f"{viewers:5} viewers: bare {measure(BareReader):6.3f}, bounded {measure(bounded_reader):6.3f}")  # noqa: T201
