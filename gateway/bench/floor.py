"""The floor of the hot path: a C loop that only calls send(), compiled where there is a compiler.

A figure in CPU time differs by a quarter from run to run on a busy machine; its ratio to what the kernel
takes for the same bytes, measured in turn with it, does not.
"""

import asyncio
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.clip import Clip
from gateway.bench.errors import BenchError
from gateway.supervisor import reserve_port

_SOURCE = Path(__file__).with_name("floor.c")
_COMPILERS = ("cc", "gcc", "clang")
_GOP_BEGINS = 0x8000_0000
_COMPILE_SECONDS = 60
_READY_SECONDS = 10


@dataclass(frozen=True)
class RunningFloor:
    """`url` serves any path to any number of viewers."""

    url: str
    pids: list[int]


async def compile_floor(folder: Path) -> Path | None:
    """The program, None without a compiler. Raises BenchError if it does not compile."""
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    program = folder / "floor"
    async with asyncio.timeout(_COMPILE_SECONDS):
        process = await asyncio.create_subprocess_exec(
            compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(_SOURCE),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, complaint = await process.communicate()
    if process.returncode:
        raise BenchError(f"{compiler} refuses floor.c: {complaint.decode(errors='replace')[:500]}")
    return program


def write_schedule(clip: Clip, merge_seconds: float, path: Path) -> float:
    """Write the file that the program reads: the head, then each write behind its size.

    Returns the seconds between two writes, which make up the clip's bit rate exactly.
    """
    writes = clip.flv_writes(merge_seconds)
    per_write = len(clip.units) / len(writes)
    gop_begins = {
        int(index / per_write)
        for index, unit in enumerate(clip.units)
        if unit.is_random_access and (index / per_write).is_integer()
    }
    parts = [clip.flv_head()]
    for number, data in enumerate(writes):
        parts += (struct.pack("=I", len(data) | (_GOP_BEGINS if number in gop_begins else 0)), data)
    path.write_bytes(b"".join(parts))
    return clip.seconds / len(writes)


@asynccontextmanager
async def running_floor(
    program: Path, folder: Path, clip: Clip, *, merge_seconds: float, processes: int
) -> AsyncIterator[RunningFloor]:
    """Run it in so many processes on one port; whatever happens, none is left. Raises BenchError."""
    schedule = folder / "floor.schedule"
    interval_us = round(1e6 * await asyncio.to_thread(write_schedule, clip, merge_seconds, schedule))
    with reserve_port("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        arguments = (str(port), str(interval_us), str(len(clip.flv_head())), str(schedule))
        async with AsyncExitStack() as stack:
            pids = [await stack.enter_async_context(_process(program, arguments)) for _ in range(processes)]
            yield RunningFloor(f"http://127.0.0.1:{port}", pids)


@asynccontextmanager
async def _process(program: Path, arguments: tuple[str, ...]) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(str(program), *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            if process.stdout is None or not await process.stdout.readline():
                raise BenchError("the floor did not start")
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
