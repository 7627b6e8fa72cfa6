"""One GPU that several nodes report, as where two agents run on one machine: it is given to sessions on one of them."""

from __future__ import annotations

import heapq
from dataclasses import replace
from datetime import datetime  # noqa: TC003 - the members' types
from typing import TYPE_CHECKING, Final, NamedTuple

from footlights.scheduler import standing_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from footlights.scheduler import DeviceView, NodeView

REASON: Final = "SHARED_DEVICE"
_MOST_NAMED: Final = 8


class DeviceReport(NamedTuple):
    """That a node reports a device, or parts of it."""

    node: str
    closed: bool
    """Whether it takes no sessions."""
    created: datetime
    devices: frozenset[str]


class SharedDevices:
    """Knows which nodes report which GPUs; ``is_taken`` says of a node and a device whether sessions have it there.

    Of several nodes that with sessions on it gives it, else one that takes sessions at all, else that which was there
    first: a node that comes to report another's GPU takes none from it.
    """

    def __init__(self, is_taken: Callable[[str, str], bool]) -> None:
        self._is_taken = is_taken
        self._reports: dict[str, dict[str, DeviceReport]] = {}
        """By device, and by node."""
        self._parts: dict[str, dict[str, DeviceReport]] = {}
        """Of parts, by the GPU that they are parts of, and by node."""
        self._known: dict[str, list[DeviceView]] = {}

    def set_node(self, view: NodeView, created: datetime) -> set[str]:
        """Learn what a node reports now; return the other nodes that report some of it too, or did."""
        concerned = self.remove_node(view.name)
        closed = standing_refusal(view) is not None
        devices = [device for device in view.devices if device.kind != "SOFTWARE"]
        self._known[view.name] = devices
        for device in devices:
            report = DeviceReport(view.name, closed, created, frozenset({device.uuid}))
            self._reports.setdefault(device.uuid, {})[view.name] = report
            if device.parent:
                parts = self._parts.setdefault(device.parent, {})
                more = parts[view.name].devices if view.name in parts else frozenset()
                parts[view.name] = report._replace(devices=report.devices | more)
        for device in devices:
            concerned |= self._rivals(device).keys()
        return concerned - {view.name}

    def remove_node(self, node: str) -> set[str]:
        """Forget a node; return the others that report some of what it did."""
        concerned: set[str] = set()
        devices = self._known.pop(node, [])
        for device in devices:
            concerned |= self._rivals(device).keys()
        for device in devices:
            _discard(self._reports, device.uuid, node)
            if device.parent:
                _discard(self._parts, device.parent, node)
        return concerned - {node}

    def barred(self, view: NodeView) -> NodeView:
        """Return the node without those of its devices that another one gives to sessions."""
        others = {device.uuid: why for device in view.devices if (why := self._elsewhere(view.name, device))}
        if not others:
            return view
        devices = tuple(
            replace(device, usable=False, health_reason=f"{REASON}: {others[device.uuid]}")
            if device.uuid in others and device.usable
            else device
            for device in view.devices
        )
        return replace(view, devices=devices)

    def notices(self, nodes: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Say of each node of which of its devices others report the same, and which one gives each to sessions."""
        found: dict[str, tuple[Mapping[str, DeviceReport], list[str], str]] = {}
        for node, device in ((name, device) for name in nodes for device in self._known.get(name, ())):
            if device.uuid not in found:
                rivals = self._rivals(device)
                named = heapq.nsmallest(_MOST_NAMED + 1, rivals)
                found[device.uuid] = rivals, named, self._giver(rivals) if len(rivals) > 1 else ""
            rivals, named, giver = found[device.uuid]
            if len(rivals) > 1 and node in rivals:
                others = ", ".join([name for name in named if name != node][:_MOST_NAMED])
                yield (
                    node,
                    f"GPU {device.uuid} is also reported by node {others}: sessions get it on node {giver} only. "
                    "Run one agent on a machine, or give each its own GPUs. One that will not come back is removed by "
                    "footlights nodes forget.",
                )

    def _elsewhere(self, node: str, device: DeviceView) -> str:
        rivals = self._rivals(device)
        if node not in rivals or len(rivals) < 2:
            return ""
        giver = self._giver(rivals)
        return "" if giver == node else f"node {giver} reports the same GPU, and it is given to sessions there"

    def _giver(self, rivals: Mapping[str, DeviceReport]) -> str:
        def rank(report: DeviceReport) -> tuple[bool, bool, datetime, str]:
            taken = any(self._is_taken(report.node, uuid) for uuid in report.devices)
            return not taken, report.closed, report.created, report.node

        return min(rivals.values(), key=rank).node

    def _rivals(self, device: DeviceView) -> Mapping[str, DeviceReport]:
        """Every report of a device, of what it is a part of, and of its parts; by node."""
        found = self._reports.get(device.uuid, {})
        others = self._reports.get(device.parent) if device.parent else self._parts.get(device.uuid)
        return {**others, **found} if others else found


def _discard(reports: dict[str, dict[str, DeviceReport]], key: str, node: str) -> None:
    found = reports.get(key, {})
    found.pop(node, None)
    if not found:
        reports.pop(key, None)
