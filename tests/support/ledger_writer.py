"""A process that records as fast as it can and says what was acknowledged, until it is killed.

    python ledger_writer.py FOLDER NAME

After each COMMIT a line `NAME-n` of every acknowledged unit; each also inserted a department of that id.
"""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from support.databases import looked

from gateway.store import Store, StoreSettings, Unit
from gateway.store.schema import departments


async def main(folder: Path, name: str) -> None:
    numbers = count()

    async def write(store: Store) -> None:
        while True:
            key = f"{name}-{next(numbers)}"

            async def unit(unit: Unit, key: str = key) -> None:
                await unit.conn.execute(departments.insert().values(id=key, name=key, created_at=unit.now))
                unit.record(looked(key))

            await store.run(unit)
            os.write(1, f"{key}\n".encode())

    settings = StoreSettings(folder, publish_records=20)
    async with Store.open(settings) as store, asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(write(store))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
