"""Runs migrations on the connection it is given."""

from __future__ import annotations

from alembic import context

from footlights.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False)
context.run_migrations()
