"""The tables. Times are integers: microseconds since the epoch, UTC. Ids are text (`identifiers.new_id`).

History outlives what it is about: viewer sessions, analyses and ledger records name cameras and grants
without a foreign key. Whatever changes a table here needs a migration beside it (a test compares them).
One module, though long: the tables refer to one another, and there is nothing here but their columns.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# SQLite makes only an INTEGER primary key the table's own b-tree; BIGINT would cost a second one.
_RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Json = sa.JSON(none_as_null=True)

POLICY_REVISION = "policy_revision"
"""The counter that every policy write raises."""

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

departments = sa.Table(
    "departments",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text, sa.ForeignKey("departments.id"), index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("civil_code", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("seal", sa.LargeBinary, comment="gateway.store.seals"),
)

groups = sa.Table(
    "groups",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text, sa.ForeignKey("groups.id"), index=True),
    sa.Column("department_id", sa.Text, sa.ForeignKey("departments.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("seal", sa.LargeBinary),
)

cameras = sa.Table(
    "cameras",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("department_id", sa.Text, sa.ForeignKey("departments.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, default=""),
    sa.Column("url", sa.Text, nullable=False, comment="without credentials"),
    sa.Column("sub_url", sa.Text, comment="of the smaller stream, if there is one; the same login"),
    sa.Column("username", sa.Text),
    sa.Column("secret", sa.LargeBinary, comment="the password, encrypted"),
    sa.Column("allow_basic", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("declared_bandwidth_bps", sa.BigInteger),
    sa.Column("code", sa.Text, unique=True, comment="of the device: 20 digits, GB/T 28181-2022 annex E"),
    sa.Column("civil_code", sa.Text, comment="GB/T 2260"),
    sa.Column("point_class", sa.Integer, comment="1, 2 or 3, GB/T 28181-2022 PointType"),
    sa.Column("network", sa.Text),
    sa.Column("place", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("longitude", sa.Float, comment="degrees, WGS 84"),
    sa.Column("latitude", sa.Float, comment="degrees, WGS 84"),
    sa.Column("direction", sa.Text),
    sa.Column("management_unit", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("retention_days", sa.Integer, comment="how long the source keeps its recordings"),
    sa.Column("sharing_mode", sa.Text, nullable=False, server_default=sa.text("'conditional'")),
    sa.Column("sharing_departments", _Json, comment="list of ids, of mode unconditional"),
    sa.Column("sharing_scope", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("sharing_purpose", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("sharing_frequency", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("sharing_until", sa.BigInteger, comment="from then on as if not shared"),
    sa.Column("sharing_purposes", _Json, comment="list of purpose codes; null means any, empty none"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("seal", sa.LargeBinary, comment="its groups and tags included"),
    sa.CheckConstraint("point_class IN (1, 2, 3)", name="point_class"),
    sa.CheckConstraint("sharing_mode IN ('unconditional', 'conditional', 'not-shared')", name="sharing_mode"),
)

camera_tags = sa.Table(
    "camera_tags",
    metadata,
    sa.Column("tag", sa.Text, primary_key=True),
    sa.Column(
        "camera_id", sa.Text, sa.ForeignKey("cameras.id", ondelete="CASCADE"), primary_key=True, index=True
    ),
)

group_cameras = sa.Table(
    "group_cameras",
    metadata,
    sa.Column("group_id", sa.Text, sa.ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    sa.Column(
        "camera_id", sa.Text, sa.ForeignKey("cameras.id", ondelete="CASCADE"), primary_key=True, index=True
    ),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("username_folded", sa.Text, nullable=False, unique=True, comment="identifiers.fold_username"),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("department_id", sa.Text, sa.ForeignKey("departments.id"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("locale", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("undertaking_version", sa.Integer, comment="the newest that this person accepted"),
    sa.Column("totp_secret", sa.LargeBinary, comment="encrypted; null without a second factor"),
    sa.Column("totp_last_step", sa.BigInteger, comment="RFC 6238 §5.2: no code is taken twice"),
    sa.Column("totp_enabled_at", sa.BigInteger, comment="null while it is not confirmed"),
    sa.Column("responsible_id", sa.Text, index=True, comment="of a job: the person who answers for it"),
    sa.Column("processing", sa.Text, comment="of a job: what it does with the pictures"),
    sa.Column("recipients", _Json, comment="of a job: list of who gets its results"),
    sa.Column("result_days", sa.Integer, comment="of a job: how long results are kept"),
    sa.Column("networks", _Json, comment="of a job: list of CIDR networks that it may come from"),
    sa.Column("password_expires_at", sa.BigInteger, comment="of a job: its key's end"),
    sa.Column("seal", sa.LargeBinary, comment="its roles and recovery codes included"),
    sa.CheckConstraint("kind IN ('person', 'job', 'wall')", name="kind"),
)

recovery_codes = sa.Table(
    "recovery_codes",
    metadata,
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("code_hash", sa.LargeBinary, primary_key=True),
)

user_roles = sa.Table(
    "user_roles",
    metadata,
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("department_id", sa.Text, sa.ForeignKey("departments.id"), primary_key=True),
)

login_sessions = sa.Table(
    "login_sessions",
    metadata,
    sa.Column("token_hash", sa.LargeBinary, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("remote", sa.Text),
)

duty_sessions = sa.Table(
    "duty_sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("wall_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("person_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("ends_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("end_reason", sa.Text),
    sa.Index(None, "wall_id", "ended_at"),
)
_running_duties = duty_sessions.c.ended_at.is_(None)
sa.Index(
    "ix_duty_sessions_running",
    duty_sessions.c.ends_at,
    sqlite_where=_running_duties,
    postgresql_where=_running_duties,
)

undertakings = sa.Table(
    "undertakings",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("text_zh", sa.Text, nullable=False),
    sa.Column("text_en", sa.Text, nullable=False),
    sa.Column("published_by", sa.Text, comment="null for the first one, which an installation starts with"),
    sa.Column("published_at", sa.BigInteger, nullable=False),
)

purposes = sa.Table(
    "purposes",
    metadata,
    sa.Column("code", sa.Text, primary_key=True),
    sa.Column("text_zh", sa.Text, nullable=False),
    sa.Column("text_en", sa.Text, nullable=False),
    sa.Column("needs_reference", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("department_id", sa.Text, sa.ForeignKey("departments.id"), comment="whose people; null: all"),
    sa.Column("actions", _Json, comment="list of Action values; null means any"),
    sa.Column("max_seconds", sa.Integer, comment="a use for it ends after; null: as others"),
)

roles = sa.Table(
    "roles",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("department", _Json, nullable=False, comment="list of Action values, in the assignment's tree"),
    sa.Column("installation", _Json, nullable=False, comment="list of Action values, everywhere"),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("seal", sa.LargeBinary),
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("subject_kind", sa.Text, nullable=False),
    sa.Column("subject_id", sa.Text, nullable=False),
    sa.Column("object_kind", sa.Text, nullable=False),
    sa.Column("object_id", sa.Text, nullable=False),
    sa.Column("actions", _Json, nullable=False, comment="list of Action values"),
    sa.Column("effect", sa.Text, nullable=False),
    sa.Column("valid_from", sa.BigInteger),
    sa.Column("valid_to", sa.BigInteger),
    sa.Column("purposes", _Json, comment="list of purpose codes; null means any"),
    sa.Column("obligations", _Json, nullable=False),
    sa.Column("schedule", _Json, comment="a policies.access.Schedule; null means at any hour"),
    sa.Column("parent_id", sa.Text, index=True, comment="the grant of camera:share that it was given by"),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("revoked_by", sa.Text),
    sa.Column("revoke_reason", sa.Text),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0", comment="gateway.freeze"),
    sa.Column("seal", sa.LargeBinary),
    sa.CheckConstraint("effect IN ('allow', 'deny')", name="effect"),
    sa.CheckConstraint("subject_kind IN ('user', 'role', 'department')", name="subject_kind"),
    sa.CheckConstraint("object_kind IN ('camera', 'group', 'tag', 'department')", name="object_kind"),
    sa.Index(None, "subject_kind", "subject_id"),
    sa.Index(None, "object_kind", "object_id"),
)

policy_sums = sa.Table(
    "policy_sums",
    metadata,
    # of all seals of a kind of rows: a row that is gone leaves its absence
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("total", sa.LargeBinary, nullable=False),
    sa.Column("seal", sa.LargeBinary, nullable=False),
)

disputes = sa.Table(
    "disputes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id"), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("opened_by", sa.Text, nullable=False),
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.Text, comment="null while it is open"),
    sa.Column("closed_by", sa.Text),
    sa.Column("closed_at", sa.BigInteger),
    sa.Column("closing_reason", sa.Text),
    sa.CheckConstraint("outcome IN ('upheld', 'dismissed', 'revoked')", name="outcome"),
    sa.CheckConstraint("(outcome IS NULL) = (closed_at IS NULL)", name="closed"),
)

viewer_sessions = sa.Table(
    "viewer_sessions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("department_id", sa.Text, nullable=False, comment="the user's, at opening"),
    sa.Column("camera_id", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("purpose_code", sa.Text, nullable=False),
    sa.Column("purpose_reference", sa.Text),
    sa.Column("purpose_note", sa.Text),
    sa.Column("rule", sa.Text, nullable=False, comment="the grant or role that decided"),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("obligations", _Json, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("ticket_hash", sa.LargeBinary, comment="null once redeemed"),
    sa.Column("ticket_expires_at", sa.BigInteger),
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("lost_at", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger, comment="null exactly while the session counts against limits"),
    sa.Column("end_reason", sa.Text),
    sa.Column("ended_by", sa.Text),
    sa.Column("ended_by_unit", sa.Text, comment="of who ended it: what the viewer is told"),
    sa.Column("end_detail", sa.Text),
    sa.Column("bytes_sent", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("reserved_bps", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("stream", sa.Text, nullable=False, server_default="main", comment="main or sub"),
    sa.Column("roles", sa.Text, comment="the user's, at opening: each between two spaces"),
    sa.Column("priority", sa.Integer, nullable=False, server_default="50"),
    sa.Column("preempted_at", sa.BigInteger, comment="its place is given away; it is about to end"),
    sa.Column("protocol", sa.Text),
    sa.Column("remote", sa.Text),
    sa.Column("worker", sa.Integer),
    sa.Column("owner_id", sa.Text, comment="the camera's department, at opening"),
    sa.Column("duty_id", sa.Text, comment="of who was on duty at a wall"),
    sa.Column("decided_until", sa.BigInteger, comment="when the decision may change by itself"),
    sa.Column("confirm_by", sa.BigInteger, comment="ended then unless somebody confirms that he looks"),
    sa.CheckConstraint("state IN ('opened', 'active', 'lost', 'ended')", name="state"),
    sa.CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ended"),
)

running_sessions = viewer_sessions.c.ended_at.is_(None)
"""The condition of every query for sessions that are not over: it is what the partial indexes below match."""
for _column in ("user_id", "camera_id"):
    sa.Index(
        f"ix_viewer_sessions_running_{_column}",
        viewer_sessions.c[_column],
        sqlite_where=running_sessions,
        postgresql_where=running_sessions,
    )
sa.Index(
    "ix_viewer_sessions_running",
    # all that admission reads of a running session, so that it need not visit the rows
    *(
        viewer_sessions.c[name]
        for name in (
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
        )
    ),
    sqlite_where=running_sessions,
    postgresql_where=running_sessions,
)
sa.Index("ix_viewer_sessions_user_id_opened_at", viewer_sessions.c.user_id, viewer_sessions.c.opened_at)
sa.Index("ix_viewer_sessions_camera_id_opened_at", viewer_sessions.c.camera_id, viewer_sessions.c.opened_at)

analyses = sa.Table(
    "analyses",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("camera_id", sa.Text, nullable=False, index=True),
    sa.Column("analyser", sa.Text, nullable=False),
    sa.Column("parameters", _Json, nullable=False),
    sa.Column("period_ms", sa.Integer, nullable=False),
    sa.Column("purpose_code", sa.Text, nullable=False),
    sa.Column("purpose_reference", sa.Text),
    sa.Column("purpose_note", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, sa.ForeignKey("viewer_sessions.id")),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("end_reason", sa.Text),
    sa.CheckConstraint("state IN ('active', 'ended')", name="state"),
    sa.CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ended"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _RowId, primary_key=True),
    sa.Column("analysis_id", sa.Text, sa.ForeignKey("analyses.id"), nullable=False, index=True),
    sa.Column("camera_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("region", _Json, nullable=False, comment="polygon of normalised [x, y] points"),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index(None, "camera_id", "id"),
)

audit_records = sa.Table(
    "audit_records",
    metadata,
    sa.Column("seq", _RowId, primary_key=True, autoincrement=False),
    sa.Column("leaf", sa.LargeBinary, nullable=False, comment="the record: its exact canonical bytes"),
    sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
    sa.Column("disclosures", sa.LargeBinary, comment="what the leaf's commitments were made of"),
    # What follows repeats a part of the leaf, for queries; the verifier holds it against the leaf.
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Text),
    sa.Column("actor_name", sa.Text),
    sa.Column("unit_id", sa.Text),
    sa.Column("unit_name", sa.Text),
    sa.Column("camera_id", sa.Text),
    sa.Column("owner_id", sa.Text),
    sa.Column("session_id", sa.Text, index=True),
    sa.Index(None, "kind", "seq"),
    sa.Index(None, "unit_id", "seq"),
    sa.Index(None, "owner_id", "seq"),
    sa.Index(None, "actor_id", "seq"),
    sa.Index(None, "camera_id", "seq"),
)

audit_subjects = sa.Table(
    "audit_subjects",
    metadata,
    # repeats the leaf's `camera_ids` and `owner_ids`, as the columns of `audit_records` repeat the rest
    sa.Column("seq", _RowId, sa.ForeignKey("audit_records.seq", ondelete="CASCADE"), primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),  # camera:id or owner:id
    sa.Index(None, "subject", "seq"),
)

audit_nodes = sa.Table(
    "audit_nodes",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("idx", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

audit_heads = sa.Table(
    "audit_heads",
    metadata,
    sa.Column("tree_size", _RowId, primary_key=True, autoincrement=False),
    sa.Column("previous_size", sa.BigInteger, nullable=False, comment="the head before it; 0 for the first"),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("signed_at", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
)

audit_state = sa.Table(
    "audit_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
    sa.Column("last_at", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="single_row"),
)

audit_keys = sa.Table(
    "audit_keys",
    metadata,
    # heads of a larger size are signed with it; the first key is in no row
    sa.Column("after_size", _RowId, primary_key=True, autoincrement=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column(
        "leaf", sa.LargeBinary, nullable=False, comment="the record that hands over, number after_size - 1"
    ),
    sa.Column(
        "path", sa.LargeBinary, nullable=False, comment="its inclusion proof in the head of after_size"
    ),
)

audit_periods = sa.Table(
    "audit_periods",
    metadata,
    # records below it were removed when their years had passed; the nodes and heads are kept
    sa.Column("end_size", _RowId, primary_key=True, autoincrement=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
    sa.Column("last_at", sa.BigInteger, nullable=False),
    sa.Column("removed_at", sa.BigInteger, nullable=False),
)
