"""Reserved bandwidth that follows the cameras: what a session counts is what its stream was measured at last.

An opening reserves for a camera that nobody has measured yet. As its rate becomes known, or changes, so does
what its running sessions count: growth keeps others out and ends nothing, and what shrinks makes room for
who waits.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping

import sqlalchemy as sa

from gateway.admission import Limit, LimitKind
from gateway.live import LiveSessions
from gateway.messages import stream_key
from gateway.store.schema import viewer_sessions
from gateway.store.store import Store
from gateway.store.unit import Unit
from gateway.waiting import WaitingRoom

MIN_CHANGE = 0.2
"""A rate that differs by no more from what is reserved changes nothing: rates waver."""
CHANGES_PER_UNIT = 3000
"""Sessions of one unit, some 40 ms of writing, while openings wait. The next round takes the rest."""


class Reservations:
    """`bit_rate`: of a stream, by its key, in bit/s; None while it is unknown."""

    def __init__(
        self,
        store: Store,
        live: LiveSessions,
        waiting: WaitingRoom,
        bit_rate: Callable[[str], int | None],
    ) -> None:
        self._store = store
        self._live = live
        self._waiting = waiting
        self._bit_rate = bit_rate

    async def settle(self) -> None:
        """Reserve what was measured; write nothing if nothing moved. Raises StoreError."""
        moved = dict(itertools.islice(self._moved(), CHANGES_PER_UNIT))
        if moved:
            await self._store.run(functools.partial(self._reserve, moved))

    def _moved(self) -> Iterator[tuple[str, int]]:
        for session in self._live.all():
            measured = self._bit_rate(stream_key(session.camera_id, session.stream))
            if (
                session.ending is None
                and measured is not None
                and abs(measured - session.reserved_bps) > MIN_CHANGE * session.reserved_bps
            ):
                yield session.id, measured

    async def _reserve(self, moved: Mapping[str, int], work: Unit) -> None:
        await work.conn.execute(
            sa.update(viewer_sessions)
            .where(viewer_sessions.c.id == sa.bindparam("session_id"))
            .values(reserved_bps=sa.bindparam("measured")),
            [{"session_id": session_id, "measured": measured} for session_id, measured in moved.items()],
        )
        work.after_commit(lambda: self._reserved(moved))

    def _reserved(self, moved: Mapping[str, int]) -> None:
        growth = 0
        for session_id, measured in moved.items():
            session = self._live.get(session_id)
            if session is not None:
                growth += measured - session.reserved_bps
                session.reserved_bps = measured
        if growth < 0:
            self._waiting.freed([Limit(LimitKind.BANDWIDTH)])
