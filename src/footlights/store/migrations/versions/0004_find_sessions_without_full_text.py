"""Find sessions without full text

Texts are no longer kept in a table of their own: applications and users are found by the indexes on ``session``, and
labels by ``session_term``, which triggers fill from labels alone. So a change of a session's message writes nothing
else. The triggers stay, so that an older server beside this one, which knows nothing of labels, keeps them right.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Apply the change."""
    for statement in _POSTGRES if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.get_bind().exec_driver_sql(statement)
    op.drop_table("term")
    op.execute("DELETE FROM session_term WHERE kind <> 'label'")
    # Versions that know migration 0002 or 0003 look for texts where there are none now.
    counter = sa.table("counter", sa.column("name"), sa.column("value"))
    op.execute(sa.update(counter).where(counter.c.name == "schema_floor").values(value=4))


_SQLITE = (
    "DROP TRIGGER session_terms_added",
    "DROP TRIGGER session_terms_changed",
    "DROP TRIGGER session_terms_removed",
    "DROP TRIGGER term_added",
    "DROP TRIGGER term_removed",
    "DROP TABLE term_fts",
    """
    CREATE TRIGGER session_labels_added AFTER INSERT ON session WHEN NEW.labels <> '{}' BEGIN
        INSERT INTO session_term (kind, key, text, created_time, session_id)
            SELECT 'label', key, value, NEW.created_time, NEW.session_id FROM json_each(NEW.labels);
    END
    """,
    # A session whose labels are damaged must be removable too.
    """
    CREATE TRIGGER session_labels_removed AFTER DELETE ON session
    WHEN OLD.labels <> '{}' AND json_valid(OLD.labels) BEGIN
        DELETE FROM session_term WHERE (kind, key, text, created_time, session_id) IN (
            SELECT 'label', key, value, OLD.created_time, OLD.session_id FROM json_each(OLD.labels)
        );
    END
    """,
)

_POSTGRES = (
    "DROP TRIGGER session_terms_added ON session",
    "DROP TRIGGER session_terms_changed ON session",
    "DROP TRIGGER session_terms_removed ON session",
    "DROP FUNCTION footlights_terms_added()",
    "DROP FUNCTION footlights_terms_changed()",
    "DROP FUNCTION footlights_terms_removed()",
    "DROP INDEX ix_term_trigrams",
    "DROP FUNCTION footlights_trigrams(text)",
    """
    CREATE FUNCTION footlights_labels_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO session_term (kind, key, text, created_time, session_id)
            SELECT 'label', label.key, label.value, fresh.created_time, fresh.session_id
            FROM fresh, json_each_text(fresh.labels) AS label;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION footlights_labels_removed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        DELETE FROM session_term USING json_each_text(OLD.labels) AS label
        WHERE session_term.kind = 'label'
            AND (session_term.key, session_term.text) = (label.key, label.value)
            AND (session_term.created_time, session_term.session_id) = (OLD.created_time, OLD.session_id);
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER session_labels_added AFTER INSERT ON session REFERENCING NEW TABLE AS fresh "
    "FOR EACH STATEMENT EXECUTE FUNCTION footlights_labels_added()",
    "CREATE TRIGGER session_labels_removed AFTER DELETE ON session FOR EACH ROW "
    "WHEN (json_typeof(OLD.labels) = 'object' AND OLD.labels::text <> '{}') "
    "EXECUTE FUNCTION footlights_labels_removed()",
)
