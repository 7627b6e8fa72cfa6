"""Silence: which nodes have said nothing for too long.

Each replica judges the nodes whose links it has, or had last: it alone knows when they were heard. The nodes of a
replica that is gone, or of a version without replicas, are judged by whoever does the reaping, by whether anything of
them still changes in the store. Everything is measured on this process's monotonic clock.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.control.dispatch.link import Hub, OpenLink, replaced
from footlights.control.liveness.mass_loss import Brake, Silence
from footlights.store.nodes import node_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.replication.membership import Replicas
    from footlights.control.signals import Signals
    from footlights.store import Store
    from footlights.store.nodes.node_rows import Presence

log = structlog.get_logger(__name__)

MISSED_HEARTBEATS = 3
"""So many missed make a node UNREACHABLE."""

SEEN_PERIOD_S = 15.0
"""How often it is recorded that a node was heard."""

NODES_LOOKED_AT_A_SECOND = 1000
"""Large fleets are looked at less often: they are given more time, too."""
LONGEST_LOOK_S = 5.0

NODES_A_HEARTBEAT_SECOND = 400
"""Heartbeats that one fleet sends a second at most: 2,000 nodes every 5 s, more nodes less often."""


def heartbeat_interval_s(shortest_s: float, nodes: int) -> float:
    """Return how often each of so many nodes is to say that it lives."""
    return max(shortest_s, nodes / NODES_A_HEARTBEAT_SECOND)


class Silences:
    """Marks nodes that are silent, and takes back the mark from those that are not."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        hub: Hub,
        replicas: Replicas,
        brake: Brake,
        heartbeat_s: float,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what it reads and writes, whom it wakes, who was heard, who else lives, and what stops it."""
        self._store, self._signals, self._hub, self._replicas = store, signals, hub, replicas
        self._brake, self._heartbeat_s = brake, heartbeat_s
        self._clock, self._monotonic = clock, monotonic
        self._signs: dict[str, tuple[object, float]] = {}
        self._recorded = monotonic()
        self._judged_at = -math.inf

    @property
    def patience_s(self) -> float:
        """The silence after which a node is called unreachable, at the shortest interval."""
        return MISSED_HEARTBEATS * self._heartbeat_s

    async def judge_once(self, *, orphans: bool) -> bool:
        """Make one pass; return whether the brake holds, and nothing was marked.

        Args:
            orphans: Whether the nodes of replicas that are gone are this one's to judge.
        """
        started = self._monotonic()
        pause = self._hub.fleet_size // NODES_LOOKED_AT_A_SECOND
        if started - self._judged_at < min(LONGEST_LOOK_S, pause):
            return self._brake.hold is not None
        self._judged_at = started
        # Before the store is read: what these links wrote is seen by it.
        links = self._hub.links
        known = await self._store.read(node_rows.presences)
        self._brake.late(self._monotonic() - started)
        self._hub.fleet_size = sum(1 for row in known if row.connected)
        names = {row.node for row in known}
        self._hub.keep(names)
        for gone in self._signs.keys() - names:
            del self._signs[gone]
        silences = {row.node: self._silence(row) for row in known if row.reachable and self._is_ours(row, orphans)}
        if not (held := self._brake.judge(silences)):
            await self._mark([row for row in known if row.node in silences], silences)
        await self._correct(links, {row.node: row for row in known})
        await self._record()
        return held

    def _is_ours(self, row: Presence, orphans: bool) -> bool:
        if row.hub == self._replicas.me or self._hub.knows(row.node, row.epoch):
            return True
        return orphans and row.hub not in self._replicas.living

    def _silence(self, row: Presence) -> Silence:
        if self._hub.knows(row.node, row.epoch):
            self._signs.pop(row.node, None)
            link = self._hub.get(row.node)
            # The brake compares all nodes with one patience: whoever was told a longer interval is heard less often.
            scale = self._heartbeat_s / link.interval_s if link is not None else 1.0
            return Silence(self._hub.silence_s(row.node) * scale, linked=True)
        sign = row.epoch, row.connected, row.last_seen_time
        known = self._signs.get(row.node)
        if known is None or known[0] != sign:
            self._signs[row.node] = known = sign, self._monotonic()
        # Where it has a link, that is to a process which we cannot ask, and which says now and then that it was heard.
        between = SEEN_PERIOD_S if row.connected else 0.0
        linked = row.connected or self._hub.linked(row.node)
        return Silence(max(0.0, self._monotonic() - known[1] - between), linked)

    async def _mark(self, judged: Sequence[Presence], silences: dict[str, Silence]) -> None:
        now = self._clock()
        for row in judged:
            if silences[row.node].seconds <= self.patience_s:
                continue
            link = self._hub.get(row.node)
            if link is not None and link.epoch == row.epoch:
                why = f"Nothing was heard for {MISSED_HEARTBEATS * link.interval_s:g} s. Open the link again."
                link.end(errors.Unavailable(why, reason="LINK_SILENT"))
            silence = partial(node_rows.set_silent, node=row.node, epoch=row.epoch, now=now)
            if await self._store.write(silence):
                log.warning("node_unreachable", node=row.node)
                self._signals.node_changed(row.node)

    async def _correct(self, links: Sequence[OpenLink], known: dict[str, Presence]) -> None:
        """Hold what others wrote of our nodes against our links: we may have been taken for gone, a node for silent."""
        for link in links:
            row = known.get(link.node)
            if link.over:
                continue
            if row is None:
                # What its agent runs is nobody's any more: it is told so at its next link.
                why = f"Node {link.node} was forgotten. Open the link again."
                link.end(errors.Unavailable(why, reason="NODE_FORGOTTEN"))
            elif row.epoch != link.epoch:
                link.end(replaced(link.node, link.incarnation))
            elif not (row.connected and row.reachable and row.hub == self._replicas.me):
                if self._monotonic() - link.heard > link.interval_s * 1.5:
                    continue
                again = partial(
                    node_rows.reclaim, node=link.node, epoch=link.epoch, hub=self._replicas.me, now=self._clock()
                )
                if await self._store.write(again):
                    log.warning("node_reclaimed", node=link.node)
                    self._signals.node_changed(link.node)

    async def _record(self) -> None:
        """Record now and then whom we have heard since the last time."""
        if self._monotonic() - self._recorded < SEEN_PERIOD_S:
            return
        before, self._recorded = self._recorded, self._monotonic()
        heard = [(link.node, link.epoch) for link in self._hub.links if link.heard > before]
        if heard:
            now = self._clock()
            await self._store.write(lambda tx: node_rows.seen(tx, heard, now=now))
