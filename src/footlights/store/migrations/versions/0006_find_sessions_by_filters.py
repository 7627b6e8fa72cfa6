"""Find sessions by what filters name

All of it is new indexes, and a table that only this version and later ones write.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "removal",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("removed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_removal")),
    )
    op.create_index("ix_removal_time", "removal", ["removed_time"])
    ended = sa.text("ended_time IS NOT NULL")
    op.drop_index("ix_session_ended", "session")
    op.create_index(
        "ix_session_ended", "session", ["ended_time", "session_id"], sqlite_where=ended, postgresql_where=ended
    )
    op.create_index(
        "ix_session_end_reason",
        "session",
        ["end_reason", "created_time", "session_id"],
        sqlite_where=ended,
        postgresql_where=ended,
    )
    op.create_index("ix_session_priority", "session", ["priority", "session_id"])
    op.create_index("ix_launch_node", "launch", ["node", "session_id"])
    op.create_index("ix_launch_device", "launch", ["device", "session_id"])
    op.create_index("ix_token_created", "token", ["created_time", "token_id"])
