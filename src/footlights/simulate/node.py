"""One simulated node: a real link over simulated devices and launches."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from footlights.agent.facts import node_facts
from footlights.agent.launches.launches import STOPPED, UNASSIGNED, Tombstones
from footlights.agent.launches.record import Record
from footlights.agent.link.link import Link
from footlights.agent.link.log_tails import LogTails
from footlights.agent.link.outbox import Outbox
from footlights.agent.v1.agent_pb2 import Assignment, Hello, Inventory, LaunchReport, LinkResponse, Welcome
from footlights.agent.v1.node_pb2 import Device, NodeFacts
from footlights.ids import new_id
from footlights.launch.launcher import Ports
from footlights.lifecycle import LaunchState
from footlights.simulate.launch import SimulatedLaunch
from footlights.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from footlights.agent.clock import Clock
    from footlights.agent.config import AgentConfig
    from footlights.simulate.model import Model
    from footlights.simulate.tally import Tally

_GIB: Final = 1 << 30
_TOMBSTONES: Final = 1024
_PORT_BLOCKS: Final = 3000
_FIRST_PORT: Final = 20000
_NAMESPACE: Final = uuid.UUID("0d7a3a8e-6f55-5a43-9f0c-2f8f5b7f5a11")
NUMBER: Final = "number"
"""The argument of the simulator's own applications that names a session the same in every run."""


