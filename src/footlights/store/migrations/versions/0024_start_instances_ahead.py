"""Start instances ahead

A warm instance is a session of nobody's until one that is created takes it. A replica of the release before does not
know that and shows it as a session without a user: pools are for when every replica has this release. On Postgres the
indexes are built while others read and write, outside of a transaction; what an interrupted attempt left is there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_INDEXES = {
    "ix_session_pool": (["pool", "ended_time"], "pool IS NOT NULL"),
    "ix_session_shape": (["shape"], "shape IS NOT NULL AND ended_time IS NULL"),
}
_COLUMNS = (
    ("session", "pool", sa.String()),
    ("session", "from_pool", sa.String()),
    ("session", "shape", sa.String()),
    ("launch", "ahead", sa.Boolean()),
    ("launch", "handed_over_time", sa.BigInteger()),
    ("launch", "taken_up", sa.Boolean()),
)


def upgrade() -> None:
    """Apply the change."""
    postgres = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "pool",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("definition", sa.LargeBinary(), nullable=False),
        sa.Column("updated_time", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_pool")),
        if_not_exists=postgres,
    )
    for table, name, kind in _COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True), if_not_exists=postgres)
    if not postgres:
        for name, (columns, where) in _INDEXES.items():
            op.create_index(name, "session", columns, sqlite_where=sa.text(where))
        return
    with op.get_context().autocommit_block():
        # The build waits for transactions that began before it, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        for name, (columns, where) in _INDEXES.items():
            op.drop_index(name, "session", postgresql_concurrently=True, if_exists=True)
            op.create_index(name, "session", columns, postgresql_concurrently=True, postgresql_where=sa.text(where))
