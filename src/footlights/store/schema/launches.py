"""Launches, and the leases on slots under them."""

from typing import Annotated, NamedTuple

from sqlalchemy import Index
from sqlalchemy.types import JSON
from sqlmodel import Field

from footlights.store.schema.columns import (
    BigInt,
    Key,
    Moment,
    OptionalBigInt,
    OptionalMoment,
    Strings,
    partial_index,
    table,
)

Slots = Annotated[list[int], Field(sa_type=JSON)]


class LaunchRow(NamedTuple):
    """One attempt to run a version under a lease. What is observed is written by the link."""

    launch_id: Key
    session_id: Annotated[str, Field(foreign_key="session.session_id")]
    node: str
    device: str
    slots: Slots
    created_time: Moment
    epoch: BigInt = 1
    desired: str = "RUNNING"
    """``RUNNING`` or ``STOPPED``. Written by the services and the expiry loop."""

    secret: bytes | None = None
    """What the front door presents to its application, sealed with the cluster's key; None where an older server began
    it, or one whose viewers dial nodes themselves."""

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
    """From placed to ready in seconds; None before."""
    log_tail: Strings = []  # noqa: RUF012
    ending_time: OptionalMoment = None
    """When its end was asked for or first seen, whichever came first."""
    overdue: bool = False
    """Whether its end should have been proved long ago. Written by the expiry loop."""
    reported_time: OptionalMoment = None
    ended_time: OptionalMoment = None
    """When its end was proved and its slots were freed."""
    secrets_epoch: OptionalBigInt = None
    """The epoch of the link over which its secrets were sent; None where they were not."""
    ahead: bool | None = None
    """Whether it was started ahead, for a pool, before there was a session for it."""
    handed_over_time: OptionalMoment = None
    """When a session took it that it had been started ahead for; None where none has, or it was not started ahead."""
    taken_up: bool | None = None
    """Whether its agent has taken up that session; None before it has."""


class LeaseRow(NamedTuple):
    """A session's hold on one slot. Written when it is placed, and when the end of its launch is recorded."""

    lease_id: Key
    launch_id: Annotated[str, Field(foreign_key="launch.launch_id")]
    session_id: str
    node: str
    device: str
    slot: int
    acquired_time: Moment
    released_time: OptionalMoment


LAUNCH = table(
    "launch",
    LaunchRow,
    Index("ix_launch_session", "session_id", "created_time"),
    Index("ix_launch_node", "node", "session_id"),
    Index("ix_launch_device", "device", "session_id"),
    partial_index("ix_launch_failed", "state = 'FAILED'", "ended_time"),
    partial_index("ix_launch_rejected", "state = 'REJECTED'", "ended_time"),
    partial_index("ix_launch_live", "ended_time IS NULL", "node", "launch_id"),
)
LEASE = table(
    "lease",
    LeaseRow,
    partial_index("uq_lease_live_slot", "released_time IS NULL", "node", "device", "slot", unique=True),
    Index("ix_lease_launch", "launch_id"),
)
