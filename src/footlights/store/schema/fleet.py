"""Machines: nodes, their devices, what happened to these, and where versions have been ready."""

from typing import Annotated, NamedTuple

from sqlalchemy import BigInteger, Index
from sqlmodel import Field

from footlights.store.schema.columns import BigInt, Json, Key, Moment, OptionalBigInt, OptionalMoment, table


class NodeRow(NamedTuple):
    """A machine with an agent. The services write what is wanted of it, its link the rest."""

    node: Key
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
    cordon_message: str | None = None
    """Why it is cordoned, in its operator's words. This and the next two mean nothing while it is not cordoned."""
    cordon_subject: str | None = None
    """Who cordoned or drained it."""
    cordon_time: OptionalMoment = None
    """Since when it is cordoned; None where that is not known."""
    acceptance: str | None = None
    """Why nothing is placed on it before it is accepted, ``NEW_NODE`` or ``HARDWARE_CHANGED``; None where it is."""
    link_address: str | None = None
    """The IP address that its link came from, empty where that was not over a network; None where it is not known."""
    accepted_hardware: str | None = None
    """The hardware that was accepted, as a JSON list; None where it is not known. For ``nodes.acceptance``."""


class NodeIdentityRow(NamedTuple):
    """How a node proves who it is; the node itself need not have had a link yet."""

    node: Key
    enrollment: str | None
    """The id in its certificates; a certificate with another one is void. None: it has no certificate."""
    enrolled_time: OptionalMoment
    expire_time: OptionalMoment
    """When its newest certificate expires."""
    revoked_time: OptionalMoment
    invitation_id: str | None
    """Of the invitation that can be used; None: there is none."""
    invitation_key: bytes | None
    """What proves the knowledge of its code, sealed."""
    invitation_expire_time: OptionalMoment
    authority: str | None
    """Identifies the authority that signed its newest certificate; None: the first one."""


class DeviceRow(NamedTuple):
    """A device as last reported over the link."""

    node: Annotated[str, Field(primary_key=True, foreign_key="node.node")]
    uuid: Key
    slots: int
    reading: bytes
    """The serialized ``footlights.v1.Device``."""
    sick: bool
    """Whether the reading says that it cannot be used."""


class DeviceEventRow(NamedTuple):
    """Something that happened to a device, as its link recorded it."""

    node: Key
    uuid: Key
    number: Annotated[int, Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})]
    """Counts the device's events."""
    time: Moment
    reason: str
    message: str


class WarmVersionRow(NamedTuple):
    """A version that has become ready on a node, whose caches are therefore filled. Writer: the link."""

    node: Key
    application: Key
    application_version: Key
    time: Moment


NODE = table("node", NodeRow)
NODE_IDENTITY = table("node_identity", NodeIdentityRow, Index("ix_node_identity_invitation", "invitation_id"))
DEVICE = table("device", DeviceRow, Index("ix_device_uuid", "uuid"))
DEVICE_EVENT = table(
    "device_event",
    DeviceEventRow,
    Index("ix_device_event_time", "time"),
)
WARM = table("warm", WarmVersionRow)
