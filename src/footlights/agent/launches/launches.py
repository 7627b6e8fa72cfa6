"""Agreement of the node's launches with what the control plane assigns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import structlog

from footlights.agent.launches.journal import JournalError
from footlights.agent.launches.record import Record
from footlights.agent.launches.runner import Runner
from footlights.agent.launches.step import LaunchEnding
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport, Relay
from footlights.lifecycle import LaunchState

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from footlights.agent.launches.journal import JournalEntry
    from footlights.agent.launches.log_retention import LogRetention
    from footlights.agent.launches.observer import LaunchTools
    from footlights.agent.launches.orphans import Orphans
    from footlights.agent.launches.table import KnownLaunches

TOMBSTONES: Final = 4096
_CLOSE_S: Final = 5.0
_TRACES_AGAIN_S: Final = 5.0
_TRACES_LAST_S: Final = 600.0
_DESIRED: Final = frozenset({Assignment.RUNNING, Assignment.STOPPED})
"""What may be wanted of a launch, as far as this release knows."""

STOPPED: Final = LaunchEnding(LaunchState.EXITED, "STOPPED")
UNASSIGNED: Final = LaunchEnding(
    LaunchState.EXITED, "UNASSIGNED", "The control plane no longer assigns the launch to this node."
)
_log = structlog.get_logger(__name__)


class Tombstones:
    """The ends of launches that are forgotten: a late assignment must not begin one of them a second time.

    Nor must a control plane whose database was restored, in which it has not ended.
    """

    def __init__(self, most: int = TOMBSTONES) -> None:
        self._reports: OrderedDict[str, LaunchReport] = OrderedDict()
        self._most = most

    def add(self, report: LaunchReport) -> None:
        """Remember how a launch ended."""
        self._reports[report.launch_id] = report
        while len(self._reports) > self._most:
            self._reports.popitem(last=False)

    def get(self, launch_id: str) -> LaunchReport | None:
        """How a launch ended; None where that is not remembered."""
        return self._reports.get(launch_id)


class Launches:
    """Takes in what is assigned, and has it run."""

    def __init__(self, table: KnownLaunches, tools: LaunchTools, retention: LogRetention, orphans: Orphans) -> None:
        self._table, self._tools, self._retention, self._orphans = table, tools, retention, orphans
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._tombstones = Tombstones()
        self._closed = ""

    async def restore(self, entries: Iterable[JournalEntry], *, timeout: float = 5.0) -> None:
        """Take up the launches of an earlier agent, and look at each once, so that the first hello is true."""
        for end in await asyncio.to_thread(self._retention.ends, TOMBSTONES):
            self._tombstones.add(end)
        for entry in entries:
            with self._tools.supervisor.isolated("restore", launch_id=entry.launch_id):
                self._restore(entry)
        waits = [asyncio.ensure_future(runner.observed.wait()) for runner in self._table.alive]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout)
            for wait in late:
                wait.cancel()

    def assign_all(self, assignments: Iterable[Assignment], mark: str) -> None:
        """Agree with the full set: what runs here under ``mark`` and is not in it, is ended."""
        wanted = {assignment.launch_id: assignment for assignment in assignments}
        for assignment in wanted.values():
            with self._tools.supervisor.isolated("assignments", launch_id=assignment.launch_id):
                self.assign(assignment)
        for runner in self._table.alive:
            record = runner.record
            if record.launch_id in wanted:
                continue
            if record.plan is not None and record.plan.cluster_id != mark:
                _log.warning("launch_of_another_cluster", launch_id=record.launch_id, mark=record.plan.cluster_id)
                continue
            _log.warning("launch_not_assigned", launch_id=record.launch_id)
            runner.end(UNASSIGNED)

    def assign(self, assignment: Assignment) -> None:
        """Take in one assignment, new or changed. An older epoch than the one known is refused."""
        if assignment.desired not in _DESIRED:
            # A control plane of a later release wants what this agent cannot do: what runs goes on as it is.
            _log.warning("assignment_unknown", launch_id=assignment.launch_id, desired=assignment.desired)
            return
        runner = self._table.runner(assignment.launch_id)
        if runner is None:
            self._assign_unknown(assignment)
            return
        record = runner.record
        if assignment.epoch < record.assignment.epoch:
            _log.warning(
                "assignment_refused",
                launch_id=record.launch_id,
                epoch=assignment.epoch,
                known_epoch=record.assignment.epoch,
            )
        elif record.state.final:
            self._tools.reports.changed(record.launch_id)  # the control plane has not recorded the end yet
        elif assignment.desired == Assignment.STOPPED:
            record.renew_epoch(assignment.epoch)
            runner.end(STOPPED)
        else:
            record.reassign(assignment)
            runner.wake()

    def take_relay(self, relay: Relay) -> None:
        """Have a launch given its relay; one that is not known, or is over, needs none."""
        runner = self._table.runner(relay.launch_id)
        if runner is not None and not runner.record.state.final:
            runner.take_relay(relay)

    def forget(self, launch_id: str) -> None:
        """Drop a launch whose end is recorded. One that is not over is kept."""
        record = self._table.get(launch_id)
        if record is None:
            return
        if not record.state.final:
            _log.warning("forget_refused", launch_id=launch_id, state=record.state.value)
            return
        runner = self._table.remove(launch_id)
        end = record.report()
        self._tombstones.add(end)
        self._spawn("forget", launch_id, self._remove(runner, self._tasks.pop(launch_id, None), end))

    def close_to_new(self, why: str) -> None:
        """Begin nothing any more; what is assigned from now on is refused."""
        self._closed = why

    async def over(self, timeout: float) -> bool:
        """Wait until every launch is over, at most ``timeout`` seconds; return whether all are."""
        tasks = [self._tasks[runner.record.launch_id] for runner in self._table.alive]
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=timeout)
        return not late

    async def ended(self, launch_id: str, timeout: float) -> None:
        """Wait until one launch is over; one that is not known is. Raises TimeoutError."""
        task = self._tasks.get(launch_id)
        if task is not None:
            async with asyncio.timeout(timeout):
                await asyncio.wait({task})

    async def settled(self, timeout: float) -> bool:
        """Wait until all of the launches that were forgotten is gone, at most ``timeout`` seconds; return whether."""
        if not self._chores:
            return True
        _, late = await asyncio.wait(self._chores, timeout=timeout)
        return not late

    async def close(self) -> None:
        """Stop watching. Applications go on."""
        tasks = [*self._tasks.values(), *self._chores]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    def _assign_unknown(self, assignment: Assignment) -> None:
        ended = self._tombstones.get(assignment.launch_id)
        if ended is not None:
            self._tools.reports.lost(ended)
        elif assignment.desired == Assignment.STOPPED:
            self._spawn("lost_launches", assignment.launch_id, self._lose(assignment.launch_id, assignment.epoch))
        elif self._closed:
            self._conclude(assignment, LaunchReport.REJECTED, "AGENT_STOPPED", self._closed)
        else:
            record = Record.assigned(assignment, self._tools.clock)
            self._start(record)
            self._tools.reports.changed(record.launch_id)

    async def _lose(self, launch_id: str, epoch: int) -> None:
        """Say that a launch is unknown, once nothing of it runs: its record may be all that was lost."""
        while not await self._orphans.end(launch_id):  # noqa: ASYNC110 - processes give no event
            await asyncio.sleep(_TRACES_AGAIN_S)
        assignment = Assignment(launch_id=launch_id, epoch=epoch)
        self._conclude(assignment, LaunchReport.LOST, "UNKNOWN_LAUNCH", "The agent does not know the launch.")

    def _conclude(self, assignment: Assignment, state: LaunchReport.State.ValueType, reason: str, message: str) -> None:
        report = LaunchReport(
            launch_id=assignment.launch_id, epoch=assignment.epoch, state=state, reason=reason, message=message
        )
        self._tombstones.add(report)
        self._tools.reports.lost(report)

    def _spawn(self, name: str, launch_id: str, work: Coroutine[None, None, None]) -> None:
        async def run() -> None:
            with self._tools.supervisor.isolated(name, launch_id=launch_id):
                await work

        task = asyncio.create_task(run(), name=f"{name} {launch_id}")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _restore(self, entry: JournalEntry) -> None:
        record = Record.restore(entry, self._tools.clock)
        if not record.state.final:
            self._tools.ports.adopt(record.launch_id, entry.plan.ports)
            if not record.begun:
                text = "The agent was restarted before the application was started."
                record.decide(LaunchEnding(LaunchState.FAILED, "AGENT_STOPPED", text))
        self._start(record)

    def _start(self, record: Record) -> None:
        runner = Runner(record, self._tools)
        self._table.add(runner)
        if record.state.final:
            runner.observed.set()
            return
        self._tasks[record.launch_id] = asyncio.create_task(runner.run(), name=f"launch {record.launch_id}")

    async def _remove(self, runner: Runner, task: asyncio.Task[None] | None, end: LaunchReport) -> None:
        record = runner.record
        if task is not None:
            await asyncio.wait({task})
        # Until the session's state is gone its journal entry stays, so that the next agent tries again.
        delay_s = _TRACES_AGAIN_S
        while why := await runner.discard():
            self._table.note_left(record.launch_id, why)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _TRACES_LAST_S)
        self._table.note_left(record.launch_id, "")
        if record.plan is not None:
            await asyncio.to_thread(self._retention.keep, record.plan, end)
        try:
            await asyncio.to_thread(self._tools.journal.remove, record.launch_id)
        except JournalError as error:
            _log.error("journal_failed", launch_id=record.launch_id, error=str(error))
