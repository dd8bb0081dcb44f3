"""Events of scene analysis: kept for a while, listed, and streamed to whoever may see the camera."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from gateway.clock import Clock, from_micros, to_micros
from gateway.messages import AnalysisEvent
from gateway.problems import Problem
from gateway.store.schema import events
from gateway.store.store import Store
from gateway.store.unit import Unit

MAX_QUEUED_EVENTS = 256
"""Per listener; one that does not read loses the oldest."""
MAX_OPEN_EVENTS = 10_000
"""Events whose end is awaited; of more, the oldest get a second row if they are reported again."""
MAX_REGION_POINTS = 256
FEW_CAMERAS = 1000
"""So many can be named in a query; of more, events are read and then held against the set."""


@dataclass(frozen=True)
class EventSettings:
    keep_days: int = 30
    listeners: int = 500


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`region`: polygon of normalised (x, y), origin top left. `score`: 0 to 1."""

    id: int
    analysis: str
    camera: str
    kind: str
    started_at: datetime
    ended_at: datetime | None
    region: list[tuple[float, float]]
    score: float


class Listener:
    """One reader of the live events. `may_see` is asked when an event comes, and again when it is read."""

    def __init__(self, may_see: Callable[[str], bool]) -> None:
        self._may_see = may_see
        self._queue: asyncio.Queue[Event] = asyncio.Queue(MAX_QUEUED_EVENTS)

    def offer(self, event: Event) -> None:
        if not self._may_see(event.camera):
            return
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def next(self, seconds: float) -> Event | None:
        """The next event, or None when there is none for that long."""
        try:
            async with asyncio.timeout(seconds):
                while not self._may_see((event := await self._queue.get()).camera):
                    pass
                return event
        except TimeoutError:
            return None


class Events:
    def __init__(self, store: Store, settings: EventSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._listeners: set[Listener] = set()
        self._open: dict[tuple[str, str], int] = {}

    async def take(self, message: AnalysisEvent) -> None:
        """Keep an analyser's report: the first of an event is a new row, later ones change it.

        Raises ValueError for a report that cannot be kept, or StoreError.
        """
        key = (message.analysis, message.event)
        started_at, ended_at = _checked(message)
        values = {
            "ended_at": message.ended_at,
            "region": [list(point) for point in message.region],
            "score": message.score,
        }

        async def unit(work: Unit) -> int:
            known = self._open.get(key)
            if known is not None:
                await work.conn.execute(sa.update(events).where(events.c.id == known).values(**values))
                return known
            inserted = await work.conn.execute(
                sa.insert(events)
                .values(
                    analysis_id=message.analysis,
                    camera_id=message.camera,
                    kind=message.kind,
                    started_at=message.started_at,
                    created_at=to_micros(self._clock()),
                    **values,
                )
                .returning(events.c.id)
            )
            return int(inserted.scalar_one())

        event_id = await self._store.run(unit)
        if message.ended_at is None:
            if len(self._open) >= MAX_OPEN_EVENTS:
                del self._open[next(iter(self._open))]
            self._open[key] = event_id
        else:
            self._open.pop(key, None)
        event = Event(
            id=event_id,
            analysis=message.analysis,
            camera=message.camera,
            kind=message.kind,
            started_at=started_at,
            ended_at=ended_at,
            region=message.region,
            score=message.score,
        )
        for listener in self._listeners:
            listener.offer(event)

    def forget(self, analysis_id: str) -> None:
        """An analysis ended: its open events get no further report."""
        for key in [key for key in self._open if key[0] == analysis_id]:
            del self._open[key]

    @contextmanager
    def listen(self, may_see: Callable[[str], bool]) -> Iterator[Listener]:
        """Raises Problem `limit_listeners`."""
        if len(self._listeners) >= self._settings.listeners:
            raise Problem("limit_listeners", f"{self._settings.listeners} are listening")
        listener = Listener(may_see)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def newest(self, cameras: frozenset[str], before: int | None, size: int) -> list[Event]:
        """The newest events of the given cameras, newest first, with an id below `before`."""
        query = sa.select(events).order_by(events.c.id.desc()).limit(max(size, FEW_CAMERAS))
        if len(cameras) <= FEW_CAMERAS:
            query = query.where(events.c.camera_id.in_(cameras)).limit(size)
        found: list[Event] = []
        async with self._store.read() as conn:
            while len(found) < size:
                below = query if before is None else query.where(events.c.id < before)
                rows = (await conn.execute(below)).all()
                found += [_event(row) for row in rows if row.camera_id in cameras]
                if not rows or len(cameras) <= FEW_CAMERAS:
                    break
                before = rows[-1].id
        return found[:size]

    async def forget_old(self) -> None:
        """Delete what is older than `keep_days`."""
        oldest = to_micros(self._clock() - timedelta(days=self._settings.keep_days))

        async def unit(work: Unit) -> None:
            await work.conn.execute(sa.delete(events).where(events.c.created_at < oldest))

        await self._store.run(unit)


def _checked(message: AnalysisEvent) -> tuple[datetime, datetime | None]:
    """The report's times; ValueError for figures that neither JSON nor the database can hold."""
    figures = [message.score, *(value for point in message.region for value in point)]
    if len(message.region) > MAX_REGION_POINTS or not all(map(math.isfinite, figures)):
        raise ValueError("an event's region or score is out of range")
    try:
        ended_at = None if message.ended_at is None else from_micros(message.ended_at)
        return from_micros(message.started_at), ended_at
    except OverflowError:
        raise ValueError("an event's time is out of range") from None


def _event(row: sa.Row[tuple[object, ...]]) -> Event:
    return Event(
        id=row.id,
        analysis=row.analysis_id,
        camera=row.camera_id,
        kind=row.kind,
        started_at=from_micros(row.started_at),
        ended_at=None if row.ended_at is None else from_micros(row.ended_at),
        region=[(x, y) for x, y in row.region],
        score=row.score,
    )
