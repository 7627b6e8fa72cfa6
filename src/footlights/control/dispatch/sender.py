"""Sends agents what their nodes are to run: one loop for all links of this process.

A signal names a node; what many nodes are to run is read at once. A period guarantees it: what the assignments of all
living launches follow from is compared with what was told, so a lost signal costs seconds and never an assignment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from footlights import errors
from footlights.control.dispatch import assignments
from footlights.control.dispatch.link import AgentLink, LinkState
from footlights.store.coalescing import Coalescer
from footlights.store.launches import launch_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from footlights.agent.v1 import agent_pb2
    from footlights.auth.secrets import Box
    from footlights.control.dispatch.assignments import LaunchAssignment, Recipe
    from footlights.control.dispatch.link import Fingerprint
    from footlights.control.dispatch.registry import LinkRegistry
    from footlights.control.signals import ChangeSet, Signals
    from footlights.store import Store, Transaction, Unit
    from footlights.store.schema import LaunchRow, SessionRow
    from footlights.supervision import Supervisor

LOOP = "assignments"

_LONGEST_PAUSE_S = 2.0
"""After a failure: sessions are to end soon after the database is back."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a node is to run, and those assignments of it that its link was not told yet."""

    running: Mapping[str, Fingerprint]
    found: dict[str, LaunchAssignment]
    failed: Mapping[str, Exception]
    """Why assignments cannot be made."""


