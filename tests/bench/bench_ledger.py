"""Durable ledger records per second on SQLite: many writers at once, each waiting for its own record.

Run it with `make bench`, or `PYTHONPATH=.:tests .venv/bin/python tests/bench/bench_ledger.py`.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from support.databases import looked

from gateway.store.store import Store, StoreSettings

WRITERS = (50, 200)
SECONDS = 5.0


async def measure(folder: Path, writers: int) -> dict[str, float]:
    """A record counts once its COMMIT is durable, which is when its writer goes on."""
    async with Store.open(StoreSettings(folder)) as store:
        written = 0
        started, began_cpu = time.monotonic(), time.process_time()

        async def write() -> None:
            nonlocal written
            while time.monotonic() - started < SECONDS:
                await store.record(looked(remote="192.0.2.1", purpose_reference="A-2026-17"))
                written += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(writers):
                tasks.create_task(write())
        elapsed, cpu = time.monotonic() - started, time.process_time() - began_cpu
    return {
        "writers": writers,
        "records": written,
        "records_per_second": round(written / elapsed),
        "cpu_us_per_record": round(1e6 * cpu / written),
    }


def main() -> None:
    for writers in WRITERS:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(asyncio.run(measure(Path(folder), writers))) + "\n")


if __name__ == "__main__":
    main()
