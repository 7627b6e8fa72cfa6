"""Recording what agents report: observed state, the ends that follow from it, and what agents may forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from footlights.control import limits
from footlights.control.dispatch import observations
from footlights.lifecycle import LaunchState, SessionClock, due
from footlights.protocol import times
from footlights.store import Joint, Store, Transaction
from footlights.store.launches import launch_rows, ledger
from footlights.store.sessions.derivation import Lives
from footlights.v1 import agent_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from footlights.control.dispatch.link import OpenLink
    from footlights.control.observability.metrics import Metrics
    from footlights.control.signals import Signals
    from footlights.store.schema import Launch

log = structlog.get_logger(__name__)

Report = agent_pb2.LaunchReport

MOST_REPORTS = 2000
"""So many are written by the same statements: engines bound how many values one may have."""

_STATES = frozenset(number for name, number in Report.State.items() if name in LaunchState.__members__)
"""The states that this control plane knows: a newer agent may have more."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What one agent said."""

    node: str
    epoch: int
    """Of its link."""
    reports: Sequence[Report]
    now: datetime


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What was made of it."""

    launches: tuple[Launch | None, ...]
    changed: bool
    """Whether any of the sessions is other than it was."""
    over: bool
    """Whether a session was told to end."""


class Observing:
    """Records reports; those of all links that share a commit by the same few statements."""

    def __init__(self, store: Store, signals: Signals, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        """Take what it writes to, whom it wakes, and where it counts."""
        self._store, self._signals, self._metrics, self._clock = store, signals, metrics, clock

    async def record(self, link: OpenLink, reports: Sequence[Report]) -> None:
        """Record reports, end sessions whose time is up, and let the agent forget what is recorded for good."""
        known = [report for report in reports if report.state in _STATES]
        if len(known) < len(reports):
            log.warning("link_odd", node=link.node)
        fresh = [report for report in known if _is_news(link, report)]
        if not fresh:
            return
        now = self._clock()
        recorded = await self._store.write_joint(_REPORTS, _Heard(link.node, link.epoch, fresh, now))
        ended = False
        counted: set[str] = set()
        for report, launch in zip(fresh, recorded.launches, strict=False):
            if launch is None or launch.ended_time is not None:
                ended = True
                link.reported.pop(report.launch_id, None)
                if report.state >= Report.EXITED:
                    link.say(agent_pb2.LinkResponse(forget=agent_pb2.Forget(launch_id=report.launch_id)))
            if launch is not None and launch.ended_time == now and launch.launch_id not in counted:
                counted.add(launch.launch_id)
                self._count(launch)
        if recorded.changed:
            self._signals.watchers()
        if ended:
            self._signals.waiting(link.node)
        if ended or recorded.over:
            self._signals.assigned(link.node)

    def _count(self, launch: Launch) -> None:
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
            self._metrics.spent(ledger.spent(launch, now=launch.ended_time))
        if launch.state == "REJECTED":
            self._metrics.refused(launch.reason)
        if launch.start_s is not None:
            self._metrics.started(launch.start_s)


def _is_news(link: OpenLink, report: Report) -> bool:
    """Say whether a report tells more than the last one did, but for durations that have run out no limit."""
    bare = Report()
    bare.CopyFrom(report)
    for name in ("ready_for", "idle_for", "starting_for"):
        bare.ClearField(name)
    for step in bare.steps:
        step.ClearField("age")
    text = bare.SerializeToString(deterministic=True)
    limits = link.limits.get(report.launch_id)
    expired = limits is not None and report.state == Report.READY and due(_session_clock(report), limits)
    if link.reported.get(report.launch_id) == text and not expired:
        return False
    link.reported[report.launch_id] = text
    return True


def _record(tx: Transaction, heard: Sequence[_Heard]) -> list[_Recorded]:
    recorded: list[_Recorded] = []
    some: list[_Heard] = []
    for each in heard:
        if some and sum(len(one.reports) for one in some) + len(each.reports) > MOST_REPORTS:
            recorded += _record_some(tx, some)
            some = []
        some.append(each)
    return recorded + _record_some(tx, some)


def _record_some(tx: Transaction, heard: Sequence[_Heard]) -> list[_Recorded]:
    launch_ids = {report.launch_id for each in heard for report in each.reports}
    lives = Lives.of_launches(tx, launch_ids, nodes={each.node for each in heard})
    found: list[tuple[list[Launch | None], bool]] = []
    for each in heard:
        node, rows, over = lives.node(each.node), [], False
        if node is not None and node.epoch == each.epoch:
            for report in each.reports:
                launch = launch_rows.note(lives, each.node, observations.observation(report, each.now), now=each.now)
                rows.append(launch)
                over |= launch is not None and _end_if_due(lives, launch, report, each.now)
        found.append((rows, over))
    changed = lives.write()
    return [
        _Recorded(tuple(rows), any(row is not None and row.session_id in changed for row in rows), over)
        for rows, over in found
    ]


def _end_if_due(lives: Lives, launch: Launch, report: Report, now: datetime) -> bool:
    if launch.state != "READY" or launch.desired == "STOPPED":
        return False
    session = lives.session(launch.session_id)
    if session is None or session.launch_id != launch.launch_id:
        return False
    why = due(_session_clock(report), limits.time_limits(limits.of_session(session)))
    if why is not None:
        lives.end(session, *why, now=now)
    return why is not None


def _session_clock(report: Report) -> SessionClock:
    return SessionClock(
        ready_for_s=times.seconds(report.ready_for),
        ever_connected=report.ever_connected,
        idle_for_s=times.seconds(report.idle_for) if report.HasField("idle_for") else None,
    )


_REPORTS = Joint("the recording of reports", _record)
