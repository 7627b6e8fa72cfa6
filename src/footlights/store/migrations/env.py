"""Runs migrations on the connection it is given."""

from __future__ import annotations

from alembic import context

from footlights.store.schema import metadata

connection = context.config.attributes["connection"]
# On a connection that is in a transaction, everything is part of that one.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
