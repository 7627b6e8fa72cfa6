"""Which warm instances give their slots back, so that sessions that wait can be placed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from footlights.scheduler.checks import device_refusal, node_refusal
from footlights.scheduler.index import Index
from footlights.scheduler.views import NO_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from footlights.scheduler.views import DeviceView, NodeView, Wish


@dataclass(frozen=True, slots=True)
class WarmSlots:
    """A warm instance, as far as it stands in the way of a session."""

    key: str
    node: str
    device: str
    slots: tuple[int, ...]
    ends: bool = False
    """Whether its end was asked for already."""


def yielded(nodes: Iterable[NodeView], warm: Sequence[WarmSlots], waiting: Iterable[Wish]) -> list[str]:
    """Return the keys of the instances that are to end, the least of them that do.

    Args:
        nodes: Those with warm instances.
        warm: The instances, those first that are missed least.
        waiting: What sessions that wait want, in their order.
    """
    views = {node.name: node for node in nodes}
    for each in warm:
        if each.ends and each.node in views:
            views[each.node] = _freed(views[each.node], each)
    left = [each for each in warm if not each.ends and each.node in views]
    index, ended = Index(views.values()), list[str]()
    for wish in waiting:
        # One that is placed here gets a slot that becomes free anyhow.
        if index.place(wish) is not None or not left:
            continue
        found = _fewest(wish, {name: index.views([name])[0] for name in views}, left)
        if found is None:
            continue
        node, ends = found
        # What was placed meanwhile is held there, and in the view as leased: held once more, nothing would be free.
        index.remove_node(node.name)
        index.set_node(node)
        index.place(wish)
        ended += [each.key for each in ends]
        left = [each for each in left if each not in ends]
    return ended


def _fewest(
    wish: Wish, views: dict[str, NodeView], left: Sequence[WarmSlots]
) -> tuple[NodeView, Sequence[WarmSlots]] | None:
    """Return the instances of one device whose end makes room for a wish, and how its node is then."""
    best: tuple[NodeView, Sequence[WarmSlots]] | None = None
    for place in dict.fromkeys((each.node, each.device) for each in left):
        node, ends = views[place[0]], list[WarmSlots]()
        for each in left:
            if (each.node, each.device) != place:
                continue
            node = _freed(node, each)
            ends.append(each)
            if best is not None and len(ends) >= len(best[1]):
                break
            device = next(device for device in node.devices if device.uuid == place[1])
            if node_refusal(wish, node) is None and device_refusal(wish, node, device) is None:
                best = node, ends
                break
    return best


def _freed(node: NodeView, gone: WarmSlots) -> NodeView:
    """Return a node as it is without an instance."""
    devices = tuple(_without(device, gone) if device.uuid == gone.device else device for device in node.devices)
    return replace(node, devices=devices, launches=max(0, node.launches - 1))


def _without(device: DeviceView, gone: WarmSlots) -> DeviceView:
    shares = dict(device.shares)
    kept = shares.pop(gone.slots[0], NO_SHARE).memory_bytes if gone.slots else 0
    free, used = device.memory_free_bytes, device.memory_used_bytes
    if used is not None and free is not None:
        # It uses what is kept for it at most.
        gained = min(kept, used)
        free, used = free + gained, used - gained
    return replace(
        device, leased=device.leased - set(gone.slots), shares=shares, memory_free_bytes=free, memory_used_bytes=used
    )
