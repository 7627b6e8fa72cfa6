"""Send secrets once

A replica of the release before does not write the column: what it has sent is not known to have been sent.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("launch", sa.Column("secrets_epoch", sa.BigInteger(), nullable=True))
