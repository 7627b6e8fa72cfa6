"""Wishes that want the same: matched against the cells once, and remembered."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from footlights.scheduler.checks import capability_refusal

if TYPE_CHECKING:
    from footlights.scheduler.device_cells import DeviceCell, DeviceCells, DeviceModel
    from footlights.scheduler.explanation import WaitReason
    from footlights.scheduler.views import LeftAlone, Wish

Key = tuple[object, ...]


def key_of(wish: Wish) -> Key:
    """Return what wishes of one shape have in common: everything except the session and what it avoids."""
    return (
        wish.launcher,
        wish.isolation,
        wish.slots,
        wish.min_memory_bytes,
        wish.gpu,
        wish.graphics,
        wish.encoder,
        wish.device_names,
        frozenset(wish.node_labels.items()) if wish.node_labels else None,
    )


class WishShape:
    """What wishes of one shape find among the cells.

    Attributes:
        classes: The cells whose devices would do, best first. One class holds devices that differ in nothing that
            comes before warmth in the rank; a tier of it, devices that differ in nothing but their node.
        refused: The wishes that were refused, by the nodes that they were kept away from, with the index's count of
            what had become free at that moment.
        said: The reasons that were given, by the same nodes, and the index's count of changes at that moment.
    """

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.classes: list[list[list[DeviceCell]]] = []
        self.refused: dict[LeftAlone, int] = {}
        self.said: dict[LeftAlone, tuple[int, tuple[WaitReason, ...]]] = {}
        self._incapable: dict[DeviceModel, str] = {}
        self._made = -1

    def match(self, cells: DeviceCells) -> None:
        """Look at the cells again if there are others than the last time."""
        if self._made == cells.made:
            return
        self._made = cells.made
        kinds = cells.kinds()
        known = self._incapable
        self._incapable = {kind: known[kind] if kind in known else self._check(kind) for kind in kinds}
        fitting = (cell for kind in kinds for cell in kind.cells.values() if not self.refusal(cell))
        ranked = sorted(((self._rank(cell), cell) for cell in fitting), key=lambda found: found[0])
        self.classes = [
            [[cell for _, cell in tier] for _, tier in groupby(members, key=lambda found: found[0])]
            for _, members in groupby(ranked, key=lambda found: found[0][0])
        ]

    def refusal(self, cell: DeviceCell) -> str:
        """Say why the devices of a cell will not do: the reason alone, by the order of the checks; empty if they will.

        ``match`` comes first.
        """
        if cell.kind is None:
            return cell.sick
        if incapable := self._incapable[cell.kind]:
            return incapable
        if self.wish.slots > cell.free:
            return "NO_SLOT"
        if cell.foreign:
            return "FOREIGN_PROCESS"
        if cell.full and self.wish.encoder:
            return "ENCODER_FULL"
        return "MEMORY" if cell.memory < self.wish.min_memory_bytes else ""

    def _check(self, kind: DeviceModel) -> str:
        refusal = capability_refusal(self.wish, kind.sample)
        return refusal.reason if refusal else ""

    def _rank(self, cell: DeviceCell) -> tuple[bool, int, int]:
        kind = cell.kind
        assert kind is not None
        return (kind.hardware and not self.wish.gpu, cell.free, kind.memory_gib)
