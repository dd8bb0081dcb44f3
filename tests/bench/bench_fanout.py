"""CPU microseconds per viewer and access unit of the fan-out itself, over transports that do nothing.

    PYTHONPATH=.:tests .venv/bin/python tests/bench/bench_fanout.py

`bare` is a reader that only writes: the difference is the price of bounds, counts and marks. `merged`:
bounded, and up to 100 ms in one write. One GOP is 50 access units at 1 Mbit/s. The best of several rounds
counts, since other load only ever adds.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from support.units import encode_clip, synthetic_unit

from streams.hub import BoundedReader, Hub, HubSettings, Reader, ReaderSettings, Tally
from streams.media import Codec
from streams.mux import Marker, MuxedUnit

GOP, ROUNDS = 50, 9
MANY, ROUNDS_OF_FEW = 100, 200
AT_ONCE, MERGED = HubSettings(merge_seconds=0), HubSettings(merge_above_load=0)
KEYFRAME_BYTES, OTHER_BYTES = 20_000, 4_700


class NoTransport:
    """Takes everything at once."""

    __slots__ = ()

    def backlog_bytes(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass

    plain_write = write

    def write_marked(self, head: bytes, tail: bytes) -> None:
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

    def plain_write(self, tally: Tally | None) -> Callable[[bytes], None]:
        return self._write

    def check(self) -> None:
        pass

    def end(self, reason: str) -> None:
        pass


def bounded_reader() -> BoundedReader:
    marker = Marker(os.urandom(32), os.urandom(16), "camera")
    return BoundedReader(NoTransport(), marker, ReaderSettings(), time.monotonic_ns, lambda _reason: None)


class PicturesAsTime:
    """A clock that the pictures move, and the one timer that the camera's writes need."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._due_ns = 0
        self._call: Callable[[], None] | None = None

    def clock_ns(self) -> int:
        return self.now_ns

    def schedule(self, seconds: float, call: Callable[[], None]) -> "PicturesAsTime":
        self._due_ns, self._call = self.now_ns + int(seconds * 1e9), call
        return self

    def cancel(self) -> None:
        self._call = None

    def advance(self, now_ns: int) -> None:
        self.now_ns = now_ns
        if self._call is not None and now_ns >= self._due_ns:
            call, self._call = self._call, None
            call()


def cost_us(open_reader: Callable[[], Reader], viewers: int, settings: HubSettings = AT_ONCE) -> float:
    pictures = PicturesAsTime()
    hub = Hub(settings, clock_ns=pictures.clock_ns, schedule=pictures.schedule)
    stream = hub.open("camera")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    for _ in range(viewers):
        stream.subscribe(open_reader(), "flv", "chunked")
    rounds = []
    for first in range(0, (ROUNDS if viewers > MANY else ROUNDS_OF_FEW) * GOP, GOP):
        keyframe = synthetic_unit(first, random_access=True, size=KEYFRAME_BYTES)
        gop = [keyframe, *(synthetic_unit(first + n, size=OTHER_BYTES) for n in range(1, GOP))]
        began = time.process_time()
        for unit in gop:
            pictures.advance(unit.received_ns)
            stream.publish(unit)
        rounds.append(time.process_time() - began)
    return min(rounds) / GOP / viewers * 1e6


if __name__ == "__main__":
    for viewers in (1, 10, 1000, 3000):
        measure = partial(cost_us, viewers=viewers)
        print(  # noqa: T201
            f"{viewers:5} viewers: bare {measure(BareReader):6.3f}, bounded {measure(bounded_reader):6.3f}, "
            f"merged {measure(bounded_reader, settings=MERGED):6.3f}"
        )
