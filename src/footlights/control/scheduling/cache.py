"""The board: the fleet in the memory of the process that places, ready to answer what fits where.

It is fed from the store: nodes that a wake-up names are read again, and now and then all are, which guarantees it. What
it chooses is decided by the database: a slot that somebody else was faster to take makes the choice void.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from footlights.control.scheduling import crash_loops, quarantine, views
from footlights.control.scheduling.crash_loops import Crashes
from footlights.scheduler import Index, Placement, Waiting, Wish
from footlights.store.nodes import fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.nodes.fleet import FleetNode


class Board:
    """Knows the fleet; chooses and holds slots."""

    SWEEP_S = 10.0
    """All nodes are read at least so often, unless reading them takes more than a fiftieth of it."""
    LONGEST_SWEEP_S = 60.0
    """And so often however long it takes: a reading in the middle of which the machine slept says nothing."""
    GUARD_S = 1.0
    """Crash loops and quarantines are looked at so often, and also with every node that is read by name, unless that
    takes more than a twentieth of the time."""
    MOST_NAMED = 2000
    """So many nodes are read by name; beyond it all are."""
    FRESH_S = 3.0
    """A board that was read longer ago is not believed by whoever does not read it first."""

    def __init__(
        self, store: Store, bus: Signals, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without a node."""
        self._store, self._bus, self._clock, self._monotonic = store, bus, clock, monotonic
        self._changes = bus.placing.subscribe()
        self._changed: set[str] = set()
        """Nodes of which the newest is not known."""
        self.forget()

    def forget(self) -> None:
        """Forget everything: another replica places from now on, or did until now."""
        self._index = Index()
        self._members: dict[str, FleetNode] = {}
        self._written: list[Placement] = []
        self._touched: set[str] = set()
        self._quarantined: Mapping[tuple[str, str], str] = {}
        self._crashes = Crashes()
        self._swept_at = self._guarded_at = self._read_at = -1e9
        self._sweep_s, self._guard_s = self.SWEEP_S, 0.0

    @property
    def fresh(self) -> bool:
        """Whether it was read a moment ago."""
        return self._monotonic() - self._read_at < self.FRESH_S

    @property
    def crashes(self) -> Crashes:
        """Which applications have failed too often of late, as last looked at."""
        return self._crashes

    async def read(self) -> None:
        """Learn what has changed since the last time."""
        # What was written before this reading is seen by it; what is written meanwhile stays held until the next.
        for placement in self._written:
            self._index.confirm(placement)
        self._written.clear()
        started = self._monotonic()
        changes = self._changes.take()
        self._changed |= changes.items
        if changes.everything:
            self._swept_at = -1e9
        names = set(self._changed)
        sweep = started - self._swept_at >= self._sweep_s or len(names) > self.MOST_NAMED
        guard = sweep or started - self._guarded_at >= (self._guard_s if names else self.GUARD_S)
        if not (sweep or names or guard):
            return
        now = self._clock()
        touched, self._touched = self._touched, set()

        def read(tx: Transaction) -> tuple[list[FleetNode], dict[tuple[str, str], str], Crashes]:
            found = fleet.members(tx, None if sweep else sorted(names)) if sweep or names else []
            if not guard:
                return found, dict(self._quarantined), self._crashes
            return found, quarantine.load(tx, now=now), crash_loops.load(tx, now=now)

        try:
            found, quarantined, self._crashes = await self._store.read(read)
        except BaseException:
            self._touched |= touched
            raise
        self._changed -= names
        # Where the index was told of a placement, it knows more than what was read before: that is compared no more.
        stale = {member.node for member in found if self._members.get(member.node) != member}
        read_again = touched & {member.node for member in found}
        self._touched |= touched - read_again
        stale |= read_again
        # A quarantine's text counts down, so a node that is in one is told anew each time.
        stale |= {node for node, _ in (*self._quarantined, *quarantined)}
        gone = (self._members.keys() if sweep else names) - {member.node for member in found}
        self._members.update((member.node, member) for member in found)
        self._quarantined = quarantined
        for name in gone:
            self._members.pop(name, None)
            self._index.remove_node(name)
        # In the index's own order: each that is new is its last then, and moves none of the others.
        for name in sorted(stale & self._members.keys()):
            self._index.set_node(views.node_view(self._members[name], quarantined))
        self._read_at = started
        took = self._monotonic() - started
        if guard:
            self._guarded_at, self._guard_s = started, 20 * took
        if sweep:
            self._swept_at = started
            self._sweep_s = min(max(self.SWEEP_S, 50 * took), self.LONGEST_SWEEP_S)

    def place(self, wish: Wish) -> Placement | None:
        """Choose slots for a wish and hold them."""
        return self._index.place(wish)

    def place_all(self, wishes: list[Wish]) -> list[Placement | Waiting]:
        """Choose and hold slots for a queue, in order."""
        return self._index.place_all(wishes)

    def written(self, placement: Placement) -> None:
        """Note that a placement is in the store."""
        self._touched.add(placement.node)
        self._written.append(placement)

    def refused(self, placement: Placement) -> None:
        """Note that the store refused a placement: somebody has these slots, and the node is looked at again."""
        self._touched.add(placement.node)
        self._index.withdraw(placement)
        self._index.take(placement.node, placement.device, placement.slots)
        self._bus.waiting(placement.node)

    def device_name(self, placement: Placement) -> str:
        """Return what the device is called."""
        member = self._members.get(placement.node)
        for uuid, _, reading in member.devices if member is not None else ():
            if uuid == placement.device:
                return views.device_name(reading)
        return ""
