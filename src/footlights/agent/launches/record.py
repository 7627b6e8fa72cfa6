"""What the agent knows of one launch, and its report."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from footlights.agent.launches.journal import JournalEntry
from footlights.agent.launches.step import Facts, LaunchEnding
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport
from footlights.agent.v1.recipe_pb2 import Presence
from footlights.launch.recipe.arguments import STAGE
from footlights.launch.recipe.limits import limit_s, time_limits
from footlights.launch.recipe.stages import all_roots, resolve_stage
from footlights.lifecycle import LaunchState, SessionClock, Stage, due, known, warned_ahead_s
from footlights.protocol import counterparts, enums, launch_secrets
from footlights.protocol.output import bounded_tail, encodable
from footlights.protocol.times import duration

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from footlights.agent.clock import Clock
    from footlights.launch.launcher import LaunchPlan

DEFAULT_START_TIMEOUT_S = 900.0
UNANSWERED_S = 5.0
"""How long an application does not answer until that is said."""
_STIR_S = 1.0
"""Less is no input after a warning, but an inexact clock."""

STAGE_ROOTS = "FOOTLIGHTS_STAGE_ROOTS"
"""The member of the session file that holds them."""
_MOST_FORMER = 1024
_PREPARING = "PREPARING"
_STARTING = "STARTING"
_STOPPING = "STOPPING"
_STOP_ASKED = "STOP_ASKED"
_ENDED = "ENDED"
_TAKEN_UP = "TAKEN_UP"
_TOLD = (Stage.PULLING, Stage.PROCESS_UP, Stage.APPLICATION_READY, Stage.FIRST_VIEWER)


@dataclass(slots=True)
class Record:
    """One launch. It is changed by its own methods only."""

    assignment: Assignment
    """As last assigned; its secrets only until it is started."""
    clock: Clock
    plan: LaunchPlan | None = None
    secret: str = field(default="", repr=False)
    """The launch's own, for as long as it runs."""
    state: LaunchState = LaunchState.ASSIGNED
    ending: LaunchEnding | None = None
    message: str = ""
    """A note for operators and owners while it is not over."""
    prepare_timeout: float = inf
    """Seconds that what its start needs may take to get ready."""
    progress: str = ""
    """What its start waits for, for the same."""
    claimed: bool = False
    """Whether its slots are its own on this node, until it is over."""
    prepared: bool = False
    begun: bool = False
    boot_id: str = ""
    marks: dict[str, float] = field(default_factory=dict)
    viewers: int | None = None
    arrived: bool = False
    """Whether a first viewer was seen that the journal may not know yet."""
    ever_connected: bool = False
    """The same once it is on disk: what was reported, the next agent must not take back."""
    active_at: float = 0.0
    watched: bool = False
    """Whether a viewer was connected when that was last known."""
    unanswered: str = ""
    """What the application was asked and did not answer; empty where it answers."""
    said: str = ""
    """What the application, ready, says of itself."""
    pids: frozenset[int] = frozenset()
    """Its process tree when it was last seen running."""
    former_pids: deque[int] = field(default_factory=lambda: deque(maxlen=_MOST_FORMER))
    """Pids that were of its tree at any time, the newest last: what the driver may still list when they are gone."""
    final: LaunchReport | None = None
    discarded: bool = False
    """Whether every trace of it except its output is removed."""
    stop_asked_at: float | None = None
    killed_at: float | None = None
    _visited: bool = False
    _answered_at: float = 0.0
    _left_at: float | None = None
    _warned: tuple[float, float] | None = None
    """When viewers were warned for giving no input, and when they had last given some."""

    def __post_init__(self) -> None:
        self.boot_id = self.boot_id or self.clock.boot_id

    @classmethod
    def assigned(cls, assignment: Assignment, clock: Clock) -> Record:
        """Take on a launch that was not known."""
        return cls(_copy(assignment), clock, secret=assignment.launch_secret)

    @classmethod
    def restore(cls, entry: JournalEntry, clock: Clock) -> Record:
        """Make a record from an earlier agent's journal entry."""
        same_boot = entry.boot_id == clock.boot_id
        marks = dict(entry.marks) if same_boot else {}
        record = cls(
            assignment=entry.assignment,
            clock=clock,
            plan=entry.plan,
            secret=entry.secret,
            claimed=True,
            prepared=entry.begun,
            begun=entry.begun,
            boot_id=entry.boot_id,
            marks=marks,
            ever_connected=entry.ever_connected,
            active_at=clock.now(),
            final=entry.final,
            _answered_at=clock.now(),
            _left_at=clock.now(),
        )
        if entry.ending is not None:
            state, reason, message = entry.ending
            record.ending = LaunchEnding(LaunchState[state], reason, message)
        if entry.final is not None:
            # A final state of a later release is as final as any: the report keeps its number.
            name = enums.name_of(LaunchReport.State, entry.final.state)
            record.state = known(LaunchState, name) or LaunchState.EXITED
            # An earlier version kept as much as the application wrote.
            entry.final.log_tail[:] = bounded_tail(entry.final.log_tail)
        elif record.ending is not None:
            record.state = LaunchState.STOPPING
        elif Stage.APPLICATION_READY in entry.marks:
            record.state = LaunchState.READY
        else:
            record.state = LaunchState.STARTING
        return record

    @property
    def launch_id(self) -> str:
        """Its id."""
        return self.assignment.launch_id

    @property
    def start_timeout(self) -> float:
        """Seconds from its start until it must be ready."""
        return limit_s(self.assignment.limits, "start_timeout") or DEFAULT_START_TIMEOUT_S

    @property
    def grace(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        return 0.0 if self.plan is None else self.plan.stop_grace_s

    def reassign(self, assignment: Assignment) -> None:
        """Take in what is wanted of it now; its secrets, which are sent once, are kept until it is begun."""
        secrets = b"" if self.begun else assignment.secrets or self.assignment.secrets
        self.assignment = _copy(assignment)
        self.assignment.secrets = secrets
        if not self.begun:
            self.secret = assignment.launch_secret or self.secret

    @property
    def has_session(self) -> bool:
        """Whether the timers of a session run: not before one is taken up that was not there when it was started."""
        return not self.assignment.ahead and not self.must_take_up

    @property
    def must_take_up(self) -> bool:
        """Whether it was handed over to a session that it has not taken up."""
        return self.assignment.handed_over and _TAKEN_UP not in self.marks

    def take_up(self) -> None:
        """Begin the session that it was handed over to: what was before counts no more."""
        self.mark(_TAKEN_UP)
        self.marks.pop(Stage.FIRST_VIEWER, None)
        self.arrived = self.ever_connected = self.watched = self._visited = False
        self._warned, self._left_at, self.active_at = None, None, self.clock.now()
        self.heard()

    def renew_epoch(self, epoch: int) -> None:
        """Note the epoch of a newer lease."""
        self.assignment.epoch = epoch

    def mark_discarded(self) -> None:
        """Note that its traces are removed."""
        self.discarded = True

    def claim(self) -> None:
        """Count its slots as its own, until it is over."""
        self.claimed = True

    def admit(self, plan: LaunchPlan) -> None:
        """Note that the node admits it, with this plan."""
        self.plan = plan

    def begin_to_prepare(self, pulls: str, timeout_s: float) -> None:
        """Note that what the start needs is got ready, which is no part of the start itself; ``pulls``: an image."""
        self.prepare_timeout = timeout_s
        self.mark(_PREPARING)
        if pulls:
            self.progress = (
                f"The node pulls image {pulls!r}; the time for it does not count as the application's start."
            )
            self.mark(Stage.PULLING)
            self.move(LaunchState.STARTING)

    def prepare(self) -> None:
        """Note that what the start needs is here."""
        self.prepared = True

    def begin(self) -> None:
        """Note that the launcher is asked to start it: from here on it may run."""
        self.begun = True
        self.progress = ""
        self.move(LaunchState.STARTING)
        self.mark(_STARTING)

    def take_back(self) -> None:
        """Undo ``begin`` where the launcher was not asked after all."""
        self.begun = False

    def take_secrets(self) -> bytes:
        """Return the session's secrets and forget them."""
        secrets = bytes(self.assignment.secrets)
        self.assignment.ClearField("secrets")
        return secrets

    def session_file(self) -> bytes:
        """Return what the session file is to hold, once: the session's secrets, the launch's own, stage and roots."""
        content = json.loads(self.take_secrets() or b"{}")
        version = counterparts.version(self.assignment.version)
        if STAGE not in content and (stage := resolve_stage(version, self.assignment.usd_stage_uri)):
            content[STAGE] = stage
        content[STAGE_ROOTS] = all_roots(version)
        if self.secret:
            content[launch_secrets.MEMBER] = self.secret
        return json.dumps(content).encode()

    def confirm_viewer(self) -> None:
        """Note that the journal knows of a first viewer."""
        self.ever_connected = True

    def decide(self, ending: LaunchEnding) -> bool:
        """Decide how it ends; the first decision counts. Return whether this was it."""
        if self.ending is not None or self.state.final:
            return False
        self.ending = ending
        return True

    def ask_to_stop(self) -> None:
        """Note that it is asked to end now."""
        self.stop_asked_at = self.clock.now()
        self.mark(_STOP_ASKED)

    def ask_to_kill(self) -> None:
        """Note that it is asked to be killed now."""
        self.killed_at = self.clock.now()

    def say(self, message: str) -> bool:
        """Set its note for operators and owners; return whether that is new."""
        changed = self.message != message
        self.message = message
        return changed

    def note_progress(self, progress: str) -> None:
        """Note what its start waits for."""
        self.progress = progress

    def seen(self, pids: frozenset[int]) -> None:
        """Take in its process tree as it is now."""
        self.former_pids.extend(pids - set(self.former_pids))
        self.pids = pids

    def since(self, mark: str) -> float | None:
        """Seconds since something happened; None where it did not, or in another boot."""
        at = self.marks.get(mark)
        return None if at is None else max(0.0, self.clock.now() - at)

    def mark(self, mark: str) -> None:
        """Note that something happens now; the first time counts."""
        self.marks.setdefault(mark, self.clock.now())

    def move(self, state: LaunchState) -> None:
        """Go on to a later state; an earlier one changes nothing."""
        if state.rank <= self.state.rank:
            return
        self.state = state
        if state is LaunchState.READY:
            self.mark(Stage.APPLICATION_READY)
            self.active_at = self.clock.now()
            self.heard()
        elif state is LaunchState.STOPPING:
            self.mark(_STOPPING)
        elif state.final:
            self.mark(_ENDED)

    @property
    def preparation_left(self) -> float:
        """Seconds that what its start needs may still take to get ready."""
        return self.prepare_timeout - (self.since(_PREPARING) or 0.0)

    @property
    def starting_for(self) -> float:
        """Seconds it took to become ready, or has taken so far."""
        begun = self.marks.get(_STARTING)
        if begun is None:
            return 0.0
        until = self.marks.get(Stage.APPLICATION_READY) or self.marks.get(_ENDED) or self.clock.now()
        return max(0.0, until - begun)

    @property
    def stopping_for(self) -> float | None:
        """Seconds since it was first asked to end, also by an agent before this one; None where it was not."""
        return self.since(_STOP_ASKED)

    @property
    def ready_for(self) -> float | None:
        """Seconds it has been ready, or was."""
        ready = self.marks.get(_TAKEN_UP, self.marks.get(Stage.APPLICATION_READY))
        if ready is None or Stage.APPLICATION_READY not in self.marks:
            return None
        return max(0.0, self.marks.get(_ENDED, self.clock.now()) - ready)

    @property
    def idle_for(self) -> float | None:
        """Seconds without an active viewer; None where that cannot be known.

        One who watches is not idle beyond the limit before a warning has been shown for as long as it says. While an
        application does not answer, time goes on: from its last answer, if somebody watched then.
        """
        if self.state is not LaunchState.READY or (self.viewers is None and not self._lost_sight):
            return None
        idle, limit = self._inactive_for, limit_s(self.assignment.limits, "idle_timeout")
        if self.viewers is None and self.watched:
            return min(idle, self.unanswered_for or 0.0)
        if not self.viewers or limit is None:
            return idle
        warned = 0.0 if self._warned is None else self.clock.now() - self._warned[0]
        return min(idle, limit - warned_ahead_s(limit) + warned)

    @property
    def idle_ends_in(self) -> float | None:
        """Seconds until a viewer who watches is ended for giving no input; None where no warning is due."""
        limit = limit_s(self.assignment.limits, "idle_timeout")
        if (
            not self.has_session
            or not self.viewers
            or limit is None
            or self._inactive_for < limit - warned_ahead_s(limit)
        ):
            return None
        return max(0.0, limit - (self.idle_for or 0.0))

    @property
    def unwatched_for(self) -> float | None:
        """Seconds since the last viewer left; None where one is connected, as far as is known, or none ever was."""
        if self.state is not LaunchState.READY or self.watched or not self.ever_connected:
            return None
        if self.viewers is None and not self._lost_sight:
            return None
        return None if self._left_at is None else max(0.0, self.clock.now() - self._left_at)

    @property
    def unanswered_for(self) -> float | None:
        """Seconds since its last answer, where a ready application does not answer."""
        if self.state is not LaunchState.READY or not self.unanswered:
            return None
        return max(0.0, self.clock.now() - self._answered_at)

    def heard(self) -> None:
        """Note that the application answers."""
        self.unanswered, self._answered_at = "", self.clock.now()

    def unheard(self, asked: str) -> None:
        """Note what the application was asked and did not answer."""
        self.unanswered = asked

    def hear(self, said: str) -> bool:
        """Take in what the application says of itself; return whether that is new."""
        changed = self.said != said
        self.said = said
        return changed

    def warned(self) -> None:
        """Note that viewers have been warned that they will be ended for giving no input."""
        if self._warned is None:
            self._warned = self.clock.now(), self.active_at

    @property
    def _inactive_for(self) -> float:
        return max(0.0, self.clock.now() - self.active_at)

    @property
    def _lost_sight(self) -> bool:
        """Whether its viewers are not known because it does not answer, and not because they never are."""
        source = self.assignment.version.presence.source
        return bool(self.unanswered) and source != Presence.NONE

    def observe(self, viewers: int | None, last_input_s: float | None) -> bool:
        """Take in who is connected; return whether the number of viewers has changed."""
        now = self.clock.now()
        before, watched = self.viewers, self.watched
        self.viewers = viewers
        if viewers is not None:
            self.watched = bool(viewers)
        if viewers:
            self.arrived = True
            self.mark(Stage.FIRST_VIEWER)
            arrived = not watched
            self.active_at = now if arrived or last_input_s is None else max(self.active_at, now - last_input_s)
        elif watched and not self.watched:
            self.active_at = self._left_at = now
        if self._warned is not None and self.active_at > self._warned[1] + _STIR_S:
            self._warned = None
        return before != viewers

    def note_visit(self) -> None:
        """Note that somebody was let in to its signalling, who may be a viewer."""
        self._visited = True

    def count_visit(self) -> bool:
        """Take who was let in for a viewer; return whether anybody ever was."""
        if self._visited and not self.arrived:
            self.arrived = True
            self.mark(Stage.FIRST_VIEWER)
        return self._visited or self.ever_connected

    def facts(self) -> Facts:
        """What the next step may depend on, as far as it is known here: add what was seen just now."""
        now = self.clock.now()
        return Facts(
            state=self.state,
            ending=self.ending,
            admitted=self.plan is not None,
            prepared=self.prepared,
            begun=self.begun,
            preparation_left=self.preparation_left,
            prepare_timeout=self.prepare_timeout,
            pulls=Stage.PULLING in self.marks,
            starting_for=self.starting_for,
            start_timeout=self.start_timeout,
            stopping_for=None if self.stop_asked_at is None else now - self.stop_asked_at,
            grace=self.grace,
            killed_for=None if self.killed_at is None else now - self.killed_at,
            same_boot=self.boot_id == self.clock.boot_id,
            must_take_up=self.must_take_up,
        )

    @property
    def _condition(self) -> str:
        """What is to be known of it without a note: what its start waits for, that it is silent, or what it says."""
        if self.state is LaunchState.STARTING:
            return self.progress
        if (self.unanswered_for or 0.0) < UNANSWERED_S:
            return self.said if self.state is LaunchState.READY else ""
        return f"The application does not answer: {self.unanswered}."

    def overdue(self) -> str:
        """Name the session timer that has run out; empty while none has."""
        ready_for = self.ready_for
        if self.state is not LaunchState.READY or ready_for is None or not self.has_session:
            return ""
        clock = SessionClock(ready_for, self.ever_connected, self.idle_for, self.unwatched_for, self.unanswered_for)
        found = due(clock, time_limits(self.assignment.limits))
        return "" if found is None else found[0].value

    def entry(self) -> JournalEntry:
        """What the journal is to keep."""
        if self.plan is None:
            raise ValueError(f"launch {self.launch_id} has no plan to journal")
        ending = self.ending
        return JournalEntry(
            assignment=self.assignment,
            plan=self.plan,
            secret=self.secret,
            begun=self.begun,
            boot_id=self.boot_id,
            marks=dict(self.marks),
            ever_connected=self.ever_connected or self.arrived,
            ending=(ending.state.value, ending.reason, ending.message) if ending else None,
            final=self.final,
        )

    def report(self) -> LaunchReport:
        """Make its report."""
        if self.final is not None:
            report = LaunchReport()
            report.CopyFrom(self.final)
            self._add_steps(report)
            return report
        report = LaunchReport(
            launch_id=self.launch_id,
            epoch=self.assignment.epoch,
            state=enums.number_of(LaunchReport.State, self.state),
            message=encodable(self.message or self._condition),
            ever_connected=self.ever_connected,
            viewers=self.viewers,
            starting_for=_age(self.starting_for if _STARTING in self.marks else None),
            ready_for=_age(self.ready_for),
            idle_for=_age(self.idle_for),
            unwatched_for=_age(self.unwatched_for),
            unanswered_for=_age(self.unanswered_for),
            taken_up=_TAKEN_UP in self.marks,
        )
        if self.ending is not None:
            report.reason = self.ending.reason
            report.message = encodable(self.message or self.ending.message)
        if self.plan is not None:
            ports = self.plan.ports
            report.signal_port, report.media_port, report.http_port = ports.entrance, ports.media, ports.http
        self._add_steps(report)
        return report

    def conclude(self, ending: LaunchEnding, exit_code: int | None, log_tail: tuple[str, ...]) -> LaunchReport:
        """Reach the final state and make the report that is sent from now on."""
        self.viewers = None
        self.ending = ending
        self.message = ""
        self.move(ending.state)
        report = self.report()
        report.reason, report.message = ending.reason, encodable(ending.message)
        if exit_code is not None:
            report.exit_code = exit_code
        report.log_tail.extend(bounded_tail(map(encodable, log_tail)))
        self.final = report
        return report

    def _add_steps(self, report: LaunchReport) -> None:
        del report.steps[:]  # ages go on growing, also in a report that is sent late
        for stage in _TOLD:
            age = self.since(stage)
            if stage is Stage.APPLICATION_READY and age is not None:
                age = self.ready_for if _TAKEN_UP in self.marks else age
            if age is not None:
                report.steps.add(stage=stage.value, age=duration(age))


def _age(age_s: float | None) -> Duration | None:
    return None if age_s is None else duration(age_s)


def _copy(assignment: Assignment) -> Assignment:
    copied = Assignment()
    copied.CopyFrom(assignment)
    return copied
