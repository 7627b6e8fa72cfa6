"""Keep when sessions change

A server of the release before, which knows nothing of the column, leaves it as it is: readers take the latest time that
a session has.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("session", sa.Column("updated_time", sa.BigInteger(), nullable=True))
