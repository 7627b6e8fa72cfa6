"""The fleet in memory: the last views of its nodes, and the slots held for placements on their way into the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from footlights.scheduler.checks import memory_left
from footlights.scheduler.device_cells import DeviceCell, DeviceCells
from footlights.scheduler.node_directory import KnownDevice, KnownNode, NodeDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from footlights.scheduler.views import NodeView, SlotChoice

NodeDevice = tuple[KnownNode, KnownDevice]


class FleetState:
    """Nodes and devices, kept as sets by everything that a choice asks for.

    A device's taken slots are those that are known to be leased, by views and single updates, and those that are held
    here. A hold that a view shows already is not counted twice.
    """

    def __init__(self, nodes: Iterable[NodeView] = ()) -> None:
        """Start with some nodes, as for ``set_node``: all at once is faster than one by one."""
        self._table = NodeDirectory()
        self._cells = DeviceCells()
        self._changes = 0
        """Grows whenever anything changes."""
        self.freed = 0
        """Grows whenever something may have become free."""
        for view in sorted(nodes, key=lambda node: node.name):
            self.set_node(view)

    def set_node(self, view: NodeView) -> None:
        """Add a node, or replace everything that is known of it except the slots that are held. Idempotent."""
        self._cells.clean()
        member = self._table.by_name.get(view.name)
        if member is None:
            member = self._table.join(view.name)
            if member.position < len(self._table.members) - 1:
                self._cells.widen(member.position)
        elif member.is_as(view):
            return
        self._table.tell(member, view)
        self._set_devices(member, view)
        member.known_launches = view.launches
        for held in member.devices.values():
            self._settle_device(member, held)
        self._settle_launches(member)
        self._changed(freed=True)

    def remove_node(self, name: str) -> None:
        """Remove a node and what is held there; an unknown one is no error."""
        member = self._table.by_name.get(name)
        if member is None:
            return
        for held in member.devices.values():
            self._move(member, held, None)
        self._table.leave(member)
        self._cells.narrow(member.position)
        self._changed(freed=False)

    def release(self, node: str, device: str, slots: Iterable[int]) -> None:
        """Note that the launch on these slots has ended; nothing for an unknown device, or where they are free."""
        member, held = self._find(node, device)
        ended = set(slots)
        if member is None or held is None or not ended & held.known:
            return
        held.known -= ended
        for slot in ended:
            held.known_shares.pop(slot, None)
        member.known_launches -= 1
        self._settle(member, held, freed=True)

    def confirm(self, placement: SlotChoice) -> None:
        """Note that a placement is in the store: from now on views show what became of it."""
        if not self._unhold(placement):
            return
        member, held = self._find(placement.node, placement.device)
        if member is not None and held is not None and not held.known.issuperset(placement.slots):
            held.known.update(placement.slots)
            held.known_shares[placement.slots[0]] = placement.share
            member.known_launches += 1

    def withdraw(self, placement: SlotChoice) -> None:
        """Note that a placement was not written: its slots are as the node's last view shows them."""
        if not self._unhold(placement):
            return
        member, held = self._find(placement.node, placement.device)
        if member is not None and held is not None:
            self._settle(member, held, freed=True)

    def is_taken(self, node: str, device: str) -> bool:
        """Return whether slots of a device are leased or held."""
        _, held = self._find(node, device)
        return held is not None and bool(held.leased)

    def nodes(self) -> Iterator[NodeView]:
        """Return every node as it is now, including what was placed since its last view: for ``verdicts``."""
        return (self._view(member) for member in self._table.members)

    def view(self, name: str) -> NodeView:
        """Return one node as it is now. Raises KeyError where there is none of the name."""
        return self._view(self._table.by_name[name])

    def views(self, names: Iterable[str]) -> list[NodeView]:
        """Return those of some nodes that there are, in their order."""
        return [self._view(self._table.by_name[name]) for name in sorted(set(names)) if name in self._table.by_name]

    def device_name(self, node: str, device: str) -> str:
        """Return what a device is called; empty for an unknown one."""
        held = self._find(node, device)[1]
        return held.view.name if held is not None else ""

    def _view(self, member: KnownNode) -> NodeView:
        devices = tuple(
            held.view
            if held.view.leased == held.leased
            else replace(held.view, leased=frozenset(held.leased), shares=held.shares)
            for held in member.devices.values()
        )
        return replace(member.view, devices=devices, launches=member.launches)

    def _hold(self, placement: SlotChoice) -> None:
        member = self._table.by_name[placement.node]
        member.holds.append(placement)
        self._settle(member, member.devices[placement.device], freed=False)

    def _unhold(self, placement: SlotChoice) -> bool:
        member = self._table.by_name.get(placement.node)
        if member is None or placement not in member.holds:
            return False
        member.holds.remove(placement)
        return True

    def _find(self, node: str, device: str) -> tuple[KnownNode | None, KnownDevice | None]:
        member = self._table.by_name.get(node)
        return member, member.devices.get(device) if member else None

    def _set_devices(self, member: KnownNode, view: NodeView) -> None:
        stay = {device.uuid for device in view.devices}
        for uuid, held in member.devices.items():
            if uuid not in stay:
                self._move(member, held, None)
        devices = {}
        for device in sorted(view.devices, key=lambda device: device.uuid):
            kind = None if self._cells.sick(device) else self._cells.kind(device)
            known = set(device.leased)
            held = member.devices.get(device.uuid) or KnownDevice(device, kind, None, known, known)
            held.view, held.kind, held.known = device, kind, known
            held.known_shares = dict(device.shares)
            devices[device.uuid] = held
        member.devices = devices

    def _settle(self, member: KnownNode, held: KnownDevice, *, freed: bool) -> None:
        self._settle_device(member, held)
        self._settle_launches(member)
        self._changed(freed=freed)

    def _settle_device(self, member: KnownNode, held: KnownDevice) -> None:
        held.leased, held.shares = held.known, held.known_shares
        for hold in member.holds:
            if hold.device == held.view.uuid:
                held.leased = held.leased.union(hold.slots)
                held.shares = {**held.shares, hold.slots[0]: hold.share}
        if held.kind is None:
            cell = self._cells.sick(held.view)
        else:
            cell = self._cells.well(held.kind, held.view, held.view.slots - len(held.leased), held.shares.values())
        self._move(member, held, cell)

    def _settle_launches(self, member: KnownNode) -> None:
        launches = member.known_launches
        for hold in member.holds:
            held = member.devices.get(hold.device)
            # A view may show a placement that is not confirmed yet.
            launches += held is not None and not held.known.issuperset(hold.slots)
        self._table.load(member, launches)

    def _move(self, member: KnownNode, held: KnownDevice, cell: DeviceCell | None) -> None:
        before = held.cell
        if before is cell:
            return
        cells = member.cells
        if before is not None:
            before.discard(member.position, cells[before])
            cells[before] -= 1
            if not cells[before]:
                del cells[before]
        if cell is not None:
            cell.add(member.position, cells.get(cell, 0))
            cells[cell] = cells.get(cell, 0) + 1
        held.cell = cell

    def _know_size(self, memory: int) -> None:
        below = self._cells.tell_apart(memory)
        if below is None:
            return
        balance: Counter[DeviceCell] = Counter()
        for _, held in self._between(below, memory):
            assert held.cell is not None
            balance[held.cell] += 1 if _has(held, memory) else -1
        # Most devices of a model are on the same side: the cell goes there as it is, and the others leave it.
        raised = {cell for cell, more in balance.items() if more > 0 and self._cells.raise_memory(cell, memory)}
        for member, held in self._between(below, memory + 1):
            if held.cell in balance and _has(held, memory) != (held.cell in raised):
                self._settle_device(member, held)

    def _between(self, low: int, high: int) -> Iterator[NodeDevice]:
        for member in self._table.members:
            for held in member.devices.values():
                if held.cell is not None and low <= held.cell.memory < high:
                    yield member, held

    def _changed(self, *, freed: bool) -> None:
        self._changes += 1
        self.freed += freed


def _has(held: KnownDevice, memory: int) -> bool:
    return (memory_left(held.view, held.shares.values()) or 0) >= memory
