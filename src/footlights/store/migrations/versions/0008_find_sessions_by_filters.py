"""Find sessions by what filters name

All of it is new indexes. On Postgres they are built while others read and write, each outside of a transaction, so this
may be interrupted at any place and begun again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ENDED: dict[str, Any] = dict.fromkeys(("sqlite_where", "postgresql_where"), sa.text("ended_time IS NOT NULL"))
_INDEXES: tuple[tuple[str, str, list[str], dict[str, Any]], ...] = (
    ("ix_session_ended_id", "session", ["ended_time", "session_id"], _ENDED),
    ("ix_session_end_reason", "session", ["end_reason", "created_time", "session_id"], _ENDED),
    ("ix_session_priority", "session", ["priority", "session_id"], {}),
    ("ix_launch_node", "launch", ["node", "session_id"], {}),
    ("ix_launch_device", "launch", ["device", "session_id"], {}),
    ("ix_token_created", "token", ["created_time", "token_id"], {}),
)
_REPLACED = "ix_session_ended"
"""By ``ix_session_ended_id``, whose order is total."""

_INVALID = sa.text("SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid)")


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            _build_beside_others()
        return
    for name, table, columns, options in _INDEXES:
        op.create_index(name, table, columns, **options)
    op.drop_index(_REPLACED, "session")


def _build_beside_others() -> None:
    # The build waits for transactions that began before it, and nobody waits for it.
    op.execute("SET lock_timeout = 0")
    for name, table, columns, options in _INDEXES:
        if op.get_bind().execute(_INVALID, {"name": name}).scalar_one():
            # Its build was interrupted.
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)
    op.drop_index(_REPLACED, "session", postgresql_concurrently=True, if_exists=True)
