"""One simulated launch: the agent's record and decisions, over an application that is a few times on a clock."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from footlights.agent.launches.step import KILL_AFTER_GRACE_S, Do, Facts, LaunchEnding, Ready, decide
from footlights.devices.kinds import DeviceKind
from footlights.launch.launcher import LaunchPlan, Phase, Ports
from footlights.launch.recipe.limits import limit_s
from footlights.lifecycle import LaunchState, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from footlights.agent.clock import Clock
    from footlights.agent.launches.record import Record
    from footlights.simulate.model import Fate
    from footlights.v1.agent_pb2 import LaunchReport

_NOWHERE: Final = Path("/nonexistent")
_DEFAULT_GRACE_S: Final = 10.0
_LEAST_S: Final = 0.001
REFUSED: Final = "FOREIGN_PROCESS"
"""Why a simulated device refuses: the commonest reason of real ones."""


class SimulatedLaunch:
    """Goes the way that ``agent.step.decide`` says, woken by timers. ``holder``: which other launch has its slot."""

    def __init__(
        self,
        record: Record,
        fate: Fate,
        *,
        ports: Ports,
        holder: Callable[[Record], str],
        changed: Callable[[SimulatedLaunch], None],
    ) -> None:
        self.record = record
        self.fate = fate
        self._ports = ports
        self._holder = holder
        self._changed = changed
        self._clock: Clock = record.clock
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = math.inf
        self._exits_at = math.inf
        self._exit_code = 0
        self._machine_gone = False
        self.doubled = ""
        """Which launch held its slot when it was assigned: the control plane gave one slot away twice."""

    @property
    def over(self) -> bool:
        """Whether it has reached its end."""
        return self.record.state.final

    def end(self, ending: LaunchEnding) -> None:
        """End it this way; the first decision counts."""
        if self.record.decide(ending):
            self.turn()

    def machine_gone(self) -> None:
        """Its machine has died and come back: nothing of it runs, and its exit status is lost."""
        self._machine_gone = True
        self.turn()

    def turn(self) -> None:
        """Do what there is to do now, and be woken for what comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while not self.over:
            self._observe()
            step = decide(self._facts())
            if step.do is Do.WAIT:
                self._wait()
                return
            self._perform(step.do, step.ending or LaunchEnding(LaunchState.EXITED))

    def cancel(self) -> None:
        """Never be woken again."""
        if self._timer is not None:
            self._timer.cancel()

    def report(self) -> LaunchReport:
        """Say how it is now: a connected viewer counts as active, not idle."""
        if self.record.viewers:
            self.record.observe(self.record.viewers, 0.0)
        return self.record.report()

    # What is seen of it

    def _observe(self) -> None:
        record, now = self.record, self._clock.now()
        if now >= self._started_at + self.fate.process_s and Stage.PROCESS_UP not in record.marks:
            record.mark(Stage.PROCESS_UP)
            self._changed(self)
        if record.state is not LaunchState.READY:
            return
        since = (record.ready_for or 0.0) + _LEAST_S  # a timer may be slightly early
        viewers = sum(come <= since < leave for come, leave in self.fate.visits)
        if record.observe(viewers, 0.0 if viewers else None):
            if viewers:
                record.confirm_viewer()
            self._changed(self)

    def _facts(self) -> Facts:
        record, now = self.record, self._clock.now()
        phase = None
        if record.begun:
            phase = Phase.EXITED if now >= self._exits_at else Phase.RUNNING
            if self._machine_gone or (record.ending is not None and math.isinf(self._started_at)):
                phase = Phase.UNKNOWN
        return replace(
            record.facts(),
            phase=phase,
            exit_code=self._exit_code if phase is Phase.EXITED else None,
            ready=Ready.READY if now >= self._started_at + self.fate.ready_s else Ready.NOT_YET,
            same_boot=not self._machine_gone,
        )

    def _wait(self) -> None:
        record, now = self.record, self._clock.now()
        moments = [self._exits_at]
        if record.state is LaunchState.STARTING and record.ending is None:
            moments += [self._started_at + self.fate.process_s, self._started_at + self.fate.ready_s]
            moments.append(now + record.start_timeout - record.starting_for)
        elif record.state is LaunchState.READY and record.ready_for is not None:
            ready_at = now - record.ready_for
            moments += [ready_at + moment for visit in self.fate.visits for moment in visit]
        elif record.stop_asked_at is not None:
            moments.append((record.killed_at or record.stop_asked_at + record.grace) + KILL_AFTER_GRACE_S + _LEAST_S)
        due = min((moment for moment in moments if moment > now), default=math.inf)
        if due < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(_LEAST_S, due - now), self.turn)

    # What is done about it

    def _perform(self, do: Do, ending: LaunchEnding) -> None:
        record, now = self.record, self._clock.now()
        match do:
            case Do.ADMIT:
                self._admit()
            case Do.PREPARE:
                record.prepare()
            case Do.START:
                self._start()
            case Do.BECOME_READY:
                record.move(LaunchState.READY)
                if not self.fate.exits_early:
                    self._exit_at(now + self.fate.exit_s, self.fate.exit_code)
                self._changed(self)
            case Do.END:
                record.decide(ending)
            case Do.STOP:
                record.ask_to_stop()
                record.move(LaunchState.STOPPING)
                self._exit_at(min(now + self.fate.stop_s, self._exits_at), 0)
                self._changed(self)
            case Do.KILL:
                record.ask_to_kill()
                self._exit_at(now, -9)
            case Do.PROVE | Do.FINISH:
                exited = do is Do.PROVE and not self._machine_gone and self._exits_at <= now
                record.conclude(ending, self._exit_code if exited else None, ())
                self._changed(self)

    def _admit(self) -> None:
        record, assignment = self.record, self.record.assignment
        held_by = self._holder(record)
        if held_by:
            self.doubled = held_by
            text = f"a slot of {assignment.device_uuid} is held by launch {held_by}, whose end is not proved"
            self._reject("SLOT_HELD", text)
            return
        if self.fate.refused:
            text = f"{assignment.device_uuid}: another process is on the device, says the profile"
            self._reject(REFUSED, text)
            return
        record.claim()
        plan = LaunchPlan(
            launch_id=assignment.launch_id,
            session_id=assignment.session_id,
            cluster_id="",
            device_uuid=assignment.device_uuid,
            device_index=0,
            device_kind=DeviceKind.FAKE.value,
            ports=self._ports,
            argv=(),
            environment=(),
            working_directory="",
            stop_grace_s=limit_s(assignment.limits, "stop_grace_period") or _DEFAULT_GRACE_S,
            directory=_NOWHERE,
            version=assignment.version,
        )
        record.admit(plan)

    def _reject(self, reason: str, message: str) -> None:
        self.record.conclude(LaunchEnding(LaunchState.REJECTED, reason, message), None, ())
        self._changed(self)

    def _start(self) -> None:
        record, now = self.record, self._clock.now()
        record.begin()
        record.take_secrets()
        if self.fate.start_error:
            text = "The application cannot be started, says the profile."
            record.decide(LaunchEnding(LaunchState.FAILED, "START_ERROR", text))
            self._changed(self)
            return
        self._started_at = now
        if self.fate.exits_early:
            self._exit_at(now + self.fate.exit_s, self.fate.exit_code)
        self._changed(self)

    def _exit_at(self, moment: float, code: int) -> None:
        self._exits_at, self._exit_code = moment, code
