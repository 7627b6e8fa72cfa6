"""Create the tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(sa.schema.CreateSequence(sa.Sequence("revision_seq")))
    op.create_table(
        "application",
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("application", name=op.f("pk_application")),
    )
    op.create_table(
        "counter",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counter")),
    )
    op.create_table(
        "node",
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("incarnation", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("reachable", sa.Boolean(), nullable=False),
        sa.Column("cordoned", sa.Boolean(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("drain_time", sa.BigInteger(), nullable=True),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("connected_time", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_time", sa.BigInteger(), nullable=True),
        sa.Column("notices", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_node")),
    )
    op.create_table(
        "profile",
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("definition", sa.LargeBinary(), nullable=False),
        sa.Column("updated_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("profile", name=op.f("pk_profile")),
    )
    op.create_table(
        "request_key",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "request_id", name=op.f("pk_request_key")),
    )
    op.create_index("ix_request_key_created", "request_key", ["created_time"], unique=False)

    op.create_table(
        "session",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("application_version", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("usd_stage_uri", sa.String(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("needs", sa.LargeBinary(), nullable=False),
        sa.Column("limits", sa.LargeBinary(), nullable=False),
        sa.Column("max_total_s", sa.Float(), nullable=True),
        sa.Column("launcher", sa.String(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("intent", sa.String(), nullable=False),
        sa.Column("wish", sa.String(), nullable=False),
        sa.Column("wish_message", sa.String(), nullable=False),
        sa.Column("launch_id", sa.String(), nullable=True),
        sa.Column("launch_count", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("queue", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("condition", sa.String(), nullable=False),
        sa.Column("end_reason", sa.String(), nullable=False),
        sa.Column("status_message", sa.String(), nullable=False),
        sa.Column("timeline", sa.JSON(), nullable=False),
        sa.Column("ready_time", sa.BigInteger(), nullable=True),
        sa.Column("ended_time", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_session")),
    )
    op.create_index("ix_session_application", "session", ["application", "created_time", "session_id"], unique=False)
    op.create_index("ix_session_created", "session", ["created_time", "session_id"], unique=False)
    op.create_index(
        "ix_session_live",
        "session",
        ["created_time", "session_id"],
        unique=False,
        sqlite_where=sa.text("ended_time IS NULL"),
        postgresql_where=sa.text("ended_time IS NULL"),
    )
    op.create_index("ix_session_revision", "session", ["revision"], unique=True)
    op.create_index("ix_session_state", "session", ["state", "created_time", "session_id"], unique=False)
    op.create_index("ix_session_username", "session", ["username", "created_time", "session_id"], unique=False)

    op.create_table(
        "token",
        sa.Column("token_id", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("revoked_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_token")),
    )
    op.create_table(
        "device",
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("reading", sa.LargeBinary(), nullable=False),
        sa.Column("sick", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.node"], name=op.f("fk_device_node")),
        sa.PrimaryKeyConstraint("node", "uuid", name=op.f("pk_device")),
    )
    op.create_table(
        "device_event",
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("uuid", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("node", "uuid", "number", name=op.f("pk_device_event")),
    )
    op.create_index("ix_device_event_time", "device_event", ["time"], unique=False)

    op.create_table(
        "launch",
        sa.Column("launch_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("slots", sa.JSON(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("desired", sa.String(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal_port", sa.Integer(), nullable=False),
        sa.Column("media_port", sa.Integer(), nullable=False),
        sa.Column("http_port", sa.Integer(), nullable=False),
        sa.Column("viewers", sa.Integer(), nullable=True),
        sa.Column("ever_connected", sa.Boolean(), nullable=False),
        sa.Column("start_s", sa.Float(), nullable=True),
        sa.Column("log_tail", sa.JSON(), nullable=False),
        sa.Column("ending_time", sa.BigInteger(), nullable=True),
        sa.Column("overdue", sa.Boolean(), nullable=False),
        sa.Column("reported_time", sa.BigInteger(), nullable=True),
        sa.Column("ended_time", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["session_id"], ["session.session_id"], name=op.f("fk_launch_session_id")),
        sa.PrimaryKeyConstraint("launch_id", name=op.f("pk_launch")),
    )
    op.create_index(
        "ix_launch_live",
        "launch",
        ["node", "launch_id"],
        unique=False,
        sqlite_where=sa.text("ended_time IS NULL"),
        postgresql_where=sa.text("ended_time IS NULL"),
    )
    op.create_index(
        "ix_launch_failed",
        "launch",
        ["ended_time"],
        unique=False,
        sqlite_where=sa.text("state = 'FAILED'"),
        postgresql_where=sa.text("state = 'FAILED'"),
    )
    op.create_index("ix_launch_session", "launch", ["session_id", "created_time"], unique=False)

    op.create_table(
        "release",
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("updated_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["application"], ["application.application"], name=op.f("fk_release_application")),
        sa.PrimaryKeyConstraint("application", "release", name=op.f("pk_release")),
    )
    op.create_table(
        "version",
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("recipe", sa.LargeBinary(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["application"], ["application.application"], name=op.f("fk_version_application")),
        sa.PrimaryKeyConstraint("application", "version", name=op.f("pk_version")),
    )
    op.create_table(
        "lease",
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("launch_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("acquired_time", sa.BigInteger(), nullable=False),
        sa.Column("released_time", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["launch_id"], ["launch.launch_id"], name=op.f("fk_lease_launch_id")),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_lease")),
    )
    op.create_index("ix_lease_launch", "lease", ["launch_id"], unique=False)
    op.create_index(
        "uq_lease_live_slot",
        "lease",
        ["node", "device", "slot"],
        unique=True,
        sqlite_where=sa.text("released_time IS NULL"),
        postgresql_where=sa.text("released_time IS NULL"),
    )
    op.create_index(
        "ix_session_pending",
        "session",
        [sa.text("priority DESC"), "created_time", "session_id"],
        unique=False,
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
