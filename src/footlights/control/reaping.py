"""The reaping loop: what ends or changes because time has passed and nobody said anything."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from footlights import errors
from footlights.control import convert
from footlights.control.brake import Brake, Silence
from footlights.control.changes import Bus
from footlights.control.hub import Hub
from footlights.control.metrics import Metrics
from footlights.control.settings import ServerSettings
from footlights.control.steady import SteadyClock
from footlights.lifecycle import EndReason
from footlights.store import Store, Transaction, launches, listing, nodes, sessions
from footlights.store.revisions import last_revision
from footlights.store.tables import Node, Session
from footlights.v1 import node_pb2

log = structlog.get_logger(__name__)

STUCK_AFTER_S = 30.0
"""Beyond the grace period; by then an agent has killed and looked for what it started many times."""

MISSED_HEARTBEATS = 3
"""So many missed make a node UNREACHABLE."""


def patience_s(settings: ServerSettings) -> float:
    """Return the silence, in seconds, after which a node is called unreachable."""
    return MISSED_HEARTBEATS * settings.heartbeat_interval_s


class Reaping:
    """Ends what has waited too long, marks what is silent, and removes what is old."""

    PERIOD_S = 1.0
    PRUNE_PERIOD_S = 600.0

    def __init__(
        self,
        store: Store,
        bus: Bus,
        hub: Hub,
        metrics: Metrics,
        settings: ServerSettings,
        brake: Brake,
        clock: SteadyClock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what it reads and writes, whom it wakes, what stops it, and two clocks: of moments and of spans."""
        self._store, self._bus, self._hub = store, bus, hub
        self._metrics, self._settings, self._clock = metrics, settings, clock
        self._brake, self._monotonic = brake, monotonic
        self._passed = monotonic()
        self.passes = 0
        """How many passes were made to their end."""
        self._pruned = -math.inf
        self._looked = False
        self._countdowns = Countdowns(monotonic)
        self._endings = Countdowns(monotonic)
        self._counted = 0

    async def run(self) -> None:
        """Reap until cancelled."""
        self._counted = await self._store.read(last_revision)
        due = self._monotonic()
        while True:
            started = self._monotonic()
            try:
                await self.reap_once(late_s=started - due)
            except errors.Error as error:
                self._brake.failed(str(error))
                log.warning(
                    "A pass of reaping failed; the next one tries again", action="reaping_failed", error=str(error)
                )
            due = started + self.PERIOD_S
            await asyncio.sleep(self.PERIOD_S)

    async def reap_once(self, late_s: float = 0.0) -> None:
        """Make one pass; ``late_s`` is how much later than due, the time that the pass before took counted in."""
        now, started = self._clock(), self._monotonic()
        self._brake.late(late_s)
        known = [row for row in await self._store.read(nodes.everyone) if row.reachable]
        self._brake.late(self._monotonic() - started)
        silences = {row.node: Silence(self._hub.silence_s(row.node), self._hub.linked(row.node)) for row in known}
        if self._brake.judge(silences):
            # Nobody's time runs while we do not know whom we have missed.
            self._countdowns.postpone(started - self._passed)
            self._endings.postpone(started - self._passed)
        else:
            await self._mark_silent([row for row in known if silences[row.node].seconds > self._patience_s], now)
            await self._end_overdue(now)
            await self._raise_stuck(now)
        self._passed = started
        await self._count(now)
        self.passes += 1
        if self._monotonic() - self._pruned > self.PRUNE_PERIOD_S:
            self._pruned = self._monotonic()
            # What is removed is gone for good: time that only the wall clock tells of makes nothing old.
            certain = now - self._clock.gap
            before = certain - timedelta(days=self._settings.retention_days)
            await self._store.write(lambda tx: sessions.prune(tx, before=before))
            await self._store.write(lambda tx: sessions.forget_requests(tx, now=certain))
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
            touched = set()
            for deadline in overdue:
                for row in deadline.sessions(tx):
                    if row.intent == "RUN":
                        sessions.end(tx, row, deadline.reason, deadline.message, now=now)
                        launch = launches.get(tx, row.launch_id) if row.launch_id else None
                        touched.add(launch.node if launch else "")
            return touched

        for node in await self._store.write(end):
            self._bus.session_changed(node)

    async def _raise_stuck(self, now: datetime) -> None:
        """Raise what does not end: a slot is freed by proof alone, so somebody has to look."""
        pending = await self._store.read(launches.ending)
        stuck = []
        for launch, session in pending:
            allowed = convert.seconds(convert.limits(session).stop_grace_period) + STUCK_AFTER_S
            since = self._clock.age_s(launch.ending_time or now)
            if self._endings.over(launch.launch_id, min(allowed, allowed - since)):
                stuck.append(launch)
        self._endings.keep({launch.launch_id for launch, _ in pending})
        for launch in stuck:
            if launch.overdue:
                continue
            overdue = partial(launches.set_overdue, launch_id=launch.launch_id, now=now)
            if await self._store.write(overdue):
                log.error(
                    "A launch does not end",
                    action="launch_stuck",
                    node=launch.node,
                    device=launch.device,
                    launch_id=launch.launch_id,
                    session_id=launch.session_id,
                    message=launch.message,
                )
                self._bus.sessions.wake()
        self._metrics.stuck(len({launch.session_id for launch in stuck}))

    @property
    def _patience_s(self) -> float:
        return patience_s(self._settings)

    async def _mark_silent(self, silent: Sequence[Node], now: datetime) -> None:
        for row in silent:
            link = self._hub.get(row.node)
            if link is not None:
                link.end(
                    errors.Unavailable(
                        f"Nothing was heard for {self._patience_s:g} s. Open the link again.", reason="LINK_SILENT"
                    )
                )
            silence = partial(nodes.set_silent, node=row.node, epoch=row.epoch, now=now)
            if await self._store.write(silence):
                log.warning("A node is silent", action="node_unreachable", node=row.node)
                self._bus.sessions.wake()

    async def _count(self, now: datetime) -> None:
        def read(
            tx: Transaction,
        ) -> tuple[list[Session], dict[tuple[str, str], int], dict[tuple[str, str], int], dict[str, int]]:
            slots: Counter[tuple[str, str]] = Counter()
            states: Counter[str] = Counter()
            leased = Counter((lease.node, lease.device) for lease in launches.live_leases(tx))
            for device in nodes.devices(tx):
                reading = node_pb2.Device.FromString(device.reading)
                kind = node_pb2.Device.Kind.Name(reading.kind)
                held = leased[(device.node, device.uuid)]
                well = reading.health not in (node_pb2.Device.UNHEALTHY, node_pb2.Device.LOST)
                slots[(kind, "leased")] += held
                slots[(kind, "free" if well else "unusable")] += device.slots - held
            for row in nodes.everyone(tx):
                shown = convert.node(row, [], nodes.live_leases(tx, row.node), now=now)
                states[node_pb2.Node.State.Name(shown.state)] += 1
            changed = listing.changed_since(tx, self._counted)
            return changed, listing.state_counts(tx), dict(slots), dict(states)

        changed, living, slots, states = await self._store.read(read)
        for session in changed:
            self._counted = session.revision
            if session.ended_time is not None:
                # An ended session never changes again, so it is met here once.
                self._metrics.ended(session.end_reason)
        self._metrics.fleet(living, slots, states)


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
    sessions: Callable[[Transaction], list[Session]]


def _deadlines(tx: Transaction, age_s: Callable[[datetime], float], drains_from: datetime) -> list[_Deadline]:
    found = [_queue_deadline(row, age_s(row.created_time)) for row in sessions.pending(tx, 10_000)]
    for node in nodes.everyone(tx):
        if node.draining and node.drain_time is not None:
            left = (node.drain_time - drains_from).total_seconds()
            key = f"drain {node.node} {node.drain_time}"
            message = f"Node {node.node} was drained."
            found.append(_Deadline(key, left, EndReason.DRAINED, message, partial(sessions.live_on, node=node.node)))
    return found


def _queue_deadline(row: Session, age_s: float) -> _Deadline:
    limit = convert.seconds(convert.limits(row).queue_timeout)
    left = min(limit, limit - age_s)
    why = ", ".join(row.queue.get("reasons", ())) or "no device was free"
    message = f"No device within {limit:g} seconds. {why}."

    def still_waiting(tx: Transaction) -> list[Session]:
        current = sessions.get(tx, row.session_id)
        return [current] if current is not None and current.state == "PENDING" else []

    return _Deadline(f"queue {row.session_id}", left, EndReason.QUEUE_TIMEOUT, message, still_waiting)
