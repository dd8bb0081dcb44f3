"""What a city's catalogue says of a camera; tags; roles made over the API; schedules and delegated grants"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)
_MODES = "sharing_mode IN ('unconditional', 'conditional', 'not-shared')"


def upgrade() -> None:
    with op.batch_alter_table("cameras") as cameras:
        for column in (
            sa.Column("code", sa.Text(), comment="of the device: 20 digits, GB/T 28181-2022 annex E"),
            sa.Column("civil_code", sa.Text(), comment="GB/T 2260"),
            sa.Column("point_class", sa.Integer(), comment="1, 2 or 3, GB/T 28181-2022 PointType"),
            sa.Column("network", sa.Text()),
            sa.Column("place", sa.Text(), nullable=False, server_default=sa.text("''")),
            sa.Column("longitude", sa.Float(), comment="degrees, WGS 84"),
            sa.Column("latitude", sa.Float(), comment="degrees, WGS 84"),
            sa.Column("direction", sa.Text()),
            sa.Column("management_unit", sa.Text(), nullable=False, server_default=sa.text("''")),
            sa.Column("retention_days", sa.Integer(), comment="how long the source keeps its recordings"),
            sa.Column("sharing_mode", sa.Text(), nullable=False, server_default=sa.text("'conditional'")),
            sa.Column("sharing_departments", _JSON, comment="list of ids, of mode unconditional"),
            sa.Column("sharing_scope", sa.Text(), nullable=False, server_default=sa.text("''")),
            sa.Column("sharing_purpose", sa.Text(), nullable=False, server_default=sa.text("''")),
            sa.Column("sharing_frequency", sa.Text(), nullable=False, server_default=sa.text("''")),
            sa.Column("sharing_until", sa.BigInteger(), comment="from then on as if not shared"),
        ):
            cameras.add_column(column)
        cameras.create_unique_constraint(op.f("uq_cameras_code"), ["code"])
        cameras.create_check_constraint(op.f("ck_cameras_point_class"), "point_class IN (1, 2, 3)")
        cameras.create_check_constraint(op.f("ck_cameras_sharing_mode"), _MODES)
    op.create_table(
        "camera_tags",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("camera_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["camera_id"], ["cameras.id"], name=op.f("fk_camera_tags_camera_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tag", "camera_id", name=op.f("pk_camera_tags")),
    )
    op.create_index(op.f("ix_camera_tags_camera_id"), "camera_tags", ["camera_id"])
    op.create_table(
        "roles",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "department", _JSON, nullable=False, comment="list of Action values, in the assignment's tree"
        ),
        sa.Column("installation", _JSON, nullable=False, comment="list of Action values, everywhere"),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_roles")),
    )
    with op.batch_alter_table("grants") as grants:
        grants.add_column(
            sa.Column("schedule", _JSON, comment="a policies.access.Schedule; null means at any hour")
        )
        grants.add_column(
            sa.Column("parent_id", sa.Text(), comment="the grant of camera:share that it was given by")
        )
        grants.create_index(op.f("ix_grants_parent_id"), ["parent_id"])
        grants.drop_constraint(op.f("ck_grants_object_kind"), type_="check")
        grants.create_check_constraint(
            op.f("ck_grants_object_kind"), "object_kind IN ('camera', 'group', 'tag', 'department')"
        )
