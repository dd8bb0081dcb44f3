"""Reading a large city's cameras in processes beside control, which takes in what they have checked.

A start is bound by one core: reading, checking the seals and cutting names into pairs is two thirds of it.
Each process has its own snapshot, and reads ahead while control is at other things.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from gateway.camera_reading import CameraFacts, CameraReading, Cameras
from gateway.catalogue_index import ListingPage, PairsPage
from gateway.reading_process import LENGTH_BYTES, Checked, ReadingOrder
from gateway.sealed_facts import SealedFacts
from gateway.settings import LogSettings
from gateway.store.errors import StoreUnavailableError
from gateway.store.schema import cameras
from gateway.store.sealed_rows import Sealed
from gateway.store.seals import Total
from gateway.store.store import Store
from gateway.store.unit import read_revision

FEW_CAMERAS: Final = 50_000
"""Up to so many are read here: a process takes half a second to begin."""
READERS: Final = 2
READ_AHEAD_BYTES: Final = 16 * 1024 * 1024
"""Of each process, so much waits at most twice over: a million cameras' facts are 60 MB."""
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
"""A frame may name a million ids."""

_COMMAND: Final = (sys.executable, "-m", "gateway.reading_process")
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[1]


@asynccontextmanager
async def cameras_of(
    store: Store, data_folder: Path, url: str | None, log: LogSettings
) -> AsyncIterator[Cameras]:
    """What reads all cameras; the processes of a large city run until the context ends."""
    places = await _cuts(store)
    if not places:
        yield CamerasHere(store)
        return
    async with AsyncExitStack() as stack:
        readers = []
        for after, until in zip(("", *places), (*places, None), strict=True):
            order = ReadingOrder(str(data_folder), url, after, until, log.format, log.level)
            readers.append(await stack.enter_async_context(_reader(order)))
        yield CamerasApart(readers)


class CamerasHere:
    """`Cameras` read by this process."""

    def __init__(self, store: Store) -> None:
        self.revision = 0
        self._store = store
        self._reading = CameraReading()

    async def facts(self, found: SealedFacts) -> AsyncIterator[list[CameraFacts]]:
        async with self._store.read() as conn:
            self.revision = await read_revision(conn)
            async for page in self._reading.facts(conn, found):
                yield page

    async def listing(self) -> AsyncIterator[ListingPage]:
        for page in self._reading.listing():
            yield page

    async def pairs(self) -> AsyncIterator[PairsPage]:
        for page in self._reading.pairs():
            yield page


class CamerasApart:
    """`Cameras` read by processes. Raises StoreUnavailableError when one of them fails."""

    def __init__(self, readers: Sequence["_Frames"]) -> None:
        self.revision = 0
        self._readers = readers

    async def facts(self, found: SealedFacts) -> AsyncIterator[list[CameraFacts]]:
        revisions = []
        reading = list(self._readers)
        while reading:
            for reader in tuple(reading):
                match _decode_facts(await reader.next()):
                    case Checked() as checked:
                        reading.remove(reader)
                        revisions.append(checked.revision)
                        total = Total(checked.rows, int.from_bytes(checked.total, "big"))
                        found.take_checked(Sealed.CAMERA, total, checked.unfit)
                    case page:
                        yield page
        self.revision = min(revisions)

    async def listing(self) -> AsyncIterator[ListingPage]:
        async for frame in self._until_nothing():
            yield _decode_listing(frame)

    async def pairs(self) -> AsyncIterator[PairsPage]:
        async for frame in self._until_nothing():
            yield _decode_pairs(frame)

    async def _until_nothing(self) -> AsyncIterator[bytes]:
        reading = list(self._readers)
        while reading:
            for reader in tuple(reading):
                if frame := await reader.next():
                    yield frame
                else:
                    reading.remove(reader)


class _Frames:
    """What one process sends."""

    def __init__(self, stdout: asyncio.StreamReader) -> None:
        self._stdout = stdout

    async def next(self) -> bytes:
        try:
            size = int.from_bytes(await self._stdout.readexactly(LENGTH_BYTES), "big")
            if size > MAX_FRAME_BYTES:
                raise StoreUnavailableError("a process that reads the cameras sends nonsense")
            return await self._stdout.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise StoreUnavailableError("a process that reads the cameras has failed; see its log") from error


_decode_facts = msgspec.msgpack.Decoder(list[CameraFacts] | Checked).decode
_decode_listing = msgspec.msgpack.Decoder(ListingPage).decode
_decode_pairs = msgspec.msgpack.Decoder(PairsPage).decode


@asynccontextmanager
async def _reader(order: ReadingOrder) -> AsyncIterator[_Frames]:
    # nothing secret in the arguments or the environment; who writes to a pipe without a reader ends by that
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        cwd=_PACKAGE_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the supervisor
        limit=READ_AHEAD_BYTES,
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process has two pipes")
        process.stdin.write(msgspec.json.encode(order))
        process.stdin.close()
        yield _Frames(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _cuts(store: Store) -> list[str]:
    """The ids that end the parts of a large city but for the last; none for a small one."""
    async with store.read() as conn:
        count = (await conn.execute(sa.select(sa.func.count()).select_from(cameras))).scalar_one()
        if count <= FEW_CAMERAS:
            return []
        by_id = sa.select(cameras.c.id).where(cameras.c.id > "").order_by(cameras.c.id)
        parts = [by_id.offset(count * part // READERS).limit(1) for part in range(1, READERS)]
        cuts = [(await conn.execute(query)).scalar_one_or_none() for query in parts]
        return sorted({cut for cut in cuts if isinstance(cut, str)})
