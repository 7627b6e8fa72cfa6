"""Find sessions by label and text

Triggers keep what is new here, so that an older server beside this one, which knows nothing of it, keeps it right too.
"""

# ruff: noqa: S608  # every statement here is made of constants
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply the change."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "term",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_term")),
    )
    op.create_index("uq_term", "term", ["kind", "key", "text"], unique=True)
    op.create_table(
        "session_term",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", "text", "created_time", "session_id", name=op.f("pk_session_term")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_session_application_state",
        "session",
        ["application", "state", "created_time", "session_id"],
        unique=False,
    )
    op.create_index(
        "ix_session_live_username",
        "session",
        ["username", "created_time", "session_id"],
        unique=False,
        sqlite_where=sa.text("ended_time IS NULL"),
        postgresql_where=sa.text("ended_time IS NULL"),
    )
    for statement in _POSTGRES if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        # No placeholders: the text is the drivers' own.
        op.get_bind().exec_driver_sql(statement)


# A session's terms: its labels, and its message as far as it is shown in lists.
_SQLITE_TERMS = """
    SELECT 'label' AS kind, key, value AS text FROM json_each({row}.labels)
    UNION ALL SELECT 'message', '', substr({row}.status_message, 1, 500) WHERE {row}.status_message <> ''
"""
_SQLITE_ADD = """
    INSERT INTO term (kind, key, text)
        SELECT kind, key, text FROM (
            SELECT 'application' AS kind, '' AS key, NEW.application AS text
            UNION ALL SELECT 'username', '', NEW.username
            UNION ALL {terms}
        ) AS found
        WHERE NOT EXISTS (
            SELECT 1 FROM term WHERE term.kind = found.kind AND term.key = found.key AND term.text = found.text
        );
    INSERT INTO session_term (kind, key, text, created_time, session_id)
        SELECT kind, key, text, NEW.created_time, NEW.session_id FROM ({terms});
""".format(terms=_SQLITE_TERMS.format(row="NEW"))
_SQLITE_REMOVE = f"""
    DELETE FROM session_term WHERE (kind, key, text, created_time, session_id) IN (
        SELECT kind, key, text, OLD.created_time, OLD.session_id FROM ({_SQLITE_TERMS.format(row="OLD")})
    );
"""
_SQLITE = (
    # One token is one trigram: a substring of three characters or more is found by those that it holds.
    "CREATE VIRTUAL TABLE term_fts USING fts5 "
    "(text, content = 'term', content_rowid = 'number', tokenize = 'trigram', detail = 'none')",
    "CREATE TRIGGER term_added AFTER INSERT ON term BEGIN "
    "INSERT INTO term_fts (rowid, text) VALUES (NEW.number, NEW.text); END",
    "CREATE TRIGGER term_removed AFTER DELETE ON term BEGIN "
    "INSERT INTO term_fts (term_fts, rowid, text) VALUES ('delete', OLD.number, OLD.text); END",
    f"CREATE TRIGGER session_terms_added AFTER INSERT ON session BEGIN {_SQLITE_ADD} END",
    "CREATE TRIGGER session_terms_changed AFTER UPDATE OF labels, status_message ON session "
    "WHEN OLD.status_message <> NEW.status_message OR OLD.labels <> NEW.labels "
    f"BEGIN {_SQLITE_REMOVE} {_SQLITE_ADD} END",
    f"CREATE TRIGGER session_terms_removed AFTER DELETE ON session BEGIN {_SQLITE_REMOVE} END",
    """
    INSERT INTO session_term (kind, key, text, created_time, session_id)
        SELECT 'label', label.key, label.value, created_time, session_id
        FROM session, json_each(session.labels) AS label
        UNION ALL
        SELECT 'message', '', substr(status_message, 1, 500), created_time, session_id
        FROM session WHERE status_message <> ''
    """,
    """
    INSERT INTO term (kind, key, text)
        SELECT 'application', '', application FROM session
        UNION SELECT 'username', '', username FROM session
        UNION SELECT kind, key, text FROM session_term
    """,
)

_POSTGRES_TERMS = """
    SELECT 'label' AS kind, label.key, label.value AS text, created_time, session_id
    FROM {rows} AS row, json_each_text(row.labels) AS label
    UNION ALL
    SELECT 'message', '', left(status_message, 500), created_time, session_id
    FROM {rows} AS row WHERE status_message <> ''
"""
_POSTGRES_ADD = """
    INSERT INTO term (kind, key, text)
        SELECT kind, key, text FROM (
            SELECT 'application' AS kind, '' AS key, application AS text FROM {rows} AS row
            UNION SELECT 'username', '', username FROM {rows} AS row
            UNION SELECT kind, key, text FROM ({terms}) AS each
        ) AS found
        WHERE NOT EXISTS (
            SELECT 1 FROM term WHERE term.kind = found.kind AND term.key = found.key AND term.text = found.text
        )
        ORDER BY kind, key, text
        ON CONFLICT DO NOTHING;
    INSERT INTO session_term (kind, key, text, created_time, session_id)
        SELECT kind, key, text, created_time, session_id FROM ({terms}) AS each;
"""
_POSTGRES_REMOVE = f"""
    DELETE FROM session_term USING ({_POSTGRES_TERMS.format(rows="(SELECT OLD.*)")}) AS gone
    WHERE (session_term.kind, session_term.key, session_term.text)
        = (gone.kind, gone.key, gone.text)
        AND (session_term.created_time, session_term.session_id) = (gone.created_time, gone.session_id);
"""


def _added(rows: str) -> str:
    return _POSTGRES_ADD.format(rows=rows, terms=_POSTGRES_TERMS.format(rows=rows))


def _function(name: str, body: str) -> str:
    return f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"


_POSTGRES = (
    # What the extension pg_trgm would do, for which a user needs rights that not everybody has: few rows need it,
    # since each text is kept once, however many sessions have it.
    "CREATE FUNCTION footlights_trigrams(whole text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ "
    "SELECT coalesce(array_agg(DISTINCT substr(whole, place, 3)), '{}') "
    "FROM generate_series(1, length(whole) - 2) AS place $$",
    "CREATE INDEX ix_term_trigrams ON term USING gin (footlights_trigrams(lower(text)))",
    _function("footlights_terms_added", _added("fresh")),
    _function("footlights_terms_changed", _POSTGRES_REMOVE + _added("(SELECT NEW.*)")),
    _function("footlights_terms_removed", _POSTGRES_REMOVE),
    "CREATE TRIGGER session_terms_added AFTER INSERT ON session REFERENCING NEW TABLE AS fresh "
    "FOR EACH STATEMENT EXECUTE FUNCTION footlights_terms_added()",
    "CREATE TRIGGER session_terms_changed AFTER UPDATE OF labels, status_message ON session FOR EACH ROW "
    "WHEN (OLD.status_message <> NEW.status_message OR OLD.labels::text <> NEW.labels::text) "
    "EXECUTE FUNCTION footlights_terms_changed()",
    "CREATE TRIGGER session_terms_removed AFTER DELETE ON session FOR EACH ROW "
    "EXECUTE FUNCTION footlights_terms_removed()",
    _added("session"),
)
