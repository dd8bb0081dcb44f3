"""A process that records as fast as it can and says what was acknowledged, until it is killed."""

import asyncio
import os
import random
from collections.abc import Iterator
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from support.databases import looked

from gateway.store.schema import departments
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit

_processes = get_context("forkserver")
# what takes a second to import is imported once, not once for each process that dies
_processes.set_forkserver_preload(["__main__", "support.ledger_writer"])


def write_and_kill(folder: Path, name: str, after: int) -> list[str]:
    """Let a writer run until it has acknowledged so many units; return all that it acknowledged.

    After each COMMIT it says `NAME-n` of every acknowledged unit; each also inserted a department of that id.
    """
    ours, theirs = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_write, args=(folder, name, theirs))
    with ours:
        process.start()
        theirs.close()
        lines = _lines(ours)
        acknowledged = [line for _, line in zip(range(after), lines, strict=False)]
        process.kill()
        acknowledged += lines
    process.join()
    process.close()
    return acknowledged


def _lines(connection: Connection) -> Iterator[str]:
    """Whole ones: the last may have been cut off."""
    rest = b""
    while data := os.read(connection.fileno(), 65536):
        *whole, rest = (rest + data).split(b"\n")
        yield from map(bytes.decode, whole)


def kill_often(folder: Path, kills: int) -> set[str]:
    """One writer after the other on one ledger; all that was acknowledged. Some die before they write."""
    rng = random.Random(f"{folder.name} {kills}")
    folder.mkdir()
    acknowledged: set[str] = set()
    for turn in range(kills):
        after = 0 if turn % 10 == 9 else rng.randrange(1, 60)
        new = write_and_kill(folder, f"{folder.name}-{turn}", after)
        assert len(new) >= after
        acknowledged.update(new)
    return acknowledged


def _write(folder: Path, name: str, told: Connection) -> None:
    asyncio.run(_run(folder, name, told.fileno()))


async def _run(folder: Path, name: str, told: int) -> None:
    numbers = count()

    async def write(store: Store) -> None:
        while True:
            key = f"{name}-{next(numbers)}"

            async def unit(unit: Unit, key: str = key) -> None:
                await unit.conn.execute(departments.insert().values(id=key, name=key, created_at=unit.now))
                unit.record(looked(key))

            await store.run(unit)
            os.write(told, f"{key}\n".encode())

    settings = StoreSettings(folder, publish_records=20)
    async with Store.open(settings) as store, asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(write(store))
