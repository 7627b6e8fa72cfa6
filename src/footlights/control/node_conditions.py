"""Nodes that are cordoned by the condition of a device: its driver asks for a reboot of the machine.

It follows from the last readings, and nothing is stored: once no driver asks for a reboot, the node is used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from footlights.v1 import node_pb2

REASON = "NODE_REBOOT_NEEDED"


def needs_reboot(devices: Iterable[node_pb2.Device]) -> str:
    """Return why nothing may be placed on a node with these devices; empty where it may."""
    for device in devices:
        for why in device.health_reasons:
            if why.reason == REASON:
                return f"{device.name or 'device'} {device.uuid}: {why.message}"
    return ""
