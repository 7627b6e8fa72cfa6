"""Know how stages are opened

A replica of the release before does not write the column: nothing is said of the stages of such sessions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("session", sa.Column("stage_delivery", sa.String(), nullable=True))
