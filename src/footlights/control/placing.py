"""The placing loop: load, decide, write. Level-triggered; woken when a session waits or a slot is free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import structlog

from footlights import errors, names, scheduler
from footlights.control import fleet
from footlights.control.changes import Bus
from footlights.control.fleet import Fleet
from footlights.control.metrics import Metrics
from footlights.control.replicas import Superseded, Work
from footlights.store import Store, Transaction, launches, sessions
from footlights.store.launches import Grant
from footlights.store.store import Unit
from footlights.store.tables import Session

log = structlog.get_logger(__name__)
T = TypeVar("T")

_ETA_CHANGE = 0.2
"""An estimate is written anew when it differs by more than this share of itself: watchers are not woken for less."""


class Placing:
    """Gives slots to waiting sessions."""

    PERIOD_S = 2.0

    def __init__(
        self,
        store: Store,
        bus: Bus,
        work: Work,
        metrics: Metrics,
        clock: Callable[[], datetime],
        new_id: Callable[[], str] = names.new_id,
    ) -> None:
        """Take what it reads and writes, whom it wakes, whose work it is, and where time and ids come from."""
        self._store, self._bus, self._work, self._metrics = store, bus, work, metrics
        self._clock, self._new_id = clock, new_id

    async def run(self) -> None:
        """Place until cancelled."""
        seen = -1
        while True:
            seen = await self._bus.placing.wait(seen, self.PERIOD_S)
            try:
                if await self._work.claim():
                    await self.place_once()
            except Superseded:
                self._work.lost()
            except errors.Error as error:
                log.warning(
                    "A pass of placing failed; the next one tries again", action="placing_failed", error=str(error)
                )
                await asyncio.sleep(0.5)

    async def place_once(self) -> int:
        """Make one pass; return how many sessions were placed."""
        started = time.perf_counter()
        now = self._clock()
        seen = await self._store.read(lambda tx: fleet.load(tx, now=now) if sessions.any_pending(tx) else None)
        if seen is None or not seen.waiting:
            return 0
        decisions = scheduler.place(seen.wishes(), seen.nodes)
        placements = [decision for decision in decisions if isinstance(decision, scheduler.Placement)]
        waiting = [decision for decision in decisions if isinstance(decision, scheduler.Waiting)]
        rows = {row.session_id: row for row in seen.waiting}
        placed = await asyncio.gather(*(self._begin(rows[found.session_id], found) for found in placements))
        changed = await self._write_queue(rows, waiting, seen)
        self._bus.decided(rows)
        if any(placed) or changed:
            self._bus.watchers()
        self._metrics.placed(time.perf_counter() - started)
        return sum(placed)

    async def _begin(self, row: Session, placement: scheduler.Placement) -> bool:
        grant = Grant(row.session_id, row.revision, placement.node, placement.device, placement.slots)
        launch_id = self._new_id()
        lease_ids = [self._new_id() for _ in placement.slots]
        now = self._clock()
        try:
            await self._write(lambda tx: launches.begin(tx, grant, launch_id=launch_id, lease_ids=lease_ids, now=now))
        except Superseded:
            raise
        except errors.Conflict:
            # Somebody was faster: the next pass sees what they did.
            self._bus.waiting(placement.node)
            return False
        log.info(
            "Placed a session",
            action="session_placed",
            session_id=row.session_id,
            launch_id=launch_id,
            node=placement.node,
            device=placement.device,
        )
        self._bus.assigned(placement.node)
        return True

    async def _write_queue(self, rows: dict[str, Session], waiting: Sequence[scheduler.Waiting], seen: Fleet) -> bool:
        fresh = []
        for decision in waiting:
            row = rows[decision.session_id]
            queue = {
                "position": decision.position,
                "eta_s": seen.eta_s(decision.position),
                "reasons": list(decision.reasons),
            }
            if _differs(row.queue, queue):
                fresh.append((row, queue))
        if not fresh:
            return False

        def write(tx: Transaction) -> None:
            for row, queue in fresh:
                current = sessions.get(tx, row.session_id)
                if current is not None and current.revision == row.revision:
                    sessions.update_session(tx, current, queue=queue)

        await self._write(write)
        return True

    async def _write(self, unit: Unit[T]) -> T:
        return await self._store.write(self._work.guarded(unit))


def _differs(known: Mapping[str, object], fresh: Mapping[str, object]) -> bool:
    if not known or (known["position"], known["reasons"]) != (fresh["position"], fresh["reasons"]):
        return True
    before, after = known["eta_s"], fresh["eta_s"]
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return before is not after
    return abs(after - before) > _ETA_CHANGE * max(before, 1.0)
