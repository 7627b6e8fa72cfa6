"""What is seen of one launch: its process tree, whether it is ready, who is there, and where the driver lists it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from footlights.agent.devices.inventory import DevicesSilent, DeviceWatch
from footlights.agent.launches.exits import ExitWatch
from footlights.agent.launches.notices import Notices
from footlights.agent.launches.record import UNANSWERED_S, Record
from footlights.agent.launches.step import Facts, OnDevice, Ready
from footlights.agent.relays import LaunchRelay
from footlights.devices.kinds import traits_of_kind
from footlights.launch.front_door import FrontDoorWay
from footlights.launch.launcher import Launcher, LaunchPlan, Phase, Status
from footlights.launch.launchers import traits_of
from footlights.launch.probes.offer import NoOffer
from footlights.launch.probes.stage import StageRefused
from footlights.lifecycle import LaunchState
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from footlights.agent.clock import Clock
    from footlights.agent.devices.admission import Admission
    from footlights.agent.devices.ports import PortBlocks
    from footlights.agent.launches.journal import Journal
    from footlights.agent.launches.probes import ApplicationProbes
    from footlights.agent.link.outbox import Outbox
    from footlights.agent.v1.agent_pb2 import Relay
    from footlights.supervision import Supervisor

NO_OFFER_S: Final = 60.0
"""After so long without an offer from an application that is ready otherwise none is expected any more, where its
version does not say how long that is."""
_READY_FIRST_S: Final = 0.1
_READY_LAST_S: Final = 1.0
_READY_GROWTH: Final = 1.25
_LEAST_S: Final = 0.1
_PROGRESS_AFTER_S: Final = 1.0
_PROGRESS_EVERY_S: Final = 5.0
_PRESENCE_S: Final = 1.0
_STATUS_TIMEOUT_S: Final = 10.0
_UNUSED_AFTER_S: Final = 10.0
_UNUSED: Final = "The driver lists no process of the application on its device: it renders on the CPU."
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LaunchTools:
    """What a launch is run with; the same for every launch of an agent."""

    admission: Admission
    clock: Clock
    devices: DeviceWatch
    journal: Journal
    entrance_host: str
    """Where splices listen; empty is every address."""
    launchers: Mapping[str, Launcher]
    ports: PortBlocks
    probes: ApplicationProbes
    pull_timeout_s: float
    """How long a launch may wait for its image."""
    reports: Outbox
    supervisor: Supervisor
    driver_timeout_s: float = 30.0
    """How long a driver that does not answer holds up the end of a launch."""
    wrong_device_s: float = 10.0
    """How long an application may be on another device than its own."""
    front_door: FrontDoorWay = field(default_factory=FrontDoorWay)
    """Where viewers are passed on to that dial a session's port."""


