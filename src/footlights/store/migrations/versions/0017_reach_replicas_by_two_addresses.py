"""Reach replicas by two addresses

A replica of the release before does not write the new one: it has no listener for replicas alone. It reads the former
one as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("replica", sa.Column("mutual_address", sa.String(), nullable=True))
