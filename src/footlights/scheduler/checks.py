"""Why a node or device is refused: the checks, in the order in which they are reported."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from footlights.protocol import shares
from footlights.protocol.isolation import Isolation
from footlights.scheduler.views import DeviceView, NodeView, Share, Verdict, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable

GIB = 1 << 30
HARDWARE = ("GPU", "MIG")
"""The kinds of device that count as a GPU."""
_ISOLATIONS = {level.value: level.name for level in Isolation}


def node_refusal(wish: Wish, node: NodeView) -> Verdict | None:
    """Say why no device of the node will do; None where its devices may be looked at."""
    return standing_refusal(node) or _wish_refusal(wish, node) or room_refusal(node, node.launches)


def standing_refusal(node: NodeView) -> Verdict | None:
    """Say why the node takes no session at all."""
    if not node.connected:
        return Verdict("UNREACHABLE", "the node's agent is not connected")
    if node.draining:
        return Verdict("DRAINING", "the node is being drained")
    if node.cordoned:
        return Verdict("CORDONED", "the node is cordoned")
    if not node.accepted:
        return Verdict("NOT_ACCEPTED", "the node is new, or has new hardware, and no operator has accepted it yet")
    return None


def room_refusal(node: NodeView, launches: int) -> Verdict | None:
    """Say why the node has no room for one more launch beside so many."""
    if launches >= node.port_blocks:
        return Verdict("NO_PORTS", f"all {node.port_blocks} port blocks are in use")
    if not node.devices:
        return Verdict("NO_DEVICE", "the node reports no device")
    return None


def could_use(wish: Wish, node: NodeView) -> bool:
    """Return whether a wish would be placed on a node if all of its slots and ports were free."""
    if standing_refusal(node) or _wish_refusal(wish, node):
        return False
    return any(
        not condition_refusal(device)
        and not capability_refusal(wish, device)
        and (device.memory_total_bytes is None or device.memory_total_bytes >= wish.min_memory_bytes)
        for device in node.devices
    )


def device_refusal(wish: Wish, node: NodeView, device: DeviceView) -> Verdict | None:
    """Say why the device will not do; None where the wish fits."""
    return condition_refusal(device) or capability_refusal(wish, device) or _use_refusal(wish, node, device)


def condition_refusal(device: DeviceView) -> Verdict | None:
    """Say why the device is given to no session, free or not."""
    if not device.usable:
        reason = device.health_reason.partition(":")[0] or "UNHEALTHY"
        return Verdict(reason, device.health_reason or "the device is unhealthy")
    if device.quarantine:
        return Verdict("QUARANTINED", device.quarantine)
    return None


def capability_refusal(wish: Wish, device: DeviceView) -> Verdict | None:
    """Say why the device would not do if it were free: by what does not change while it is there."""
    if wish.gpu and device.kind not in HARDWARE:
        return Verdict("NO_GPU", f"needs a GPU; this is a {device.kind.lower()} device")
    if wish.graphics and not device.graphics:
        return Verdict("NO_GRAPHICS", "needs a device that can draw")
    if wish.encoder and not device.encoder:
        return Verdict("NO_ENCODER", "needs a hardware video encoder")
    if wish.device_names and not any(fnmatchcase(device.name, pattern) for pattern in wish.device_names):
        return Verdict("DEVICE_NAME", f"needs {' or '.join(wish.device_names)}; this is {device.name}")
    if wish.slots > device.slots:
        return Verdict("SLOTS", f"needs {wish.slots} slots; the device has {device.slots}")
    return None


def memory_left(device: DeviceView, given: Iterable[Share]) -> int | None:
    """Return how much memory of a device another launch may have beside these; None where that is not known."""
    kept = sum(share.memory_bytes for share in given)
    return shares.memory_left(
        device.memory_free_bytes, device.memory_total_bytes, kept=kept, used=device.memory_used_bytes
    )


def encoder_full(device: DeviceView, given: Iterable[Share]) -> str:
    """Say why no other launch may encode on a device beside these; empty where one may, or nothing is known."""
    return shares.encoder_full(
        device.encoder_sessions,
        promised=sum(share.encoder for share in given),
        limit=device.encoder_session_limit,
        capacity=device.encoder_capacity_percent,
    )


def _wish_refusal(wish: Wish, node: NodeView) -> Verdict | None:
    if wish.launcher not in node.launchers:
        offered = ", ".join(sorted(node.launchers)) or "none"
        return Verdict("NO_LAUNCHER", f"the version needs the {wish.launcher} launcher; the node offers {offered}")
    if node.launchers[wish.launcher] < wish.isolation:
        given, wanted = node.launchers[wish.launcher].name, isolation_name(wish.isolation)
        return Verdict("ISOLATION", f"needs the isolation {wanted}; the {wish.launcher} launcher gives {given}")
    for key, value in wish.node_labels.items():
        if node.labels.get(key) != value:
            return Verdict("LABEL", f"needs the label {key}={value}; the node has {node.labels.get(key, 'none')!r}")
    if unwell := wish.unwell.get(node.name):
        return Verdict("UNWELL", unwell)
    if crash := wish.crashes.get("") or wish.crashes.get(node.name):
        return Verdict("CRASH_LOOP", crash)
    return None


def isolation_name(level: int) -> str:
    """Return the name of a level of isolation; the number of one of a later release."""
    return _ISOLATIONS.get(level, str(level))


def _use_refusal(wish: Wish, node: NodeView, device: DeviceView) -> Verdict | None:
    free = device.slots - len(device.leased)
    if wish.slots > free:
        return Verdict("NO_SLOT", f"{len(device.leased)} of {device.slots} slots are leased")
    if device.foreign:
        return Verdict("FOREIGN_PROCESS", device.foreign)
    given = device.shares.values()
    if wish.encoder and (full := encoder_full(device, given)):
        return Verdict("ENCODER_FULL", full)
    left = memory_left(device, given)
    if left is not None and left < wish.min_memory_bytes:
        kept = sum(share.memory_bytes for share in given)
        beside = f", {kept / GIB:.1f} GiB are kept for sessions" if kept else ""
        return Verdict("MEMORY", f"{left / GIB:.1f}<{wish.min_memory_bytes / GIB:.1f} GiB free{beside}")
    if why := wish.avoid.get((node.name, "")) or wish.avoid.get((node.name, device.uuid)):
        return Verdict("REFUSED", f"it refused this session a moment ago: {why}")
    return None
