"""Count what waits for a caller

One index. On Postgres it is built while others read and write, outside of a transaction; one that was left half built
by an interrupted attempt is dropped first.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_NAME, _COLUMNS = "ix_session_waiting_caller", ["created_by", "username"]
_WAITING: dict[str, Any] = dict.fromkeys(("sqlite_where", "postgresql_where"), sa.text("state = 'PENDING'"))


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            op.drop_index(_NAME, "session", postgresql_concurrently=True, if_exists=True)
            op.create_index(_NAME, "session", _COLUMNS, postgresql_concurrently=True, **_WAITING)
        return
    op.create_index(_NAME, "session", _COLUMNS, **_WAITING)
