"""What several rooms read from rows: the messages that are stored in them, and what follows from a few columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights.launch.recipe import limits as recipe_limits
from footlights.launch.recipe.checks import MAX_DURATION_S
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
    return unpacked_limits(row.limits)


def unpacked_limits(packed: bytes) -> application_pb2.Limits:
    """Return limits from their stored form: each is set, or named in ``unlimited``. Raises DecodeError."""
    applied = application_pb2.Limits.FromString(packed)
    for name in applied.unlimited:
        if name in recipe_limits.MAY_BE_UNLIMITED:
            applied.ClearField(name)  # type: ignore[arg-type]
    applied.unlimited[:] = [name for name in recipe_limits.MAY_BE_UNLIMITED if not applied.HasField(name)]  # type: ignore[arg-type]
    return applied


def packed_limits(applied: application_pb2.Limits) -> bytes:
    """Return the stored form of limits that apply, which a replica of the release before understands as well.

    To it, a limit that is not set does not exist, except for the queue timeout, without which it would end a session at
    once: it reads the longest that there is.
    """
    stored = application_pb2.Limits()
    stored.CopyFrom(applied)
    if not stored.HasField("queue_timeout"):
        stored.queue_timeout.CopyFrom(times.duration(MAX_DURATION_S))
    return stored.SerializeToString()


def is_sick(device: node_pb2.Device) -> bool:
    """Return whether nothing may be placed on a device; nothing is at a health that only a later release knows."""
    return device.health in _SICK or device.health not in _HEALTHS


def version(application_id: str, recipe: bytes, created_time: datetime) -> application_pb2.Version:
    """Return a version from its stored recipe."""
    message = application_pb2.Version.FromString(recipe)
    message.application = application_id
    message.created_time.CopyFrom(times.timestamp(created_time))
    return message


def node_state(row: NodeRow | NodeStanding, *, busy: bool, unwell: bool) -> node_pb2.Node.State.ValueType:
    """Return a node's state; ``busy`` is whether any of its slots is leased, ``unwell`` what the guard says."""
    if not row.reachable:
        return node_pb2.Node.UNREACHABLE
    if row.draining:
        return node_pb2.Node.DRAINING if busy else node_pb2.Node.DRAINED
    if row.cordoned or row.acceptance:
        return node_pb2.Node.CORDONED
    return node_pb2.Node.UNWELL if unwell else node_pb2.Node.READY


def hardware(device: node_pb2.Device) -> str:
    """Return the piece of hardware that a device is, or is a part of: dividing a GPU does not change a machine.

    Empty for a software renderer, which is none.
    """
    if device.kind == node_pb2.Device.SOFTWARE:
        return ""
    return device.parent_uuid or device.uuid


def needs_reboot(devices: Iterable[node_pb2.Device]) -> str:
    """Return why nothing may be placed on a node with these devices; empty where it may."""
    for device in devices:
        for why in device.health_reasons:
            if why.reason == REBOOT_NEEDED:
                return f"{device.name or 'device'} {device.uuid}: {why.message}"
    return ""
