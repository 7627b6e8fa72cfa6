"""Recording what agents report: observed state, the ends that follow from it, and what agents may forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from footlights import errors
from footlights.agent.v1 import agent_pb2
from footlights.control import stored
from footlights.control.dispatch import observations
from footlights.control.dispatch.link import session_clock
from footlights.launch.recipe.limits import time_limits
from footlights.lifecycle import LaunchState, due
from footlights.store import BatchWrite, Store, Transaction
from footlights.store.launches import launch_rows
from footlights.store.sessions.derivation import SessionStates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.dispatch.link import AgentLink
    from footlights.control.observability.metrics import Metrics
    from footlights.control.signals import Signals
    from footlights.store.schema import LaunchRow
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

Report = agent_pb2.LaunchReport

LOOP = "reports"

MOST_REPORTS = 2000
"""So many are written by the same statements: engines bound how many values one may have."""

_STATES = frozenset(number for name, number in Report.State.items() if name in LaunchState.__members__)
"""The states that this control plane knows: a newer agent may have more."""


@dataclass(frozen=True, slots=True)
class _LinkReports:
    """What one agent has reported."""

    node: str
    epoch: int
    """Of its link."""
    reports: Sequence[Report]
    now: datetime


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What follows from it."""

    launches: tuple[LaunchRow | None, ...]
    changed: bool
    """Whether any of the sessions has changed."""
    over: bool
    """Whether a session was told to end."""
    left_alone: frozenset[str]
    """Launches that belong to a replica of a later release: of these nothing was recorded."""


class ReportRecorder:
    """Records reports; those of all links that share a commit by the same few statements."""

    def __init__(
        self,
        store: Store,
        signals: Signals,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        supervisor: Supervisor,
    ) -> None:
        self._store, self._signals, self._metrics = store, signals, metrics
        self._clock, self._supervisor = clock, supervisor

    async def record(self, link: AgentLink, reports: Sequence[Report]) -> None:
        """Record reports, end sessions whose time is up, and let the agent forget what is recorded for good.

        Those of launches that are not the node's are dropped. A report that cannot be recorded is skipped, and accepted
        again when the agent repeats it.

        Raises Unavailable where the store fails: nothing is recorded.
        """
        known = [report for report in reports if report.state in _STATES]
        if len(known) < len(reports):
            log.warning("link_odd", node=link.node)
        fresh = [report for report in known if link.expects(report.launch_id) and link.accept(report)]
        for first in range(0, len(fresh), MOST_REPORTS):
            await self._record_fresh(link, fresh[first : first + MOST_REPORTS])
        for report in known:
            if report.state >= Report.EXITED and not link.expects(report.launch_id):
                link.forget(report.launch_id)

    async def _record_fresh(self, link: AgentLink, fresh: Sequence[Report]) -> None:
        try:
            await self._record(link, fresh)
        except errors.Unavailable:
            raise
        except Exception:
            # In their order, each on its own: the one that is to blame hides none of the others.
            for report in fresh:
                recorded = False
                with self._supervisor.isolated(
                    LOOP, through=(errors.Unavailable,), node=link.node, launch_id=report.launch_id
                ):
                    await self._record(link, [report])
                    recorded = True
                if not recorded:
                    link.retry(report.launch_id)

    async def _record(self, link: AgentLink, reports: Sequence[Report]) -> None:
        now = self._clock()
        recorded = await self._store.write_batched(_REPORTS, _LinkReports(link.node, link.epoch, reports, now))
        ended = False
        counted: set[str] = set()
        for report, launch in zip(reports, recorded.launches, strict=False):
            if report.launch_id in recorded.left_alone:
                link.expect_again(report.launch_id)
                continue
            if launch is None:
                link.disown(report.launch_id)
            elif launch.ended_time is not None:
                ended = True
                link.expect_again(report.launch_id)
                if report.state >= Report.EXITED:
                    link.forget(report.launch_id)
            if launch is not None and launch.ended_time == now and launch.launch_id not in counted:
                counted.add(launch.launch_id)
                self._count(launch)
        if recorded.changed:
            self._signals.sessions.publish()
        if ended:
            self._signals.placing.publish(link.node)
        if ended or recorded.over:
            self._signals.assignments.publish(link.node)

    def _count(self, launch: LaunchRow) -> None:
        log.info(
            "launch_ended",
            node=launch.node,
            launch_id=launch.launch_id,
            session_id=launch.session_id,
            state=launch.state,
            reason=launch.reason,
            exit_code=launch.exit_code,
        )
        if launch.ended_time is not None:
            self._metrics.spent(launch_rows.spent(launch, now=launch.ended_time))
        if launch.state == LaunchState.REJECTED:
            self._metrics.refused(launch.reason)
        if launch.state in (LaunchState.REJECTED, LaunchState.FAILED) and launch.start_s is None:
            self._metrics.failed(launch.reason)
        if launch.start_s is not None:
            self._metrics.started(launch.start_s)


def _record(tx: Transaction, batch: Sequence[_LinkReports]) -> list[_Recorded]:
    recorded: list[_Recorded] = []
    some: list[_LinkReports] = []
    for each in batch:
        if some and sum(len(one.reports) for one in some) + len(each.reports) > MOST_REPORTS:
            recorded += _record_some(tx, some)
            some = []
        some.append(each)
    return recorded + _record_some(tx, some)


def _record_some(tx: Transaction, batch: Sequence[_LinkReports]) -> list[_Recorded]:
    launch_ids = {report.launch_id for each in batch for report in each.reports}
    lives = SessionStates.of_launches(tx, launch_ids, nodes={each.node for each in batch})
    found: list[tuple[list[LaunchRow | None], bool, set[str]]] = []
    for each in batch:
        node, rows, over, left_alone = lives.node(each.node), [], False, set[str]()
        if node is not None and node.epoch == each.epoch:
            for report in each.reports:
                if lives.left_alone(report.launch_id):
                    left_alone.add(report.launch_id)
                launch = launch_rows.note(lives, each.node, observations.observation(report, each.now), now=each.now)
                rows.append(launch)
                over |= launch is not None and _end_if_due(lives, launch, report, each.now)
        found.append((rows, over, left_alone))
    changed = lives.write()
    return [
        _Recorded(
            tuple(rows), any(row is not None and row.session_id in changed for row in rows), over, frozenset(left_alone)
        )
        for rows, over, left_alone in found
    ]


def _end_if_due(lives: SessionStates, launch: LaunchRow, report: Report, now: datetime) -> bool:
    if launch.state != "READY" or launch.desired == "STOPPED":
        return False
    session = lives.session(launch.session_id)
    if session is None or session.launch_id != launch.launch_id:
        return False
    if launch.handed_over_time is not None and not launch.taken_up:
        return False  # what the agent says is of the time before the session
    limits = time_limits(stored.limits(session))
    why = due(session_clock(report), limits if session.pool is None else limits.of_warm)
    if why is not None:
        lives.end(session, *why, now=now)
    return why is not None


_REPORTS = BatchWrite("the recording of reports", _record)
