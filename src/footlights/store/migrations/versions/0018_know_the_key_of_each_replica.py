"""Know the key of each replica

A replica of the release before does not write the column, and has one key for as long as it runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("replica", sa.Column("cluster_key", sa.String(), nullable=True))
