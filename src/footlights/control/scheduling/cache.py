"""The fleet in the memory of the process that places, ready to answer what fits where.

It is fed from the store: nodes that a signal names are read again, and now and then all are, which guarantees it. The
database decides on what it proposes: where somebody else has taken a slot first, the proposal is void.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from footlights.control.scheduling import guard, quarantine, views
from footlights.control.scheduling.guard import Guard
from footlights.control.scheduling.outlook import affected
from footlights.control.scheduling.shared_devices import SharedDevices
from footlights.scheduler import Index, NodeView, SlotChoice, WaitReason, Wish
from footlights.store.nodes import fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from footlights.control.scheduling.views import TimeApart
    from footlights.control.signals import Signals
    from footlights.scheduler import LeaseEnd
    from footlights.store import Store, Transaction
    from footlights.store.nodes.fleet import FleetNode
    from footlights.supervision import Supervisor


@dataclass(slots=True)
class SlotHold:
    """Slots that are held for a session while its leases are written."""

    choice: SlotChoice | None
    """None where nothing fits or nothing may be chosen."""
    waits: bool = False
    """Whether the session got no slots."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the session is told of its wait, as its row keeps it; empty where that is not known yet."""
    confirmed: bool = False

    def tell(self, place: Mapping[str, Any]) -> None:
        """Set what the session is told of its wait."""
        self.told = place

    def wait(self, *, waits: bool) -> None:
        """Say whether the session got no slots."""
        self.waits = waits

    def confirm(self) -> None:
        """Say that the leases are in the store. Without it nothing is known, and the node is read again."""
        self.confirmed = True


