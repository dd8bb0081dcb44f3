"""Admission against a small model: no limit is ever exceeded, and only lower priorities give way."""

import asyncio
from datetime import UTC, datetime

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from gateway.admission import (
    ANALYSIS_PROTOCOL,
    Admission,
    AdmissionSettings,
    Limit,
    LimitKind,
    LimitProblem,
    limits_of,
    roles_text,
)
from gateway.enforcement import Purpose
from gateway.live_session import LiveSession, SessionState
from gateway.store.schema import metadata, viewer_sessions
from gateway.store.seals import Seals
from gateway.store.unit import Unit
from policies.access import Action

SETTINGS = AdmissionSettings(
    sessions_total=6,
    sessions_per_user=3,
    sessions_per_department=4,
    departments={"fire": 0},
    roles={"op": 3, "o": 2},
    sessions_per_camera=3,
    cameras={"gate": 1},
    bandwidth_bps=12,
)
AT = datetime(2026, 1, 5, tzinfo=UTC)


def _session(number, user, department, roles, camera, priority, bit_rate, unattended):
    return LiveSession(
        id=f"{number:032x}",
        user_id=user,
        user_name=user,
        unit_id=department,
        unit_name=department,
        camera_id=camera,
        action=Action.LIVE_VIEW,
        purpose=Purpose(code="patrol"),
        rule="r",
        revision=1,
        opened_at=AT,
        state=SessionState.OPENED,
        deadline=None,
        expires_at=None,
        unattended=unattended,
        roles=roles,
        priority=priority,
        reserved_bps=bit_rate,
    )


def _row(session, number):
    return {
        "id": session.id,
        "user_id": session.user_id,
        "department_id": session.unit_id,
        "camera_id": session.camera_id,
        "action": "live:view",
        "purpose_code": "patrol",
        "rule": "r",
        "revision": 1,
        "obligations": {},
        "state": "opened",
        "opened_at": number,
        "reserved_bps": session.reserved_bps,
        "roles": roles_text(session.roles),
        "priority": session.priority,
        "protocol": ANALYSIS_PROTOCOL if session.unattended else None,
    }


def _weight(session, limit):
    if limit not in limits_of(session):
        return 0
    return session.reserved_bps if limit.kind is LimitKind.BANDWIDTH else 1


class AdmissionMachine(RuleBasedStateMachine):
    opened = Bundle("opened")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        self.admission = Admission(SETTINGS)
        self.running = {}  # by id, in the order of opening
        self.number = 0
        self.runner.run(self._create())

    async def _create(self):
        async with self.engine.begin() as conn:
            await conn.run_sync(lambda sync: metadata.create_all(sync, tables=[viewer_sessions]))

    def teardown(self):
        self.runner.run(self.engine.dispose())
        self.runner.close()

    @rule(
        target=opened,
        user=st.sampled_from(["ann", "bob"]),
        department=st.sampled_from(["fire", "police"]),
        roles=st.sampled_from([(), ("op",), ("o",), ("o", "op")]),
        camera=st.sampled_from(["gate", "bridge", "square"]),
        priority=st.sampled_from([0, 50, 90, 100]),
        bit_rate=st.integers(1, 6),
        unattended=st.booleans(),
        rolls_back=st.booleans(),
    )
    def open(self, rolls_back, **fields):
        self.number += 1
        session = _session(self.number, **fields)
        expected = self._expected(session)
        found = self.runner.run(self._open(session, rolls_back=rolls_back))
        if isinstance(expected, Limit):
            assert isinstance(found, LimitProblem)
            assert found.limit == expected
            assert (found.status, found.headers) == (503, {"Retry-After": "5"})
            return multiple()
        assert [other.session_id for other in found] == expected
        assert all(self.running[victim].priority < session.priority for victim in expected)
        assert not any(self.running[victim].unattended for victim in expected)
        if rolls_back:
            return multiple()
        for victim in expected:
            del self.running[victim]
        self.running[session.id] = session
        return session.id

    async def _open(self, session, *, rolls_back):
        async with self.engine.connect() as conn, conn.begin() as transaction:
            found = await self.admission.admit(Unit(conn, self.number, Seals(bytes(32))), session)
            if rolls_back:
                await transaction.rollback()
            elif not isinstance(found, LimitProblem):
                await conn.execute(sa.insert(viewer_sessions).values(_row(session, self.number)))
            return found

    def _expected(self, session):
        """The ids of those who give way, in order, or the limit that is full."""
        leaving = []
        for limit in limits_of(session):
            bound = self.admission.bound(limit)
            if bound is None:
                continue
            staying = [other for other in self.running.values() if other.id not in leaving]
            excess = sum(_weight(other, limit) for other in staying) + _weight(session, limit) - bound
            order = sorted(staying, key=lambda other: (other.priority, -int(other.id, 16)))
            for other in order:
                may_go = other.priority < session.priority and not (other.unattended or session.unattended)
                if excess > 0 and may_go and _weight(other, limit):
                    leaving.append(other.id)
                    excess -= _weight(other, limit)
            if excess > 0:
                return limit
        return leaving

    @rule(session=consumes(opened))
    def end(self, session):
        self.running.pop(session, None)
        self.runner.run(self._end(session))

    async def _end(self, session):
        async with self.engine.begin() as conn:
            await conn.execute(
                sa.update(viewer_sessions)
                .where(viewer_sessions.c.id == session)
                .values(state="ended", ended_at=1)
            )

    @invariant()
    def no_limit_is_exceeded(self):
        limits = {limit for session in self.running.values() for limit in limits_of(session)}
        for limit in limits:
            bound = self.admission.bound(limit)
            used = sum(_weight(session, limit) for session in self.running.values())
            assert bound is None or used <= bound

    @invariant()
    def whoever_counts_is_whoever_runs(self):
        assert self.runner.run(self._counted()) == set(self.running)

    async def _counted(self):
        async with self.engine.connect() as conn:
            rows = await conn.execute(
                sa.select(viewer_sessions.c.id).where(
                    viewer_sessions.c.ended_at.is_(None), viewer_sessions.c.preempted_at.is_(None)
                )
            )
            return set(rows.scalars())


AdmissionMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestAdmission = AdmissionMachine.TestCase
