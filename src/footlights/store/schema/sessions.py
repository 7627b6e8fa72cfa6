"""Sessions, the index of their labels, and idempotency keys."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Column, Index, text
from sqlmodel import Field, SQLModel

from footlights.store.schema.columns import (
    KEY,
    BigInt,
    Instant,
    Json,
    JsonList,
    Labels,
    Moment,
    OptionalMoment,
    partial_index,
    table,
)

_ORDER = ("created_time", "session_id")


class SessionTable(SQLModel, table=True):
    """Declares the table of ``SessionRow``."""

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

    session_id: str = KEY
    application: str
    application_version: str
    username: str
    created_by: str
    profile: str
    priority: int
    request_id: str
    arguments: Json
    usd_stage_uri: str
    secrets: bytes
    labels: Labels
    needs: bytes
    limits: bytes
    max_total_s: float | None
    launcher: str
    created_time: Moment
    intent: str
    wish: str
    wish_message: str
    launch_id: str | None
    launch_count: int
    failures: int
    queue: Json
    state: str
    condition: str
    end_reason: str
    status_message: str
    timeline: JsonList
    ready_time: OptionalMoment
    ended_time: OptionalMoment
    revision: BigInt


class SessionRow(NamedTuple):
    """One user's wish to have a version running, and its life."""

    session_id: str
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


class SessionLabelTable(SQLModel, table=True):
    """Which sessions have a label, in the order of their creation. Writer: triggers on ``session``."""

    __tablename__ = "session_term"
    __table_args__ = {"sqlite_with_rowid": False}  # SQLAlchemy reads it

    kind: str = KEY
    """Always ``label``: earlier versions had other kinds."""
    key: str = KEY
    text: str = KEY
    """The label's value."""
    created_time: Any = Field(sa_column=Column(Instant, primary_key=True))
    session_id: str = KEY


class RequestKeyTable(SQLModel, table=True):
    """Declares the table of ``RequestKeyRow``."""

    __tablename__ = "request_key"
    __table_args__ = (Index("ix_request_key_created", "created_time"),)

    subject: str = KEY
    request_id: str = KEY
    body_digest: bytes
    session_id: str
    created_time: Moment


class RequestKeyRow(NamedTuple):
    """An idempotency key and what it created. Kept for 24 hours."""

    subject: str
    request_id: str
    body_digest: bytes
    session_id: str
    created_time: Moment


SESSION = table(SessionTable, SessionRow)
SESSION_LABEL = table(SessionLabelTable)
REQUEST_KEY = table(RequestKeyTable, RequestKeyRow)
