"""The tables. Each column has one writer, named in its comment where it is not the servicer of its resource."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import BigInteger, Column, Dialect, Index, Integer, LargeBinary, MetaData, Sequence, Table, text
from sqlalchemy.types import JSON, TypeDecorator
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

metadata: MetaData = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

revisions = Sequence("revision_seq", metadata=metadata)
"""Where revisions come from on Postgres; SQLite counts in ``counter``."""


def microseconds(time: datetime) -> int:
    """Return a moment as microseconds since the epoch. Raises ValueError where it has no zone: it means nothing."""
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return (time - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """Return microseconds since the epoch as a moment in UTC."""
    return _EPOCH + value * _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """A moment as microseconds since the epoch, in UTC: exact, and in the same order on every engine."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return what is stored."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        return None if value is None else moment(value)


def _instant(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(Instant, nullable=nullable))


def _json(default: Any) -> Any:
    return Field(default_factory=default, sa_column=Column(JSON, nullable=False))


def _bytes() -> Any:
    return Field(default=b"", sa_column=Column(LargeBinary, nullable=False))


def _bigint(default: int = 0) -> Any:
    return Field(default=default, sa_column=Column(BigInteger, nullable=False))


class Counter(SQLModel, table=True):
    """Numbers that only grow, on SQLite; and the cluster's id."""

    __tablename__ = "counter"

    name: str = Field(primary_key=True)
    value: int = _bigint()
    text: str = ""


class Application(SQLModel, table=True):
    """Something that can be streamed."""

    __tablename__ = "application"

    application: str = Field(primary_key=True)
    display_name: str = ""
    description: str = ""
    tags: list[str] = _json(list)
    created_time: datetime = _instant(nullable=False)


class Version(SQLModel, table=True):
    """An immutable recipe. ``recipe`` is the serialized ``footlights.v1.Version``."""

    __tablename__ = "version"

    application: str = Field(primary_key=True, foreign_key="application.application")
    version: str = Field(primary_key=True)
    recipe: bytes = _bytes()
    created_time: datetime = _instant(nullable=False)


class Release(SQLModel, table=True):
    """A name that points at a version."""

    __tablename__ = "release"

    application: str = Field(primary_key=True, foreign_key="application.application")
    release: str = Field(primary_key=True)
    version: str
    updated_time: datetime = _instant(nullable=False)


class Profile(SQLModel, table=True):
    """A named bundle of needs and limits. ``definition`` is the serialized ``footlights.v1.Profile``."""

    __tablename__ = "profile"

    profile: str = Field(primary_key=True)
    definition: bytes = _bytes()
    updated_time: datetime = _instant(nullable=False)


class Token(SQLModel, table=True):
    """A token, as a keyed hash."""

    __tablename__ = "token"

    token_id: str = Field(primary_key=True)
    digest: bytes = _bytes()
    role: str
    subject: str
    description: str = ""
    created_time: datetime = _instant(nullable=False)
    expire_time: datetime | None = _instant()
    revoked_time: datetime | None = _instant()


class Node(SQLModel, table=True):
    """A machine with an agent. ``cordoned``, ``draining`` and ``drain_time``: the servicer; the rest: the link."""

    __tablename__ = "node"

    node: str = Field(primary_key=True)
    incarnation: str = ""
    epoch: int = _bigint()
    connected: bool = False
    """Whether a link is open: nothing is placed on a node without one."""
    reachable: bool = False
    """Whether it was heard within three heartbeats: its sessions are UNREACHABLE otherwise."""
    cordoned: bool = False
    draining: bool = False
    drain_time: datetime | None = _instant()
    facts: bytes = _bytes()
    """The serialized ``footlights.v1.NodeFacts``."""
    created_time: datetime = _instant(nullable=False)
    connected_time: datetime | None = _instant()
    last_seen_time: datetime | None = _instant()
    notices: dict[str, list[Any]] = _json(dict)
    """Reason -> ``[message, microseconds since the epoch]``, of when it was met last."""
    hub: str | None = None
    """The replica that has its link, or had its last one; None where a version without replicas wrote it."""
    hub_epoch: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    """The epoch of the link that ``hub`` has: another one is a link that a version without replicas has opened."""


class Device(SQLModel, table=True):
    """A device as last reported. ``reading`` is the serialized ``footlights.v1.Device``. Writer: the link."""

    __tablename__ = "device"

    node: str = Field(primary_key=True, foreign_key="node.node")
    uuid: str = Field(primary_key=True)
    slots: int = 1
    reading: bytes = _bytes()
    sick: bool = False
    """Whether the reading says that it cannot be used."""


