"""How much may run at once. Tested inside the transaction that opens a session, so no race passes a limit.

The store's writer holds the ledger's head row while a unit runs, on every database and on every node: two
openings are never counted at the same time (DESIGN §3.4).
"""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.problems import Problem
from gateway.store.schema import running_sessions, viewer_sessions

ANALYSIS_PROTOCOL = "analysis"
"""The protocol of a session that nobody watches."""
DEFAULT_CAMERA_BPS = 4_000_000
"""What a camera counts that was never measured and declared nothing."""


@dataclass(frozen=True)
class AdmissionSettings:
    sessions_total: int = 3000
    sessions_per_user: int = 16
    bandwidth_bps: int = 8_000_000_000


class Admission:
    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings

    async def full(
        self, conn: AsyncConnection, user_id: str, bit_rate_bps: int, *, unattended: bool = False
    ) -> Problem | None:
        """The limit that one more session of `bit_rate_bps` would exceed, or None.

        `unattended`: an analysis. It counts among all, not among what one person watches: a job's account
        runs as many as the limit of analyses allows.
        """
        total, reserved = (
            await conn.execute(
                sa.select(
                    sa.func.count(), sa.func.coalesce(sa.func.sum(viewer_sessions.c.reserved_bps), 0)
                ).where(running_sessions)
            )
        ).one()
        settings = self._settings
        if total >= settings.sessions_total:
            return Problem("limit_sessions_total", f"{settings.sessions_total} sessions are running")
        if reserved + bit_rate_bps > settings.bandwidth_bps:
            return Problem("limit_bandwidth", f"{settings.bandwidth_bps} bit/s are reserved")
        if unattended:
            return None
        attended = sa.func.coalesce(viewer_sessions.c.protocol, "") != ANALYSIS_PROTOCOL
        own = (
            await conn.execute(
                sa.select(sa.func.count()).where(
                    running_sessions, viewer_sessions.c.user_id == user_id, attended
                )
            )
        ).scalar_one()
        if own >= settings.sessions_per_user:
            return Problem("limit_sessions_user", f"{settings.sessions_per_user} sessions are yours")
        return None
