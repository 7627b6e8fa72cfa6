"""Placing: load, decide, write. Level-triggered; woken when a session waits or a slot is free.

A session that is being created is placed at once where nobody waits: its slots are chosen on the board and its leases
are written with it. Everything else goes through the queue, in passes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from footlights import errors, ids, scheduler
from footlights.control.replication.work_lease import LeaderLease, LeaseSuperseded
from footlights.control.scheduling import pending
from footlights.control.scheduling.pending import Outlook, Queue
from footlights.store.launches import launch_rows, slots
from footlights.store.launches.launch_rows import PlacementDecision
from footlights.store.sessions import session_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from footlights.control.observability.metrics import Metrics
    from footlights.control.scheduling.cache import Board
    from footlights.control.signals import Signals
    from footlights.store import Store
    from footlights.store.schema import LaunchRow, SessionRow

log = structlog.get_logger(__name__)

_ETA_CHANGE = 0.2
"""An estimate is written anew when it differs by more than this share of itself: watchers are not woken for less."""


class Placing:
    """Gives slots to waiting sessions."""

    PERIOD_S = 2.0
    OUTLOOK_S = 2.0
    """When slots become free is looked at, and told to those whose place is far behind, at most so often."""
    NEAR = 50
    """Whoever is so near to the front is told of every step."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        work: LeaderLease,
        board: Board,
        metrics: Metrics,
        clock: Callable[[], datetime],
        new_id: Callable[[], str] = ids.new_id,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what it reads and writes, whom it wakes, whose work it is, the board, and the clocks."""
        self._store, self._bus, self._work, self._board = store, bus, work, board
        self._metrics, self._clock, self._new_id, self._monotonic = metrics, clock, new_id, monotonic
        self._changes = bus.placing.subscribe(pending=True)
        self._outlook, self._outlook_at = Outlook(), -1e9
        self._waiting = True

    async def run(self) -> None:
        """Place until cancelled."""
        while True:
            if await self._changes.next(self.PERIOD_S) is None:
                self._metrics.woken("poll")
            try:
                held = self._work.held
                if await self._work.claim():
                    if not held:
                        self._board.forget()
                    await self.place_once()
            except LeaseSuperseded:
                self._work.lost()
            except errors.Error as error:
                log.warning("placing_failed", error=str(error))
                await asyncio.sleep(0.5)

    def choose(self, wish: scheduler.Wish) -> scheduler.Placement | None:
        """Choose slots for a session that is being created, and hold them; say with ``settled`` how it went.

        None where it is not this process that places, where somebody waits already, or where nothing fits.
        """
        if self._waiting or not self._work.held or not self._board.fresh:
            return None
        return self._board.place(wish)

    def settled(self, placement: scheduler.Placement, written: bool | None) -> None:
        """Note whether the slots of a choice were written; None where that is not known. Its node is to be told."""
        if written is None:
            # They stay held until the node was read again.
            self._board.written(placement)
            self._bus.waiting(placement.node)
        elif written:
            self._board.written(placement)
        else:
            self._board.refused(placement)

    async def place_once(self) -> int:
        """Make one pass; return how many sessions were placed."""
        started = time.perf_counter()
        now = self._clock()
        await self._board.read()
        queue = await self._store.read(lambda tx: pending.queue(tx, now=now))
        self._waiting = bool(queue.waiting)
        if not queue.waiting:
            return 0
        decisions = self._board.place_all(queue.wishes(self._board.crashes))
        placements = [decision for decision in decisions if isinstance(decision, scheduler.Placement)]
        left = [decision for decision in decisions if isinstance(decision, scheduler.Waiting)]
        rows = {row.session_id: row for row in queue.waiting}
        placed = await self._begin(rows, placements)
        changed = await self._tell_queue(queue, rows, left, now)
        self._waiting = bool(left)
        # Those that were told before wait for their turn, and nobody for a word of them.
        self._bus.decided([name for name, row in rows.items() if not row.queue])
        if placed or changed:
            self._bus.watchers()
        self._metrics.placed(time.perf_counter() - started)
        return placed

    async def _begin(self, rows: Mapping[str, SessionRow], placements: Sequence[scheduler.Placement]) -> int:
        """Write the placements of a pass together; return how many were written."""
        if not placements:
            return 0
        grants = [self._grant(rows[placement.session_id], placement) for placement in placements]
        now = self._clock()
        answers: Sequence[LaunchRow | errors.Conflict] = ()
        try:
            answers = await self._work.write(lambda tx: launch_rows.begin(tx, grants, now=now))
        finally:
            for number, placement in enumerate(placements):
                # Where somebody was faster the next pass sees what they did.
                written = not isinstance(answers[number], errors.Conflict) if answers else None
                self.settled(placement, written=written)
        begun = [answer for answer in answers if not isinstance(answer, errors.Conflict)]
        for launch in begun:
            log.info(
                "session_placed",
                session_id=launch.session_id,
                launch_id=launch.launch_id,
                node=launch.node,
                device=launch.device,
            )
            self._bus.assigned(launch.node)
        return len(begun)

    def _grant(self, row: SessionRow, placement: scheduler.Placement) -> PlacementDecision:
        lease_ids = tuple(self._new_id() for _ in placement.slots)
        where = slots.ChosenSlots(placement.node, placement.device, placement.slots, self._new_id(), lease_ids)
        return PlacementDecision(row.session_id, row.revision, where)

    async def _tell_queue(
        self, queue: Queue, rows: Mapping[str, SessionRow], left: Sequence[scheduler.Waiting], now: datetime
    ) -> bool:
        """Tell those who wait their place, for how long, and why."""
        everybody = self._monotonic() - self._outlook_at >= self.OUTLOOK_S
        if left and everybody:
            self._outlook_at = self._monotonic()
            self._outlook = await self._store.read(lambda tx: pending.outlook(tx, now=now))
        fresh = []
        for decision in left:
            row = rows[decision.session_id]
            if row.queue and not everybody and decision.position > self.NEAR:
                continue
            place = {
                "position": decision.position,
                "eta_s": self._outlook.eta_s(decision.position),
                "reasons": list(decision.reasons),
            }
            if _differs(row.queue, place):
                fresh.append((row, place))
        if fresh:
            await self._work.write(lambda tx: session_rows.set_queue(tx, fresh))
        return bool(fresh)


def _differs(known: Mapping[str, object], fresh: Mapping[str, object]) -> bool:
    if not known or (known["position"], known["reasons"]) != (fresh["position"], fresh["reasons"]):
        return True
    before, after = known["eta_s"], fresh["eta_s"]
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return before is not after
    return abs(after - before) > _ETA_CHANGE * max(before, 1.0)
