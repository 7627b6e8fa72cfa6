"""Know replicas: who they are, who has a node's link, and who does the work that one does for all"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply the change; a version without replicas goes on working beside it."""
    op.create_table(
        "replica",
        sa.Column("replica", sa.String(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("peer_address", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("brake", sa.JSON(), nullable=False),
        sa.Column("started_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("replica", name=op.f("pk_replica")),
    )
    op.create_table(
        "work",
        sa.Column("work", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("work", name=op.f("pk_work")),
    )
    op.create_table(
        "warm",
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("application_version", sa.String(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", "application", "application_version", name=op.f("pk_warm")),
    )
    op.add_column("node", sa.Column("hub", sa.String(), nullable=True))
    op.add_column("node", sa.Column("hub_epoch", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_session_ended",
        "session",
        ["ended_time"],
        sqlite_where=sa.text("ended_time IS NOT NULL"),
        postgresql_where=sa.text("ended_time IS NOT NULL"),
    )
    # The oldest version that can work with the tables, by its newest migration; from this one on it is looked at.
    counter = sa.table("counter", sa.column("name"), sa.column("value"), sa.column("text"))
    op.execute(sa.insert(counter).values(name="schema_floor", value=1, text=""))
