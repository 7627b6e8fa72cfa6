"""Telling agents what to run: one loop for all links of this process.

A wake-up names a node; what many nodes are to run is read at once. A period guarantees it: what the assignments of all
living launches follow from is compared with what was told, so a lost wake-up costs seconds and never an assignment.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.control import limits
from footlights.control.dispatch import assignments
from footlights.control.dispatch.assignments import Live
from footlights.control.dispatch.link import Fingerprint, Hub, OpenLink
from footlights.store.coalescing import Gathered
from footlights.store.launches import launch_rows
from footlights.v1 import agent_pb2, application_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.auth.secrets import Box
    from footlights.control.signals import Batch, Signals
    from footlights.store import Store, Transaction, Unit
    from footlights.store.schema import Launch, Session

log = structlog.get_logger(__name__)

_News = tuple[dict[str, Fingerprint], dict[str, Live]]
"""What a node is to run, and those of it that its link was not told yet."""


class Telling:
    """Tells agents."""

    PERIOD_S = 5.0
    MOST_NODES = 100
    """Read at once."""

    def __init__(
        self, store: Store, signals: Signals, hub: Hub, *, box: Box, me: str, clock: Callable[[], datetime]
    ) -> None:
        """Take what it reads, whom it tells, what opens secrets, which replica this is, and the time."""
        self._store, self._signals, self._hub, self._box, self._me, self._clock = store, signals, hub, box, me, clock
        self._changes = signals.assignments.subscribe()
        self._stale: set[str] = set()
        """Nodes that may have to be told something."""
        self._first: Gathered[OpenLink, _News] = Gathered(store, self._untold)

    async def run(self) -> None:
        """Tell until cancelled."""
        looked = time.monotonic()
        while True:
            changes = await self._changes.next(max(0.0, looked + self.PERIOD_S - time.monotonic()))
            if changes is not None:
                self._note(changes)
            try:
                await self.tell_once()
                if time.monotonic() - looked >= self.PERIOD_S:
                    looked = time.monotonic()
                    await self.look_once()
            except errors.Error as error:
                log.warning("telling_failed", error=str(error))
                self._stale.update(link.node for link in self._hub.links)
                await asyncio.sleep(0.5)

    async def tell_once(self) -> None:
        """Tell the nodes for which there was a wake-up."""
        self._note(self._changes.take())
        while self._stale:
            nodes = [self._stale.pop() for _ in range(min(self.MOST_NODES, len(self._stale)))]
            links = [link for node in nodes if (link := self._hub.get(node)) is not None]
            for link in links:
                link.passed_over |= not link.welcomed
            await self._tell([link for link in links if link.welcomed])

    async def look_once(self) -> None:
        """Find the links that have not been told the newest."""
        running = assignments.fingerprints(await self._store.read(lambda tx: launch_rows.running_at(tx, self._me)))
        for link in self._hub.links:
            if running.get(link.node, {}) != link.told:
                self._signals.assigned(link.node)

    async def full_set(self, link: OpenLink) -> agent_pb2.Assignments:
        """Return all that a node is to run, for a link that has just opened; from now on it is told what changes."""
        running, found = await self._first(link)
        told = _take(link, running, found)
        link.welcomed = True
        if link.passed_over:
            self._signals.assigned(link.node)
        return agent_pb2.Assignments(assignments=told)

    def _note(self, changes: Batch[str]) -> None:
        self._stale |= changes.items
        if changes.everything:
            self._stale.update(link.node for link in self._hub.links)

    def tell_now(self, launch: Launch, session: Session, version: application_pb2.Version) -> bool:
        """Tell an agent of a launch that was just written, from what is at hand; False where its link is not here.

        It saves a reading. Where a reading was under way, the agent may be told once more: that says nothing new.
        """
        link = self._hub.get(launch.node)
        if link is None or not link.welcomed or link.over:
            return False
        if launch.launch_id in link.known:
            # Somebody was faster, and what was told since may be newer.
            return True
        assignment = assignments.assignment(launch, session, version, self._box)
        if not link.say(agent_pb2.LinkResponse(assignment=assignment)):
            return False
        link.known.add(launch.launch_id)
        link.limits[launch.launch_id] = limits.time_limits(assignment.limits)
        link.told[launch.launch_id] = assignments.fingerprint(launch, session)
        return True

    async def _tell(self, links: list[OpenLink]) -> None:
        if not links:
            return
        for link, assignment in await self._news(links):
            if not link.say(agent_pb2.LinkResponse(assignment=assignment)):
                link.end(errors.Unavailable("The agent does not take what it is told.", reason="LINK_SLOW"))

    async def _news(self, links: list[OpenLink]) -> list[tuple[OpenLink, agent_pb2.Assignment]]:
        """Return what links were not told yet, and note that they are told it now."""
        found = await self._store.read(self._untold(links))
        return [(link, each) for link, news in zip(links, found, strict=True) for each in _take(link, *news)]

    def _untold(self, links: Sequence[OpenLink]) -> Unit[list[_News]]:
        now = self._clock()

        def read(tx: Transaction) -> list[_News]:
            running = assignments.fingerprints(launch_rows.running_on(tx, [link.node for link in links]))
            # A node has many launches, and one of them is new: only that is looked at closely.
            fresh = {
                link: [each for each, fingerprint in running[link.node].items() if link.told.get(each) != fingerprint]
                for link in links
                if link.node in running
            }
            found = assignments.live(tx, [each for some in fresh.values() for each in some], self._box, now=now)
            # Each has its own, also where two are of one node: what is made of it depends on what the agent knows.
            return [
                (
                    dict(running.get(link.node, {})),
                    {each: _own(found[each]) for each in fresh.get(link, ()) if each in found},
                )
                for link in links
            ]

        return read


def _own(live: Live) -> Live:
    assignment = agent_pb2.Assignment()
    assignment.CopyFrom(live.assignment)
    return replace(live, assignment=assignment)


def _take(link: OpenLink, running: dict[str, Fingerprint], found: dict[str, Live]) -> list[agent_pb2.Assignment]:
    """Note what a link's node is to run, and return what it was not told yet."""
    fresh = []
    for launch_id, fingerprint in running.items():
        live = found.get(launch_id)
        if live is None or link.told.get(launch_id) == fingerprint:
            continue
        link.limits[launch_id] = limits.time_limits(live.assignment.limits)
        if launch_id not in link.known:
            if live.state == "ASSIGNED":
                link.known.add(launch_id)
            else:
                # It was begun over an earlier link and the agent does not know it: it must not begin a second time.
                live.assignment.desired = agent_pb2.Assignment.STOPPED
        fresh.append(live.assignment)
    link.told = running
    for launch_id in link.limits.keys() - running.keys():
        del link.limits[launch_id]
    return fresh
