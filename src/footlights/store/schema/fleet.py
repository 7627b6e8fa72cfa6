"""Machines: nodes, their devices, what happened to these, and where versions have been ready."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field, SQLModel

from footlights.store.schema.columns import KEY, BigInt, Json, Moment, OptionalBigInt, OptionalMoment, table


class NodeTable(SQLModel, table=True):
    """Declares the table of ``NodeRow``."""

    __tablename__ = "node"

    node: str = KEY
    incarnation: str
    epoch: BigInt
    connected: bool
    reachable: bool
    cordoned: bool
    draining: bool
    drain_time: OptionalMoment
    facts: bytes
    created_time: Moment
    connected_time: OptionalMoment
    last_seen_time: OptionalMoment
    notices: Json
    hub: str | None
    hub_epoch: OptionalBigInt


class NodeRow(NamedTuple):
    """A machine with an agent. The services write ``cordoned``, ``draining``, ``drain_time``; its link the rest."""

    node: str
    incarnation: str
    epoch: BigInt
    connected: bool
    """Whether a link is open: nothing is placed on a node without one."""
    reachable: bool
    """Whether it was heard within three heartbeats: its sessions are UNREACHABLE otherwise."""
    cordoned: bool
    draining: bool
    drain_time: OptionalMoment
    facts: bytes
    """The serialized ``footlights.v1.NodeFacts``."""
    created_time: Moment
    connected_time: OptionalMoment
    last_seen_time: OptionalMoment
    notices: Json
    """Reason -> ``[message, microseconds since the epoch]`` of its last occurrence."""
    hub: str | None
    """The replica that has its link, or had its last one; None where a version without replicas wrote it."""
    hub_epoch: OptionalBigInt
    """The epoch of the link of ``hub``; a different one belongs to a version without replicas."""


class DeviceTable(SQLModel, table=True):
    """Declares the table of ``DeviceRow``."""

    __tablename__ = "device"

    node: str = Field(primary_key=True, foreign_key="node.node")
    uuid: str = KEY
    slots: int
    reading: bytes
    sick: bool


class DeviceRow(NamedTuple):
    """A device as last reported over the link."""

    node: str
    uuid: str
    slots: int
    reading: bytes
    """The serialized ``footlights.v1.Device``."""
    sick: bool
    """Whether the reading says that it cannot be used."""


class DeviceEventTable(SQLModel, table=True):
    """Declares the table of ``DeviceEventRow``."""

    __tablename__ = "device_event"
    __table_args__ = (Index("ix_device_event_time", "time"),)

    node: str = KEY
    uuid: str = KEY
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    time: Moment
    reason: str
    message: str


class DeviceEventRow(NamedTuple):
    """Something that happened to a device, as its link recorded it."""

    node: str
    uuid: str
    number: int
    """Counts the device's events."""
    time: Moment
    reason: str
    message: str


class WarmVersionTable(SQLModel, table=True):
    """A version that has become ready on a node, whose caches are therefore filled. Writer: the link."""

    __tablename__ = "warm"

    node: str = KEY
    application: str = KEY
    application_version: str = KEY
    time: Moment


NODE = table(NodeTable, NodeRow)
DEVICE = table(DeviceTable, DeviceRow)
DEVICE_EVENT = table(DeviceEventTable, DeviceEventRow)
WARM = table(WarmVersionTable)
