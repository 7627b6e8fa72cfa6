"""Keep the secrets of launches

A server of the release before begins launches without one: nothing is asked of who reaches their ports, as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("launch", sa.Column("secret", sa.LargeBinary(), nullable=True))
