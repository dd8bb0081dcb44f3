"""How a viewing session stands, and for some minutes after its end why it ended and who ended it.

So a player in any container can learn it: only a WebSocket carries words.
"""

from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from gateway.clock import Clock, from_micros, to_micros
from gateway.enforcement import Enforcement
from gateway.live import LiveSessions
from gateway.live_session import LiveSession, SessionState
from gateway.problems import Problem
from gateway.store.schema import viewer_sessions
from gateway.store.store import Store
from policies.access import Action, Object, ObjectKind

TOLD_FOR = timedelta(minutes=10)
"""After its end; later the ledger has it."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: opened, active, lost or ended. `ended_by`: the unit of who ended it, None if nobody did.

    `end_reason` and `detail` are stable codes, None before the end.
    """

    id: str
    camera: str
    state: str
    expires_at: datetime | None
    confirm_by: datetime | None
    end_reason: str | None = None
    ended_by: str | None = None
    detail: str | None = None
    ended_at: datetime | None = None


class Standings:
    def __init__(self, store: Store, enforcement: Enforcement, live: LiveSessions, clock: Clock) -> None:
        self._store = store
        self._enforcement = enforcement
        self._live = live
        self._clock = clock

    async def of(self, user_id: str, session_id: str) -> Standing:
        """One's own, or one on a camera whose sessions the user may read. Raises Problem `not_found`."""
        session = self._live.get(session_id)
        if session is not None and self._may_read(user_id, session.user_id, session.camera_id):
            return _of_live(session)
        since = to_micros(self._clock() - TOLD_FOR)
        query = sa.select(viewer_sessions).where(
            viewer_sessions.c.id == session_id, viewer_sessions.c.ended_at > since
        )
        async with self._store.read() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None or not self._may_read(user_id, row.user_id, row.camera_id):
            raise Problem("not_found", session_id)
        return _of_row(row)

    def _may_read(self, user_id: str, viewer_id: str, camera_id: str) -> bool:
        if user_id == viewer_id:
            return True
        camera = Object(ObjectKind.CAMERA, camera_id)
        return self._enforcement.decide(user_id, Action.SESSION_READ, camera).allowed


def _of_live(session: LiveSession) -> Standing:
    over = session.ending is not None
    return Standing(
        id=session.id,
        camera=session.camera_id,
        state=SessionState.ENDED.value if over else session.state.value,
        expires_at=session.expires_at,
        confirm_by=session.confirm_by,
        end_reason=str(session.ending) if over else None,
        ended_by=session.ended_by_unit or None,
        detail=session.end_detail if over else None,
    )


def _of_row(row: sa.Row[tuple[object, ...]]) -> Standing:
    return Standing(
        id=row.id,
        camera=row.camera_id,
        state=row.state,
        expires_at=None,
        confirm_by=None,
        end_reason=row.end_reason,
        ended_by=row.ended_by_unit or None,
        detail=row.end_detail or "",
        ended_at=from_micros(row.ended_at),
    )
