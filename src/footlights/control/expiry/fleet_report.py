"""Counts ended sessions and keeps the gauges of the fleet: of several replicas, one does it for all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from footlights.control.observability import fleet_metrics
from footlights.store.sessions.feed import BATCH, Feed, Position

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.control.expiry.context import ExpiryContext


class FleetReport:
    """Feeds the metrics of the fleet while this replica holds the lease."""

    PERIOD_S = 5.0
    """How often the gauges are set."""

    def __init__(self, context: ExpiryContext) -> None:
        self._context = context
        self._feed: Feed | None = None
        self._reported_at = -math.inf

    async def start(self) -> None:
        """Count the ends of sessions from now on; nothing where it has been started."""
        if self._feed is None:
            self._feed = await self._context.store.read(lambda tx: Feed(Position.now(tx), self._context.monotonic))

    def stop(self) -> None:
        """Count nothing and clear the gauges: another replica reports from now on."""
        if self._feed is not None:
            self._feed = None
            self._context.metrics.no_fleet()

    async def report(self, now: datetime) -> None:
        """Count what has ended since the last time, and set the gauges if they are due."""
        if self._feed is None:
            return
        ends = await self._context.store.read(self._feed.read_ends)
        while ends:
            for end in ends:
                # An ended session never changes again, so it is met here once.
                self._context.metrics.ended(end.end_reason)
            ends = await self._context.store.read(self._feed.read_ends) if len(ends) >= BATCH else []
        if self._context.monotonic() - self._reported_at >= self.PERIOD_S:
            self._reported_at = self._context.monotonic()
            fleet = await self._context.store.read(
                lambda tx: fleet_metrics.fleet(tx, unwell=self._context.unwell_nodes(tx, now))
            )
            self._context.metrics.fleet(dict(fleet.sessions), dict(fleet.slots), dict(fleet.nodes))
