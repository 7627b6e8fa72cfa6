"""Remember which sessions were removed

A table that only this version and later ones write. The indexes for filters are built by 0008.
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
