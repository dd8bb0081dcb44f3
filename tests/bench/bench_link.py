"""What the local link between two workers costs for each access unit, at 25 fps, in CPU time.

`python tests/bench/bench_link.py [--json]`, from the project's root. Serializing and parsing are measured
alone; `both ends` is everything that one more worker costs: from the claimer's reader to the taker's
publisher, over a real Unix socket, uvloop on both sides of it in one process.
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
from pathlib import Path

import uvloop

from streams.media import AccessUnit, AudioUnit, Codec, Track
from streams.sources.link import LinkParser, serialize
from streams.sources.peer import PeerSource

ROUNDS = 20_000
TRACK = Track(codec=Codec.H264, parameter_sets=(b"s" * 30, b"p" * 6), width=1920, height=1080)


def unit_of(number: int, size: int) -> AccessUnit:
    return AccessUnit(
        pts=number * 3600,
        dts=number * 3600,
        nal_units=(b"x" * size,),
        is_random_access=number == 0,
        received_ns=number,
    )


class Counting:
    """A publisher that only counts."""

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.done = asyncio.get_running_loop().create_future()

    def configure(self, track: Track) -> None: ...

    def publish(self, unit: AccessUnit) -> None:
        self.left -= 1
        if not self.left:
            self.done.set_result(None)

    def publish_audio(self, unit: AudioUnit) -> None: ...


def per_call_us(call, rounds: int = ROUNDS) -> float:
    started = time.process_time_ns()
    for _ in range(rounds):
        call()
    return (time.process_time_ns() - started) / rounds / 1000


async def both_ends_us(units: list[AccessUnit], at_once: int) -> float:
    """CPU us per access unit; `at_once` of them between two turns of the event loop."""
    loop = asyncio.get_running_loop()
    server_side: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport) -> None:
            server_side.set_result(transport)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "link.sock")
        server = await loop.create_unix_server(Server, str(path))
        counting = Counting(len(units))
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(PeerSource(path, "camera").run(counting))
            transport = await server_side
            transport.write(serialize(TRACK))
            await asyncio.sleep(0.05)
            started = time.process_time_ns()
            for first in range(0, len(units), at_once):
                for unit in units[first : first + at_once]:
                    transport.write(serialize(unit))
                await asyncio.sleep(0)
            await counting.done
            taken = time.process_time_ns() - started
            taking.cancel()
        server.close()
    return taken / len(units) / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    gc.freeze()
    for size in (5_000, 20_000, 100_000):
        unit = unit_of(1, size)
        data = serialize(unit)
        links = LinkParser()
        units = [unit_of(number, size) for number in range(4_000)]
        result = {
            "access_unit_bytes": size,
            "serialize_us": per_call_us(lambda unit=unit: serialize(unit)),
            "parse_us": per_call_us(lambda data=data, links=links: links.receive_data(data)),
            "both_ends_us": uvloop.run(both_ends_us(units, 1)),
            "both_ends_busy_us": uvloop.run(both_ends_us(units, 50)),
        }
        rounded = {name: round(value, 1) for name, value in result.items()}
        print(json.dumps(rounded) if as_json else rounded)  # noqa: T201 - a benchmark's output


if __name__ == "__main__":
    main()