class AssignmentSender:
    """Sends assignments."""

    PERIOD_S = 5.0
    MOST_NODES = 100
    """Read at once."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        links: LinkRegistry,
        *,
        box: Box,
        replica: str,
        clock: Callable[[], datetime],
        supervisor: Supervisor,
    ) -> None:
        self._store, self._signals, self._links = store, signals, links
        self._box, self._replica, self._clock, self._supervisor = box, replica, clock, supervisor
        self._changes = signals.assignments.subscribe()
        self._stale: set[str] = set()
        """Nodes that may have to be told something."""
        self._compared = time.monotonic()
        self._first: Coalescer[AgentLink, _Reading] = Coalescer(store, self._untold)

    async def run(self) -> None:
        """Send until cancelled."""
        await self._supervisor.supervise(
            LOOP,
            self._pass,
            every_s=self.PERIOD_S,
            wake=self._wait,
            expected=(errors.Unavailable,),
            longest_pause_s=_LONGEST_PAUSE_S,
        )

    async def send_once(self) -> None:
        """Tell the nodes for which there was a signal."""
        self._note(self._changes.take())
        while self._stale:
            nodes = [self._stale.pop() for _ in range(min(self.MOST_NODES, len(self._stale)))]
            links = [link for node in nodes if (link := self._links.get(node)) is not None and link.note_change()]
            try:
                await self._tell(links)
            except BaseException:
                self._stale.update(nodes)
                raise

    async def compare_once(self) -> None:
        """Find the links that have not been told the newest."""
        running = assignments.fingerprints(await self._store.read(lambda tx: launch_rows.running_at(tx, self._replica)))
        for link in self._links.links:
            if not link.was_told(running.get(link.node, {})):
                self._signals.assignments.publish(link.node)

    async def full_set(self, link: AgentLink) -> list[agent_pb2.LinkResponse]:
        """Return all that a node is to run, for a link that has just opened; from now on it is told what changes.

        Raises what keeps the assignment of a launch that the agent knows from being made: left out, it would be ended.
        """
        try:
            reading = await self._first(link)
        except errors.Unavailable:
            raise
        except Exception:
            # It was read together with others, and one of them may be the reason.
            [reading] = await self._store.read(self._untold([link]))
        if reading.failed:
            await self._end_failed(link, reading.failed)
            [reading] = await self._store.read(self._untold([link]))
        for launch_id, error in reading.failed.items():
            if link.knows(launch_id):
                raise error
        await self._send_secrets([(link, reading)])
        messages = link.full_set(reading.running, reading.found)
        if link.changed_early:
            self._signals.assignments.publish(link.node)
        return messages

    def send_now(self, launch: LaunchRow, session: SessionRow, recipe: Recipe) -> bool:
        """Tell an agent of a launch that was just written, from what is at hand; False where that is not possible.

        Its link may be elsewhere, and that secrets are sent has to be recorded first. It saves a reading. Where a
        reading was under way, the agent may be told once more: that says nothing new.
        """
        link = self._links.get(launch.node)
        if link is None or link.state is not LinkState.LIVE or session.secrets or recipe.needed - link.features:
            return False
        with self._supervisor.isolated(LOOP, node=launch.node, launch_id=launch.launch_id):
            assignment = assignments.of_launch(launch, session, recipe, self._box)
            return link.offer_new(assignment, assignments.fingerprint(launch, session))
        return False

    async def _wait(self, _: float) -> None:
        left_s = self._compared + self.PERIOD_S - time.monotonic()
        if left_s > 0 and not self._stale and (changes := await self._changes.next(left_s)) is not None:
            self._note(changes)

    async def _pass(self) -> None:
        await self.send_once()
        if time.monotonic() - self._compared >= self.PERIOD_S:
            self._compared = time.monotonic()
            await self.compare_once()

    def _note(self, changes: ChangeSet[str]) -> None:
        self._stale |= changes.items
        if changes.everything:
            self._stale.update(link.node for link in self._links.links)

    async def _tell(self, links: Sequence[AgentLink]) -> None:
        try:
            await self._tell_together(links)
        except errors.Unavailable:
            raise
        except Exception:
            for link in links:
                with self._supervisor.isolated(LOOP, through=(errors.Unavailable,), node=link.node):
                    await self._tell_together([link])

    async def _tell_together(self, links: Sequence[AgentLink]) -> None:
        if not links:
            return
        readings = await self._store.read(self._untold(links))
        await self._send_secrets(list(zip(links, readings, strict=True)))
        for link, reading in zip(links, readings, strict=True):
            with self._supervisor.isolated(LOOP, node=link.node):
                link.offer(reading.running, reading.found)
            await self._end_failed(link, reading.failed)

    async def _send_secrets(self, told: Sequence[tuple[AgentLink, _Reading]]) -> None:
        """Have it recorded that secrets are sent, before they are; leave out assignments for which it is too late."""
        wanted = [
            (link, reading.found, secret)
            for link, reading in told
            if (secret := [each for each, found in reading.found.items() if found.message.secrets])
        ]
        if not wanted:
            return

        def write(tx: Transaction) -> list[set[str]]:
            return [launch_rows.send_secrets(tx, link.node, link.epoch, secret) for link, _, secret in wanted]

        for (link, found, secret), allowed in zip(wanted, await self._store.write(write), strict=True):
            for launch_id in secret:
                if launch_id not in allowed and not link.knows(launch_id):
                    del found[launch_id]

    async def _end_failed(self, link: AgentLink, failed: Mapping[str, Exception]) -> None:
        """End the sessions whose data are damaged. Any other failure is tried again with the next comparison."""
        for launch_id, error in failed.items():
            with self._supervisor.isolated(LOOP, node=link.node, launch_id=launch_id):
                raise error
            if not isinstance(error, errors.Error | DecodeError):
                continue
            with self._supervisor.isolated(LOOP, through=(errors.Unavailable,), node=link.node, launch_id=launch_id):
                node = await self._store.write(self._end_unassignable(launch_id, error))
                if node:
                    self._signals.session_changed(node)

    def _end_unassignable(self, launch_id: str, error: Exception) -> Unit[str]:
        now = self._clock()
        return lambda tx: assignments.end_unassignable(tx, launch_id, error, now=now)

    def _untold(self, links: Sequence[AgentLink]) -> Unit[list[_Reading]]:
        now = self._clock()

        def read(tx: Transaction) -> list[_Reading]:
            running = assignments.fingerprints(launch_rows.running_on(tx, [link.node for link in links]))
            # A node has many launches, and one of them is new: only that is looked at closely.
            fresh = {link: link.outdated(running[link.node]) for link in links if link.node in running}
            wanted = {each: link for link, some in fresh.items() for each in some}
            found, failed = assignments.of_launches(tx, wanted, self._box, now=now)
            return [
                _Reading(
                    dict(running.get(link.node, {})),
                    {each: found[each].copy() for each in fresh.get(link, ()) if each in found},
                    {each: failed[each] for each in fresh.get(link, ()) if each in failed},
                )
                for link in links
            ]

        return read
