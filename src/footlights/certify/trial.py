"""One launch of a certification, and what was seen of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from footlights.launch.launcher import LaunchError, Ports
from footlights.launch.process import ownership
from footlights.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from footlights.agent.launches.record import Record
    from footlights.agent.v1.agent_pb2 import LaunchReport
    from footlights.launch.launcher import Launcher, LaunchPlan
    from footlights.launch.process.ownership import BoundSocket

POLL_S: Final = 0.05
SAMPLE_S: Final = 0.2


async def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until something is so; return whether it became so in time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - a record has no event for each of its changes
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return condition()
    return True


class Trial:
    """A launch that is watched from its start to its end."""

    def __init__(self, record: Record, launcher: Launcher, secret: str) -> None:
        self.record = record
        self.secret = secret
        self._launcher = launcher
        self._cursor = ""
        self.main: procfs.Identity | None = None
        """The process that the launcher started: the first one of the tree that was seen."""
        self._others = 0
        self.sockets: set[BoundSocket] = set()
        """All that its processes were seen to listen on."""
        self.sockets_known = False
        self.output_bytes = 0
        self.output_lost = False
        """Whether more was written than is kept, between two looks."""

    @property
    def plan(self) -> LaunchPlan | None:
        """How it is launched; None before the node has admitted it."""
        return self.record.plan

    @property
    def ports(self) -> Ports:
        """Its ports; all 0 before the node has admitted it."""
        return Ports(0, 0, 0) if self.plan is None else self.plan.ports

    @property
    def viewer_path(self) -> str:
        """Where viewers are let in, by WHEP or else by a WebSocket; empty where it is not said."""
        signaling = self.record.assignment.version.signaling
        return signaling.whep_path or signaling.websocket_path

    @property
    def report(self) -> LaunchReport:
        """How it is now, as the control plane would be told."""
        return self.record.report()

    @property
    def unexpected(self) -> list[BoundSocket]:
        """What it listens on beside the ports that it was given."""
        given = {("TCP", self.ports.signal), ("TCP", self.ports.http), ("UDP", self.ports.media)}
        return sorted((each for each in self.sockets if (each.protocol, each.port) not in given), key=str)

    @property
    def own_network(self) -> bool:
        """Whether it has a network of its own, in which it hinders nobody."""
        return self.plan is not None and self.plan.own_network

    @property
    def daemonised(self) -> bool:
        """Whether the process that was started ended as if all were done, while others of its tree ran."""
        return self.record.state.final and self._others > 0 and self.report.exit_code == 0

    async def sample(self) -> None:
        """Look once: at its processes, what they listen on, and what it has written."""
        plan, pids = self.plan, self.record.pids
        if plan is None or not self.record.begun:
            return
        if pids and not self.record.state.final:
            await asyncio.to_thread(self._look, pids)
        try:
            part = await self._launcher.log(plan, cursor=self._cursor)
        except (LaunchError, OSError):
            return
        self._cursor = part.cursor
        self.output_bytes += sum(len(line.encode()) + 1 for line in part.lines)
        self.output_lost |= part.truncated

    def _look(self, pids: Iterable[int]) -> None:
        alive = {identity.pid: identity for pid in pids if (identity := procfs.Identity.of(pid)) is not None}
        if self.main is None and alive:
            self.main = min(alive.values(), key=lambda identity: (identity.start_ticks, identity.pid))
        self._others = len(alive) - (self.main is not None and self.main.pid in alive)
        found = ownership.listening(alive, min(alive) if self.own_network and alive else None)
        if found is not None:
            self.sockets_known = True
            self.sockets.update(found)
