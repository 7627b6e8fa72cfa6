"""Keep what profiles give

A replica of the release before does not read the columns: a session that it sends to a node lacks what its profile
adds, and a profile that it sets keeps its secrets, though not their names.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("profile", sa.Column("secrets", sa.LargeBinary(), nullable=True))
    op.add_column("session", sa.Column("environment", sa.LargeBinary(), nullable=True))
