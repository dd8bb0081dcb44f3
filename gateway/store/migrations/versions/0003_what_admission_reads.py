"""What admission reads of running sessions, in one index"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_viewer_sessions_running",
        "viewer_sessions",
        [
            "ended_at",
            "preempted_at",
            "priority",
            "opened_at",
            "user_id",
            "department_id",
            "camera_id",
            "roles",
            "protocol",
            "reserved_bps",
            "id",
        ],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
