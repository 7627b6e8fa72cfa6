"""Telling agents what to run: one loop for all links of this process.

A wake-up names a node; what many nodes are to run is read at once. A period guarantees it: what the assignments of all
living launches follow from is compared with what was told, so a lost wake-up costs seconds and never an assignment.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime

import structlog

from footlights import errors
from footlights.auth.secrets import Box
from footlights.control import assignments, convert
from footlights.control.assignments import Live
from footlights.control.hub import Hub, OpenLink
from footlights.store import Store, launches
from footlights.v1 import agent_pb2

log = structlog.get_logger(__name__)


class Telling:
    """Tells agents."""

    PERIOD_S = 5.0
    MOST_NODES = 100
    """Read at once."""

    def __init__(self, store: Store, hub: Hub, box: Box, me: str, clock: Callable[[], datetime]) -> None:
        """Take what it reads, whom it tells, what opens secrets, which replica this is, and the time."""
        self._store, self._hub, self._box, self._me, self._clock = store, hub, box, me, clock

    async def run(self) -> None:
        """Tell until cancelled."""
        looked = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hub.woken.wait(), max(0.0, looked + self.PERIOD_S - time.monotonic()))
            try:
                await self.tell_once()
                if time.monotonic() - looked >= self.PERIOD_S:
                    looked = time.monotonic()
                    await self.look_once()
            except errors.Error as error:
                log.warning("Agents could not be told; tried again", action="telling_failed", error=str(error))
                self._hub.wake_all()
                await asyncio.sleep(0.5)

    async def tell_once(self) -> None:
        """Tell the nodes for which there was a wake-up."""
        self._hub.woken.clear()
        while self._hub.stale:
            nodes = [self._hub.stale.pop() for _ in range(min(self.MOST_NODES, len(self._hub.stale)))]
            links = [link for node in nodes if (link := self._hub.get(node)) is not None]
            await self._tell([link for link in links if link.welcomed])

    async def look_once(self) -> None:
        """Find the links that have not been told the newest."""
        running = assignments.fingerprints(await self._store.read(lambda tx: launches.running_at(tx, self._me)))
        for link in self._hub.links:
            if running.get(link.node, {}) != link.told:
                self._hub.wake(link.node)

    async def full_set(self, link: OpenLink) -> agent_pb2.Assignments:
        """Return all that a node is to run, for a link that has just opened; from now on it is told what changes."""
        found = await self._read([link.node])
        told = _take(link, found[link.node])
        link.welcomed = True
        # Whoever was woken while this was read found the link not welcomed yet.
        self._hub.wake(link.node)
        return agent_pb2.Assignments(assignments=[live.assignment for live in told])

    async def _tell(self, links: list[OpenLink]) -> None:
        if not links:
            return
        found = await self._read([link.node for link in links])
        for link in links:
            for live in _take(link, found[link.node]):
                if not link.say(agent_pb2.LinkResponse(assignment=live.assignment)):
                    link.end(errors.Unavailable("The agent does not take what it is told.", reason="LINK_SLOW"))

    async def _read(self, names: list[str]) -> dict[str, dict[str, Live]]:
        now = self._clock()
        return await self._store.read(lambda tx: assignments.live(tx, names, self._box, now=now))


def _take(link: OpenLink, found: dict[str, Live]) -> list[Live]:
    """Note what a link's node is to run, and return what it was not told yet."""
    link.limits = {launch_id: convert.time_limits(live.assignment.limits) for launch_id, live in found.items()}
    fresh = []
    for launch_id, live in found.items():
        if launch_id not in link.known:
            if live.state == "ASSIGNED":
                link.known.add(launch_id)
            else:
                # It was begun over an earlier link and the agent does not know it: it must not begin a second time.
                live.assignment.desired = agent_pb2.Assignment.STOPPED
        if link.told.get(launch_id) != live.fingerprint:
            fresh.append(live)
    link.told = {launch_id: live.fingerprint for launch_id, live in found.items()}
    return fresh
