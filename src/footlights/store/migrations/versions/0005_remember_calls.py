"""Remember calls, and what was wanted of nodes and releases

Everything is added, so that a server of the version before works on these tables: what it writes lacks the new members,
which may therefore all be empty; who cordoned a node is forgotten with its cordon, also where that server ends it. The
labels of a session can change now, so their index follows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "remembered_call",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "method", "request_id", name=op.f("pk_remembered_call")),
    )
    op.create_index("ix_remembered_call_created", "remembered_call", ["created_time"])
    op.create_table(
        "release_change",
        sa.Column("application", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("application", "release", "number", name=op.f("pk_release_change")),
        # A server of the version before, which knows no history, removes it with the release.
        sa.ForeignKeyConstraint(
            ["application", "release"],
            ["release.application", "release.release"],
            name=op.f("fk_release_change_application_release"),
            ondelete="CASCADE",
        ),
    )
    op.add_column("node", sa.Column("cordon_message", sa.String(), nullable=True))
    op.add_column("node", sa.Column("cordon_subject", sa.String(), nullable=True))
    op.add_column("node", sa.Column("cordon_time", sa.BigInteger(), nullable=True))
    op.add_column("session", sa.Column("allowed_limits", sa.LargeBinary(), nullable=True))
    for statement in _POSTGRES if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.get_bind().exec_driver_sql(statement)


_SQLITE = (
    """
    CREATE TRIGGER session_labels_changed AFTER UPDATE OF labels ON session WHEN OLD.labels <> NEW.labels BEGIN
        DELETE FROM session_term WHERE (kind, key, text, created_time, session_id) IN (
            SELECT 'label', key, value, OLD.created_time, OLD.session_id
            FROM json_each(CASE WHEN json_valid(OLD.labels) THEN OLD.labels ELSE '{}' END)
        );
        INSERT INTO session_term (kind, key, text, created_time, session_id)
            SELECT 'label', key, value, NEW.created_time, NEW.session_id FROM json_each(NEW.labels);
    END
    """,
    """
    CREATE TRIGGER node_uncordoned AFTER UPDATE OF cordoned, draining ON node
    WHEN NOT (NEW.cordoned OR NEW.draining) AND (OLD.cordoned OR OLD.draining) BEGIN
        UPDATE node SET cordon_message = NULL, cordon_subject = NULL, cordon_time = NULL WHERE node = NEW.node;
    END
    """,
)

_POSTGRES = (
    """
    CREATE FUNCTION footlights_labels_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        DELETE FROM session_term
        WHERE session_term.kind = 'label' AND session_term.session_id = OLD.session_id
            AND session_term.created_time = OLD.created_time
            AND (session_term.key, session_term.text) IN (
                SELECT label.key, label.value FROM json_each_text(OLD.labels) AS label
            );
        INSERT INTO session_term (kind, key, text, created_time, session_id)
            SELECT 'label', label.key, label.value, NEW.created_time, NEW.session_id
            FROM json_each_text(NEW.labels) AS label;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER session_labels_changed AFTER UPDATE OF labels ON session FOR EACH ROW "
    "WHEN (OLD.labels::text IS DISTINCT FROM NEW.labels::text) EXECUTE FUNCTION footlights_labels_changed()",
    """
    CREATE FUNCTION footlights_node_uncordoned() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.cordon_message := NULL;
        NEW.cordon_subject := NULL;
        NEW.cordon_time := NULL;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER node_uncordoned BEFORE UPDATE OF cordoned, draining ON node FOR EACH ROW "
    "WHEN (NOT (NEW.cordoned OR NEW.draining) AND (OLD.cordoned OR OLD.draining)) "
    "EXECUTE FUNCTION footlights_node_uncordoned()",
)
