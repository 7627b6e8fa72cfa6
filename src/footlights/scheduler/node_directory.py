"""The nodes of an index, as sets by everything that a wish asks of a node."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from footlights.protocol.isolation import Isolation
from footlights.scheduler.checks import room_refusal, standing_refusal
from footlights.scheduler.nodesets import NodeSets, lowest
from footlights.scheduler.views import DeviceView, LeftAlone, NodeView, Wish

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from footlights.scheduler.device_cells import DeviceCell, DeviceModel
    from footlights.scheduler.views import Share, SlotChoice

K = TypeVar("K")
READY = ""
FIRST = ("UNREACHABLE", "DRAINING", "CORDONED", "NOT_ACCEPTED")
"""The standings that are reported before what the node offers is looked at."""
LAST = ("NO_PORTS", "NO_DEVICE")
"""Those that are reported after."""


@dataclass(slots=True, eq=False)
class KnownDevice:
    """A device, and which of its slots are taken."""

    view: DeviceView
    kind: DeviceModel | None
    """None while it is sick."""
    cell: DeviceCell | None
    """None while it is in none: just come, or gone."""
    known: set[int]
    """The slots that are leased, as far as is known."""
    leased: set[int]
    """Those, and the slots that are held for placements on their way into the store."""
    known_shares: dict[int, Share] = field(default_factory=dict)
    """What is kept for the launches that are known, by the first slot of each."""
    shares: Mapping[int, Share] = field(default_factory=dict)
    """Those, and what is kept for placements on their way into the store."""


@dataclass(slots=True, eq=False)
class KnownNode:
    """A node."""

    view: NodeView
    """The last one; its leases and launches are out of date when something was placed since."""
    position: int
    known_launches: int = 0
    """As far as is known."""
    launches: int = 0
    """Those, and the placements on their way into the store."""
    standing: str = READY
    devices: dict[str, KnownDevice] = field(default_factory=dict)
    """By uuid, in the order of these."""
    holds: list[SlotChoice] = field(default_factory=list)
    """Placements on their way into the store."""
    cells: dict[DeviceCell, int] = field(default_factory=dict)
    """How many of its devices are in each cell that has any."""

    def is_as(self, view: NodeView) -> bool:
        """Say whether the view shows nothing new."""
        return (
            self.view == view
            and self.known_launches == view.launches
            and all(held.known == held.view.leased for held in self.devices.values())
        )


class NodeDirectory:
    """Nodes in the order of their names, in which equal ones are taken, and sets of them."""

    def __init__(self) -> None:
        self.members: list[KnownNode] = []
        self.by_name: dict[str, KnownNode] = {}
        self._order: list[str] = []
        self._standing: NodeSets[str] = NodeSets()
        self._launchers: NodeSets[tuple[str, int]] = NodeSets()
        self._labels: NodeSets[tuple[str, str]] = NodeSets()
        self._warm: NodeSets[tuple[str, str]] = NodeSets()
        self._busy: NodeSets[int] = NodeSets()
        self._loads: list[int] = []
        """The numbers of launches that nodes have, each once, ascending."""
        self._sets = (self._standing, self._launchers, self._labels, self._warm, self._busy)

    # Queries

    def everyone(self) -> int:
        """Return all nodes."""
        return (1 << len(self.members)) - 1

    def ready_for(self, wish: Wish) -> int:
        """Return the nodes whose devices may be looked at, crash loops aside."""
        return self._standing.get(READY) & self.offering(wish)

    def offering(self, wish: Wish) -> int:
        """Return the nodes that offer what a wish needs of a node, ready or not; for the launcher "", with any."""
        nodes = self._launchers.get((wish.launcher, wish.isolation)) if wish.launcher else self.everyone()
        for label in wish.node_labels.items():
            nodes &= self._labels.get(label)
        return nodes

    def warm_for(self, wish: Wish) -> int:
        """Return the nodes on which the wished version has been ready before."""
        return self._warm.get((wish.application, wish.application_version)) if wish.application else 0

    def among(self, names: frozenset[str]) -> int:
        """Return the known nodes among these names."""
        nodes = 0
        for name in names:
            if member := self.by_name.get(name):
                nodes |= 1 << member.position
        return nodes

    def least_busy(self, nodes: int) -> KnownNode:
        """Return the node with the fewest launches of a set that is not empty; the first of equals."""
        busy = self._busy.by_key
        for load in self._loads:
            if idle := nodes & busy[load]:
                return self.members[lowest(idle)]
        raise AssertionError("every node has a number of launches")

    def refused(self, wish: Wish, left_alone: LeftAlone) -> dict[str, int]:
        """Return the nodes that are refused as a whole, by reason, each by the first that applies."""
        found = {}
        left = self.everyone()

        def refuse(reason: str, out: int) -> None:
            nonlocal left
            if out:
                found[reason] = out
                left ^= out

        for reason in FIRST:
            refuse(reason, left & self._standing.get(reason))
        refuse("NO_LAUNCHER", left & ~self._launchers.get((wish.launcher, Isolation.NONE)))
        refuse("ISOLATION", left & ~self._launchers.get((wish.launcher, wish.isolation)))
        labelled = left
        for label in wish.node_labels.items():
            labelled &= self._labels.get(label)
        refuse("LABEL", left ^ labelled)
        refuse("UNWELL", left & self.among(left_alone.unwell))
        refuse("CRASH_LOOP", left if "" in left_alone.crashed else left & self.among(left_alone.crashed))
        for reason in LAST:
            refuse(reason, left & self._standing.get(reason))
        return found

    # Changes

    def join(self, name: str) -> KnownNode:
        """Add an unknown node without devices. The caller makes room for it in every other set."""
        position = bisect_left(self._order, name)
        if position < len(self.members):
            for nodes in self._sets:
                nodes.widen(position)
            for later in self.members[position:]:
                later.position += 1
        self._order.insert(position, name)
        member = KnownNode(_nothing(name), position)
        self.members.insert(position, member)
        self.by_name[name] = member
        self._standing.add(READY, position)
        self._add_load(0, position)
        return member

    def leave(self, member: KnownNode) -> None:
        """Remove a node whose devices were removed everywhere else."""
        self.tell(member, _nothing(member.view.name))
        self._standing.discard(member.standing, member.position)
        self._remove_load(member.launches, member.position)
        for nodes in self._sets:
            nodes.narrow(member.position)
        for later in self.members[member.position + 1 :]:
            later.position -= 1
        del self.members[member.position], self._order[member.position], self.by_name[member.view.name]

    def tell(self, member: KnownNode, view: NodeView) -> None:
        """Replace the view of a node, except its launches."""
        position, before = member.position, member.view
        member.view = view
        _move(self._launchers, position, _levels(before), _levels(view))
        _move(self._labels, position, before.labels.items(), view.labels.items())
        _move(self._warm, position, before.warm, view.warm)
        self._stand(member)

    def load(self, member: KnownNode, launches: int) -> None:
        """Say how many launches a node has."""
        if launches == member.launches:
            return
        self._remove_load(member.launches, member.position)
        self._add_load(launches, member.position)
        limit = member.view.port_blocks
        full = member.launches >= limit
        member.launches = launches
        if full != (launches >= limit):
            self._stand(member)

    def _stand(self, member: KnownNode) -> None:
        refusal = standing_refusal(member.view) or room_refusal(member.view, member.launches)
        standing = refusal.reason if refusal else READY
        if standing != member.standing:
            self._standing.discard(member.standing, member.position)
            self._standing.add(standing, member.position)
            member.standing = standing

    def _add_load(self, launches: int, position: int) -> None:
        if launches not in self._busy.by_key:
            insort(self._loads, launches)
        self._busy.add(launches, position)

    def _remove_load(self, launches: int, position: int) -> None:
        self._busy.discard(launches, position)
        if launches not in self._busy.by_key:
            self._loads.remove(launches)


def _nothing(name: str) -> NodeView:
    return NodeView(name, (), launchers={})


def _levels(view: NodeView) -> set[tuple[str, int]]:
    """Return every level that each of the node's launchers reaches."""
    return {(name, level) for name, most in view.launchers.items() for level in Isolation if level <= most}


def _move(sets: NodeSets[K], position: int, before: Set[K], after: Set[K]) -> None:
    if before == after:
        return
    for key in before - after:
        sets.discard(key, position)
    for key in after - before:
        sets.add(key, position)
