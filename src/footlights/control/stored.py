"""What several rooms read from rows: the messages that are stored in them, and what follows from a few columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.lifecycle import TimeLimits
from footlights.protocol import times
from footlights.v1 import application_pb2, node_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from footlights.store.nodes.node_rows import NodeStanding
    from footlights.store.schema import NodeRow, SessionRow

REBOOT_NEEDED = "NODE_REBOOT_NEEDED"
"""The reason for which a node is cordoned while a driver of it asks for a reboot. Nothing of it is stored."""


_SICK = (node_pb2.Device.UNHEALTHY, node_pb2.Device.LOST)
_HEALTHS = frozenset(node_pb2.Device.Health.values())


def limits(row: SessionRow) -> application_pb2.Limits:
    """Return the limits that apply to a session."""
    return application_pb2.Limits.FromString(row.limits)


def time_limits(applied: application_pb2.Limits) -> TimeLimits:
    """Return the limits of a ready session as the lifecycle takes them."""

    def span(name: str) -> float | None:
        return times.seconds(getattr(applied, name)) if applied.HasField(name) else None  # type: ignore[arg-type]

    return TimeLimits(span("never_connected_timeout"), span("idle_timeout"), span("max_duration"))


def is_sick(device: node_pb2.Device) -> bool:
    """Return whether nothing may be placed on a device; nothing is at a health that only a later release knows."""
    return device.health in _SICK or device.health not in _HEALTHS


def version(application_id: str, recipe: bytes, created_time: datetime) -> application_pb2.Version:
    """Return a version from its stored recipe."""
    message = application_pb2.Version.FromString(recipe)
    message.application = application_id
    message.created_time.CopyFrom(times.timestamp(created_time))
    return message


def node_state(row: NodeRow | NodeStanding, busy: bool) -> node_pb2.Node.State.ValueType:
    """Return a node's state; ``busy`` is whether any of its slots is leased."""
    if not row.reachable:
        return node_pb2.Node.UNREACHABLE
    if row.draining:
        return node_pb2.Node.DRAINING if busy else node_pb2.Node.DRAINED
    return node_pb2.Node.CORDONED if row.cordoned else node_pb2.Node.READY


def needs_reboot(devices: Iterable[node_pb2.Device]) -> str:
    """Return why nothing may be placed on a node with these devices; empty where it may."""
    for device in devices:
        for why in device.health_reasons:
            if why.reason == REBOOT_NEEDED:
                return f"{device.name or 'device'} {device.uuid}: {why.message}"
    return ""
