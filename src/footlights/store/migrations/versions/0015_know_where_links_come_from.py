"""Know where links come from

A replica of the release before does not write the column: such a node is dialled as before until its next link.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("node", sa.Column("link_address", sa.String(), nullable=True))
