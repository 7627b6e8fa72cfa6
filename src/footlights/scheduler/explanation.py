"""Explaining: every node's and device's verdict on one wish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights.scheduler.checks import device_refusal, node_refusal
from footlights.scheduler.views import NodeView, Verdict, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FITS = Verdict("FITS", "would be taken")


@dataclass(frozen=True, slots=True)
class DeviceVerdict:
    """A device, and why it is not taken, or that it fits."""

    uuid: str
    name: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """A node, and why it is not taken, or that one of its devices fits."""

    node: str
    verdict: Verdict
    devices: tuple[DeviceVerdict, ...]
    """Empty where the node itself will not do."""


def verdicts(wish: Wish, nodes: Iterable[NodeView]) -> list[NodeVerdict]:
    """Say for every node, and for every device of a node that would do, why it is not taken, or that it fits."""
    found = []
    for node in nodes:
        if refusal := node_refusal(wish, node):
            found.append(NodeVerdict(node.name, refusal, ()))
            continue
        devices = tuple(
            DeviceVerdict(device.uuid, device.name, device_refusal(wish, node, device) or FITS)
            for device in node.devices
        )
        fits = any(device.verdict is FITS for device in devices)
        found.append(NodeVerdict(node.name, FITS if fits else Verdict("NO_DEVICE_FITS", "no device fits"), devices))
    return found


def counted(counts: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    """Return the counts by (reason, ``node`` or ``device``) as text, most frequent first: ``NO_SLOT: 3 devices``."""
    return tuple(
        f"{reason}: {count} {thing}{'s' if count > 1 else ''}"
        for (reason, thing), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count > 0
    )