class SimulatedNode:
    """Keeps a node's side of the protocol: what is assigned is started, or ended, and reported."""

    def __init__(
        self, number: int, config: AgentConfig, model: Model, clock: Clock, tally: Tally, *, gpus: int, rate: float
    ) -> None:
        self._number, self._config, self._model = number, config, model
        self._clock, self._tally, self._rate = clock, tally, rate
        self._incarnation = new_id()
        self._launches: dict[str, SimulatedLaunch] = {}
        self._tombstones = Tombstones(_TOMBSTONES)
        self._told_at: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._warm: dict[str, float] = {}
        self._next_port = 0
        self._devices = list(self._make_devices(gpus))
        self._supervisor = Supervisor()
        self._outbox = Outbox(self._report, self._supervisor)
        self._link = Link(config, self, self._outbox, LogTails(self._outbox))
        self.met = False
        self._dialling_since = 0.0

    @property
    def linked(self) -> bool:
        """Whether it has a link that was welcomed."""
        return self._link.connected.is_set()

    @property
    def launches(self) -> list[SimulatedLaunch]:
        """Every launch that it knows, also those that are over and not yet forgotten."""
        return list(self._launches.values())

    async def run(self) -> None:
        """Hold the link, with its interruptions, until cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        interruptions = self._model.interruptions(self._number) if self._rate > 0 else iter(())
        try:
            while True:
                interruption = next(interruptions, None)
                self._dialling_since = loop.time()
                link = asyncio.create_task(self._supervisor.supervise("link", self._link.hold, every_s=0))
                try:
                    if interruption is None:
                        await link
                        return
                    await asyncio.wait({link}, timeout=max(0.0, began + interruption.at_s / self._rate - loop.time()))
                finally:
                    link.cancel()
                    with suppress(asyncio.CancelledError):
                        await link
                self._tally.count(interruption.kind)
                if interruption.kind == "agent_restarted":
                    self._incarnation = new_id()
                await asyncio.sleep(interruption.for_s)
                if interruption.kind == "machine_gone":
                    self._restart_machine()
        finally:
            for launch in self._launches.values():
                launch.cancel()

    # The link's handler

    def hello(self) -> Hello:
        """Say who the node is, what it has, and every launch that it knows."""
        return Hello(
            node=self._config.node,
            incarnation=self._incarnation,
            facts=self._facts(),
            inventory=Inventory(devices=self._devices, facts=self._facts()),
            launches=self.reports(),
        )

    def welcomed(self, welcome: Welcome) -> None:
        """Count it."""
        self.met = True
        self._tally.count("links_opened")
        self._tally.time("welcome_s", asyncio.get_running_loop().time() - self._dialling_since)

    def received(self, message: LinkResponse) -> None:
        """Start and end what is assigned."""
        match message.WhichOneof("message"):
            case "assignments":
                self._assign_all(list(message.assignments.assignments))
            case "assignment":
                self._assign(message.assignment)
            case "forget":
                self._forget(message.forget.launch_id)
            case "notice":
                self._tally.count(f"notice {message.notice.reason}")

    def reports(self) -> list[LaunchReport]:
        """Say how every launch is."""
        return [launch.report() for launch in self._launches.values()]

    def left_out(self) -> list[str]:
        """Nothing: what simulated applications write is short."""
        return []

    def _report(self, launch_id: str) -> LaunchReport | None:
        launch = self._launches.get(launch_id)
        return None if launch is None else launch.report()

    # What is wanted: the rules of agent.launches, without journals and a task for each launch

    def _assign_all(self, assignments: list[Assignment]) -> None:
        wanted = {assignment.launch_id for assignment in assignments}
        for assignment in assignments:
            self._assign(assignment)
        for launch in self.launches:
            if launch.record.launch_id not in wanted and not launch.over:
                launch.end(UNASSIGNED)

    def _assign(self, assignment: Assignment) -> None:
        launch = self._launches.get(assignment.launch_id)
        if launch is None:
            self._assign_unknown(assignment)
            return
        record = launch.record
        if assignment.epoch < record.assignment.epoch:
            return
        if launch.over:
            self._outbox.changed(record.launch_id)
        elif assignment.desired == Assignment.STOPPED:
            record.renew_epoch(assignment.epoch)
            launch.end(STOPPED)
        else:
            record.reassign(assignment)
            launch.turn()

    def _assign_unknown(self, assignment: Assignment) -> None:
        ended = self._tombstones.get(assignment.launch_id)
        if ended is None and assignment.desired == Assignment.STOPPED:
            ended = LaunchReport(
                launch_id=assignment.launch_id,
                epoch=assignment.epoch,
                state=LaunchReport.LOST,
                reason="UNKNOWN_LAUNCH",
                message="The agent does not know the launch.",
            )
            self._tombstones.add(ended)
        if ended is not None:
            self._outbox.lost(ended)
            return
        self._begin(assignment)

    def _begin(self, assignment: Assignment) -> None:
        number = assignment.arguments.fields.get(NUMBER)
        session = f"{number.number_value:g}" if number is not None else assignment.session_id
        nth = self._tries[session] = self._tries.get(session, 0) + 1
        application, now = assignment.version.application, self._clock.now()
        warm = now < self._warm.get(application, 0.0)
        self._warm[application] = now + self._model.profile.start.warm_for_s
        fate = self._model.fate(session=session, node=f"{self._number}.{nth}", warm=warm)
        launch = SimulatedLaunch(
            Record.assigned(assignment, self._clock),
            fate,
            ports=self._ports(),
            holder=self._holder,
            changed=self._changed,
        )
        self._launches[assignment.launch_id] = launch
        self._tally.count("assigned")
        self._outbox.changed(assignment.launch_id)
        launch.turn()

    def _changed(self, launch: SimulatedLaunch) -> None:
        record = launch.record
        self._outbox.changed(record.launch_id)
        if not launch.over or record.launch_id in self._told_at:
            return
        self._told_at[record.launch_id] = self._clock.now()
        ending = record.ending
        if ending is not None and ending.state in (LaunchState.REJECTED, LaunchState.FAILED):
            self._tally.count(f"{ending.state.lower()} {ending.reason}")
        if launch.doubled:
            device = record.assignment.device_uuid
            text = f"{self._config.node}: launch {record.launch_id} was given a slot of {device} of {launch.doubled}"
            self._tally.doubled.append(text)

    def _forget(self, launch_id: str) -> None:
        launch = self._launches.get(launch_id)
        if launch is None or not launch.over:
            return
        del self._launches[launch_id]
        self._tombstones.add(launch.record.report())
        told_at = self._told_at.pop(launch_id, None)
        if told_at is not None:
            self._tally.time("end_recorded_s", self._clock.now() - told_at)

    def _holder(self, record: Record) -> str:
        wanted = record.assignment
        for launch in self._launches.values():
            other = launch.record
            if other is record or launch.over or not other.claimed:
                continue
            if other.assignment.device_uuid == wanted.device_uuid and set(other.assignment.slots) & set(wanted.slots):
                return other.launch_id
        return ""

    # What it is

    def _restart_machine(self) -> None:
        self._incarnation = new_id()
        self._warm.clear()
        for launch in self.launches:
            launch.machine_gone()

    def _ports(self) -> Ports:
        block = _FIRST_PORT + 3 * (self._next_port % _PORT_BLOCKS)
        self._next_port += 1
        return Ports(block, block + 1, block + 2)

    def _facts(self) -> NodeFacts:
        notes = [f"simulated by the profile {self._model.profile.name}; runs nothing"]
        return node_facts(self._config, driver_version="", launchers=("fake",), notes=notes, port_blocks=_PORT_BLOCKS)

    def _make_devices(self, count: int) -> Iterator[Device]:
        gpu = self._model.gpu(self._number)
        memory = int(gpu.memory_gib * _GIB)
        for index in range(count):
            yield Device(
                uuid=f"FAKE-{uuid.uuid5(_NAMESPACE, f'{self._config.node}/{index}')}",
                kind=Device.FAKE,
                name=gpu.name,
                index=index,
                memory_total_bytes=memory,
                memory_free_bytes=memory,
                utilization_percent=0,
                graphics=True,
                encoder=True,
                health=Device.OK,
                slots=self._config.slots_per_device,
                processes_known=True,
                note="simulated",
            )
