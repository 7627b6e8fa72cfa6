"""Sessions, the index of their labels, what remains of removed ones, and idempotency keys."""

from datetime import datetime
from typing import Annotated, NamedTuple

from sqlalchemy import BigInteger, Index, text
from sqlmodel import Field

from footlights.store.schema.columns import (
    BigInt,
    Instant,
    Json,
    JsonList,
    Key,
    Labels,
    Moment,
    OptionalMoment,
    Strings,
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
    created_time: Moment
    revision: BigInt

    profile: str = ""
    priority: int = 0
    request_id: str = ""
    arguments: Json = {}  # noqa: RUF012
    """Converted, with secrets replaced."""
    usd_stage_uri: str = ""
    """Resolved and allowed; what the application is given."""
    secrets: bytes = b""
    """Sealed with the cluster's key."""
    labels: Labels = {}  # noqa: RUF012
    needs: bytes = b""
    """The serialized ``footlights.v1.Needs`` that applies."""
    limits: bytes = b""
    """The serialized ``footlights.v1.Limits`` that applies."""
    max_total_s: float | None = None
    """How far it may be extended, in seconds from ready."""
    allowed_limits: bytes | None = None
    """The serialized ``footlights.v1.Limits`` of its version and profile; None where an older server created it."""
    launcher: str = "process"

    intent: str = "RUN"
    wish: str = ""
    """Why its end was asked for; the first reason stays."""
    wish_message: str = ""

    launch_id: str | None = None
    """Its current launch. Written when it is placed, and when the end of a launch is recorded."""
    launch_count: int = 0
    failures: int = 0
    queue: Json = {}  # noqa: RUF012
    """``position``, ``eta_s``, ``reasons``, ``wait_reasons``. Position 0: it is set aside. Written by scheduling."""

    state: str = "PENDING"
    """Derived from intent and launch; written with them in one transaction."""
    condition: str = "OK"
    end_reason: str = ""
    status_message: str = ""
    timeline: JsonList = []  # noqa: RUF012
    """``[stage, microseconds since the epoch]`` in order of arrival."""
    ready_time: OptionalMoment = None
    ended_time: OptionalMoment = None
    given: str | None = None
    """Stands for its arguments and stage, secret ones left out; None where a release without it created it."""
    environment: bytes | None = None
    """What its profile adds to its version's environment, as a serialized ``Version``; None: nothing."""
    stage_delivery: str | None = None
    """How its version is given the stage, where the application does not open it by itself; None: it does."""
    updated_time: OptionalMoment = None
    """When its revision last grew; None where it has not since it was created, or a release without it wrote it."""
    pool: str | None = None
    """The pool whose warm instance it is: nobody's session, until one that is created takes it. None: it is not."""
    from_pool: str | None = None
    """The pool whose warm instance it was before; None where its application was not started ahead."""
    shape: str | None = None
    """Of a warm instance: stands for what it was started with, as far as a session must be like that."""


class SessionLabelRow(NamedTuple):
    """Which sessions have a label, in the order of their creation. Writer: triggers on ``session``."""

    kind: Key
    """Always ``label``: earlier versions had other kinds."""
    key: Key
    text: Key
    """The label's value."""
    created_time: Annotated[datetime, Field(primary_key=True, sa_type=Instant)]
    session_id: Key


class RemovalRow(NamedTuple):
    """A session that was removed after its retention. Kept for a day, so that a watch can say what is gone."""

    revision: Annotated[int, Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})]
    session_id: str
    username: str
    application: str
    removed_time: Moment


class ViewerRow(NamedTuple):
    """One grant that was used, and what is connected with it. Written by the front door, and by who disconnects it.

    It names its session without a foreign key: servers of the release before remove sessions without it.
    """

    viewer_id: Key
    session_id: str
    subject: str
    """Who asked for the grant."""
    connected_time: Moment
    """When it came first."""
    changed_time: Moment
    """When it last came or left."""
    connections: Strings = []  # noqa: RUF012
    """What is open: the paths of WHEP resources on the application, and names of WebSockets."""
    disconnected_time: OptionalMoment = None
    """When the last of them ended."""
    removed_time: OptionalMoment = None
    """Since when its grant is refused."""


class RequestKeyRow(NamedTuple):
    """An idempotency key and what it created. Kept for 24 hours."""

    subject: Key
    request_id: Key
    body_digest: bytes
    session_id: str
    created_time: Moment


SESSION = table(
    "session",
    SessionRow,
    Index("ix_session_created", *_ORDER),
    Index("ix_session_username", "username", *_ORDER),
    Index("ix_session_application", "application", *_ORDER),
    Index("ix_session_state", "state", *_ORDER),
    Index("ix_session_application_state", "application", "state", *_ORDER),
    Index("ix_session_revision", "revision", unique=True),
    partial_index("ix_session_live_username", "ended_time IS NULL", "username", *_ORDER),
    partial_index("ix_session_live", "ended_time IS NULL", *_ORDER),
    Index("ix_session_priority", "priority", "session_id"),
    partial_index("ix_session_ended_id", "ended_time IS NOT NULL", "ended_time", "session_id"),
    partial_index("ix_session_end_reason", "ended_time IS NOT NULL", "end_reason", *_ORDER),
    partial_index("ix_session_pending", "state = 'PENDING'", text("priority DESC"), *_ORDER),
    partial_index("ix_session_waiting_caller", "state = 'PENDING'", "created_by", "username"),
    partial_index("ix_session_pool", "pool IS NOT NULL", "pool", "ended_time"),
    partial_index("ix_session_shape", "shape IS NOT NULL AND ended_time IS NULL", "shape"),
)
REMOVAL = table("removal", RemovalRow, Index("ix_removal_time", "removed_time"))
SESSION_LABEL = table("session_term", SessionLabelRow, sqlite_with_rowid=False)
VIEWER = table(
    "viewer",
    ViewerRow,
    Index("ix_viewer_session", "session_id", "connected_time", "viewer_id"),
    partial_index("ix_viewer_removed", "removed_time IS NOT NULL", "removed_time"),
)
REQUEST_KEY = table("request_key", RequestKeyRow, Index("ix_request_key_created", "created_time"))
