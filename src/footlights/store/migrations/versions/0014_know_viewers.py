"""Know viewers

A front door of the release before records none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_REMOVED = sa.text("removed_time IS NOT NULL")


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "viewer",
        sa.Column("viewer_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("connected_time", sa.BigInteger(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.Column("connections", sa.JSON(), nullable=False),
        sa.Column("disconnected_time", sa.BigInteger(), nullable=True),
        sa.Column("removed_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("viewer_id", name=op.f("pk_viewer")),
    )
    op.create_index("ix_viewer_session", "viewer", ["session_id", "connected_time", "viewer_id"])
    op.create_index("ix_viewer_removed", "viewer", ["removed_time"], sqlite_where=_REMOVED, postgresql_where=_REMOVED)
