"""The expiry loop: one pass a second over everything that time changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from footlights import errors
from footlights.control.expiry.deadlines import CONCERNS_ALL, Deadlines
from footlights.control.expiry.fleet_report import FleetReport
from footlights.control.expiry.retention import Retention
from footlights.control.expiry.stuck import StuckLaunches
from footlights.control.replication.work_lease import LeaseSuperseded

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from datetime import datetime

    from footlights.control.clock import CautiousClock
    from footlights.control.liveness.heartbeats import LivenessJudge
    from footlights.control.liveness.mass_loss import MassLossGuard
    from footlights.control.observability.metrics import Metrics
    from footlights.control.replication.work_lease import LeaderLease
    from footlights.control.signals import Signals
    from footlights.store import Store
    from footlights.supervision import Supervisor


class ExpiryLoop:
    """Judges heartbeats on every replica; on the one that holds the lease it also ends and removes what is due."""

    NAME = "expiry"
    PERIOD_S = 1.0

    def __init__(
        self,
        *,
        store: Store,
        bus: Signals,
        work: LeaderLease,
        silences: LivenessJudge,
        brake: MassLossGuard,
        metrics: Metrics,
        retention_days: int,
        clock: Callable[[], datetime],
        cautious: CautiousClock,
        supervisor: Supervisor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the loop and its parts.

        Args:
            store: The store.
            bus: Told which sessions have changed.
            work: The lease of what one replica does for all.
            silences: Judges heartbeats.
            brake: The mass-loss guard.
            metrics: Where ends, stuck sessions and the fleet are counted.
            retention_days: How long ended sessions are kept.
            clock: The wall clock, for moments that are stored.
            cautious: What the age of stored moments is measured by.
            supervisor: Runs the loop and isolates its parts.
            monotonic: The clock that measures spans.
        """
        self._work, self._silences, self._brake = work, silences, brake
        self._clock, self._cautious, self._monotonic = clock, cautious, monotonic
        self._supervisor = supervisor
        self._deadlines = Deadlines(
            store=store, bus=bus, work=work, cautious=cautious, monotonic=monotonic, supervisor=supervisor
        )
        self._stuck = StuckLaunches(
            store=store,
            bus=bus,
            work=work,
            metrics=metrics,
            cautious=cautious,
            monotonic=monotonic,
            supervisor=supervisor,
        )
        self._report = FleetReport(store=store, metrics=metrics, monotonic=monotonic)
        self._retention = Retention(store=store, work=work, cautious=cautious, monotonic=monotonic, days=retention_days)
        self._passed = self._due = monotonic()
        self.passes = 0
        """How many passes were made to their end."""

    async def run(self) -> None:
        """Make passes until cancelled."""
        self._due = self._monotonic() + self.PERIOD_S
        await self._supervisor.supervise(self.NAME, self._pass, every_s=self.PERIOD_S, expected=(errors.Error,))

    async def expire_once(self, late_s: float = 0.0) -> None:
        """Make one pass.

        Args:
            late_s: How many seconds later than due it begins, including the time that the pass before took.
        """
        now, started = self._clock(), self._monotonic()
        self._cautious()  # it has to see the wall clock often, also on replicas that measure nothing by it
        self._brake.late(late_s)
        leads = await self._work.claim()
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
                await self._report.report()
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
            self._work.lost()
        except errors.Error as error:
            self._brake.failed(str(error))
            raise

    def _part(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._supervisor.isolated(self.NAME, through=CONCERNS_ALL, part=name)
