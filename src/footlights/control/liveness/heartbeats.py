"""Heartbeats: which nodes have been silent for too long.

Each replica judges the nodes whose links it has, or had last: it alone knows when they were heard. The nodes of a
replica that is gone, or of a version without replicas, are judged by the replica that holds the lease of expiry, by
whether anything of them still changes in the store. Everything is measured on this process's monotonic clock.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.control.dispatch.link import AgentLink, LinkState
from footlights.control.dispatch.registry import LinkRegistry, replaced
from footlights.control.liveness.mass_loss import MassLossGuard, NodeSilence
from footlights.store.nodes import node_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.replication.membership import Membership
    from footlights.control.signals import Signals
    from footlights.store import Store
    from footlights.store.nodes.node_rows import LinkStatus
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

MISSED_HEARTBEATS = 3
"""So many missed ones make a node UNREACHABLE."""

SEEN_PERIOD_S = 15.0
"""How often it is recorded which nodes were heard."""

NODES_JUDGED_PER_S = 1000
"""Large fleets are judged less often: they are given more time, too."""
LONGEST_LOOK_S = 5.0

LOOP = "liveness"


class LivenessJudge:
    """Marks nodes that are silent, and takes the mark back from those that are not."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        links: LinkRegistry,
        *,
        membership: Membership,
        guard: MassLossGuard,
        heartbeat_s: float,
        clock: Callable[[], datetime],
        supervisor: Supervisor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._signals, self._links, self._membership = store, signals, links, membership
        self._guard, self._heartbeat_s, self._supervisor = guard, heartbeat_s, supervisor
        self._clock, self._monotonic = clock, monotonic
        self._signs: dict[str, tuple[object, float]] = {}
        """By node, what was last seen of it in the store, and when it was first seen."""
        self._recorded = monotonic()
        self._judged_at = -math.inf

    @property
    def timeout_s(self) -> float:
        """The silence after which a node is called unreachable, at the shortest interval."""
        return MISSED_HEARTBEATS * self._heartbeat_s

    async def judge_once(self, *, orphans: bool) -> bool:
        """Make one pass, with ``orphans`` also over the nodes of gone replicas; return whether expiry pauses."""
        started = self._monotonic()
        pause = self._links.fleet_size // NODES_JUDGED_PER_S
        if started - self._judged_at < min(LONGEST_LOOK_S, pause):
            return self._guard.pause is not None
        self._judged_at = started
        # Before the store is read: what these links wrote is seen by it.
        links = self._links.links
        known = await self._store.read(node_rows.link_statuses)
        self._guard.late(self._monotonic() - started)
        self._links.note_fleet_size(sum(1 for row in known if row.connected))
        names = {row.node for row in known}
        self._links.keep(names)
        for gone in self._signs.keys() - names:
            del self._signs[gone]
        silences = {row.node: self._silence(row) for row in known if row.reachable and self._is_ours(row, orphans)}
        if not (held := self._guard.judge(silences)):
            await self._mark([row for row in known if row.node in silences])
        await self._correct(links, {row.node: row for row in known})
        await self._record()
        return held

    def _is_ours(self, row: LinkStatus, orphans: bool) -> bool:
        if row.hub == self._membership.me or self._links.has_epoch(row.node, row.epoch):
            return True
        return orphans and row.hub not in self._membership.living

    def _silence(self, row: LinkStatus) -> NodeSilence:
        if self._links.has_epoch(row.node, row.epoch):
            self._signs.pop(row.node, None)
            link = self._links.get(row.node)
            # The guard compares all nodes with one timeout: a node that was told a longer interval is heard less often.
            scale = self._heartbeat_s / link.interval_s if link is not None else 1.0
            return NodeSilence(self._links.silent_for(row.node) * scale, linked=True)
        sign = row.epoch, row.connected, row.last_seen_time
        known = self._signs.get(row.node)
        if known is None or known[0] != sign:
            self._signs[row.node] = known = sign, self._monotonic()
        # Where it has a link, that is to a process that cannot be asked, and that records now and then whom it heard.
        between = SEEN_PERIOD_S if row.connected else 0.0
        linked = row.connected or self._links.has_met(row.node)
        return NodeSilence(max(0.0, self._monotonic() - known[1] - between), linked)

    async def _mark(self, judged: Sequence[LinkStatus]) -> None:
        now = self._clock()
        for row in judged:
            # It may have been heard while the ones before it were written.
            if self._silence(row).seconds <= self.timeout_s:
                continue
            link = self._links.get(row.node)
            if link is not None and link.epoch == row.epoch:
                why = f"Nothing was heard for {MISSED_HEARTBEATS * link.interval_s:g} s. Open the link again."
                link.close(errors.Unavailable(why, reason=errors.Reason.LINK_SILENT))
            silence = partial(node_rows.set_silent, node=row.node, epoch=row.epoch, now=now)
            with self._supervisor.isolated(LOOP, through=(errors.Unavailable,), node=row.node):
                if await self._store.write(silence):
                    log.warning("node_unreachable", node=row.node)
                    self._signals.node_changed(row.node)

    async def _correct(self, links: Sequence[AgentLink], known: dict[str, LinkStatus]) -> None:
        """Compare what others wrote of our nodes with our links: they may have taken us for gone, a node for silent."""
        for link in links:
            row = known.get(link.node)
            if link.state is LinkState.CLOSED:
                continue
            if row is None:
                # What its agent runs is of no session any more: it is told so at its next link.
                why = f"Node {link.node} was forgotten. Open the link again."
                link.close(errors.Unavailable(why, reason=errors.Reason.NODE_FORGOTTEN))
            elif row.epoch != link.epoch:
                link.close(replaced(link.node, link.incarnation))
            elif not (row.connected and row.reachable and row.hub == self._membership.me):
                if link.silent_for() > link.interval_s * 1.5:
                    continue
                again = partial(
                    node_rows.reclaim, node=link.node, epoch=link.epoch, hub=self._membership.me, now=self._clock()
                )
                with self._supervisor.isolated(LOOP, through=(errors.Unavailable,), node=link.node):
                    if await self._store.write(again):
                        log.warning("node_reclaimed", node=link.node)
                        self._signals.node_changed(link.node)

    async def _record(self) -> None:
        """Record now and then which nodes were heard since the last time."""
        since_s = self._monotonic() - self._recorded
        if since_s < SEEN_PERIOD_S:
            return
        self._recorded = self._monotonic()
        heard = [(link.node, link.epoch) for link in self._links.links if link.silent_for() < since_s]
        if heard:
            now = self._clock()
            await self._store.write(lambda tx: node_rows.seen(tx, heard, now=now))
