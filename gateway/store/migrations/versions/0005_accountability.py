"""Purposes per department and camera, undertakings, second factors, duty, seals, disputes, commitments"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)
_RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _seal(comment: str | None = None) -> sa.Column[bytes]:
    return sa.Column("seal", sa.LargeBinary(), comment=comment)


def _add(table: str, *columns: sa.Column[Any]) -> None:
    with op.batch_alter_table(table) as batch:
        for column in columns:
            batch.add_column(column)


def upgrade() -> None:
    _add("departments", _seal("gateway.store.seals"))
    _add("groups", _seal())
    _add(
        "cameras",
        sa.Column("sharing_purposes", _JSON, comment="list of purpose codes; null means any, empty none"),
        _seal("its groups and tags included"),
    )
    _users()
    _add("roles", _seal())
    _add(
        "grants",
        sa.Column("epoch", sa.BigInteger(), nullable=False, server_default="0", comment="gateway.freeze"),
        _seal(),
    )
    with op.batch_alter_table("purposes") as purposes:
        purposes.add_column(sa.Column("department_id", sa.Text(), comment="whose people; null: all"))
        purposes.add_column(sa.Column("actions", _JSON, comment="list of Action values; null means any"))
        purposes.add_column(
            sa.Column("max_seconds", sa.Integer(), comment="a use for it ends after; null: as others")
        )
        purposes.create_foreign_key(
            op.f("fk_purposes_department_id"), "departments", ["department_id"], ["id"]
        )
    _purposes_in_use()
    _add(
        "viewer_sessions",
        sa.Column("owner_id", sa.Text(), comment="the camera's department, at opening"),
        sa.Column("duty_id", sa.Text(), comment="of who was on duty at a wall"),
        sa.Column("decided_until", sa.BigInteger(), comment="when the decision may change by itself"),
        sa.Column("confirm_by", sa.BigInteger(), comment="ended then unless somebody confirms that he looks"),
        sa.Column("ended_by_unit", sa.Text(), comment="of who ended it: what the viewer is told"),
        sa.Column("end_detail", sa.Text()),
    )
    _new_tables()
    _ledger()


def _purposes_in_use() -> None:
    """A patrol as it came needs its roster now and ends; reading the ledger has a purpose of its own."""
    purposes = sa.table(
        "purposes",
        sa.column("code", sa.Text),
        sa.column("text_zh", sa.Text),
        sa.column("text_en", sa.Text),
        sa.column("needs_reference", sa.Boolean),
        sa.column("enabled", sa.Boolean),
        sa.column("actions", _JSON),
        sa.column("max_seconds", sa.Integer),
    )
    codes = set(op.get_bind().scalars(sa.select(purposes.c.code)))
    if not codes:
        return
    media = ["live:view", "live:snapshot", "ptz:control", "frames:consume"]
    op.execute(
        purposes.update()
        .where(
            purposes.c.code == "patrol",
            purposes.c.text_zh == "日常巡查",
            purposes.c.text_en == "Routine patrol",
            purposes.c.needs_reference.is_(False),
            purposes.c.enabled,
        )
        .values(needs_reference=True, actions=media, max_seconds=8 * 3600)
    )
    if "audit" not in codes:
        op.execute(
            purposes.insert().values(
                code="audit",
                text_zh="审计监督",
                text_en="Audit and supervision",
                needs_reference=False,
                enabled=True,
                actions=["audit:read"],
            )
        )


def _users() -> None:
    with op.batch_alter_table("users") as users:
        for column in (
            sa.Column("undertaking_version", sa.Integer(), comment="the newest that this person accepted"),
            sa.Column("totp_secret", sa.LargeBinary(), comment="encrypted; null without a second factor"),
            sa.Column("totp_last_step", sa.BigInteger(), comment="RFC 6238 §5.2: no code is taken twice"),
            sa.Column("totp_enabled_at", sa.BigInteger(), comment="null while it is not confirmed"),
            sa.Column("responsible_id", sa.Text(), comment="of a job: the person who answers for it"),
            sa.Column("processing", sa.Text(), comment="of a job: what it does with the pictures"),
            sa.Column("recipients", _JSON, comment="of a job: list of who gets its results"),
            sa.Column("result_days", sa.Integer(), comment="of a job: how long results are kept"),
            sa.Column("networks", _JSON, comment="of a job: list of CIDR networks that it may come from"),
            sa.Column("password_expires_at", sa.BigInteger(), comment="of a job: its key's end"),
            _seal("its roles and recovery codes included"),
        ):
            users.add_column(column)
        users.drop_constraint(op.f("ck_users_kind"), type_="check")
        users.create_check_constraint(op.f("ck_users_kind"), "kind IN ('person', 'job', 'wall')")
    op.create_index(op.f("ix_users_responsible_id"), "users", ["responsible_id"])
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_recovery_codes_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "code_hash", name=op.f("pk_recovery_codes")),
    )


def _new_tables() -> None:
    op.create_table(
        "duty_sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("wall_id", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("end_reason", sa.Text()),
        sa.ForeignKeyConstraint(["wall_id"], ["users.id"], name=op.f("fk_duty_sessions_wall_id")),
        sa.ForeignKeyConstraint(["person_id"], ["users.id"], name=op.f("fk_duty_sessions_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duty_sessions")),
    )
    op.create_index(op.f("ix_duty_sessions_wall_id_ended_at"), "duty_sessions", ["wall_id", "ended_at"])
    op.create_index(
        op.f("ix_duty_sessions_running"),
        "duty_sessions",
        ["ends_at"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "undertakings",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text_zh", sa.Text(), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column(
            "published_by", sa.Text(), comment="null for the first one, which an installation starts with"
        ),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_undertakings")),
    )
    op.create_table(
        "policy_sums",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_policy_sums")),
    )
    op.create_table(
        "disputes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), comment="null while it is open"),
        sa.Column("closed_by", sa.Text()),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("closing_reason", sa.Text()),
        sa.CheckConstraint("outcome IN ('upheld', 'dismissed', 'revoked')", name=op.f("ck_disputes_outcome")),
        sa.CheckConstraint("(outcome IS NULL) = (closed_at IS NULL)", name=op.f("ck_disputes_closed")),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.id"], name=op.f("fk_disputes_grant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disputes")),
    )
    op.create_index(op.f("ix_disputes_grant_id"), "disputes", ["grant_id"])


def _ledger() -> None:
    _add(
        "audit_records",
        sa.Column("disclosures", sa.LargeBinary(), comment="what the leaf's commitments were made of"),
        sa.Column("owner_id", sa.Text()),
    )
    op.create_index(op.f("ix_audit_records_unit_id_seq"), "audit_records", ["unit_id", "seq"])
    op.create_index(op.f("ix_audit_records_owner_id_seq"), "audit_records", ["owner_id", "seq"])
    op.create_table(
        "audit_subjects",
        sa.Column("seq", _RowId, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["seq"], ["audit_records.seq"], name=op.f("fk_audit_subjects_seq"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", "subject", name=op.f("pk_audit_subjects")),
    )
    op.create_index(op.f("ix_audit_subjects_subject_seq"), "audit_subjects", ["subject", "seq"])
    op.create_table(
        "audit_keys",
        sa.Column("after_size", _RowId, autoincrement=False, nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column(
            "leaf",
            sa.LargeBinary(),
            nullable=False,
            comment="the record that hands over, number after_size - 1",
        ),
        sa.Column(
            "path", sa.LargeBinary(), nullable=False, comment="its inclusion proof in the head of after_size"
        ),
        sa.PrimaryKeyConstraint("after_size", name=op.f("pk_audit_keys")),
    )
    op.create_table(
        "audit_periods",
        sa.Column("end_size", _RowId, autoincrement=False, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("end_size", name=op.f("pk_audit_periods")),
    )
