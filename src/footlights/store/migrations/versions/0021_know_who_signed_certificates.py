"""Know who signed certificates

A certificate of before is of the first authority, as is one that a replica of the release before signs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("node_identity", sa.Column("authority", sa.String(), nullable=True))
