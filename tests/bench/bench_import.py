"""How long an import of a city takes: `python tests/bench/bench_import.py [cameras]`.

One JSON line for SQLite and one for PostgreSQL: wall and CPU seconds of an import into a control of this
process, again of the same file, and how long its loop stood still at most (a lease lives for 5 s).
"""

import asyncio
import gc
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.catalogue_files import csv_file, new_cameras  # noqa: E402
from support.controls import Clock, open_city  # noqa: E402
from support.databases import create_database, postgresql_server  # noqa: E402

from gateway.catalogue_columns import FileFormat  # noqa: E402
from gateway.enforcement import Circumstances  # noqa: E402


async def tick(gaps: list[float]) -> None:
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now


async def measure(database: str, url: str | None, count: int) -> None:
    content = csv_file(*new_cameras(count), tags="夜间;重点", place="人民路与中山路交叉口")
    with tempfile.TemporaryDirectory() as folder:
        async with open_city(Path(folder), url=url, clock=Clock()) as city:
            principal = await city.services.authentication.principal(city.tokens["traffic-admin"])
            for case in ("created", "unchanged"):
                gc.collect()
                gaps: list[float] = []
                ticking = city.tasks.create_task(tick(gaps))
                began, cpu = time.monotonic(), time.process_time()
                report = await city.services.imports.import_file(
                    principal,
                    io.BytesIO(content),
                    FileFormat.CSV,
                    "0" * 64,
                    Circumstances(remote="", request_id=""),
                )
                ticking.cancel()
                print(  # noqa: T201
                    json.dumps(
                        {
                            "database": database,
                            "case": case,
                            "cameras": getattr(report, case),
                            "mb": round(len(content) / 1e6, 1),
                            "seconds": round(time.monotonic() - began, 2),
                            "cpu_s": round(time.process_time() - cpu, 2),
                            "longest_gap_ms": round(max(gaps) * 1000),
                        }
                    ),
                    flush=True,
                )


def main(count: int = 86_000) -> None:
    uvloop.run(measure("sqlite", None, count))
    with postgresql_server() as server:
        url = asyncio.run(create_database(server))
        uvloop.run(measure("postgresql", url, count))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
