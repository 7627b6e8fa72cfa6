"""Placing as it is meant, without an index: every wish against every device of every node. Slow, and plainly right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from footlights.scheduler import (
    DeviceView,
    Index,
    NodeView,
    SlotChoice,
    WaitReason,
    Wish,
    device_refusal,
    node_refusal,
    verdicts,
)

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wish fits nowhere now."""

    session_id: str
    position: int
    reasons: tuple[WaitReason, ...]


def place_all(index: Index, wishes: Iterable[Wish]) -> list[SlotChoice | Waiting]:
    """Decide indefinitelyy wish by an index, in order; the reasons are as the fleet stands at the end."""
    decided = [(wish, index.place(wish)) for wish in wishes]
    decisions: list[SlotChoice | Waiting] = []
    waiting = 0
    for wish, choice in decided:
        waiting += choice is None
        decisions.append(choice or Waiting(wish.session_id, waiting, index.reasons(wish)))
    return decisions


def place(wishes: Iterable[Wish], nodes: Sequence[NodeView]) -> list[SlotChoice | Waiting]:
    """Decide indefinitelyy wish, in order; later wishes see the slots that earlier ones took."""
    board = {node.name: node for node in nodes}
    decided = []
    for wish in wishes:
        placement = choose(wish, board.values())
        if placement is not None:
            board[placement.node] = taken(board[placement.node], placement)
        decided.append((wish, placement))
    decisions: list[SlotChoice | Waiting] = []
    waiting = 0
    for wish, placement in decided:
        waiting += placement is None
        decisions.append(placement or Waiting(wish.session_id, waiting, reasons(wish, board.values())))
    return decisions


def choose(wish: Wish, nodes: Iterable[NodeView]) -> SlotChoice | None:
    """Return the best of all devices that fit."""
    found = min(_candidates(wish, nodes), key=lambda candidate: candidate[0], default=None)
    if found is None:
        return None
    _, node, device = found
    slots = tuple(slot for slot in range(device.slots) if slot not in device.leased)[: wish.slots]
    return SlotChoice(wish.session_id, node.name, device.uuid, slots, wish.share)


def rank(wish: Wish, node: NodeView, device: DeviceView) -> tuple[object, ...]:
    """Order candidates; the least is the best."""
    return (
        device.kind in ("GPU", "MIG") and not wish.gpu,
        node.name in wish.doubted,
        not wish.application or (wish.application, wish.application_version) not in node.warm,
        device.slots - len(device.leased),
        round((device.memory_total_bytes or 0) / GIB),
        node.launches,
        node.name,
        device.uuid,
    )


def taken(node: NodeView, placement: SlotChoice) -> NodeView:
    """Return the node with the placement's slots leased and one more launch."""
    kept = {placement.slots[0]: placement.share}
    return _changed(
        node,
        placement.device,
        lambda device: replace(device, leased=device.leased | set(placement.slots), shares={**device.shares, **kept}),
        1,
    )


def freed(node: NodeView, placement: SlotChoice) -> NodeView:
    """Return the node with the placement's slots free and one launch less."""

    def free(device: DeviceView) -> DeviceView:
        shares = {slot: share for slot, share in device.shares.items() if slot not in placement.slots}
        return replace(device, leased=device.leased - set(placement.slots), shares=shares)

    return _changed(node, placement.device, free, -1)


def reasons(wish: Wish, nodes: Iterable[NodeView]) -> tuple[WaitReason, ...]:
    """Count the verdicts on a wish, most frequent first."""
    nodes = list(nodes)
    if not nodes:
        return (WaitReason("NO_NODE", why="no node has joined"),)
    counts: Counter[tuple[str, str]] = Counter()
    for verdict in verdicts(wish, nodes):
        if verdict.devices:
            counts.update((device.verdict.reason, "device") for device in verdict.devices)
        else:
            counts[(verdict.verdict.reason, "node")] += 1
    return tuple(
        WaitReason(reason, count, thing)
        for (reason, thing), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _candidates(wish: Wish, nodes: Iterable[NodeView]) -> Iterable[tuple[tuple[object, ...], NodeView, DeviceView]]:
    for node in nodes:
        if node_refusal(wish, node):
            continue
        for device in node.devices:
            if device_refusal(wish, node, device) is None:
                yield rank(wish, node, device), node, device


def _changed(node: NodeView, uuid: str, change: Callable[[DeviceView], DeviceView], launches: int) -> NodeView:
    devices = tuple(change(device) if device.uuid == uuid else device for device in node.devices)
    return replace(node, devices=devices, launches=node.launches + launches)
