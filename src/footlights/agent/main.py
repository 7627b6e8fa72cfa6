"""The agent as a whole: what it is made of, how it starts, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from footlights.agent.assembly import locked, make_devices, make_launchers
from footlights.agent.clock import BootClock, Clock
from footlights.agent.devices.admission import Admission
from footlights.agent.devices.inventory import DeviceWatch, Silent, off_loop, worth_telling
from footlights.agent.devices.ports import PortBlocks
from footlights.agent.facts import node_facts
from footlights.agent.launches.journal import Journal
from footlights.agent.launches.launches import Launches
from footlights.agent.launches.log_retention import LogRetention
from footlights.agent.launches.observer import Surroundings
from footlights.agent.launches.orphans import Orphans, mark
from footlights.agent.launches.probes import ApplicationProbes, Probes
from footlights.agent.launches.step import LaunchEnding
from footlights.agent.link import cluster
from footlights.agent.link.link import PROTOCOL_VERSION, Link, LinkHandler
from footlights.agent.link.log_tails import LogTails
from footlights.agent.link.outbox import Outbox
from footlights.ids import new_id
from footlights.launch.launcher import DeviceAccess
from footlights.launch.launchers import traits_of
from footlights.launch.plan import render
from footlights.lifecycle import LaunchState
from footlights.v1.agent_pb2 import Assignment, Hello, Inventory, LaunchReport, LinkResponse, Welcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from footlights.agent.config import AgentConfig
    from footlights.agent.launches.record import Record
    from footlights.agent.link.backoff import Pace
    from footlights.devices.reading import DeviceReading, Devices
    from footlights.launch.launcher import Launcher, LaunchPlan, Ports
    from footlights.v1.node_pb2 import Device, NodeFacts

_FLUSH_S: Final = 3.0
_STOP_SLACK_S: Final = 10.0
_ABANDON_CHECK_S: Final = 1.0
_AGAIN_S: Final = 1.0
_log = structlog.get_logger(__name__)


async def run(config: AgentConfig, stop: asyncio.Event) -> None:
    """Be a node's agent until ``stop`` is set.

    Raises:
        FailedPrecondition: another agent uses the data directory.
        InvalidArgument: the devices or launchers cannot be had as configured.
        JournalError: the journal cannot be read.
    """
    with locked(config.data_dir):
        devices = await make_devices(config)
        launchers = make_launchers(config)
        agent = Agent(config, devices=devices, launchers=launchers, probes=ApplicationProbes())
        await agent.run(stop)


class Agent:
    """One agent. Its incarnation is minted here."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        devices: Devices,
        launchers: Mapping[str, Launcher],
        probes: Probes,
        clock: Clock | None = None,
        ports: PortBlocks | None = None,
        pids_visible: bool | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Put the parts together; nothing happens until ``run``."""
        self.config = config
        self.incarnation = new_id()
        self._clock = clock or BootClock()
        self._cluster_file = config.data_dir / "cluster.json"
        self._cluster = cluster.load(self._cluster_file)
        self._devices_source = devices
        self._launchers = dict(launchers)
        self._ports = ports or PortBlocks(config.first_port, config.last_port)
        self.journal = Journal(config.data_dir / "journal")
        self._retired = LogRetention(config.data_dir / "launches", self._clock)
        self._notes: tuple[str, ...] = config.warnings
        self._told: list[Device] = []
        self._unlinked_since = self._clock.now()
        self.devices = DeviceWatch(
            devices,
            timeout_s=config.device_timeout_s,
            foreign_memory_bytes=config.foreign_memory_bytes,
            slots_per_device=config.slots_per_device,
            pids_visible=pids_visible,
        )
        self.launches = Launches(self.journal, self._retired)
        self._outbox = Outbox(self._report)
        self._logs = LogTails(self._log_source, self._is_over, self._outbox)
        peer = LinkHandler(self._hello, self._welcomed, self._received, self._beat)
        self.link = Link(config, peer, self._outbox, self._logs, pace=pace)
        admission = Admission(
            config,
            devices=self.devices,
            launchers=self._launchers,
            ports=self._ports,
            roster=self.launches,
            render=self._render,
        )
        surroundings = Surroundings(
            admission=admission,
            clock=self._clock,
            devices=self.devices,
            journal=self.journal,
            launchers=self._launchers,
            ports=self._ports,
            probes=probes,
            changed=lambda record: self._outbox.changed(record.launch_id),
        )
        self._orphans = Orphans(
            self._launchers.values(),
            mark=self._mark,
            is_known=self._is_known,
            clock=self._clock,
            linked=self.link.connected.is_set,
        )
        self.launches.furnish(surroundings, tell_lost=self._outbox.lost, end_traces=self._orphans.end)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then end the launches or leave them, as configured."""
        structlog.contextvars.bind_contextvars(node=self.config.node)
        log = _log.bind(incarnation=self.incarnation)
        restored = await asyncio.to_thread(self.journal.restore)
        for problem in restored.quarantined:
            log.error("journal_entry_quarantined", problem=problem)
        self._notes += tuple(f"journal: {problem}" for problem in restored.quarantined)
        with contextlib.suppress(Silent):
            await self.devices.refresh()
        for note in (*self._notes, *self.devices.inventory.notes):
            log.info("note", note=note)
        await self.launches.restore(restored.entries)
        log.info("agent_started", launches=len(restored.entries), devices=len(self.devices.inventory.devices))
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "devices": self._watch_devices,
            "abandon": self._watch_link,
            "sweep": lambda: self._retired.sweep(self.config.log_retention_s, self._is_known),
            "orphans": self._orphans.watch,
            "link": self.link.run,
        }
        work = [asyncio.create_task(_keep(name, part), name=name) for name, part in parts.items()]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await stopping
            if self.config.drain_on_stop:
                await self._drain()
            log.info("agent_stopped", left_running=len(self.launches.alive))
        finally:
            for task in (*work, stopping):
                task.cancel()
            self._logs.cancel_all()
            await asyncio.gather(*work, stopping, return_exceptions=True)
            await self.launches.close()
            for launcher in self._launchers.values():
                await launcher.close()
            with contextlib.suppress(TimeoutError):
                await off_loop(self._devices_source.close, 1.0)

    # What the link speaks for

    def _hello(self) -> Hello:
        self._told = self._device_protos()
        return Hello(
            node=self.config.node,
            incarnation=self.incarnation,
            facts=self._facts(),
            inventory=Inventory(devices=self._told, facts=self._facts()),
            launches=[record.report() for record in self.launches.records],
            protocol_version=PROTOCOL_VERSION,
        )

    def _welcomed(self, welcome: Welcome) -> None:
        said = cluster.Cluster.of(welcome)
        if said != self._cluster:
            self._cluster = said
            cluster.save(self._cluster_file, said)

    def _received(self, message: LinkResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "assignments":
            self.launches.assign_all(message.assignments.assignments, self._mark())
        elif kind == "assignment":
            self.launches.assign(message.assignment)
        elif kind == "forget":
            self.launches.forget(message.forget.launch_id)
        elif kind == "notice":
            _log.warning("notice", reason=message.notice.reason, message=message.notice.message)
        else:
            _log.warning("message_not_understood", kind=kind)

    def _beat(self) -> list[LaunchReport]:
        # Ends that are not acknowledged are told again and again: a report is a state, not an event.
        return [record.report() for record in self.launches.records]

    def _report(self, launch_id: str) -> LaunchReport | None:
        record = self.launches.get(launch_id)
        return None if record is None else record.report()

    # What the parts ask

    def _render(self, assignment: Assignment, reading: DeviceReading, ports: Ports) -> LaunchPlan:
        return render(
            assignment,
            ports=ports,
            public_address=self.config.public_address,
            device=DeviceAccess(
                reading.kind.value, reading.index, reading.kind.traits.variables, reading.kind.traits.cdi_class
            ),
            directory=self._retired.directory(assignment.launch_id),
            cluster_id=self._mark(),
        )

    def _log_source(self, launch_id: str) -> tuple[Launcher, LaunchPlan] | None:
        record = self.launches.get(launch_id)
        plan = record.plan if record is not None else self._retired.plan(launch_id)
        if plan is None:
            return None
        launcher = self._launchers.get(traits_of(plan.version).name)
        return None if launcher is None else (launcher, plan)

    def _mark(self) -> str:
        return mark(self._cluster.cluster_id, self.config.node) if self._cluster.cluster_id else ""

    def _is_over(self, launch_id: str) -> bool:
        record = self.launches.get(launch_id)
        return record is None or record.state.final

    def _is_known(self, launch_id: str) -> bool:
        return self.launches.get(launch_id) is not None

    def _facts(self) -> NodeFacts:
        inventory = self.devices.inventory
        notes = [*self._notes, *inventory.notes]
        if self.devices.silence:
            notes.append(self.devices.silence)
        return node_facts(
            self.config,
            driver_version=inventory.driver_version or "",
            launchers=tuple(self._launchers),
            notes=notes,
            port_blocks=self._ports.capacity,
        )

    def _device_protos(self) -> list[Device]:
        return self.devices.to_protos(self.launches.known_pids)

    async def _fresh_device_protos(self) -> list[Device]:
        # A child that an application has just made is on the device before it is counted as ours.
        if self.devices.unexplained(self.launches.known_pids):
            return self.devices.to_protos(await self.launches.own_pids())
        return self._device_protos()

    # Loops

    async def _watch_devices(self) -> None:
        silence = ""
        while True:
            await asyncio.sleep(self.config.device_interval_s)
            with contextlib.suppress(Silent):
                await self.devices.refresh()
            now = await self._fresh_device_protos()
            if worth_telling(self._told, now) or silence != self.devices.silence:
                silence = self.devices.silence
                self._told = now
                self._outbox.inventory(Inventory(devices=now, facts=self._facts()))

    async def _watch_link(self) -> None:
        """Without a link for long, end what nobody is connected to: nobody is left to do it."""
        while True:
            await asyncio.sleep(min(_ABANDON_CHECK_S, self._cluster.abandon_after_s / 4))
            now = self._clock.now()
            if self.link.connected.is_set():
                self._unlinked_since = now
            elif now - self._unlinked_since >= self._cluster.abandon_after_s:
                text = f"The node had no link to the control plane for {self._cluster.abandon_after_s:g} s, and nobody "
                ending = LaunchEnding(LaunchState.EXITED, "ABANDONED", text + "was connected.")
                self.launches.end_all(ending, unless=_may_be_watched)

    async def _drain(self) -> None:
        self.launches.close_to_new("The node's agent is being stopped.")
        alive = self.launches.alive
        grace = max((runner.record.grace for runner in alive), default=0.0)
        for runner in alive:
            served = runner.record.state is LaunchState.READY
            state = LaunchState.EXITED if served else LaunchState.FAILED
            runner.end(LaunchEnding(state, "AGENT_STOPPED", "The node's agent was stopped, and its launches with it."))
        if not await self.launches.over(grace + _STOP_SLACK_S):
            _log.error("stopped_with_launches", launches=[r.record.launch_id for r in self.launches.alive])
        if self.link.connected.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self.launches.none_left.wait()


async def _keep(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run a part of the agent for ever: one that fails is begun anew, and hurts no other."""
    while True:
        try:
            await part()
        except Exception:
            _log.exception("part_failed", part=name)
        await asyncio.sleep(_AGAIN_S)


def _may_be_watched(record: Record) -> bool:
    return record.state is LaunchState.READY and record.viewers != 0
