"""Tickets: redeemed once, by the right session, in time; and another one for a session."""

import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa

from gateway.authentication import is_logged_in, token_hash
from gateway.clock import Clock, to_micros
from gateway.enforcement import Circumstances, Enforcement, Grant
from gateway.enforcement import Refused as ActRefused
from gateway.jobs import may_come_from
from gateway.live import LiveSessions, Workers
from gateway.live_session import (
    EndReason,
    LiveSession,
    OpenedSession,
    SessionState,
    opened_session,
    start_record,
)
from gateway.messages import DigestProof, End, Redeem, Redeemed, Refused, stream_key
from gateway.principals import Principal
from gateway.problems import Problem
from gateway.store.schema import cameras, viewer_sessions
from gateway.store.store import Store
from gateway.store.unit import Unit
from policies.access import Object, ObjectKind
from streams.wire.digest import (
    ALGORITHMS,
    Credentials,
    DigestAuthorization,
    DigestChallenge,
    digest_ha1,
    verify_digest,
)

RTSP_PROTOCOL = "rtsp"


class Tickets:
    """`mark_key`: what keys the trace marks of the installation. `ticket_seconds`: another ticket's time."""

    def __init__(
        self,
        store: Store,
        enforcement: Enforcement,
        live: LiveSessions,
        workers: Workers,
        clock: Clock,
        mark_key: bytes,
        ticket_seconds: float,
    ) -> None:
        self._store = store
        self._enforcement = enforcement
        self._live = live
        self._workers = workers
        self._clock = clock
        self._mark_key = mark_key
        self._valid_for = timedelta(seconds=ticket_seconds)

    async def redeem(self, worker: int, request: Redeem) -> Redeemed | Refused:
        """One conditional update; of two that come with the same ticket, one starts.

        An RTSP player may come again from its own address until the first packet: many ask over UDP, get
        nothing through, and connect anew over TCP. The later connection then takes the earlier one's place.
        """
        refused = Refused(
            request=request.request, status=403, code="ticket_invalid", detail="used, expired, or not its own"
        )
        live = self._live.get(request.session)
        if live is None or live.ending is not None or live.unattended:
            return refused
        ticket = live.ticket if request.digest is not None else request.ticket
        if ticket is None or (request.digest is not None and not _proves(request.digest, live.id, ticket)):
            return refused
        if live.networks is not None and not may_come_from(live.networks, request.remote):
            return Refused(
                request=request.request, status=403, code="network_not_allowed", detail="not one of the job's"
            )
        now = self._clock()
        is_rtsp = request.protocol == RTSP_PROTOCOL
        may_start = viewer_sessions.c.state == SessionState.OPENED.value
        if is_rtsp:
            may_start |= sa.and_(
                viewer_sessions.c.state == SessionState.ACTIVE.value,
                viewer_sessions.c.protocol == RTSP_PROTOCOL,
                viewer_sessions.c.remote == request.remote,
            )

        async def unit(work: Unit) -> bool:
            started = await work.conn.execute(
                sa.update(viewer_sessions)
                .where(
                    viewer_sessions.c.id == request.session,
                    may_start,
                    viewer_sessions.c.ticket_hash == token_hash(ticket),
                    viewer_sessions.c.ticket_expires_at > to_micros(now),
                    viewer_sessions.c.preempted_at.is_(None),
                )
                .values(
                    state=SessionState.ACTIVE.value,
                    ticket_hash=viewer_sessions.c.ticket_hash if is_rtsp else None,
                    started_at=sa.func.coalesce(viewer_sessions.c.started_at, to_micros(now)),
                    protocol=request.protocol,
                    remote=request.remote,
                    worker=worker,
                    bytes_sent=live.bytes_before if live.worker == worker else live.bytes_sent,
                )
            )
            if started.rowcount != 1:
                return False
            live.protocol, live.remote = request.protocol, request.remote
            if not live.is_in_batch:
                work.record(start_record(live))
            work.after_commit(lambda: self._activate(live, worker, keeps_ticket=is_rtsp))
            return True

        if not await self._store.run(unit) or live.ending is not None:
            return refused
        decision = self._enforcement.decide(
            live.user_id, live.action, Object(ObjectKind.CAMERA, live.camera_id), live.purpose.code
        )
        if not decision.allowed:  # revoked a moment ago: the obligations of a denial bind to nothing
            return refused
        return Redeemed(
            request=request.request,
            session=live.id,
            camera=live.camera_id,
            stream=stream_key(live.camera_id, live.stream),
            action=live.action,
            obligations=decision.obligations,
            mark_key=self._mark_key,
        )

    def _activate(self, live: LiveSession, worker: int, *, keeps_ticket: bool) -> None:
        if live.ending is not None:
            return  # who ended it meanwhile waits for the reader that it had
        if live.state is SessionState.ACTIVE and live.worker not in {None, worker}:
            self._workers.send(live.worker, End(session=live.id, reason=EndReason.REPLACED.value))
        if live.worker != worker:
            live.reader_over()
        live.state = SessionState.ACTIVE
        live.deadline = None
        live.worker = worker
        if not keeps_ticket:
            live.ticket = None

    async def renew(
        self, principal: Principal, session_id: str, circumstances: Circumstances
    ) -> OpenedSession:
        """A reconnect or another container: decided again, and the ticket and the reader are replaced.

        Raises Problem `not_found`, `session_over`, `camera_disabled`, `not_authenticated` or `access_denied`.
        """
        live = self._live.get(session_id)
        if live is None or live.user_id != principal.id or live.unattended:
            raise Problem("not_found", session_id)
        if live.ending is not None:
            raise Problem("session_over", session_id)
        ticket = secrets.token_urlsafe(24)
        deadline = self._clock() + self._valid_for

        async def act(work: Unit, grant: Grant) -> OpenedSession | ActRefused:
            if not await is_logged_in(work.conn, principal, grant.at):
                return ActRefused(Problem("not_authenticated"))
            camera = (
                await work.conn.execute(
                    sa.select(cameras.c.name, cameras.c.enabled).where(cameras.c.id == live.camera_id)
                )
            ).one_or_none()
            if camera is None or not camera.enabled:
                return ActRefused(Problem("camera_disabled", live.camera_id))
            changed = await work.conn.execute(
                sa.update(viewer_sessions)
                .where(
                    viewer_sessions.c.id == session_id,
                    viewer_sessions.c.state != SessionState.ENDED.value,
                    viewer_sessions.c.preempted_at.is_(None),
                )
                .values(
                    state=SessionState.OPENED.value,
                    ticket_hash=token_hash(ticket),
                    ticket_expires_at=to_micros(deadline),
                )
            )
            if changed.rowcount != 1:
                return ActRefused(Problem("session_over", session_id))
            work.after_commit(lambda: self._reopen(live, deadline, ticket))
            return opened_session(live, camera.name, ticket, grant.obligations)

        purpose = Circumstances(
            remote=circumstances.remote, request_id=circumstances.request_id, purpose=live.purpose
        )
        return await self._enforcement.perform(
            principal,
            live.action,
            Object(ObjectKind.CAMERA, live.camera_id),
            purpose,
            f"another ticket for session {session_id}",
            act,
        )

    def _reopen(self, live: LiveSession, deadline: datetime, ticket: str) -> None:
        if live.ending is not None:
            return
        if live.state is SessionState.ACTIVE and live.worker is not None:
            self._workers.send(live.worker, End(session=live.id, reason=EndReason.REPLACED.value))
        live.state = SessionState.OPENED
        live.deadline = deadline
        live.ticket = ticket

    async def use_up(self, worker: int, session_id: str) -> None:
        """The first packet of an RTSP session goes out: its ticket opens nothing any more."""
        live = self._live.get(session_id)
        if live is None or live.worker != worker or live.ticket is None:
            return
        used = token_hash(live.ticket)
        live.ticket = None

        async def unit(work: Unit) -> None:
            await work.conn.execute(
                sa.update(viewer_sessions)
                .where(viewer_sessions.c.id == session_id, viewer_sessions.c.ticket_hash == used)
                .values(ticket_hash=None)
            )

        await self._store.run(unit)


def _proves(proof: DigestProof, session_id: str, ticket: str) -> bool:
    """Whether an RTSP viewer's answer could only be made with the ticket."""
    algorithm = ALGORITHMS.get(proof.algorithm)
    if algorithm is None:
        return False
    authorization = DigestAuthorization(
        username=session_id,
        realm=proof.realm,
        nonce=proof.nonce,
        uri=proof.uri,
        response=proof.response,
        algorithm=algorithm,
        nonce_count=proof.nc if proof.qop else None,
        client_nonce=proof.cnonce if proof.qop else None,
    )
    challenge = DigestChallenge(realm=proof.realm, nonce=proof.nonce, algorithm=algorithm)
    ha1 = digest_ha1(algorithm, Credentials(username=session_id, password=ticket), proof.realm)
    return verify_digest(authorization, challenge, ha1, proof.method, {proof.uri})
