"""Small pictures of many cameras: decided and recorded together, then opened one by one.

The worker that serves a batch opens each camera's session shortly before it takes the picture, so that a
batch never holds more places than it has pictures under way. Each is a session of `live:snapshot` that counts
in every limit and ends when it is revoked; its start and end are not recorded: the batch's record names it.
"""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.audit.records import AuditKind
from gateway.clock import Clock
from gateway.enforcement import Circumstances, Enforcement, Grant, Refused
from gateway.live_session import OpenedSession
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.sessions import ViewerSessions
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Action

MAX_CAMERAS = 50
MAX_BATCHES = 1000
MAX_BATCHES_PER_USER = 4
"""Under way; beyond either, the oldest is given up."""
BATCH_SECONDS = 60


@dataclass(frozen=True)
class Batch:
    """`refused`: cameras of which there will be no picture, and why."""

    id: str
    refused: dict[str, Problem]


@dataclass(frozen=True)
class _Underway:
    user_id: str
    until: datetime
    waiting: dict[str, Grant]


class Thumbnails:
    def __init__(
        self, store: Store, enforcement: Enforcement, sessions: ViewerSessions, clock: Clock
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._sessions = sessions
        self._clock = clock
        self._batches: OrderedDict[str, _Underway] = OrderedDict()

    async def begin(
        self, principal: Principal, camera_ids: Sequence[str], circumstances: Circumstances
    ) -> Batch:
        """Decide about each camera; when this returns, the record that names them all is durable."""
        decided = await self._enforcement.authorize_each(
            principal,
            Action.LIVE_SNAPSHOT,
            dict.fromkeys(camera_ids),
            circumstances,
            AuditKind.THUMBNAILS,
            "thumbnails",
        )
        waiting = {camera: found for camera, found in decided.items() if isinstance(found, Grant)}
        batch_id = secrets.token_hex(16)
        if waiting:
            self._make_room(principal.id)
            until = self._clock() + timedelta(seconds=BATCH_SECONDS)
            self._batches[batch_id] = _Underway(principal.id, until, waiting)
        refused = {camera: found.problem for camera, found in decided.items() if isinstance(found, Refused)}
        return Batch(batch_id, refused)

    async def open(self, principal: Principal, batch_id: str, camera_id: str) -> OpenedSession:
        """Open a camera of one's own batch, once.

        Raises Problem `thumbnails_over`, `access_denied`, `camera_disabled` or the limit that is full.
        """
        batch = self._batches.get(batch_id)
        if batch is None or batch.user_id != principal.id or self._clock() >= batch.until:
            raise Problem("thumbnails_over")
        recorded = batch.waiting.pop(camera_id, None)
        if recorded is None:
            raise Problem("thumbnails_over", camera_id)
        if not batch.waiting:
            del self._batches[batch_id]

        async def unit(work: Unit) -> OpenedSession | Refused:
            grant = self._enforcement.decide_again(recorded)
            if isinstance(grant, Refused):
                return grant
            return await self._sessions.insert(work, grant, is_in_batch=True)

        opened = await self._store.run(unit)
        if isinstance(opened, Refused):
            raise opened.problem
        return opened

    def _make_room(self, user_id: str) -> None:
        now = self._clock()
        for batch_id in [key for key, batch in self._batches.items() if now >= batch.until]:
            del self._batches[batch_id]
        own = [key for key, batch in self._batches.items() if batch.user_id == user_id]
        for batch_id in own[: max(0, len(own) + 1 - MAX_BATCHES_PER_USER)]:
            del self._batches[batch_id]
        while len(self._batches) >= MAX_BATCHES:
            self._batches.popitem(last=False)
