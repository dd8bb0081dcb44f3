"""Telling of what an import wrote: the decision point, who plays a camera, the index of listings."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

import sqlalchemy as sa
import structlog

from gateway.catalogue_index import CatalogueIndex, IndexedCamera
from gateway.catalogue_rows import batches
from gateway.causes import MAX_CAUSES
from gateway.planned_cameras import PlannedCamera
from gateway.policy_feed import PolicyFacts, PolicyFeed
from gateway.principals import Principal
from gateway.store.errors import StoreError
from gateway.store.schema import cameras
from gateway.store.store import Store
from gateway.store.unit import Unit

log = structlog.get_logger(__name__)

INDEXED_AT_ONCE = 1000
_RETRY_SECONDS = 1.0


class ImportNews:
    """`run` is the task that gives the index what was imported."""

    def __init__(
        self,
        store: Store,
        feed: PolicyFeed,
        index: CatalogueIndex,
        switched_off: Callable[[Collection[str], Principal], None],
        moved: Callable[[Collection[str]], None],
    ) -> None:
        """`switched_off` and `moved`: see `Catalogue`."""
        self._store = store
        self._feed = feed
        self._index = index
        self._switched_off = switched_off
        self._moved = moved
        self._to_index: deque[tuple[Sequence[PlannedCamera], asyncio.Event]] = deque()
        self._wake = asyncio.Event()

    async def announce(
        self, work: Unit, principal: Principal, writes: Sequence[PlannedCamera], indexed: asyncio.Event
    ) -> None:
        """In the unit that wrote them; all are told after its commit. `indexed`: set once listings know all.

        The decision point hears of changed cameras at once; of new ones, as the index does, batch by batch.
        """
        changed = [camera for camera in writes if not camera.is_new]
        facts = [partial(_set_camera, camera) for camera in changed if camera.is_policy]
        additions = [partial(_set_camera, camera) for camera in writes if camera.is_new]
        if facts or additions:
            about = (f"camera:{camera.id}" for camera in writes[:MAX_CAUSES] if camera.is_policy)
            await self._feed.write(work, *facts, about=about, additions=additions)

        def announce() -> None:
            self._switched_off({camera.id for camera in changed if camera.is_switched_off}, principal)
            self._moved({camera.id for camera in changed if camera.is_moved})
            *earlier, last = batches(writes, INDEXED_AT_ONCE)
            self._to_index.extend((batch, asyncio.Event()) for batch in earlier)
            self._to_index.append((last, indexed))
            self._wake.set()

        work.after_commit(announce)

    async def run(self) -> None:
        """Give the index what was imported, until it is cancelled. A failing store is tried again."""
        while True:
            await self._wake.wait()
            while self._to_index:
                # the index takes only what the PDP knows
                await self._feed.catch_up()
                batch, done = self._to_index[0]
                try:
                    await self._index_batch(batch)
                except StoreError as error:
                    log.error("import_not_indexed", code=error.code)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    self._to_index.popleft()
                    done.set()
            self._wake.clear()

    async def _index_batch(self, batch: Sequence[PlannedCamera]) -> None:
        if changed := [camera.id for camera in batch if not camera.is_new]:
            await self._store.run(partial(self._index_changed, changed))
        self._index.add_many(
            IndexedCamera(camera.id, *(camera.value(name) for name in IndexedCamera._fields[1:]))
            for camera in batch
            if camera.is_new
        )
        # the loop turns after each batch
        await asyncio.sleep(0)

    async def _index_changed(self, identifiers: list[str], work: Unit) -> None:
        # read and given in a unit: whatever is written later comes later into the index too
        query = sa.select(*(cameras.c[name] for name in IndexedCamera._fields))
        rows = (await work.conn.execute(query.where(cameras.c.id.in_(identifiers)))).all()
        entries = [IndexedCamera._make(row) for row in rows]
        work.after_commit(lambda: self._index.set_many(entries))


def _set_camera(camera: PlannedCamera, engine: PolicyFacts) -> None:
    engine.set_camera(
        camera.id,
        camera.value("department_id"),
        camera.groups,
        tags=camera.tags,
        sharing=camera.sharing,
    )