class DeviceEvent(SQLModel, table=True):
    """Something that happened to a device. Writer: the link."""

    __tablename__ = "device_event"
    __table_args__ = (Index("ix_device_event_time", "time"),)

    node: str = Field(primary_key=True)
    uuid: str = Field(primary_key=True)
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    """Counts the device's events."""
    time: datetime = _instant(nullable=False)
    reason: str
    message: str = ""


class Session(SQLModel, table=True):
    """One user's wish to have a version running, and its life."""

    __tablename__ = "session"
    __table_args__ = (
        Index("ix_session_created", "created_time", "session_id"),
        Index("ix_session_username", "username", "created_time", "session_id"),
        Index("ix_session_application", "application", "created_time", "session_id"),
        Index("ix_session_state", "state", "created_time", "session_id"),
        Index("ix_session_application_state", "application", "state", "created_time", "session_id"),
        Index("ix_session_revision", "revision", unique=True),
        Index(
            "ix_session_live_username",
            "username",
            "created_time",
            "session_id",
            sqlite_where=text("ended_time IS NULL"),
            postgresql_where=text("ended_time IS NULL"),
        ),
        Index(
            "ix_session_live",
            "created_time",
            "session_id",
            sqlite_where=text("ended_time IS NULL"),
            postgresql_where=text("ended_time IS NULL"),
        ),
        Index(
            "ix_session_ended",
            "ended_time",
            sqlite_where=text("ended_time IS NOT NULL"),
            postgresql_where=text("ended_time IS NOT NULL"),
        ),
        Index(
            "ix_session_pending",
            text("priority DESC"),
            "created_time",
            "session_id",
            sqlite_where=text("state = 'PENDING'"),
            postgresql_where=text("state = 'PENDING'"),
        ),
    )

    session_id: str = Field(primary_key=True)
    application: str
    application_version: str
    username: str
    created_by: str
    """The subject of the token that created it."""
    profile: str = ""
    priority: int = 0
    request_id: str = ""
    arguments: dict[str, Any] = _json(dict)
    """Converted, with secrets replaced."""
    usd_stage_uri: str = ""
    """Resolved and allowed; what the application is given."""
    secrets: bytes = _bytes()
    """Sealed with the cluster's key."""
    labels: dict[str, str] = _json(dict)
    needs: bytes = _bytes()
    """The serialized ``footlights.v1.Needs`` that applies."""
    limits: bytes = _bytes()
    """The serialized ``footlights.v1.Limits`` that applies."""
    max_total_s: float | None = None
    """How far it may be extended, in seconds from ready."""
    launcher: str = "process"
    created_time: datetime = _instant(nullable=False)

    intent: str = "RUN"
    wish: str = ""
    """Why the end was asked for; the first reason stays."""
    wish_message: str = ""

    launch_id: str | None = None
    """Its current launch. Writer: placing, and whoever records the end of a launch."""
    launch_count: int = 0
    failures: int = 0
    queue: dict[str, Any] = _json(dict)
    """``position``, ``eta_s``, ``reasons``. Writer: placing."""

    state: str = "PENDING"
    """Follows from intent and launch; written with them in one transaction."""
    condition: str = "OK"
    end_reason: str = ""
    status_message: str = ""
    timeline: list[list[Any]] = _json(list)
    """``[stage, microseconds since the epoch]`` in order of arrival."""
    ready_time: datetime | None = _instant()
    ended_time: datetime | None = _instant()
    revision: int = _bigint()


class Term(SQLModel, table=True):
    """A text that some session has: found by any part of it. Writer: triggers on ``session``."""

    __tablename__ = "term"
    __table_args__ = (Index("uq_term", "kind", "key", "text", unique=True),)

    number: int = Field(
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True)
    )
    kind: str
    """``application``, ``username``, ``label`` or ``message``."""
    key: str
    """Of a label; empty for the others."""
    text: str


class SessionTerm(SQLModel, table=True):
    """Which sessions have a label or a message, in the order of their creation. Writer: triggers on ``session``."""

    __tablename__ = "session_term"
    __table_args__ = {"sqlite_with_rowid": False}  # SQLAlchemy reads it

    kind: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    text: str = Field(primary_key=True)
    created_time: datetime = Field(sa_column=Column(Instant, primary_key=True))
    session_id: str = Field(primary_key=True)


