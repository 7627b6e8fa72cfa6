"""Sessions, the index of their labels, and idempotency keys."""

from datetime import datetime
from typing import Annotated, NamedTuple

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from footlights.store.schema.columns import (
    BigInt,
    Instant,
    Json,
    JsonList,
    Key,
    Labels,
    Moment,
    OptionalMoment,
    partial_index,
    table,
)

_ORDER = ("created_time", "session_id")


class SessionRow(NamedTuple):
    """One user's wish to have a version running, and its life."""

    session_id: Key
    application: str
    application_version: str
    username: str
    created_by: str
    """The subject of the token that created it."""
    profile: str
    priority: int
    request_id: str
    arguments: Json
    """Converted, with secrets replaced."""
    usd_stage_uri: str
    """Resolved and allowed; what the application is given."""
    secrets: bytes
    """Sealed with the cluster's key."""
    labels: Labels
    needs: bytes
    """The serialized ``footlights.v1.Needs`` that applies."""
    limits: bytes
    """The serialized ``footlights.v1.Limits`` that applies."""
    max_total_s: float | None
    """How far it may be extended, in seconds from ready."""
    launcher: str
    created_time: Moment

    intent: str
    wish: str
    """Why its end was asked for; the first reason stays."""
    wish_message: str

    launch_id: str | None
    """Its current launch. Written when it is placed, and when the end of a launch is recorded."""
    launch_count: int
    failures: int
    queue: Json
    """``position``, ``eta_s``, ``reasons``. Written by the scheduling loop."""

    state: str
    """Derived from intent and launch; written with them in one transaction."""
    condition: str
    end_reason: str
    status_message: str
    timeline: JsonList
    """``[stage, microseconds since the epoch]`` in order of arrival."""
    ready_time: OptionalMoment
    ended_time: OptionalMoment
    revision: BigInt


class SessionTable(SQLModel, table=True):
    """Declares the table of ``SessionRow``."""

    __annotations__ = SessionRow.__annotations__
    __tablename__ = "session"
    __table_args__ = (
        Index("ix_session_created", *_ORDER),
        Index("ix_session_username", "username", *_ORDER),
        Index("ix_session_application", "application", *_ORDER),
        Index("ix_session_state", "state", *_ORDER),
        Index("ix_session_application_state", "application", "state", *_ORDER),
        Index("ix_session_revision", "revision", unique=True),
        partial_index("ix_session_live_username", "ended_time IS NULL", "username", *_ORDER),
        partial_index("ix_session_live", "ended_time IS NULL", *_ORDER),
        partial_index("ix_session_ended", "ended_time IS NOT NULL", "ended_time"),
        partial_index("ix_session_pending", "state = 'PENDING'", text("priority DESC"), *_ORDER),
    )


class SessionLabelTable(SQLModel, table=True):
    """Which sessions have a label, in the order of their creation. Writer: triggers on ``session``."""

    __tablename__ = "session_term"
    __table_args__ = {"sqlite_with_rowid": False}  # SQLAlchemy reads it

    kind: Key
    """Always ``label``: earlier versions had other kinds."""
    key: Key
    text: Key
    """The label's value."""
    created_time: Annotated[datetime, Field(primary_key=True, sa_type=Instant)]
    session_id: Key


class RequestKeyRow(NamedTuple):
    """An idempotency key and what it created. Kept for 24 hours."""

    subject: Key
    request_id: Key
    body_digest: bytes
    session_id: str
    created_time: Moment


class RequestKeyTable(SQLModel, table=True):
    """Declares the table of ``RequestKeyRow``."""

    __annotations__ = RequestKeyRow.__annotations__
    __tablename__ = "request_key"
    __table_args__ = (Index("ix_request_key_created", "created_time"),)


SESSION = table(SessionTable, SessionRow)
SESSION_LABEL = table(SessionLabelTable)
REQUEST_KEY = table(RequestKeyTable, RequestKeyRow)
