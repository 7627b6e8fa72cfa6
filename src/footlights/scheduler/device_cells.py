"""Devices in cells of equals: to every wish, all devices of one cell are the same.

A wish is matched against cells, of which there are tens, instead of devices, of which there may be 80,000. Two devices
differ in what a check looks at: what they can do (their model), how many slots are free, whether something foreign
runs there, whether the encoder is full, and their free memory. Memory is divided into steps, one for each size that a
wish has asked for.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING

from footlights.scheduler.checks import GIB, HARDWARE, condition_refusal, encoder_full, memory_left
from footlights.scheduler.nodesets import narrowed, widened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from footlights.scheduler.views import DeviceView, Share

_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_FEW = 256
"""So many cells are never worth a clean-up."""


class DeviceModel:
    """A model of device: those that can do the same."""

    __slots__ = ("cells", "hardware", "memory_gib", "most_memory", "sample")

    def __init__(self, sample: DeviceView) -> None:
        self.sample = sample
        self.hardware = sample.kind in HARDWARE
        self.memory_gib = memory_gib(sample)
        self.most_memory = sample.memory_total_bytes
        """Of any device of the model, in bytes; None where it is not known."""
        self.cells: dict[tuple[int, bool, bool, int], DeviceCell] = {}


class DeviceCell:
    """Equal devices, as the set of the nodes that have them."""

    __slots__ = ("foreign", "free", "full", "kind", "layers", "memory", "sick")

    def __init__(
        self, kind: DeviceModel | None, sick: str, free: int = 0, *, foreign: bool, full: bool, memory: int
    ) -> None:
        self.kind, self.sick = kind, sick
        self.free, self.foreign, self.full, self.memory = free, foreign, full, memory
        self.layers = [0]
        """At n the nodes that have more than n devices here; the first are all that have one."""

    def add(self, position: int, known: int) -> None:
        """Put in one more device of a node that has ``known`` of them here."""
        if known == len(self.layers):
            self.layers.append(0)
        self.layers[known] |= 1 << position

    def discard(self, position: int, known: int) -> None:
        """Take out one of the ``known`` devices that a node has here."""
        self.layers[known - 1] ^= 1 << position
        if known > 1 and not self.layers[known - 1]:
            self.layers.pop()

    def devices(self, nodes: int) -> int:
        """Count the devices that these nodes have here."""
        return sum((layer & nodes).bit_count() for layer in self.layers)


def memory_gib(device: DeviceView) -> int:
    """Return its memory in whole GiB; 0 where it has none of its own or it is unknown.

    Two boards of one model may differ by a few MiB, which is no reason to prefer one.
    """
    return round((device.memory_total_bytes or 0) / GIB)


class DeviceCells:
    """All cells."""

    def __init__(self) -> None:
        self.made = 0
        """Grows whenever a cell comes or goes: what was matched against fewer is matched again."""
        self._kinds: dict[tuple[object, ...], DeviceModel] = {}
        self._sick: dict[str, DeviceCell] = {}
        self._steps = [_LEAST, 0]
        self._count, self._clean_at = 0, _FEW

    def __iter__(self) -> Iterator[DeviceCell]:
        yield from self._sick.values()
        for kind in self._kinds.values():
            yield from kind.cells.values()

    def kinds(self) -> list[DeviceModel]:
        """Return every model."""
        return list(self._kinds.values())

    def kind(self, device: DeviceView) -> DeviceModel:
        """Return the model of a device."""
        does = (device.name, device.kind, device.slots, device.graphics, device.encoder, memory_gib(device))
        known = self._kinds.get(does)
        if known is None:
            known = self._kinds[does] = DeviceModel(device)
            self.made += 1
        elif known.most_memory is not None and device.memory_total_bytes is not None:
            known.most_memory = max(known.most_memory, device.memory_total_bytes)
        return known

    def sick(self, device: DeviceView) -> DeviceCell | None:
        """Return the cell of a device that no session is given; None for one that is well."""
        refusal = condition_refusal(device)
        if refusal is None:
            return None
        known = self._sick.get(refusal.reason)
        if known is None:
            known = self._sick[refusal.reason] = DeviceCell(
                None, refusal.reason, foreign=False, full=False, memory=_LEAST
            )
            self._grown()
        return known

    def well(self, kind: DeviceModel, device: DeviceView, free: int, shares: Collection[Share]) -> DeviceCell:
        """Return the cell of a device that is well, has so many slots free, and keeps these shares for launches."""
        foreign, full = bool(device.foreign), False
        memory = _LEAST
        # Checks come in an order: encoder and memory are not looked at where an earlier one refuses every wish.
        if free > 0 and not foreign:
            full = bool(encoder_full(device, shares))
            left = memory_left(device, shares)
            memory = _MOST if left is None else self._steps[bisect_right(self._steps, left) - 1]
        key = (max(0, free), foreign, full, memory)
        known = kind.cells.get(key)
        if known is None:
            known = DeviceCell(kind, "", key[0], foreign=foreign, full=full, memory=memory)
            kind.cells[key] = known
            self._grown()
        return known

    def tell_apart(self, memory: int) -> int | None:
        """Make a step at a size; None where there is one.

        Otherwise return the step below: every device in a cell from there up to the size must be put in its cell again.
        """
        at = bisect_right(self._steps, memory)
        below = self._steps[at - 1]
        if below == memory:
            return None
        insort(self._steps, memory)
        return below

    def raise_memory(self, cell: DeviceCell, memory: int) -> bool:
        """Move a whole cell up to a step of memory; return False, and do nothing, where there is such a cell."""
        assert cell.kind is not None
        known = cell.kind.cells
        if (cell.free, cell.foreign, cell.full, memory) in known:
            return False
        del known[cell.free, cell.foreign, cell.full, cell.memory]
        cell.memory = memory
        known[cell.free, cell.foreign, cell.full, memory] = cell
        self.made += 1
        return True

    def forget_steps(self) -> None:
        """Forget the steps of memory. Cells that are finer than needed do no harm."""
        self._steps = [_LEAST, 0]

    def clean(self) -> None:
        """Forget empty cells, once there are many. Do not call it between asking for a cell and putting a device in."""
        if self._count < self._clean_at:
            return
        self._sick = {reason: cell for reason, cell in self._sick.items() if cell.layers[0]}
        for kind in self._kinds.values():
            kind.cells = {key: cell for key, cell in kind.cells.items() if cell.layers[0]}
        self._kinds = {does: kind for does, kind in self._kinds.items() if kind.cells}
        self._count = sum(1 for _ in self)
        self._clean_at = max(_FEW, 2 * self._count)
        self.made += 1

    def widen(self, position: int) -> None:
        """Make room for a node at the position."""
        for cell in self:
            cell.layers = [widened(layer, position) for layer in cell.layers]

    def narrow(self, position: int) -> None:
        """Close the gap of a node whose devices were taken out."""
        for cell in self:
            cell.layers = [narrowed(layer, position) for layer in cell.layers]

    def _grown(self) -> None:
        self._count += 1
        self.made += 1
