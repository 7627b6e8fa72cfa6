"""Create the tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TYPES = {
    "text": sa.String,
    "json": sa.JSON,
    "big": sa.BigInteger,
    "flag": sa.Boolean,
    "bytes": sa.LargeBinary,
    "number": sa.Integer,
    "real": sa.Float,
}


def _table(name: str, columns: str, *, keys: int = 1, **references: str) -> None:
    """Create a table from ``NAME:TYPE`` words, of which the first ``keys`` are its primary key; ``?`` allows NULL."""
    named = [word.split(":") for word in columns.split()]
    op.create_table(
        name,
        *(sa.Column(column, _TYPES[kind.rstrip("?")](), nullable=kind.endswith("?")) for column, kind in named),
        *(sa.ForeignKeyConstraint([key], [to], name=op.f(f"fk_{name}_{key}")) for key, to in references.items()),
        sa.PrimaryKeyConstraint(*(column for column, _ in named[:keys]), name=op.f(f"pk_{name}")),
    )


def _index(name: str, table: str, *columns: str, where: str = "", unique: bool = False) -> None:
    condition = sa.text(where) if where else None
    found = [sa.text(column) if " " in column else column for column in columns]
    op.create_index(name, table, found, unique=unique, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(sa.schema.CreateSequence(sa.Sequence("revision_seq")))
    _table("application", "application:text display_name:text description:text tags:json created_time:big")
    _table("counter", "name:text value:big text:text")
    _table(
        "node",
        "node:text incarnation:text epoch:big connected:flag reachable:flag cordoned:flag draining:flag "
        "drain_time:big? facts:bytes created_time:big connected_time:big? last_seen_time:big? notices:json",
    )
    _table("profile", "profile:text definition:bytes updated_time:big")
    _table("request_key", "subject:text request_id:text body_digest:bytes session_id:text created_time:big", keys=2)
    _index("ix_request_key_created", "request_key", "created_time")
    _table(
        "session",
        "session_id:text application:text application_version:text username:text created_by:text profile:text "
        "priority:number request_id:text arguments:json usd_stage_uri:text secrets:bytes labels:json needs:bytes "
        "limits:bytes max_total_s:real? launcher:text created_time:big intent:text wish:text wish_message:text "
        "launch_id:text? launch_count:number failures:number queue:json state:text condition:text end_reason:text "
        "status_message:text timeline:json ready_time:big? ended_time:big? revision:big",
    )
    _index("ix_session_application", "session", "application", "created_time", "session_id")
    _index("ix_session_created", "session", "created_time", "session_id")
    _index("ix_session_live", "session", "created_time", "session_id", where="ended_time IS NULL")
    _index("ix_session_revision", "session", "revision", unique=True)
    _index("ix_session_state", "session", "state", "created_time", "session_id")
    _index("ix_session_username", "session", "username", "created_time", "session_id")
    _table(
        "token",
        "token_id:text digest:bytes role:text subject:text description:text created_time:big expire_time:big? "
        "revoked_time:big?",
    )
    _table("device", "node:text uuid:text slots:number reading:bytes sick:flag", keys=2, node="node.node")
    _table("device_event", "node:text uuid:text number:big time:big reason:text message:text", keys=3)
    _index("ix_device_event_time", "device_event", "time")
    _table(
        "launch",
        "launch_id:text session_id:text node:text device:text slots:json epoch:big desired:text created_time:big "
        "state:text reason:text message:text exit_code:number? signal_port:number media_port:number http_port:number "
        "viewers:number? ever_connected:flag start_s:real? log_tail:json ending_time:big? overdue:flag "
        "reported_time:big? ended_time:big?",
        session_id="session.session_id",
    )
    _index("ix_launch_live", "launch", "node", "launch_id", where="ended_time IS NULL")
    _index("ix_launch_failed", "launch", "ended_time", where="state = 'FAILED'")
    _index("ix_launch_session", "launch", "session_id", "created_time")
    _table(
        "release",
        "application:text release:text version:text updated_time:big",
        keys=2,
        application="application.application",
    )
    _table(
        "version",
        "application:text version:text recipe:bytes created_time:big",
        keys=2,
        application="application.application",
    )
    _table(
        "lease",
        "lease_id:text launch_id:text session_id:text node:text device:text slot:number acquired_time:big "
        "released_time:big?",
        launch_id="launch.launch_id",
    )
    _index("ix_lease_launch", "lease", "launch_id")
    _index("uq_lease_live_slot", "lease", "node", "device", "slot", where="released_time IS NULL", unique=True)
    _index("ix_session_pending", "session", "priority DESC", "created_time", "session_id", where="state = 'PENDING'")
