"""The sessions that run on this worker: nothing is sent to anybody outside of one.

A `ViewerSession` begins when control has redeemed its ticket and ends once, with one reason, which control is
told together with the last counts. Whoever ends it first gives the reason.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from enum import StrEnum

import structlog

from gateway.messages import DigestProof, Redeemed, RunningSession, SessionOver, SessionUsage
from gateway.relay.control_link import ControlLink
from gateway.relay.lease import Lease
from gateway.relay.refusals import Refusal
from policies.access import Action, Watermark
from streams.media import Track

_log = structlog.get_logger(__name__)


class OverReason(StrEnum):
    """Why a worker ends a session by itself; control has more reasons of its own."""

    COMPLETED = "completed"
    LOST = "lost"
    SLOW = "slow"
    CAMERA_GONE = "camera_gone"
    LEASE_LOST = "lease_lost"
    DRAINING = "draining"
    REPLACED = "replaced"
    FAILED = "failed"


class ViewerSession:
    """One redeemed session. `over` is done when it has ended; `counts` gives bytes sent and units dropped.

    `reason`, `detail` and `by` are those of `gateway.messages.End`.
    """

    def __init__(self, redeemed: Redeemed) -> None:
        self.id = redeemed.session
        self.camera = redeemed.camera
        self.stream = redeemed.stream
        self.action = redeemed.action
        self.obligations = redeemed.obligations
        self.mark_key = redeemed.mark_key
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reason = ""
        self.detail = ""
        self.by = ""
        self.is_lost = False
        self.counts: Callable[[], tuple[int, int]] = lambda: (0, 0)

    def may_see(self, track: Track | None) -> bool:
        """Whether the obligations allow a picture of this size, since nothing here makes it smaller."""
        most = self.obligations.max_height
        return most is None or track is None or track.height <= most

    @property
    def why(self) -> str:
        """Why it ended and who ended it, in one line: "revoked; 交通运输局"."""
        return f"{self.reason}; {self.by}" if self.by else self.reason

    def end(self, reason: str, detail: str = "", by: str = "", *, lost: bool = False) -> None:
        """End it; without effect if it has ended. `lost`: the connection broke, and the viewer may return."""
        if self.over.done():
            return
        self.reason, self.detail, self.by, self.is_lost = reason, detail, by, lost
        self.over.set_result(None)


class ViewerSessions:
    """All sessions of one worker, by id."""

    def __init__(self, link: ControlLink, lease: Lease) -> None:
        self._link = link
        self._lease = lease
        self._running: dict[str, ViewerSession] = {}
        self._draining = False
        self._none_left = asyncio.Event()
        self._none_left.set()

    @contextlib.asynccontextmanager
    async def redeemed(
        self,
        session_id: str,
        ticket: str,
        protocol: str,
        remote: str,
        action: Action,
        *,
        digest: DigestProof | None = None,
    ) -> AsyncIterator[ViewerSession]:
        """Redeem the ticket, or the proof of it, run the session within the context, report its end.

        Raises `Refusal`, `RefusedError`, `ControlUnavailableError`.
        """
        if self._draining:
            raise Refusal("draining")
        if not self._lease.is_valid:
            raise Refusal("control_unavailable")
        session = ViewerSession(await self._link.redeem(session_id, ticket, protocol, remote, digest))
        with self._run(session):
            _refuse_what_cannot_be_kept(session, action)
            yield session

    @contextlib.contextmanager
    def _run(self, session: ViewerSession) -> Iterator[None]:
        if (earlier := self._running.get(session.id)) is not None:
            earlier.end(OverReason.REPLACED)
        self._running[session.id] = session
        self._none_left.clear()
        if self._draining:
            session.end(OverReason.DRAINING)
        try:
            yield
        except (asyncio.CancelledError, ConnectionError):
            session.end(OverReason.LOST, lost=True)
            raise
        except BaseException:
            session.end(OverReason.FAILED)
            raise
        finally:
            session.end(OverReason.COMPLETED)
            self._report_over(session)

    def _report_over(self, session: ViewerSession) -> None:
        if self._running.get(session.id) is session:
            del self._running[session.id]
        if not self._running:
            self._none_left.set()
        bytes_sent, dropped = session.counts()
        self._link.deliver(
            SessionOver(
                session=session.id,
                reason=session.reason,
                lost=session.is_lost,
                bytes_sent=bytes_sent,
                dropped_access_units=dropped,
            )
        )
        _log.info("session_over", session=session.id, reason=session.reason, bytes_sent=bytes_sent)

    def end(self, session_id: str, reason: str, detail: str = "", by: str = "") -> None:
        if (session := self._running.get(session_id)) is not None:
            session.end(reason, detail, by)

    def end_all(self, reason: str) -> None:
        for session in tuple(self._running.values()):
            session.end(reason)

    async def drain(self, reason: str) -> None:
        """Refuse new sessions, end all, wait until their ends are reported."""
        self._draining = True
        self.end_all(reason)
        await self._none_left.wait()

    def running(self) -> list[RunningSession]:
        return [
            RunningSession(session=session.id, camera=session.camera, bytes_sent=session.counts()[0])
            for session in self._running.values()
        ]

    def usage(self) -> list[SessionUsage]:
        return [
            SessionUsage(session=session.id, bytes_sent=sent, dropped_access_units=dropped)
            for session in self._running.values()
            for sent, dropped in (session.counts(),)
        ]


def _refuse_what_cannot_be_kept(session: ViewerSession, action: Action) -> None:
    """A ticket is good for its own action only, and an obligation that nobody can keep forbids the use."""
    if session.action is not action:
        raise Refusal("ticket_invalid", f"the session is for {session.action}")
    if session.obligations.watermark is Watermark.BURNED_IN:
        raise Refusal("obligation_unmet", "a watermark burned into the picture")
