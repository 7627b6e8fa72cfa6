"""Know what sessions were given

A replica of the release before does not write the column: such sessions count as given the same. On Postgres the index
is built while others read and write, outside of a transaction, so this may be interrupted and begun again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

_INDEX = "ix_launch_rejected"
_WHERE = sa.text("state = 'REJECTED'")
_INVALID = sa.text("SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid)")


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name != "postgresql":
        op.add_column("session", sa.Column("given", sa.String(), nullable=True))
        op.create_index(_INDEX, "launch", ["ended_time"], sqlite_where=_WHERE)
        return
    op.execute("ALTER TABLE session ADD COLUMN IF NOT EXISTS given VARCHAR")
    with op.get_context().autocommit_block():
        # The build waits for transactions that began before it, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        if op.get_bind().execute(_INVALID, {"name": _INDEX}).scalar_one():
            # Its build was interrupted.
            op.drop_index(_INDEX, "launch", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            _INDEX,
            "launch",
            ["ended_time"],
            postgresql_concurrently=True,
            if_not_exists=True,
            postgresql_where=_WHERE,
        )