class Observer:
    """Looks at one launch, and wakes its runner. Probes run in the background: a slow answer must not hide an exit."""

    def __init__(self, record: Record, tools: LaunchTools, wake: Callable[[], None]) -> None:
        self._record = record
        self._tools = tools
        self._wake = wake
        self._exits = ExitWatch(wake)
        self._blind = False
        self._ready = Ready.NOT_YET
        self._offerless_since: float | None = None
        self._detail = ""
        self._ready_delay = _READY_FIRST_S
        self._progress_at, self._said_progress = 0.0, ""
        self._words_at = -math.inf
        self.next_look = 0.0
        """When something is due, on the clock; it may be past."""
        self._probe: asyncio.Task[None] | None = None
        self._notices = Notices(record, tools.clock)
        self._relay = LaunchRelay(record.launch_id, tools.reports, tools.probes, tools.clock)
        self._relay_note = ""
        """What was said of its relay."""
        self._suspect: tuple[float, int] | None = None
        self._overdue = ""
        self._silent = False
        self._device_note = ""
        """What was said of its use of devices."""
        self.status: Status | None = None
        """As the launcher last said; None where it could not be asked."""
        self._log = _log.bind(launch_id=record.launch_id, session_id=record.assignment.session_id)

    @property
    def launcher(self) -> Launcher | None:
        """What starts launches of this kind here."""
        return self._tools.launchers.get(traits_of(self._record.assignment.version).name)

    @property
    def on_gpu(self) -> bool:
        """Whether a driver knows which processes are on the launch's device."""
        plan = self._record.plan
        return plan is not None and traits_of_kind(plan.device_kind).lists_processes

    @property
    def notices_exits(self) -> bool:
        """Whether a process's end wakes us."""
        return self._exits.watches

    async def observe(self) -> None:
        """Look once."""
        if self._record.begun:
            await self.look()
        running = self.status is not None and self.status.phase is Phase.RUNNING
        if running and (self._probe is None or self._probe.done()) and self._tools.clock.now() >= self.next_look:
            if self._record.state is LaunchState.STARTING and self._record.ending is None:
                self._probe = asyncio.create_task(self._probe_once(self._check_ready))
            elif self._record.state is LaunchState.READY:
                self._probe = asyncio.create_task(self._probe_once(self._check_presence))
        self._note_device()
        self._note_relay()
        self._note_silence()
        overdue = self._record.overdue()
        if overdue != self._overdue:
            self._overdue = overdue
            if overdue:
                self._tools.reports.changed(self._record.launch_id)

    async def look(self) -> None:
        """Ask the launcher how the launch is."""
        plan, launcher = self._record.plan, self.launcher
        if plan is None:
            return
        if launcher is None:
            self.status = None
            self.say("The agent no longer has the launcher that started the application: enable it again.")
            return
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                self.status = await launcher.status(plan)
        except Exception as error:
            # Not knowing is no end: an engine that restarts or a full process table must not end sessions.
            self.status = None
            self._blind = True
            self.say(f"The launcher cannot say how the application is: {error or type(error).__name__}.")
            return
        if self._blind:
            self._blind = False
            self.say("")
        if self.status.phase is Phase.RUNNING:
            self._record.seen(self.status.pids)
            self._exits.watch(self.status.pids)

    def facts(self) -> Facts:
        """All that a decision may depend on, now."""
        status, uuid = self.status, self._record.assignment.device_uuid
        return replace(
            self._record.facts(),
            phase=status.phase if status else None,
            exit_code=status.exit_code if status else None,
            said=status.message if status else "",
            cause=status.cause if status else "",
            ready=self._ready,
            on_device=self._placement(self._tools.clock.now()),
            detail=self._detail,
            device_lost=self._tools.devices.lost(uuid) if self.on_gpu else "",
        )

    def say(self, message: str) -> None:
        """Set the note that operators and owners see on a launch that is not over."""
        if self._record.say(message):
            if message:
                self._log.warning("launch_note", message=message)
            self._tools.reports.changed(self._record.launch_id)

    def take_relay(self, relay: Relay) -> None:
        """Take in the relay that the control plane gives the launch."""
        self._relay.take(relay)
        self.next_look = 0.0

    def became_ready(self) -> None:
        """Drop the details of its start: the launch is ready."""
        self._detail = ""
        self.next_look = 0.0

    def close(self) -> None:
        """Stop watching."""
        self._exits.close()
        if self._probe is not None:
            self._probe.cancel()

    def _placement(self, now: float) -> OnDevice:
        devices = self._tools.devices
        if not self._record.begun or not self._record.pids or not self.on_gpu:
            return OnDevice.UNKNOWN
        found, detail = devices.locate(self._record.assignment.device_uuid, self._record.pids)
        if found is not OnDevice.WRONG:
            self._suspect = None
            return found
        self._detail = detail
        if self._suspect is None:
            self._suspect = (now, devices.serial)
        since, serial = self._suspect
        lasting = now - since >= self._tools.wrong_device_s and devices.serial > serial
        return OnDevice.WRONG if lasting else OnDevice.SUSPECT

    def _note_device(self) -> None:
        """Add a note where a ready application does not use its device, or also uses another."""
        plan, pids, ready_for = self._record.plan, self._record.pids, self._record.ready_for
        if self._record.state is not LaunchState.READY or ready_for is None or plan is None or not pids:
            return
        if not self.on_gpu:
            return
        where, glance = self._tools.devices.locate(plan.device_uuid, pids)
        note = f"The application also looks at a device that is not its own: {glance}." if glance else ""
        drawn = traits_of_kind(plan.device_kind).simulated or ready_for < _UNUSED_AFTER_S
        if where is OnDevice.NOWHERE and not drawn:
            note = _UNUSED
        if self._record.message in ("", self._device_note) and note != self._record.message:
            self._device_note = note
            self.say(note)

    def _note_relay(self) -> None:
        """Add a note where a ready application lacks the relay that it should have."""
        if self._record.state is not LaunchState.READY:
            return
        note = self._relay.note
        if self._record.message in ("", self._relay_note) and note != self._record.message:
            self._relay_note = note
            self.say(note)

    def _note_silence(self) -> None:
        """Say that the application does not answer, or that it does again."""
        said, self._silent = self._silent, (self._record.unanswered_for or 0.0) >= UNANSWERED_S
        if said != self._silent:
            event = "application_silent" if self._silent else "application_answers"
            self._log.warning(event, asked=self._record.unanswered)
            self._tools.reports.changed(self._record.launch_id)

    async def _probe_once(self, probe: Callable[[], Awaitable[None]]) -> None:
        self.next_look = (
            self._tools.clock.now() + _READY_LAST_S
        )  # for a probe that fails before it says when the next is
        with self._tools.supervisor.isolated("probe", launch_id=self._record.launch_id):
            await probe()

    async def _check_ready(self) -> None:
        plan, launcher = self._record.plan, self.launcher
        if plan is None or launcher is None:
            return
        probes = self._tools.probes
        self._relay.ask(plan)
        intruder = await self._intruder(launcher, plan)
        left = self._record.start_timeout - self._record.starting_for
        problem = "" if intruder else await probes.why_unready(launcher, plan, self._record.secret, max(_LEAST_S, left))
        if not intruder and not problem:
            intruder = await self._intruder(launcher, plan)
        if not intruder and (not problem or isinstance(problem, NoOffer)):
            # What it offers next may need the relay.
            await self._relay.keep(plan, self._record.secret, ready=False)
            problem = problem or self._relay.pending(plan)
        refused = ""
        if not intruder and not problem:
            try:
                problem = await probes.open_stage(plan, self._record.secret)
            except StageRefused as error:
                refused = f"The application does not take its stage: {error}."
        if intruder:
            self._ready, self._detail = Ready.PORT_TAKEN, intruder
        elif refused:
            self._ready, self._detail = Ready.STAGE_REFUSED, refused
        elif not problem:
            if self.on_gpu and self._record.pids:
                with contextlib.suppress(DevicesSilent):
                    await self._tools.devices.refresh()
            self._ready = Ready.READY
        else:
            await self._note_unready(problem, plan)
            now = self._tools.clock.now()
            self._offerless_since = (self._offerless_since or now) if isinstance(problem, NoOffer) else None
            readiness = plan.version.readiness
            given_up = seconds(readiness.offer_timeout) if readiness.HasField("offer_timeout") else NO_OFFER_S
            if self._offerless_since is not None and now - self._offerless_since >= given_up:
                self._ready = Ready.NO_OFFER
            self.next_look = self._tools.clock.now() + self._ready_delay
            self._ready_delay = min(_READY_LAST_S, self._ready_delay * _READY_GROWTH)
        self._wake()

    async def _note_unready(self, problem: str, plan: LaunchPlan) -> None:
        """Keep why it is not ready for its end, and say it meanwhile: not at once, since most become ready."""
        listening = await self._tools.probes.listening(plan, self._record.pids)
        self._detail = f"{problem}. {listening}".strip()
        if self._record.starting_for < _PROGRESS_AFTER_S:
            return
        progress, now = f"Not ready yet: {self._detail}", self._tools.clock.now()
        self._record.note_progress(progress)
        if progress != self._said_progress and now - self._progress_at >= _PROGRESS_EVERY_S:
            self._progress_at, self._said_progress = now, progress
            self._tools.reports.changed(self._record.launch_id)

    async def _intruder(self, launcher: Launcher, plan: LaunchPlan) -> str:
        """Which other process has a port of the launch. Asked twice: a new child is not yet counted as ours."""
        found = await self._tools.probes.port_intruders(launcher, plan, self._record.pids)
        if not found:
            return ""
        await self.look()
        return await self._tools.probes.port_intruders(launcher, plan, self._record.pids)

    async def _check_presence(self) -> None:
        plan, launcher, secret = self._record.plan, self.launcher, self._record.secret
        if plan is None or launcher is None:
            return
        self.next_look = self._tools.clock.now() + _PRESENCE_S
        if (notice := self._notices.due()) is not None:
            self._notices.sent(notice, await self._tools.probes.send_notice(plan, notice, secret))
        await self._relay.keep(plan, secret, ready=True)
        found = await self._tools.probes.presence(plan, secret, self._record.pids)
        if found.unanswered:
            self._record.unheard(found.unanswered)
        else:
            self._record.heard()
        viewers = found.viewers
        if found.by_visits and plan.ports.splice and not self._record.count_visit():
            viewers = 0
        if self._record.observe(viewers, found.idle_s):
            self._tools.reports.changed(self._record.launch_id)
            self._wake()
        self._note_words(found.said)

    def _note_words(self, said: str) -> None:
        """Report what the application says of itself, at a rate: what it says is its own affair."""
        now = self._tools.clock.now()
        if now - self._words_at >= _PROGRESS_EVERY_S and self._record.hear(said):
            self._words_at = now
            self._tools.reports.changed(self._record.launch_id)
