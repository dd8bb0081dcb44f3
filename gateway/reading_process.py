"""The process that reads a part of a city's cameras for control's start: `python -m gateway.reading_process`.

Its order comes on stdin. On stdout go frames (a length of four bytes, big endian, then MessagePack): pages of
facts, `Checked`, pages for the listing, a frame of nothing, the pairs of those pages, a frame of nothing.
What it logs goes to stderr.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.camera_reading import CameraReading
from gateway.child import read_settings
from gateway.logs import configure_logs
from gateway.sealed_facts import SealedFacts
from gateway.store.engines import open_engines
from gateway.store.sealed_rows import Sealed
from gateway.store.seals import Seals
from gateway.store.unit import read_revision

LENGTH_BYTES = 4
NICENESS = 5
"""Pictures go first."""
PAIRS_NICENESS = 14
"""Besides: control, which may not answer yet, goes before what only makes it faster."""
_TIMEOUT_SECONDS = 30.0


class ReadingOrder(msgspec.Struct, frozen=True):
    """The ids beyond `after`, up to `until` (None: to the last). `url` None: SQLite in the data folder."""

    data_folder: str
    url: str | None
    after: str
    until: str | None
    log_format: str
    log_level: str


class Checked(msgspec.Struct, frozen=True):
    """All facts have been sent: as of which revision, what the seals add up to, which ids do not fit."""

    revision: int
    rows: int
    total: bytes
    unfit: list[str]


async def read(order: ReadingOrder, send: Callable[[object], None]) -> None:
    """Do it. `send` may block: nothing else is to be done here."""
    folder = Path(order.data_folder)
    found = SealedFacts(Seals.open(folder))
    reading = CameraReading(order.after, order.until)
    engines = open_engines(
        order.url, folder, readers=1, timeout_seconds=_TIMEOUT_SECONDS, lock_seconds=_TIMEOUT_SECONDS
    )
    try:
        async with engines.readers.connect() as conn:
            revision = await read_revision(conn)
            async for page in reading.facts(conn, found):
                send(page)
    finally:
        await engines.dispose()
    total = found.totals[Sealed.CAMERA]
    send(Checked(revision, total.rows, total.total.to_bytes(16, "big"), found.unfit.get(Sealed.CAMERA, [])))
    for listed in reading.listing():
        send(listed)
    send(None)
    os.nice(PAIRS_NICENESS)
    for pairs in reading.pairs():
        send(pairs)
    send(None)


def write_frames(pipe: BinaryIO) -> Callable[[object], None]:
    """What sends a message; None: a frame of nothing."""
    encode = msgspec.msgpack.Encoder().encode

    def send(message: object) -> None:
        body = b"" if message is None else encode(message)
        pipe.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)

    return send


def main() -> None:
    order = read_settings(ReadingOrder)
    configure_logs(order.log_format, order.log_level, "reader")
    os.nice(NICENESS)
    gc.disable()  # nothing here is a cycle, and a collection visits all that is kept
    # what prints, prints to stderr: the pipe is for frames alone
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=1 << 20)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with pipe:
        asyncio.run(read(order, write_frames(pipe)))


if __name__ == "__main__":
    main()
