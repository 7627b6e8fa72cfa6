"""The relay of one launch: asked for over the link, given to the application, and renewed before it ends.

The control plane makes credentials for each launch. They are in memory only, so the next agent asks for its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from footlights.launch.probes.relay import RelayAccess
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from footlights.agent.clock import Clock
    from footlights.agent.launches.probes import ApplicationProbes
    from footlights.agent.link.outbox import Outbox
    from footlights.agent.v1.agent_pb2 import Relay
    from footlights.launch.launcher import LaunchPlan

ASK_S: Final = 10.0
"""How long an answer is waited for until it is asked again."""
LOOK_AGAIN_S: Final = 600.0
"""After which a control plane without a relay is asked again, or one that gave credentials without an end."""
SETTLE_S: Final = 20.0
"""How long an application that is ready otherwise waits for its relay; viewers may reach it without."""
_TRY_S: Final = 2.0
_TRY_READY_S: Final = 10.0
_RENEWED_AT: Final = 2 / 3


class LaunchRelay:
    """What one launch has of a relay."""

    def __init__(self, launch_id: str, outbox: Outbox, probes: ApplicationProbes, clock: Clock) -> None:
        self._launch_id, self._outbox, self._probes, self._clock = launch_id, outbox, probes, clock
        self._since: float | None = None
        """When the application could have been given it first."""
        self._given: RelayAccess | None = None
        self._given_at = self._valid_s = 0.0
        self._delivered = False
        self._asked_at: float | None = None
        self._may_ask = True
        self._try_at = 0.0
        self._problem = ""

    def take(self, relay: Relay) -> None:
        """Take in what the control plane gives."""
        self._given = RelayAccess(tuple(relay.urls), relay.username, relay.password)
        self._given_at, self._valid_s = self._clock.now(), seconds(relay.valid_for)
        self._delivered, self._try_at = False, 0.0
        self._asked_at = None

    def ask(self, plan: LaunchPlan) -> None:
        """Ask for it where that is due and the application takes one."""
        now = self._clock.now()
        if not plan.version.signaling.relay_path or not self._is_due(now):
            return
        if self._asked_at is None or now - self._asked_at >= ASK_S:
            self._asked_at = now
            self._may_ask = self._outbox.ask_relay(self._launch_id)

    async def keep(self, plan: LaunchPlan, secret: str, *, ready: bool) -> None:
        """Give the application what it has not been given yet, and ask for what is due."""
        self.ask(plan)
        now = self._clock.now()
        self._since = now if self._since is None else self._since
        given = self._given
        if given is None or self._delivered or now < self._try_at:
            return
        if not given.urls:
            self._delivered, self._problem = True, ""
            return
        self._problem = await self._probes.give_relay(plan, given, secret)
        if given is self._given:
            self._delivered = not self._problem
            self._try_at = self._clock.now() + (_TRY_READY_S if ready else _TRY_S)

    def pending(self, plan: LaunchPlan) -> str:
        """Why an application that is ready otherwise should not be given out yet; empty where it may be."""
        if not plan.version.signaling.relay_path or self._delivered or not self._may_ask:
            return ""
        if self._since is not None and self._clock.now() - self._since >= SETTLE_S:
            return ""
        return f"it does not have its relay: {self._problem}" if self._problem else "it waits for its relay"

    @property
    def note(self) -> str:
        """What viewers may miss, for operators and owners; empty where that is nothing."""
        if self._problem:
            return f"The application does not have its relay, so not all viewers may see it: {self._problem}."
        if self._given is not None and 0 < self._valid_s <= self._clock.now() - self._given_at:
            return "The application's credentials for its relay have ended, and the control plane gave no others."
        return ""

    def _is_due(self, now: float) -> bool:
        if self._given is None:
            return True
        return now - self._given_at >= (self._valid_s * _RENEWED_AT or LOOK_AGAIN_S)
