"""The placement index: the fleet in memory, ready to answer what fits where."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from footlights.scheduler.explanation import NodeVerdict, WaitReason, counted, verdicts
from footlights.scheduler.fleet_state import FleetState, NodeDevice
from footlights.scheduler.nodesets import positions, sample
from footlights.scheduler.unserved import LASTING, UNSERVED, able, lacking
from footlights.scheduler.views import LeftAlone, SlotChoice
from footlights.scheduler.wish_shapes import Key, WishShape, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from footlights.scheduler.device_cells import DeviceCell
    from footlights.scheduler.views import DeviceView, NodeView, Wish

V = TypeVar("V")

NO_NODE = WaitReason("NO_NODE", why="no node has joined")
EXPLAINED = 100
"""How many nodes an explanation shows one by one."""
_SHAPES = 4096
"""How many shapes of wishes are remembered; beyond it all are forgotten."""
_SAID = 256
"""How many answers are remembered for one shape, by the nodes that were blocked for the wish."""


class Index(FleetState):
    """Chooses devices for wishes, among the nodes that it knows.

    A choice is the best of all devices that fit, in this order:

    1. no GPU for a wish that needs none, while anything else will do;
    2. a node that has not failed recently: one that fails fast would always have the most room;
    3. a node that is warm for the application's version: there it starts in seconds, elsewhere perhaps in minutes;
    4. the device with the fewest free slots, so that whole devices stay for those who need one;
    5. the least memory, in whole GiB, so that large devices stay for those who need one;
    6. the node with the fewest launches;
    7. the names of node and device.

    Warmth comes before packing because it is what a user feels, and costs little: on simulated fleets it had 1.4 to 4
    times as many starts on warm nodes as when it only broke ties, for 1.3 points more of refusals at the most.

    It is one process's memory of the fleet: that a slot is given only once is enforced by the store. Its owner calls

    * ``set_node`` for every node at first and for each that has changed since in any way; ``remove_node`` for one that
      is gone;
    * ``place`` for a wish, which also holds the slots until ``confirm`` (the store has them) or ``withdraw`` (it does
      not have them);
    * ``release``, where it learns of the end of a launch before the node's next view.

    Every placement must be confirmed or withdrawn. Its hold outlives ``set_node``, so that a view which was read before
    the placement was written does not give its slots away again; after ``confirm`` such a view would. So pass no view
    that is older than a confirmed write: the simplest way is to collect what was written, and to confirm it right
    before the next views are read. Where it is not known whether a write succeeded, do the same, and read the node
    again.

    Not for use by several threads at once.
    """

    def __init__(self, nodes: Iterable[NodeView] = ()) -> None:
        super().__init__(nodes)
        self._shapes: dict[Key, WishShape] = {}

    def place(self, wish: Wish) -> SlotChoice | None:
        """Choose slots for a wish and hold them; None where it fits nowhere."""
        placement = self.choose(wish)
        if placement is not None:
            self._hold(placement)
        return placement

    def choose(self, wish: Wish) -> SlotChoice | None:
        """Say where a wish would be placed now, without taking anything."""
        shape, left_alone = self._shape_of(wish), LeftAlone.of(wish)
        if "" in left_alone.crashed or shape.refused.get(left_alone) == self.freed:
            return None
        shape.match(self._cells)
        nodes = self._table.ready_for(wish)
        for names in left_alone:
            if names:
                nodes &= ~self._table.among(names)
        found = self._best(wish, shape, nodes)
        if found is None:
            if not wish.avoid:
                _remember(shape.refused, left_alone, self.freed)
            return None
        member, held = found
        free = (slot for slot in range(held.view.slots) if slot not in held.leased)
        return SlotChoice(
            wish.session_id, member.view.name, held.view.uuid, tuple(islice(free, wish.slots)), wish.share
        )

    def reasons(self, wish: Wish) -> tuple[WaitReason, ...]:
        """Count the reasons against a wish over all devices, most frequent first."""
        shape, left_alone = self._shape_of(wish), LeftAlone.of(wish)
        said = shape.said.get(left_alone)
        if not wish.avoid and said is not None and said[0] == self._changes:
            return said[1]
        reasons = counted(self._tally(wish, shape, left_alone)) if self._table.members else (NO_NODE,)
        if not wish.avoid:
            _remember(shape.said, left_alone, (self._changes, reasons))
        return reasons

    def unserved(self, wish: Wish) -> tuple[WaitReason, ...]:
        """Say which needs no node could meet, whatever ends or comes back; empty where one could, or none has joined.

        The first reason names the needs; the others count what each node or device lacks.
        """
        if not self._table.members or self.could_serve(wish):
            return ()
        why = f"no node could serve it: {lacking(wish, self.could_serve)}"
        return WaitReason(UNSERVED, why=why), *(each for each in self.reasons(wish) if each.reason in LASTING)

    def could_serve(self, wish: Wish) -> bool:
        """Return whether any node that is known could serve a wish once it is ready, well and free."""
        nodes = self._table.offering(wish)
        for kind in self._cells.kinds() if nodes else ():
            there = any(cell.layers[0] & nodes for cell in kind.cells.values())
            if there and able(wish, kind.sample, kind.most_memory):
                return True
        return any(able(wish, view, view.memory_total_bytes) for view in self._sick_on(nodes))

    def _sick_on(self, nodes: int) -> Iterator[DeviceView]:
        for cell in self._cells:
            if cell.kind is None:
                for position in positions(cell.layers[0] & nodes):
                    held = self._table.members[position].devices.values()
                    yield from (each.view for each in held if each.cell is cell)

    def fitting(self, wish: Wish, limit: int) -> list[str]:
        """Return up to so many nodes on which a wish would be placed now, for one that may not be yet."""
        shape = self._shape_of(wish)
        shape.match(self._cells)
        nodes = self._fitting(shape, self._table.ready_for(wish))
        return [self._table.members[position].view.name for position in islice(positions(nodes), limit)]

    def explain(self, wish: Wish, limit: int = EXPLAINED) -> list[NodeVerdict]:
        """Return the verdicts on a wish of up to ``limit`` nodes, at least 1, in their order.

        The node that would be taken is among them; the others are from all that differ: those with a device that
        fits, those of which no device does, and those that are refused as a whole, by each reason. ``reasons`` has the
        counts over all nodes.
        """
        shape = self._shape_of(wish)
        shape.match(self._cells)
        chosen = self.choose(wish)
        best = 1 << self._table.by_name[chosen.node].position if chosen else 0
        nodes = self._table.everyone()
        refused = self._table.refused(wish, LeftAlone.of(wish))
        for out in refused.values():
            nodes ^= out
        fitting = self._fitting(shape, nodes)
        groups = (fitting ^ best, nodes ^ fitting, *refused.values())
        shown = best | sample(groups, limit - best.bit_count())
        return verdicts(wish, (self._view(self._table.members[position]) for position in positions(shown)))

    def _fitting(self, shape: WishShape, among: int) -> int:
        """Return the nodes with a device that fits; ``match`` comes first."""
        nodes = 0
        for cell in self._cells:
            if not shape.refusal(cell):
                nodes |= cell.layers[0] & among
        return nodes

    def _best(self, wish: Wish, shape: WishShape, nodes: int) -> NodeDevice | None:
        warm = nodes & self._table.warm_for(wish)
        choices: tuple[int, ...] = (warm, nodes) if warm else (nodes,)
        if wish.doubted and (doubted := nodes & self._table.among(wish.doubted)):
            choices = (*(each & ~doubted for each in choices), *(each & doubted for each in choices))
        for tiers in shape.classes:
            for among in choices:
                for tier in tiers:
                    if found := self._first(wish, tier, among):
                        return found
        return None

    def _first(self, wish: Wish, tier: list[DeviceCell], among: int) -> NodeDevice | None:
        nodes = 0
        for cell in tier:
            nodes |= cell.layers[0] & among
        while nodes:
            member = self._table.least_busy(nodes)
            for held in member.devices.values():
                if held.cell in tier and not _avoided(wish, member.view.name, held.view.uuid):
                    return member, held
            nodes ^= 1 << member.position
        return None

    def _tally(self, wish: Wish, shape: WishShape, left_alone: LeftAlone) -> Counter[tuple[str, str]]:
        shape.match(self._cells)
        counts: Counter[tuple[str, str]] = Counter()
        nodes = self._table.everyone()
        for reason, refused in self._table.refused(wish, left_alone).items():
            counts[reason, "node"] += refused.bit_count()
            nodes ^= refused
        for cell in self._cells:
            if devices := cell.devices(nodes):
                counts[shape.refusal(cell) or "FITS", "device"] += devices
        for name in {node for (node, _), why in wish.avoid.items() if why}:
            member = self._table.by_name.get(name)
            if member is None or not nodes >> member.position & 1:
                continue
            for uuid, held in member.devices.items():
                if held.cell is not None and _avoided(wish, name, uuid) and not shape.refusal(held.cell):
                    counts["FITS", "device"] -= 1
                    counts["REFUSED", "device"] += 1
        return counts

    def _shape_of(self, wish: Wish) -> WishShape:
        key = key_of(wish)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
                self._cells.forget_steps()
            shape = self._shapes[key] = WishShape(wish)
            self._know_size(wish.min_memory_bytes)
        return shape


def _avoided(wish: Wish, node: str, device: str) -> bool:
    return bool(wish.avoid and (wish.avoid.get((node, "")) or wish.avoid.get((node, device))))


def _remember(known: dict[LeftAlone, V], key: LeftAlone, value: V) -> None:
    if len(known) >= _SAID:
        known.clear()
    known[key] = value
