"""Know how nodes prove who they are

A table that only this version and later ones read and write.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "node_identity",
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("enrollment", sa.String(), nullable=True),
        sa.Column("enrolled_time", sa.BigInteger(), nullable=True),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("revoked_time", sa.BigInteger(), nullable=True),
        sa.Column("invitation_id", sa.String(), nullable=True),
        sa.Column("invitation_key", sa.LargeBinary(), nullable=True),
        sa.Column("invitation_expire_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_node_identity")),
    )
    op.create_index("ix_node_identity_invitation", "node_identity", ["invitation_id"])
