"""What is asked of a running application and of its ports, beside its launcher."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from footlights.launch.launcher import SESSION_FILE
from footlights.launch.launchers import traits_of
from footlights.launch.probes import readiness
from footlights.launch.probes.notice import NoticeOutcome, SessionNotice, send_notice
from footlights.launch.probes.relay import RelayAccess, give_relay
from footlights.launch.probes.stage import send_stage
from footlights.launch.process import ownership
from footlights.launch.recipe.arguments import STAGE
from footlights.v1.application_pb2 import StageDelivery

if TYPE_CHECKING:
    from footlights.launch.launcher import Launcher, LaunchPlan
    from footlights.launch.probes.readiness import ViewerPresence

_MOST_SHOWN: Final = 8


class ApplicationProbes:
    """Asks the application itself, and the kernel. Each call has a deadline of its own; none raises.

    ``secret`` is the launch's: it is presented with every request.
    """

    async def why_unready(
        self, launcher: Launcher, plan: LaunchPlan, secret: str = "", timeout_s: float = readiness.PROBE_TIMEOUT_S
    ) -> str:
        """Why the application cannot be connected to, by the version's readiness check; empty where it can."""
        pids = (await launcher.status(plan)).pids if plan.own_network else frozenset()
        timeout_s = min(timeout_s, readiness.PROBE_TIMEOUT_S)
        return await readiness.why_unready(
            plan, lambda cursor: launcher.log(plan, cursor=cursor), secret=secret, pids=pids, timeout_s=timeout_s
        )

    async def open_stage(self, plan: LaunchPlan, secret: str = "") -> str:
        """Send its stage to an application that is given it by HTTP; return why it was not taken, empty where it was.

        Raises StageRefused where the application will not take it.
        """
        if plan.version.stage_delivery.method != StageDelivery.HTTP:
            return ""
        try:
            content = await asyncio.to_thread((plan.directory / SESSION_FILE).read_bytes)
            uri = str(json.loads(content).get(STAGE, ""))
        except (OSError, ValueError, AttributeError) as error:
            return f"its session file, which has the stage, cannot be read: {type(error).__name__}"
        return await self.hand_over(plan, uri, secret)

    async def listening(self, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """Say what the launch's tree listens on, and which of its ports it does not; empty where it is not known."""
        if not pids:
            return ""
        inside = min(pids) if plan.own_network else None
        found = await asyncio.to_thread(ownership.listening, pids, inside)
        if found is None:
            return ""
        taken = {each.port for each in found if each.protocol == "TCP"}
        wanted = {plan.ports.signal: "signalling"}
        if plan.version.readiness.check in readiness.ASKED_BY_HTTP:
            wanted[plan.ports.http] = "HTTP"
        lacking = [f"its {name} port {port}" for port, name in wanted.items() if port not in taken]
        shown = ", ".join(str(each) for each in found[:_MOST_SHOWN]) or "no port"
        more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        but = f", and not on {' or '.join(lacking)}" if lacking and found else ""
        return f"It listens on {shown}{more}{but}."

    async def presence(self, plan: LaunchPlan, secret: str = "", pids: frozenset[int] = frozenset()) -> ViewerPresence:
        """Who is connected, by the version's presence source; ``pids`` are the launch's tree, where that is known."""
        return await readiness.presence(plan, secret=secret, pids=pids)

    async def send_notice(self, plan: LaunchPlan, notice: SessionNotice, secret: str = "") -> NoticeOutcome:
        """Send the application what its viewers should know."""
        return await send_notice(plan, notice, secret=secret)

    async def hand_over(self, plan: LaunchPlan, uri: str, secret: str = "") -> str:
        """Send a session's stage to an application that runs already, where it is given it by HTTP; else nothing.

        Returns and raises what ``open_stage`` does.
        """
        if plan.version.stage_delivery.method != StageDelivery.HTTP or not uri:
            return ""
        return await send_stage(plan, uri, secret=secret)

    async def give_relay(self, plan: LaunchPlan, relay: RelayAccess, secret: str = "") -> str:
        """Give the application its relay; return why it does not have it."""
        return await give_relay(plan, relay, secret=secret)

    async def port_intruders(self, launcher: Launcher, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """Which processes outside the launch's tree listen on its ports; empty where none can, or it is not known."""
        if not pids or plan.own_network:
            return ""
        found = await asyncio.to_thread(ownership.listeners_outside, plan.ports, pids)
        certain = [one for one in found if one.pid is not None or not traits_of(plan.version).own_user]
        return "; ".join(str(listener) for listener in certain)

    async def left_over(self, plan: LaunchPlan, pids: frozenset[int]) -> str:
        """What of the launch's tree, as last seen, still listens on its ports; empty where nothing does."""
        if not pids:
            return ""
        found = await asyncio.to_thread(ownership.listeners_inside, plan.ports, pids)
        return "; ".join(str(listener) for listener in found)
