"""Deciding: which wish gets which slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from footlights.scheduler.checks import device_refusal, node_refusal
from footlights.scheduler.explaining import reasons
from footlights.scheduler.views import DeviceView, NodeView, Wish


@dataclass(frozen=True, slots=True)
class Placement:
    """The wish gets these slots."""

    session_id: str
    node: str
    device: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The wish fits nowhere now."""

    session_id: str
    position: int
    """Among the wishes that wait; 1 is next."""
    reasons: tuple[str, ...]
    """``NO_SLOT: 3 devices``, most frequent first."""


def place(wishes: Iterable[Wish], nodes: Sequence[NodeView]) -> list[Placement | Waiting]:
    """Decide for every wish, in order; later wishes see the slots that earlier ones took.

    Work-conserving: a wish waits only if no device fits it, and a smaller wish behind a waiting one may overtake it.
    """
    board = {node.name: node for node in nodes}
    decisions: list[Placement | Waiting] = []
    waiting = 0
    for wish in wishes:
        best = min(_candidates(wish, board.values()), key=lambda found: found[0], default=None)
        if best is None:
            waiting += 1
            decisions.append(Waiting(wish.session_id, waiting, reasons(wish, board.values())))
            continue
        _, node, device = best
        slots = tuple(slot for slot in range(device.slots) if slot not in device.leased)[: wish.slots]
        decisions.append(Placement(wish.session_id, node.name, device.uuid, slots))
        board[node.name] = _take(node, device, slots)
    return decisions


def _candidates(wish: Wish, nodes: Iterable[NodeView]) -> Iterable[tuple[tuple[object, ...], NodeView, DeviceView]]:
    for node in nodes:
        if node_refusal(wish, node):
            continue
        for device in node.devices:
            if device_refusal(wish, node, device) is None:
                yield _rank(wish, node, device), node, device


def _rank(wish: Wish, node: NodeView, device: DeviceView) -> tuple[object, ...]:
    """Order candidates: the least capable device that will do, then the fullest, then the least busy node, then names.

    GPUs stay free for those who need one, whole devices for those who need a whole one.
    """
    hardware = device.kind in ("GPU", "MIG")
    return (
        hardware and not wish.gpu,
        device.slots - len(device.leased),
        device.memory_total_bytes or 0,
        node.launches,
        node.name,
        device.uuid,
    )


def _take(node: NodeView, device: DeviceView, slots: tuple[int, ...]) -> NodeView:
    taken = replace(device, leased=device.leased | set(slots))
    devices = tuple(taken if other.uuid == device.uuid else other for other in node.devices)
    return replace(node, devices=devices, launches=node.launches + 1)
