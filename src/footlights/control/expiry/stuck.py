"""Reports launches that do not end: a slot is freed by proof alone, so an operator has to look."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from footlights.control import limits
from footlights.control.expiry.context import CONCERNS_ALL
from footlights.control.expiry.countdowns import Countdowns
from footlights.protocol import times
from footlights.store.launches import launch_rows

if TYPE_CHECKING:
    from datetime import datetime

    from footlights.control.expiry.context import ExpiryContext
    from footlights.store.schema import LaunchRow

log = structlog.get_logger(__name__)

STUCK_AFTER_S = 30.0
"""Beyond the grace period: by then an agent has killed and looked for what it started many times."""


class StuckLaunches:
    """Counts down from when a launch was told to end, and says which should have been gone long ago."""

    def __init__(self, context: ExpiryContext) -> None:
        self._context = context
        self._countdowns: Countdowns[str] = Countdowns(context.monotonic)
        self._unreadable: set[str] = set()

    def postpone(self, span_s: float) -> None:
        """Prolong every countdown."""
        self._countdowns.postpone(span_s)

    async def report(self, now: datetime) -> None:
        """Look at every launch that ends; mark, log and count those that are stuck."""
        ending = await self._context.store.read(launch_rows.ending)
        self._unreadable &= {launch.launch_id for launch, _ in ending}
        for launch, session in ending:
            if launch.launch_id in self._unreadable:
                continue
            with self._context.supervisor.isolated("expiry", launch_id=launch.launch_id, session_id=session.session_id):
                self._unreadable.add(launch.launch_id)
                allowed = times.seconds(limits.of_session(session).stop_grace_period) + STUCK_AFTER_S
                self._unreadable.discard(launch.launch_id)
                self._countdowns.start(
                    launch.launch_id, allowed - self._context.cautious.age_s(launch.ending_time or now)
                )
        launches = {launch.launch_id: launch for launch, _ in ending}
        self._countdowns.keep(launches)
        stuck = [launches[launch_id] for launch_id in self._countdowns.over()]
        for launch in stuck:
            if not launch.overdue:
                with self._context.supervisor.isolated("expiry", through=CONCERNS_ALL, launch_id=launch.launch_id):
                    await self._mark(launch, now)
        self._context.metrics.stuck(len({launch.session_id for launch in stuck}))

    async def _mark(self, launch: LaunchRow, now: datetime) -> None:
        if not await self._context.work.write(partial(launch_rows.set_overdue, launch_id=launch.launch_id, now=now)):
            return
        log.error(
            "launch_stuck",
            node=launch.node,
            device=launch.device,
            launch_id=launch.launch_id,
            session_id=launch.session_id,
            message=launch.message,
        )
        self._context.bus.watchers()
