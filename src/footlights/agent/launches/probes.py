"""What is asked of a running application and of its ports, beside its launcher."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from footlights.launch.launchers import traits_of
from footlights.launch.probes import readiness
from footlights.launch.probes.notice import NoticeOutcome, SessionNotice, send_notice
from footlights.launch.process import ownership

if TYPE_CHECKING:
    from footlights.launch.launcher import Launcher, LaunchPlan, LogPart
    from footlights.launch.probes.readiness import ViewerPresence


class Probes(Protocol):
    """Each call has a deadline of its own and answers what it could learn within it; none raises."""

    async def ready(self, launcher: Launcher, plan: LaunchPlan) -> bool:
        """Whether the application says that it can be connected to, by the version's readiness check."""

    async def presence(self, plan: LaunchPlan) -> ViewerPresence:
        """Who is connected, by the version's presence source."""

    async def send_notice(self, plan: LaunchPlan, notice: SessionNotice) -> NoticeOutcome:
        """Send the application what its viewers should know."""

    async def port_intruders(self, launcher: Launcher, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """Which processes outside the launch's tree listen on its ports; empty where none is known to."""

    async def left_over(self, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """What of the launch's own still listens on its ports; empty where nothing is known to."""


class ApplicationProbes:
    """Asks the application itself, and the kernel."""

    async def ready(self, launcher: Launcher, plan: LaunchPlan) -> bool:
        """Make the version's readiness check once."""

        async def read(cursor: str) -> LogPart:
            return await launcher.log(plan, cursor=cursor)

        return await readiness.ready(plan, read)

    async def presence(self, plan: LaunchPlan) -> ViewerPresence:
        """Ask the application, or count connections."""
        return await readiness.presence(plan)

    async def send_notice(self, plan: LaunchPlan, notice: SessionNotice) -> NoticeOutcome:
        """Post the notice to the application's http port."""
        return await send_notice(plan, notice)

    async def port_intruders(self, launcher: Launcher, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """Find listeners outside the tree; none where the launcher does not know the tree."""
        if not pids:
            return ""
        found = await asyncio.to_thread(ownership.listeners_outside, plan.ports, pids)
        certain = [one for one in found if one.pid is not None or not traits_of(plan.version).own_user]
        return "; ".join(str(listener) for listener in certain)

    async def left_over(self, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """Find listeners of the tree as it was last seen."""
        if not pids:
            return ""
        found = await asyncio.to_thread(ownership.listeners_inside, plan.ports, pids)
        return "; ".join(str(listener) for listener in found)
