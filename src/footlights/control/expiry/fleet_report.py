"""Counts ended sessions and keeps the gauges of the fleet: of several replicas, one does it for all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from footlights.control.observability import fleet_metrics
from footlights.store.sessions.feed import BATCH, Feed

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.control.observability.metrics import Metrics
    from footlights.store import Store


class FleetReport:
    """Feeds the metrics of the fleet while this replica holds the lease."""

    PERIOD_S = 5.0
    """How often the gauges are set."""

    def __init__(self, *, store: Store, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        """Create it, stopped."""
        self._store, self._metrics, self._monotonic = store, metrics, monotonic
        self._feed: Feed | None = None
        self._reported_at = -math.inf

    async def start(self) -> None:
        """Count the ends of sessions from now on; nothing where it has been started."""
        if self._feed is None:
            self._feed = await self._store.read(lambda tx: Feed.now(tx, self._monotonic))

    def stop(self) -> None:
        """Count nothing and clear the gauges: another replica reports from now on."""
        if self._feed is not None:
            self._feed = None
            self._metrics.no_fleet()

    async def report(self) -> None:
        """Count what has ended since the last time, and set the gauges if they are due."""
        if self._feed is None:
            return
        ends = await self._store.read(self._feed.read_ends)
        while ends:
            for end in ends:
                # An ended session never changes again, so it is met here once.
                self._metrics.ended(end.end_reason)
            ends = await self._store.read(self._feed.read_ends) if len(ends) >= BATCH else []
        if self._monotonic() - self._reported_at >= self.PERIOD_S:
            self._reported_at = self._monotonic()
            fleet = await self._store.read(fleet_metrics.fleet)
            self._metrics.fleet(dict(fleet.sessions), dict(fleet.slots), dict(fleet.nodes))
