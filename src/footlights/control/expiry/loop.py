"""The reaping loop: what ends or changes because time has passed and nobody said anything."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.control import limits
from footlights.control.observability import fleet_metrics
from footlights.control.replication.work_lease import LeaderLease, LeaseSuperseded
from footlights.lifecycle import EndReason
from footlights.protocol import times
from footlights.store.launches import launch_rows
from footlights.store.nodes import node_rows
from footlights.store.sessions import idempotency, session_rows
from footlights.store.sessions.derivation import SessionStates
from footlights.store.sessions.feed import BATCH, Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from footlights.control.clock import SteadyClock
    from footlights.control.liveness.heartbeats import LivenessJudge
    from footlights.control.liveness.mass_loss import MassLossGuard
    from footlights.control.observability.metrics import Metrics
    from footlights.control.settings import ServerSettings
    from footlights.control.signals import Signals
    from footlights.store import Store, Transaction
    from footlights.store.schema import SessionRow

log = structlog.get_logger(__name__)

STUCK_AFTER_S = 30.0
"""Beyond the grace period; by then an agent has killed and looked for what it started many times."""

ENDED_AT_ONCE = 1000
"""So many sessions are ended by the same statements: engines bound how many values one may have."""


class Reaping:
    """Ends what has waited too long, marks what is silent, and removes what is old.

    Silence is judged by every replica; the rest is work that one does for all.
    """

    PERIOD_S = 1.0
    COUNT_PERIOD_S = 5.0
    PRUNE_PERIOD_S = 60.0
    MOST_PRUNINGS = 100
    """In one pass, each in a transaction of its own."""

    def __init__(
        self,
        store: Store,
        bus: Signals,
        work: LeaderLease,
        silences: LivenessJudge,
        metrics: Metrics,
        settings: ServerSettings,
        brake: MassLossGuard,
        clock: SteadyClock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what it reads and writes, whom it wakes, what stops it, and two clocks: of moments and of spans."""
        self._store, self._bus, self._work, self._silences = store, bus, work, silences
        self._metrics, self._settings, self._clock = metrics, settings, clock
        self._brake, self._monotonic = brake, monotonic
        self._passed = monotonic()
        self.passes = 0
        """How many passes were made to their end."""
        self._pruned = -math.inf
        """The last term that was looked at."""
        self._looked = False
        self._countdowns = Countdowns(monotonic)
        self._endings = Countdowns(monotonic)
        self._counted: Feed | None = None
        self._counted_at = -math.inf

    async def run(self) -> None:
        """Reap until cancelled."""
        due = self._monotonic()
        while True:
            started = self._monotonic()
            try:
                await self.reap_once(late_s=started - due)
            except LeaseSuperseded:
                self._work.lost()
            except errors.Error as error:
                self._brake.failed(str(error))
                log.warning("reaping_failed", error=str(error))
            due = started + self.PERIOD_S
            await asyncio.sleep(self.PERIOD_S)

    async def reap_once(self, late_s: float = 0.0) -> None:
        """Make one pass; ``late_s`` is how much later than due, the time that the pass before took counted in."""
        now, started = self._clock(), self._monotonic()
        self._brake.late(late_s)
        mine = await self._work.claim()
        if mine and self._counted is None:
            self._counted = await self._store.read(lambda tx: Feed.now(tx, self._monotonic))
        if await self._silences.judge_once(orphans=mine):
            # Nobody's time runs while we do not know whom we have missed.
            self._countdowns.postpone(started - self._passed)
            self._endings.postpone(started - self._passed)
        elif mine:
            await self._end_overdue(now)
            await self._raise_stuck(now)
        self._passed = started
        if mine:
            await self._count()
            await self._prune(now)
        elif self._counted is not None:
            self._counted = None
            self._metrics.no_fleet()
        self.passes += 1

    async def _prune(self, now: datetime) -> None:
        if self._monotonic() - self._pruned <= self.PRUNE_PERIOD_S:
            return
        self._pruned = self._monotonic()
        # What is removed is gone for good: time that only the wall clock tells of makes nothing old.
        certain = now - self._clock.gap
        before = certain - timedelta(days=self._settings.retention_days)
        for _ in range(self.MOST_PRUNINGS):
            if await self._work.write(lambda tx: session_rows.prune(tx, before=before)) < session_rows.PRUNED_AT_ONCE:
                break
        await self._work.write(lambda tx: idempotency.forget_old(tx, now=certain))
        await asyncio.to_thread(self._clock.keep)

    async def _end_overdue(self, now: datetime) -> None:
        # A drain that was set before this server was started ends no earlier for a gap that nobody has seen pass.
        drains_from = now if self._looked else now - self._clock.gap
        self._looked = True
        watched = await self._store.read(lambda tx: _deadlines(tx, self._clock.age_s, drains_from))
        overdue = [deadline for deadline in watched if self._countdowns.over(deadline.key, deadline.left_s)]
        self._countdowns.keep({deadline.key for deadline in watched})
        if not overdue:
            return

        def end(tx: Transaction) -> set[str]:
            wishes = [(deadline, session_id) for deadline in overdue for session_id in deadline.session_ids(tx)]
            touched: set[str] = set()
            for first in range(0, len(wishes), ENDED_AT_ONCE):
                touched |= _end(tx, wishes[first : first + ENDED_AT_ONCE], now)
            return touched

        for node in await self._work.write(end):
            self._bus.session_changed(node)

    async def _raise_stuck(self, now: datetime) -> None:
        """Raise what does not end: a slot is freed by proof alone, so somebody has to look."""
        pending = await self._store.read(launch_rows.ending)
        stuck = []
        for launch, session in pending:
            allowed = times.seconds(limits.of_session(session).stop_grace_period) + STUCK_AFTER_S
            since = self._clock.age_s(launch.ending_time or now)
            if self._endings.over(launch.launch_id, min(allowed, allowed - since)):
                stuck.append(launch)
        self._endings.keep({launch.launch_id for launch, _ in pending})
        for launch in stuck:
            if launch.overdue:
                continue
            overdue = partial(launch_rows.set_overdue, launch_id=launch.launch_id, now=now)
            if await self._work.write(overdue):
                log.error(
                    "launch_stuck",
                    node=launch.node,
                    device=launch.device,
                    launch_id=launch.launch_id,
                    session_id=launch.session_id,
                    message=launch.message,
                )
                self._bus.watchers()
        self._metrics.stuck(len({launch.session_id for launch in stuck}))

    async def _count(self) -> None:
        """Count what has ended, and say how the fleet is; of several replicas one does."""
        feed = self._counted
        assert feed is not None
        ends = await self._store.read(feed.read_ends)
        while ends:
            for end in ends:
                # An ended session never changes again, so it is met here once.
                self._metrics.ended(end.end_reason)
            ends = await self._store.read(feed.read_ends) if len(ends) >= BATCH else []
        if self._monotonic() - self._counted_at >= self.COUNT_PERIOD_S:
            self._counted_at = self._monotonic()
            fleet = await self._store.read(fleet_metrics.fleet)
            self._metrics.fleet(dict(fleet.sessions), dict(fleet.slots), dict(fleet.nodes))