class FleetCache:
    """Knows the fleet; chooses slots and holds them."""

    SWEEP_S = 10.0
    """All nodes are read at least so often, unless reading them takes more than a fiftieth of it."""
    LONGEST_SWEEP_S = 60.0
    """And so often however long it takes: a reading in the middle of which the machine slept says nothing."""
    GUARD_S = 1.0
    """The guard and quarantines are looked at so often, and also with every node that is read by name, unless that
    takes more than a twentieth of the time."""
    MOST_NAMED = 2000
    """So many nodes are read by name; beyond it all are."""
    FRESH_S = 3.0
    """Slots are not held for a creation on what was read longer ago."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        clock: Callable[[], datetime],
        *,
        supervisor: Supervisor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without a node; ``supervisor`` reports nodes that cannot be read."""
        self._store, self._bus, self._clock, self._monotonic = store, bus, clock, monotonic
        self._supervisor = supervisor
        self._changes = bus.placing.subscribe()
        self._changed: set[str] = set()
        """Nodes of which the newest is not known."""
        self.forget()

    def forget(self) -> None:
        """Forget everything: another replica places from now on, or did until now."""
        self._index = Index()
        self._members: dict[str, FleetNode] = {}
        self._views: dict[str, NodeView] = {}
        self._shared = SharedDevices(self._index.is_taken)
        self._unreadable: dict[str, FleetNode] = {}
        self._written: list[SlotChoice] = []
        self._touched: set[str] = set()
        self._quarantined: Mapping[tuple[str, str], TimeApart] = {}
        self.guard = Guard()
        """What is left alone after failures, as last looked at."""
        self._swept_at = self._guarded_at = self._read_at = -1e9
        self._sweep_s, self._guard_s = self.SWEEP_S, 0.0

    @property
    def fresh(self) -> bool:
        """Whether it was read a moment ago."""
        return self._monotonic() - self._read_at < self.FRESH_S

    @property
    def freed(self) -> int:
        """Grows whenever something may have become free."""
        return self._index.freed

    async def read(self) -> None:
        """Learn what has changed since the last time."""
        # What was written before this reading is seen by it; what is written meanwhile stays held until the next.
        for choice in self._written:
            self._index.confirm(choice)
        self._written.clear()
        started = self._monotonic()
        changes = self._changes.take()
        self._changed |= changes.items
        if changes.everything:
            self._swept_at = -1e9
        names = set(self._changed)
        sweep = started - self._swept_at >= self._sweep_s or len(names) > self.MOST_NAMED
        look = sweep or started - self._guarded_at >= (self._guard_s if names else self.GUARD_S)
        if not (sweep or names or look):
            return
        now = self._clock()
        touched, self._touched = self._touched, set()

        def read(tx: Transaction) -> tuple[list[FleetNode], dict[tuple[str, str], TimeApart], Guard]:
            found = fleet.members(tx, None if sweep else sorted(names)) if sweep or names else []
            if not look:
                return found, dict(self._quarantined), self.guard
            known = guard.load(tx, now=now)
            return found, known.devices() | quarantine.load(tx, now=now), known

        try:
            found, quarantined, self.guard = await self._store.read(read)
        except BaseException:
            self._touched |= touched
            raise
        self._changed -= names
        # Where the index was told of a placement, it knows more than what was read before: that is compared no more.
        stale = {member.node for member in found if self._members.get(member.node) != member}
        read_again = touched & {member.node for member in found}
        self._touched |= touched - read_again
        stale |= read_again
        # A quarantine's text counts down, so a node that is in one is updated each time.
        stale |= {node for node, _ in (*self._quarantined, *quarantined)}
        gone = (self._members.keys() if sweep else names) - {member.node for member in found}
        self._members.update((member.node, member) for member in found)
        self._quarantined = quarantined
        concerned: set[str] = set()
        for name in gone:
            self._members.pop(name, None)
            self._unreadable.pop(name, None)
            concerned |= self._remove(name)
        for name in stale & self._members.keys():
            concerned |= self._view(self._members[name])
        # Who gives a GPU that several report may have changed. The index knows more than their last reading.
        await self._read_again(concerned - {member.node for member in found}, stale)
        # In the index's own order: each that is new is its last then, and moves none of the others.
        for name in sorted((stale | concerned) & self._views.keys()):
            self._index.set_node(self._shared.barred(self._views[name]))
        self._read_at = started
        took = self._monotonic() - started
        if look:
            self._guarded_at, self._guard_s = started, 20 * took
        if sweep:
            self._swept_at = started
            self._sweep_s = min(max(self.SWEEP_S, 50 * took), self.LONGEST_SWEEP_S)

    async def _read_again(self, names: set[str], stale: set[str]) -> None:
        """Read nodes that others concern; where that fails all that was to be learnt is learnt the next time."""
        if not names:
            return
        try:
            found = await self._store.read(lambda tx: fleet.members(tx, sorted(names)))
        except BaseException:
            self._changed |= names | stale
            self._touched |= names | stale
            raise
        for member in found:
            self._members[member.node] = member
            self._view(member)

    def place(self, wish: Wish) -> SlotChoice | None:
        """Choose slots for a wish and hold them until ``holding`` ends."""
        choice = self._index.place(wish)
        if choice is not None and wish.trials:
            self.guard.begin(wish.trials, choice.node)
        return choice

    def affected(self, ends: Sequence[LeaseEnd], wishes: Iterable[Wish]) -> list[NodeView]:
        """Return the nodes on which something ends, comes back, or is free for a wish that may not be placed yet."""
        return affected(self._index, ends, wishes, apart=[node for node, _ in self._quarantined])

    def choose(self, wish: Wish) -> SlotChoice | None:
        """Return where a wish would be placed now, without taking anything."""
        return self._index.choose(wish)

    def views(self, nodes: Iterable[str]) -> list[NodeView]:
        """Return those of some nodes that there are, as they are now."""
        return self._index.views(nodes)

    def late_agents(self) -> list[str]:
        """Return the nodes whose agents, of the release before, start nothing ahead."""
        return [name for name, view in self._views.items() if not view.starts_ahead]

    def fits(self, wish: Wish) -> bool:
        """Return whether a wish would be placed now, without taking anything."""
        return self._index.choose(wish) is not None

    def unserved(self, wish: Wish) -> tuple[WaitReason, ...]:
        """Say which needs of a wish no node could ever meet; empty where one could, or there is no node."""
        return self._index.unserved(wish)

    def reasons(self, wish: Wish) -> tuple[WaitReason, ...]:
        """Count the reasons against a wish over all devices, most frequent first."""
        return self._index.reasons(wish)

    @contextlib.contextmanager
    def holding(self, choices: Sequence[SlotChoice | None]) -> Iterator[list[SlotHold]]:
        """SlotHold chosen slots while the body writes their leases and confirms what it has written.

        They stay held after it until their nodes have been read again: what was confirmed is in the store then, and of
        the rest it is seen what became of it.
        """
        holds = [SlotHold(choice) for choice in choices]
        try:
            yield holds
        finally:
            for hold in holds:
                if hold.choice is None:
                    continue
                self._touched.add(hold.choice.node)
                self._written.append(hold.choice)
                if not hold.confirmed:
                    self._bus.placing.publish(hold.choice.node)

    def device_name(self, node: str, device: str) -> str:
        """Return what a device is called; empty where it is not known."""
        return self._index.device_name(node, device)

    def _view(self, member: FleetNode) -> set[str]:
        """Look at a node; return others that share GPUs with it. One that cannot be read is reported once, and left."""
        if self._unreadable.get(member.node) == member:
            return set()
        with self._supervisor.isolated("placement", node=member.node):
            view = views.node_view(member, self._quarantined)
            self._views[member.node] = view
            self._unreadable.pop(member.node, None)
            return self._shared.set_node(view, member.created_time)
        self._unreadable[member.node] = member
        return self._remove(member.node)

    def _remove(self, name: str) -> set[str]:
        self._views.pop(name, None)
        self._index.remove_node(name)
        return self._shared.remove_node(name)
