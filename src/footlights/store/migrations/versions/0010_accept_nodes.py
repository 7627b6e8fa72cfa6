"""Accept nodes

A replica of the release before writes neither column: its new nodes count as accepted, as all do that are there at the
upgrade. Their hardware is what their next link shows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("node", sa.Column("acceptance", sa.String(), nullable=True))
    op.add_column("node", sa.Column("accepted_hardware", sa.String(), nullable=True))