class Countdowns:
    """Deadlines that lie in the store as moments, counted down on the monotonic clock from when they were first seen.

    So a wall clock that jumps changes nothing that is already being waited for.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with none."""
        self._monotonic = monotonic
        self._ends: dict[str, float] = {}

    def over(self, key: str, left_s: float) -> bool:
        """Say whether a deadline has passed; ``left_s`` counts only when ``key`` is seen for the first time."""
        now = self._monotonic()
        return now >= self._ends.setdefault(key, now + left_s)

    def postpone(self, span_s: float) -> None:
        """Give every deadline that is being counted down so much longer."""
        for key in self._ends:
            self._ends[key] += span_s

    def keep(self, keys: set[str]) -> None:
        """Forget all deadlines but these."""
        for key in self._ends.keys() - keys:
            del self._ends[key]


@dataclass(frozen=True, slots=True)
class _Deadline:
    key: str
    left_s: float
    reason: EndReason
    message: str
    session_ids: Callable[[Transaction], list[str]]
    """Whom it concerns."""


def _end(tx: Transaction, wishes: Sequence[tuple[_Deadline, str]], now: datetime) -> set[str]:
    """End sessions whose time is up; return the nodes that have to end something, "" where a session only waited."""
    lives = SessionStates.of_sessions(tx, {session_id for _, session_id in wishes})
    touched = set()
    for deadline, session_id in wishes:
        session = lives.session(session_id)
        if session is None or session.intent != "RUN":
            continue
        if deadline.reason is EndReason.QUEUE_TIMEOUT and session.state != "PENDING":
            continue
        lives.end(session, deadline.reason, deadline.message, now=now)
        launch = lives.launch_of(session)
        touched.add(launch.node if launch else "")
    lives.write()
    return touched


def _deadlines(tx: Transaction, age_s: Callable[[datetime], float], drains_from: datetime) -> list[_Deadline]:
    found = [_queue_deadline(row, age_s(row.created_time)) for row in session_rows.pending(tx, 10_000)]
    for node in node_rows.draining(tx):
        if node.drain_time is not None:
            left = (node.drain_time - drains_from).total_seconds()
            key = f"drain {node.node} {node.drain_time}"
            message = f"Node {node.node} was drained."
            found.append(
                _Deadline(key, left, EndReason.DRAINED, message, partial(session_rows.live_on, node=node.node))
            )
    return found


def _queue_deadline(row: SessionRow, age_s: float) -> _Deadline:
    limit = times.seconds(limits.of_session(row).queue_timeout)
    left = min(limit, limit - age_s)
    why = ", ".join(row.queue.get("reasons", ())) or "no device was free"
    message = f"No device within {limit:g} seconds. {why}."

    return _Deadline(f"queue {row.session_id}", left, EndReason.QUEUE_TIMEOUT, message, lambda _: [row.session_id])
