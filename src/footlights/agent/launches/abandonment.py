"""Ends what no viewer uses when the control plane has been unreachable for long: there is no one else to do it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from footlights.agent.launches.step import LaunchEnding
from footlights.lifecycle import LaunchState

if TYPE_CHECKING:
    from footlights.agent.clock import Clock
    from footlights.agent.launches.record import Record
    from footlights.agent.launches.table import KnownLaunches
    from footlights.agent.link.cluster import KnownCluster
    from footlights.agent.link.link import Link

CHECK_S: Final = 1.0


class Abandonment:
    """Watches how long there has been no link."""

    def __init__(self, table: KnownLaunches, link: Link, cluster: KnownCluster, clock: Clock) -> None:
        self._table, self._link, self._cluster, self._clock = table, link, cluster, clock
        self._unlinked_since = clock.now()

    async def wait(self, _longest_s: float) -> None:
        """Wait until it is time to look again."""
        await asyncio.sleep(min(CHECK_S, self._cluster.abandon_after_s / 4))

    async def look(self) -> None:
        """Look once."""
        now, after_s = self._clock.now(), self._cluster.abandon_after_s
        if self._link.connected.is_set():
            self._unlinked_since = now
        elif now - self._unlinked_since >= after_s:
            text = f"The node had no link to the control plane for {after_s:g} s, and no viewer was connected."
            for runner in self._table.alive:
                if not _may_be_watched(runner.record):
                    runner.end(LaunchEnding(LaunchState.EXITED, "ABANDONED", text))


def _may_be_watched(record: Record) -> bool:
    return record.state is LaunchState.READY and record.viewers != 0
