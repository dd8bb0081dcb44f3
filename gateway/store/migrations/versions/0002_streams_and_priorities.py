"""Two streams of a camera; priorities of sessions"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "cameras",
        sa.Column("sub_url", sa.Text(), comment="of the smaller stream, if there is one; the same login"),
    )
    for column in (
        sa.Column("stream", sa.Text(), nullable=False, server_default="main", comment="main or sub"),
        sa.Column("roles", sa.Text(), comment="the user's, at opening: each between two spaces"),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="50"),
        sa.Column("preempted_at", sa.BigInteger(), comment="its place is given away; it is about to end"),
    ):
        op.add_column("viewer_sessions", column)
