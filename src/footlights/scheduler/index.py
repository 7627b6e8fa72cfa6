"""The placement index: the fleet in memory, ready to answer what fits where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from footlights.scheduler.cells import Cell, Cells
from footlights.scheduler.decisions import Placement, Waiting
from footlights.scheduler.explaining import counted
from footlights.scheduler.roster import Held, Member, Roster
from footlights.scheduler.shapes import Key, Shape, key_of
from footlights.scheduler.views import NodeView, Wish

V = TypeVar("V")

NO_NODE = "NO_NODE: no node has joined"
_SHAPES = 4096
"""How many shapes of wishes are remembered; beyond it all are forgotten and learned anew."""
_SAID = 256
"""How many answers are remembered of one shape, by the nodes that were closed to the wish."""
_NOWHERE: frozenset[str] = frozenset()
_Place = tuple[Member, Held]


class Index:
    """Chooses devices for wishes, among nodes that it was told of.

    A choice is the best of all devices that fit, in this order:

    1. no GPU for a wish that needs none, while anything else will do;
    2. a node that is warm for the application's version: there it starts in seconds, elsewhere perhaps in minutes;
    3. the device with the fewest free slots, so that whole devices stay for those who need one;
    4. the least memory, in whole GiB, so that large devices stay for those who need one;
    5. the node with the fewest launches;
    6. the names of node and device.

    Warmth comes before packing because it is what a user feels, and costs little: on simulated fleets it had twice to
    four times as many starts on warm nodes as when it only broke ties, for one point more of refusals at the most.

    It is one process's memory of the fleet, not its truth: that a slot is given once at all is decided by the store.
    Whoever keeps one calls

    * ``set_node`` for every node at first and for each that has changed in anything since, whatever it was;
      ``remove_node`` for one that was forgotten;
    * ``place`` for a wish, which also holds the slots until ``confirm`` (the store has them) or ``withdraw`` (it has
      not) says how it went;
    * ``take`` and ``release``, where it learns of single launches that began or ended, before the node's next view.

    A hold outlives ``set_node``, so that a view which was read before a placement was written does not give its slots
    away again. So confirm a placement only after its write, and read no view before a ``confirm`` that is told after
    it: simplest is to confirm what was written right before the next reading. After a refused write, ``withdraw`` and
    tell the node anew before placing on: what refused it is news about that node.

    Not for use by several threads at once.
    """

    def __init__(self, nodes: Iterable[NodeView] = (), salt: str = "") -> None:
        """Take the nodes that are known at first, all at once: that is faster than one by one.

        Args:
            nodes: As for ``set_node``.
            salt: Shuffles the order in which equal nodes are taken. Replicas that place side by side give each its
                own, so that they do not all reach for the same one; without it, names decide.
        """
        self._roster = Roster(salt)
        self._cells = Cells()
        self._shapes: dict[Key, Shape] = {}
        self._changes = 0
        self._freed = 0
        for view in sorted(nodes, key=lambda node: self._roster.sort_key(node.name)):
            self.set_node(view)

    # What it is told

    def set_node(self, view: NodeView) -> None:
        """Learn of a node, or replace all that is known of it but for the slots that are held. Idempotent."""
        self._cells.clean()
        member = self._roster.by_name.get(view.name)
        if member is None:
            member = self._roster.join(view.name)
            if member.position < len(self._roster.members) - 1:
                self._cells.widen(member.position)
        elif member.is_as(view):
            return
        self._roster.tell(member, view)
        self._set_devices(member, view)
        member.known_launches = view.launches
        for held in member.devices.values():
            self._settle_device(member, held)
        self._settle_launches(member)
        self._changed(freed=True)

    def remove_node(self, name: str) -> None:
        """Forget a node and what is held there; one that is not known is no error."""
        member = self._roster.by_name.get(name)
        if member is None:
            return
        for held in member.devices.values():
            self._move(member, held, None)
        self._roster.leave(member)
        self._cells.narrow(member.position)
        self._changed(freed=False)

    def take(self, node: str, device: str, slots: Iterable[int]) -> None:
        """Learn that a launch has begun on these slots. What is not known, or known already, changes nothing."""
        member, held = self._find(node, device)
        fresh = set(slots)
        if member is None or held is None or fresh <= held.known:
            return
        held.known |= fresh
        member.known_launches += 1
        self._settle(member, held, freed=False)

    def release(self, node: str, device: str, slots: Iterable[int]) -> None:
        """Learn that the launch on these slots has ended. What is not known, or free already, changes nothing."""
        member, held = self._find(node, device)
        ended = set(slots)
        if member is None or held is None or not ended & held.known:
            return
        held.known -= ended
        member.known_launches -= 1
        self._settle(member, held, freed=True)

    def confirm(self, placement: Placement) -> None:
        """Learn that a placement is in the store: from now on views say what became of it."""
        if not self._unhold(placement):
            return
        member, held = self._find(placement.node, placement.device)
        if member is not None and held is not None and not held.known.issuperset(placement.slots):
            held.known.update(placement.slots)
            member.known_launches += 1

    def withdraw(self, placement: Placement) -> None:
        """Learn that a placement came to nothing: its slots are what the node's last view said they were."""
        if not self._unhold(placement):
            return
        member, held = self._find(placement.node, placement.device)
        if member is not None and held is not None:
            self._settle(member, held, freed=True)

    # What it is asked

    def place(self, wish: Wish) -> Placement | None:
        """Choose slots for a wish and hold them; None where it fits nowhere."""
        placement = self.choose(wish)
        if placement is not None:
            member = self._roster.by_name[placement.node]
            member.holds.append(placement)
            self._settle(member, member.devices[placement.device], freed=False)
        return placement

    def place_all(self, wishes: Iterable[Wish]) -> list[Placement | Waiting]:
        """Place a queue, in order; later wishes see what earlier ones took.

        Work-conserving: a wish waits only if nothing fits it, and a smaller one behind it may overtake it. The reasons
        of those that wait are as the fleet stands at the end.
        """
        decided = [(wish, self.place(wish)) for wish in wishes]
        decisions: list[Placement | Waiting] = []
        waiting = 0
        for wish, placement in decided:
            if placement is None:
                waiting += 1
            decisions.append(placement or Waiting(wish.session_id, waiting, self.reasons(wish)))
        return decisions

    def choose(self, wish: Wish) -> Placement | None:
        """Say where a wish would be placed now, without taking anything."""
        shape, crashed = self._shape(wish), _crashed(wish)
        if "" in crashed or shape.refused.get(crashed) == self._freed:
            return None
        shape.match(self._cells)
        nodes = self._roster.ready_for(wish)
        if crashed:
            nodes &= ~self._roster.among(crashed)
        found = self._best(wish, shape, nodes)
        if found is None:
            if not wish.avoid:
                _remember(shape.refused, crashed, self._freed)
            return None
        member, held = found
        free = (slot for slot in range(held.view.slots) if slot not in held.leased)
        return Placement(wish.session_id, member.view.name, held.view.uuid, tuple(islice(free, wish.slots)))

    def reasons(self, wish: Wish) -> tuple[str, ...]:
        """Count the reasons against a wish over all devices, most frequent first: ``NO_SLOT: 3 devices``."""
        shape, crashed = self._shape(wish), _crashed(wish)
        said = shape.said.get(crashed)
        if not wish.avoid and said is not None and said[0] == self._changes:
            return said[1]
        reasons = counted(self._tally(wish, shape, crashed)) if self._roster.members else (NO_NODE,)
        if not wish.avoid:
            _remember(shape.said, crashed, (self._changes, reasons))
        return reasons

    def nodes(self) -> Iterator[NodeView]:
        """Return every node as it stands now, with what was placed since it was told of: for ``verdicts``."""
        for member in self._roster.members:
            devices = tuple(
                held.view if held.view.leased == held.leased else replace(held.view, leased=frozenset(held.leased))
                for held in member.devices.values()
            )
            yield replace(member.view, devices=devices, launches=member.launches)

    # How it chooses

    def _best(self, wish: Wish, shape: Shape, nodes: int) -> _Place | None:
        warm = nodes & self._roster.warm_for(wish)
        for tiers in shape.classes:
            for among in (warm, nodes) if warm else (nodes,):
                for tier in tiers:
                    if found := self._first(wish, tier, among):
                        return found
        return None

    def _first(self, wish: Wish, tier: list[Cell], among: int) -> _Place | None:
        nodes = 0
        for cell in tier:
            nodes |= cell.layers[0] & among
        while nodes:
            member = self._roster.least_busy(nodes)
            for held in member.devices.values():
                if held.cell in tier and not (wish.avoid and wish.avoid.get((member.view.name, held.view.uuid))):
                    return member, held
            nodes ^= 1 << member.position
        return None

    def _tally(self, wish: Wish, shape: Shape, crashed: frozenset[str]) -> Counter[tuple[str, str]]:
        shape.match(self._cells)
        counts: Counter[tuple[str, str]] = Counter()
        nodes = (1 << len(self._roster.members)) - 1
        for reason, refused in self._roster.refused(wish, crashed, nodes).items():
            counts[reason, "node"] += refused.bit_count()
            nodes ^= refused
        for cell in self._cells:
            if devices := cell.devices(nodes):
                counts[shape.refusal(cell) or "FITS", "device"] += devices
        for (name, uuid), why in wish.avoid.items():
            member, held = self._find(name, uuid)
            if not why or member is None or held is None or held.cell is None:
                continue
            if nodes >> member.position & 1 and not shape.refusal(held.cell):
                counts["FITS", "device"] -= 1
                counts["REFUSED", "device"] += 1
        return counts

    def _shape(self, wish: Wish) -> Shape:
        key = key_of(wish)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
                self._cells.forget_steps()
            shape = self._shapes[key] = Shape(wish)
            self._tell_apart(wish.min_memory_bytes)
        return shape

    # How it keeps its books

    def _find(self, node: str, device: str) -> tuple[Member | None, Held | None]:
        member = self._roster.by_name.get(node)
        return member, member.devices.get(device) if member else None

    def _set_devices(self, member: Member, view: NodeView) -> None:
        stay = {device.uuid for device in view.devices}
        for uuid, held in member.devices.items():
            if uuid not in stay:
                self._move(member, held, None)
        devices = {}
        for device in sorted(view.devices, key=lambda device: device.uuid):
            kind = None if self._cells.sick(device) else self._cells.kind(device)
            known = set(device.leased)
            held = member.devices.get(device.uuid) or Held(device, kind, None, known, known)
            held.view, held.kind, held.known = device, kind, known
            devices[device.uuid] = held
        member.devices = devices

    def _settle(self, member: Member, held: Held, *, freed: bool) -> None:
        self._settle_device(member, held)
        self._settle_launches(member)
        self._changed(freed=freed)

    def _settle_device(self, member: Member, held: Held) -> None:
        held.leased = held.known
        for hold in member.holds:
            if hold.device == held.view.uuid:
                held.leased = held.leased.union(hold.slots)
        if held.kind is None:
            cell = self._cells.sick(held.view)
        else:
            cell = self._cells.well(held.kind, held.view, held.view.slots - len(held.leased))
        self._move(member, held, cell)

    def _settle_launches(self, member: Member) -> None:
        launches = member.known_launches
        for hold in member.holds:
            held = member.devices.get(hold.device)
            # The store may have told of a placement that nobody has confirmed yet.
            launches += held is not None and not held.known.issuperset(hold.slots)
        self._roster.load(member, launches)

    def _move(self, member: Member, held: Held, cell: Cell | None) -> None:
        before = held.cell
        if before is cell:
            return
        if before is not None:
            before.discard(member.position, member.alike(before))
        held.cell = None
        if cell is not None:
            cell.add(member.position, member.alike(cell))
        held.cell = cell

    def _tell_apart(self, memory: int) -> None:
        below = self._cells.tell_apart(memory)
        if below is None:
            return
        balance: Counter[Cell] = Counter()
        for _, held in self._between(below, memory):
            assert held.cell is not None
            balance[held.cell] += 1 if _has(held, memory) else -1
        # Most devices of a model are on the same side: the cell goes there as it is, and the others leave it.
        raised = {cell for cell, more in balance.items() if more > 0 and self._cells.raise_memory(cell, memory)}
        for member, held in self._between(below, memory + 1):
            if held.cell in balance and _has(held, memory) != (held.cell in raised):
                self._settle_device(member, held)

    def _between(self, low: int, high: int) -> Iterator[_Place]:
        for member in self._roster.members:
            for held in member.devices.values():
                if held.cell is not None and low <= held.cell.memory < high:
                    yield member, held

    def _unhold(self, placement: Placement) -> bool:
        member = self._roster.by_name.get(placement.node)
        if member is None or placement not in member.holds:
            return False
        member.holds.remove(placement)
        return True

    def _changed(self, *, freed: bool) -> None:
        self._changes += 1
        self._freed += freed


def _has(held: Held, memory: int) -> bool:
    return (held.view.memory_free_bytes or 0) >= memory


def _crashed(wish: Wish) -> frozenset[str]:
    return frozenset(name for name, why in wish.crashes.items() if why) if wish.crashes else _NOWHERE


def _remember(known: dict[frozenset[str], V], key: frozenset[str], value: V) -> None:
    if len(known) >= _SAID:
        known.clear()
    known[key] = value
