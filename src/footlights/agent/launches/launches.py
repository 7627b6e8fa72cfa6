"""All launches of the node, and their agreement with what the control plane wants."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import structlog

from footlights.agent.launches.journal import Journal, JournalEntry, JournalError
from footlights.agent.launches.record import Record
from footlights.agent.launches.runner import Runner
from footlights.agent.launches.step import LaunchEnding
from footlights.launch.launcher import Phase
from footlights.lifecycle import LaunchState
from footlights.v1.agent_pb2 import Assignment, LaunchReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from footlights.agent.launches.log_retention import LogRetention
    from footlights.agent.launches.observer import Surroundings

_TOMBSTONES = 4096
_CLOSE_S = 5.0
_TRACES_AGAIN_S = 5.0
_STOPPED = LaunchEnding(LaunchState.EXITED, "STOPPED")
_UNASSIGNED = LaunchEnding(
    LaunchState.EXITED, "UNASSIGNED", "The control plane no longer assigns the launch to this node."
)
_log = structlog.get_logger(__name__)


class Launches:
    """The launches by id. What is wanted comes in here; what is, is read from here."""

    def __init__(self, journal: Journal, retired: LogRetention) -> None:
        """Begin with none; ``furnish`` must follow."""
        self._journal = journal
        self._retired = retired
        self._around: Surroundings | None = None
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._over: OrderedDict[str, LaunchReport] = OrderedDict()
        self._chores: set[asyncio.Task[None]] = set()
        self._tell_lost: Callable[[LaunchReport], None] = lambda _report: None
        self._end_traces: Callable[[str], Awaitable[bool]] | None = None
        self._closed = ""
        self.none_left = asyncio.Event()
        """Set while no launch is known."""
        self.none_left.set()

    def furnish(
        self,
        around: Surroundings,
        *,
        tell_lost: Callable[[LaunchReport], None],
        end_traces: Callable[[str], Awaitable[bool]],
    ) -> None:
        """Give what the runners work with; apart from the constructor because some of it looks at the launches.

        Args:
            around: For the runners.
            tell_lost: Takes the end of a launch that has no record.
            end_traces: Ends what carries the mark of a launch that has no record; False where something is left.
        """
        self._around = around
        self._tell_lost = tell_lost
        self._end_traces = end_traces

    # What is

    @property
    def records(self) -> list[Record]:
        """Every launch that is known, also those that are over and not yet forgotten."""
        return [runner.record for runner in self._runners.values()]

    @property
    def alive(self) -> list[Runner]:
        """Those that are not over."""
        return [runner for runner in self._runners.values() if not runner.record.state.final]

    def get(self, launch_id: str) -> Record | None:
        """One launch."""
        runner = self._runners.get(launch_id)
        return None if runner is None else runner.record

    def holder(self, device_uuid: str, slot: int, apart_from: str) -> str:
        """Which launch holds a slot; see ``admission.Roster``."""
        for runner in self.alive:
            record = runner.record
            if record.launch_id == apart_from or not record.claimed:
                continue
            if record.assignment.device_uuid == device_uuid and slot in record.assignment.slots:
                return record.launch_id
        return ""

    async def own_pids(self) -> frozenset[int]:
        """The pids of all our launches' trees, read now; see ``admission.Roster``."""
        begun = [runner for runner in self.alive if runner.record.begun]
        found = await asyncio.gather(*(runner.status() for runner in begun))
        return frozenset().union(*(status.pids for status in found if status.phase is Phase.RUNNING))

    @property
    def known_pids(self) -> frozenset[int]:
        """The same as last seen, at no cost."""
        return frozenset().union(*(runner.record.pids for runner in self.alive))

    # What is wanted

    async def restore(self, entries: Iterable[JournalEntry], *, timeout: float = 5.0) -> None:
        """Take up the launches of an earlier agent, and look at each once, so that the first hello is true."""
        around = self._surroundings()
        for entry in entries:
            record = Record.restore(entry, around.clock)
            if not record.state.final:
                around.ports.adopt(record.launch_id, entry.plan.ports)
                if not record.begun:
                    text = "The agent was restarted before the application was started."
                    record.ending = LaunchEnding(LaunchState.FAILED, "AGENT_STOPPED", text)
            self._start(record)
        waits = [asyncio.ensure_future(runner.observed.wait()) for runner in self.alive]
        if waits:
            _, late = await asyncio.wait(waits, timeout=timeout)
            for wait in late:
                wait.cancel()

    def assign_all(self, assignments: Iterable[Assignment], mark: str) -> None:
        """Agree with the full set: what runs here under ``mark`` and is not in it, is ended."""
        wanted = {assignment.launch_id: assignment for assignment in assignments}
        for assignment in wanted.values():
            self.assign(assignment)
        for runner in self.alive:
            record = runner.record
            if record.launch_id in wanted:
                continue
            if record.plan is not None and record.plan.cluster_id != mark:
                _log.warning("launch_of_another_cluster", launch_id=record.launch_id, mark=record.plan.cluster_id)
                continue
            _log.warning("launch_not_assigned", launch_id=record.launch_id)
            runner.end(_UNASSIGNED)

    def assign(self, assignment: Assignment) -> None:
        """Take in one assignment, new or changed. An older epoch than the one known is refused."""
        runner = self._runners.get(assignment.launch_id)
        if runner is None:
            self._assign_unknown(assignment)
            return
        record = runner.record
        log = _log.bind(launch_id=record.launch_id)
        if assignment.epoch < record.assignment.epoch:
            log.warning("assignment_refused", epoch=assignment.epoch, known_epoch=record.assignment.epoch)
            return
        if record.state.final:
            self._surroundings().changed(record)  # whoever sends this has not recorded the end yet
            return
        if assignment.desired == Assignment.STOPPED:
            record.assignment.epoch = assignment.epoch
            runner.end(_STOPPED)
            return
        secrets = b"" if record.begun else bytes(assignment.secrets)
        fresh = Assignment()
        fresh.CopyFrom(assignment)
        fresh.secrets = secrets
        record.assignment = fresh
        runner.wake()

    def forget(self, launch_id: str) -> None:
        """Drop a launch whose end is recorded. One that is not over is kept, whatever is said."""
        runner = self._runners.get(launch_id)
        if runner is None:
            return
        if not runner.record.state.final:
            _log.warning("forget_refused", launch_id=launch_id, state=runner.record.state.value)
            return
        del self._runners[launch_id]
        if not self._runners:
            self.none_left.set()
        self._bury(runner.record.report())
        self._spawn(self._remove(runner.record, self._tasks.pop(launch_id, None)))

    def end_all(self, ending: LaunchEnding, *, unless: Callable[[Record], bool] = lambda _record: False) -> None:
        """Have every launch end but those that ``unless`` spares."""
        for runner in self.alive:
            if not unless(runner.record):
                runner.end(ending)

    def close_to_new(self, why: str) -> None:
        """Begin nothing any more; what is assigned from now on is refused."""
        self._closed = why

    async def over(self, timeout: float) -> bool:
        """Wait until every launch is over, at most ``timeout`` seconds; return whether it came to that."""
        tasks = [self._tasks[runner.record.launch_id] for runner in self.alive]
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=timeout)
        return not late

    async def ended(self, launch_id: str, timeout: float) -> None:
        """Wait until one launch is over; one that is not known is.

        Raises:
            TimeoutError: it is not, after ``timeout`` seconds.
        """
        task = self._tasks.get(launch_id)
        if task is not None:
            async with asyncio.timeout(timeout):
                await asyncio.wait({task})

    async def close(self) -> None:
        """Stop watching. Applications go on."""
        tasks = [*self._tasks.values(), *self._chores]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    def _assign_unknown(self, assignment: Assignment) -> None:
        buried = self._over.get(assignment.launch_id)
        if buried is not None:
            self._tell_lost(buried)
            return
        if assignment.desired == Assignment.STOPPED:
            self._spawn(self._lose(assignment.launch_id, assignment.epoch))
            return
        if self._closed:
            self._conclude(assignment, LaunchReport.REJECTED, "AGENT_STOPPED", self._closed)
            return
        fresh = Assignment()
        fresh.CopyFrom(assignment)
        record = Record(fresh, self._surroundings().clock)
        self._start(record)
        self._surroundings().changed(record)

    async def _lose(self, launch_id: str, epoch: int) -> None:
        """Say that a launch is unknown, once nothing of it runs: its record may be all that was lost."""
        assignment = Assignment(launch_id=launch_id, epoch=epoch)
        ended = self._end_traces is None or await self._end_traces(launch_id)
        while not ended and self._end_traces is not None:
            await asyncio.sleep(_TRACES_AGAIN_S)
            ended = await self._end_traces(launch_id)
        self._conclude(assignment, LaunchReport.LOST, "UNKNOWN_LAUNCH", "The agent does not know the launch.")

    def _conclude(self, assignment: Assignment, state: LaunchReport.State.ValueType, reason: str, message: str) -> None:
        report = LaunchReport(
            launch_id=assignment.launch_id, epoch=assignment.epoch, state=state, reason=reason, message=message
        )
        self._bury(report)
        self._tell_lost(report)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _bury(self, report: LaunchReport) -> None:
        """Remember that a launch is over, so that a late assignment cannot begin it a second time."""
        self._over[report.launch_id] = report
        while len(self._over) > _TOMBSTONES:
            self._over.popitem(last=False)

    def _start(self, record: Record) -> None:
        runner = Runner(record, self._surroundings())
        self._runners[record.launch_id] = runner
        self.none_left.clear()
        if record.state.final:
            runner.observed.set()
            return
        self._tasks[record.launch_id] = asyncio.create_task(runner.run(), name=f"launch {record.launch_id}")

    async def _remove(self, record: Record, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            await asyncio.wait({task})
        try:
            if record.plan is not None:
                await asyncio.to_thread(self._retired.retire, record.plan)
            await asyncio.to_thread(self._journal.remove, record.launch_id)
        except JournalError as error:
            _log.error("journal_failed", launch_id=record.launch_id, error=str(error))

    def _surroundings(self) -> Surroundings:
        if self._around is None:
            raise RuntimeError("Launches.furnish was not called")
        return self._around