class Launch(SQLModel, table=True):
    """One attempt to run a version under a lease. Observed columns: the link. ``desired``: placing and reaping."""

    __tablename__ = "launch"
    __table_args__ = (
        Index("ix_launch_session", "session_id", "created_time"),
        Index(
            "ix_launch_failed",
            "ended_time",
            sqlite_where=text("state = 'FAILED'"),
            postgresql_where=text("state = 'FAILED'"),
        ),
        Index(
            "ix_launch_live",
            "node",
            "launch_id",
            sqlite_where=text("ended_time IS NULL"),
            postgresql_where=text("ended_time IS NULL"),
        ),
    )

    launch_id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="session.session_id")
    node: str
    device: str
    slots: list[int] = _json(list)
    epoch: int = _bigint(1)
    desired: str = "RUNNING"
    created_time: datetime = _instant(nullable=False)

    state: str = "ASSIGNED"
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal_port: int = 0
    media_port: int = 0
    http_port: int = 0
    viewers: int | None = None
    ever_connected: bool = False
    start_s: float | None = None
    """From placed to ready, once it is."""
    log_tail: list[str] = _json(list)
    ending_time: datetime | None = _instant()
    """When its end was asked for or first seen, whichever came first."""
    overdue: bool = False
    """Whether its end should have been proved long ago. Writer: reaping."""
    reported_time: datetime | None = _instant()
    ended_time: datetime | None = _instant()
    """When its end was proved and its slots were freed."""


class Lease(SQLModel, table=True):
    """A session's hold on one slot. Writer: placing, and whoever records the end of a launch."""

    __tablename__ = "lease"
    __table_args__ = (
        Index(
            "uq_lease_live_slot",
            "node",
            "device",
            "slot",
            unique=True,
            sqlite_where=text("released_time IS NULL"),
            postgresql_where=text("released_time IS NULL"),
        ),
        Index("ix_lease_launch", "launch_id"),
    )

    lease_id: str = Field(primary_key=True)
    launch_id: str = Field(foreign_key="launch.launch_id")
    session_id: str
    node: str
    device: str
    slot: int
    acquired_time: datetime = _instant(nullable=False)
    released_time: datetime | None = _instant()


class Warm(SQLModel, table=True):
    """A version that has become ready on a node: its caches are filled there. Writer: the link."""

    __tablename__ = "warm"

    node: str = Field(primary_key=True)
    application: str = Field(primary_key=True)
    application_version: str = Field(primary_key=True)
    time: datetime = _instant(nullable=False)


class Replica(SQLModel, table=True):
    """A control-plane process. Writer: that process; others remove it once it is gone."""

    __tablename__ = "replica"

    replica: str = Field(primary_key=True)
    roles: list[str] = _json(list)
    peer_address: str = ""
    """Where other replicas reach its gRPC, ``HOST:PORT``."""
    version: str = ""
    beat: int = _bigint()
    """Grows while it lives: whoever watches it measures on a clock of its own for how long it has not."""
    brake: list[Any] = _json(list)
    """Why its reaping pauses: cause, message, and microseconds since the epoch; empty while it goes on."""
    started_time: datetime = _instant(nullable=False)


class Work(SQLModel, table=True):
    """Work that one replica does for all, as a lease: whoever holds it has the newest token."""

    __tablename__ = "work"

    work: str = Field(primary_key=True)
    holder: str = ""
    """A replica; empty where nobody has it."""
    token: int = _bigint()
    """Grows at every claim: what is written under an older one is refused."""


class RequestKey(SQLModel, table=True):
    """An idempotency key and what it created. Kept for 24 hours."""

    __tablename__ = "request_key"
    __table_args__ = (Index("ix_request_key_created", "created_time"),)

    subject: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    body_digest: bytes = _bytes()
    session_id: str
    created_time: datetime = _instant(nullable=False)


def _table(model: type[SQLModel]) -> Table:
    return cast("Table", model.__table__)  # type: ignore[attr-defined]  # SQLModel does not declare it


# What statements are written on: Core tables, whose columns are typed as columns.
APPLICATION = _table(Application)
VERSION = _table(Version)
RELEASE = _table(Release)
PROFILE = _table(Profile)
TOKEN = _table(Token)
NODE = _table(Node)
DEVICE = _table(Device)
DEVICE_EVENT = _table(DeviceEvent)
SESSION = _table(Session)
LAUNCH = _table(Launch)
LEASE = _table(Lease)
REQUEST_KEY = _table(RequestKey)
WARM = _table(Warm)
REPLICA = _table(Replica)
WORK = _table(Work)
TERM = _table(Term)
SESSION_TERM = _table(SessionTerm)
COUNTER = _table(Counter)
