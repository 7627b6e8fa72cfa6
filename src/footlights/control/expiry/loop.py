"""The expiry loop: one pass a second over everything that time changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from footlights import errors
from footlights.control.expiry.context import CONCERNS_ALL
from footlights.control.expiry.deadlines import Deadlines
from footlights.control.expiry.fleet_report import FleetReport
from footlights.control.expiry.retention import Retention
from footlights.control.expiry.stuck import StuckLaunches
from footlights.control.replication.work_lease import LeaseSuperseded

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from datetime import datetime

    from footlights.control.expiry.context import ExpiryContext
    from footlights.control.liveness.heartbeats import LivenessJudge
    from footlights.control.liveness.mass_loss import MassLossGuard


class ExpiryLoop:
    """Judges heartbeats on every replica; on the one that holds the lease it also ends and removes what is due."""

    NAME = "expiry"
    PERIOD_S = 1.0

    def __init__(
        self,
        context: ExpiryContext,
        *,
        silences: LivenessJudge,
        brake: MassLossGuard,
        clock: Callable[[], datetime],
        retention_days: int,
    ) -> None:
        self._context, self._silences, self._brake, self._clock = context, silences, brake, clock
        self._monotonic = context.monotonic
        self._deadlines, self._stuck = Deadlines(context), StuckLaunches(context)
        self._report, self._retention = FleetReport(context), Retention(context, retention_days)
        self._passed = self._due = self._monotonic()
        self.passes = 0
        """How many passes were made to their end."""

    async def run(self) -> None:
        """Make passes until cancelled."""
        self._due = self._monotonic() + self.PERIOD_S
        await self._context.supervisor.supervise(self.NAME, self._pass, every_s=self.PERIOD_S, expected=(errors.Error,))

    async def expire_once(self, late_s: float = 0.0) -> None:
        """Make one pass, which begins ``late_s`` later than due, including the time that the pass before took."""
        now, started = self._clock(), self._monotonic()
        self._context.cautious()  # it has to see the wall clock often, also on replicas that measure nothing by it
        self._brake.late(late_s)
        leads = await self._context.work.claim()
        if leads:
            await self._report.start()
        held = True
        with self._part("heartbeats"):
            held = await self._silences.judge_once(orphans=leads)
        if held:
            # It is not known which nodes were missed: no session loses time for it.
            self._deadlines.postpone(started - self._passed)
            self._stuck.postpone(started - self._passed)
        elif leads:
            with self._part("deadlines"):
                await self._deadlines.end_overdue(now)
            with self._part("stuck"):
                await self._stuck.report(now)
        self._passed = started
        if leads:
            with self._part("fleet_report"):
                await self._report.report(now)
            with self._part("retention"):
                await self._retention.remove_old()
        else:
            self._report.stop()
        self.passes += 1

    async def _pass(self) -> None:
        started = self._monotonic()
        late_s, self._due = started - self._due, started + self.PERIOD_S
        try:
            await self.expire_once(late_s=late_s)
        except LeaseSuperseded:
            self._context.work.lost()
        except errors.Error as error:
            self._brake.failed(str(error))
            raise

    def _part(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._context.supervisor.isolated(self.NAME, through=CONCERNS_ALL, part=name)
