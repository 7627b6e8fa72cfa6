"""The agent as a whole: what it is made of, how it starts, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from footlights.agent.assembly import locked, make_devices, make_launcher, make_launchers
from footlights.agent.clock import BootClock, Clock
from footlights.agent.devices.admission import Admission
from footlights.agent.devices.inventory import DevicesSilent, DeviceWatch, off_loop
from footlights.agent.devices.ports import PortBlocks
from footlights.agent.entrance import RETRY_S as ENTRANCE_RETRY_S
from footlights.agent.entrance import ViewerEntrance
from footlights.agent.facts import NodeDescription
from footlights.agent.launches import log_retention, orphans
from footlights.agent.launches.abandonment import Abandonment
from footlights.agent.launches.journal import Journal
from footlights.agent.launches.launches import Launches
from footlights.agent.launches.log_retention import LogRetention
from footlights.agent.launches.observer import LaunchTools
from footlights.agent.launches.orphans import Orphans
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.launches.step import LaunchEnding
from footlights.agent.launches.table import KnownLaunches
from footlights.agent.link.cluster import KnownCluster
from footlights.agent.link.enrolling import enroll, enroll_pod
from footlights.agent.link.identity import FILE as IDENTITY_FILE
from footlights.agent.link.identity import LinkIdentity
from footlights.agent.link.link import Link
from footlights.agent.link.log_tails import LogTails, NodeOutput
from footlights.agent.link.outbox import Outbox
from footlights.agent.link.protocol import NodeProtocol
from footlights.agent.offer import CHECK_S as OFFER_CHECK_S
from footlights.agent.offer import LauncherOffer
from footlights.agent.v1.agent_pb2 import Welcome
from footlights.devices.foreign import Tolerance
from footlights.errors import InvalidArgument
from footlights.ids import is_loopback, new_id
from footlights.launch import firewall
from footlights.launch.front_door import FrontDoorWay
from footlights.launch.launchers import FAKE, LAUNCHERS, traits_of
from footlights.lifecycle import LaunchState
from footlights.linux import prctl
from footlights.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from footlights.agent.config import AgentConfig
    from footlights.agent.launches.journal import JournalEntry
    from footlights.agent.link.link import Pace
    from footlights.devices.reading import Devices
    from footlights.launch.launcher import Launcher

_FLUSH_S: Final = 3.0
_STOP_SLACK_S: Final = 10.0
_log = structlog.get_logger(__name__)


async def run(config: AgentConfig, stop: asyncio.Event) -> None:
    """Be a node's agent until ``stop`` is set. Raises FailedPrecondition, InvalidArgument or JournalError."""
    if config.signaling_address is not None:
        # A port below 1024 is the agent's alone: an application could take it while no agent has it.
        with contextlib.suppress(OSError):
            prctl.keep_capabilities()
    with locked(config.data_dir):
        identity = await prove(config, stop)
        devices = await make_devices(config)
        agent = Agent(
            config,
            devices=devices,
            launchers=make_launchers(config),
            open_launcher=lambda name: make_launcher(config, name),
            probes=ApplicationProbes(),
            identity=identity,
        )
        await agent.run(stop)


async def prove(config: AgentConfig, stop: asyncio.Event) -> LinkIdentity:
    """Return what the node proves itself with, after it has enrolled where it is invited.

    Raises InvalidArgument where it has neither a certificate nor a token; FailedPrecondition where it was refused.
    """
    identity = await asyncio.to_thread(LinkIdentity, config.data_dir / IDENTITY_FILE, config.node)
    if config.is_invited:
        await enroll(config, identity, stop)
    elif config.enroll_token_file is not None:
        await enroll_pod(config, identity, stop)
    if identity.enrolled is None and not stop.is_set():
        config.read_token()  # fail now: the link would only retry
    return identity


def trust(config: AgentConfig, identity: LinkIdentity | None) -> ssl.SSLContext:
    """Return what a server's certificate must lead to: the system's authorities, or the control plane's own."""
    context = ssl.create_default_context()
    if config.ca_file is not None:
        context.load_verify_locations(config.ca_file)
    if identity is not None and identity.enrolled is not None:
        context.load_verify_locations(cadata=identity.enrolled.authorities)
    return context


class Agent:
    """One agent. Its incarnation is minted here."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        devices: Devices,
        launchers: Mapping[str, Launcher],
        open_launcher: Callable[[str], Launcher] | None = None,
        probes: ApplicationProbes,
        clock: Clock | None = None,
        pids_visible: bool | None = None,
        pace: Pace | None = None,
        identity: LinkIdentity | None = None,
    ) -> None:
        self.config = config
        self.incarnation = new_id()
        self.supervisor = Supervisor()
        clock = clock or BootClock()
        self._devices_source = devices
        self._launchers = dict(launchers)
        """Those that are enabled, and those that earlier agents started something with."""
        self._open_launcher = open_launcher
        self._cluster = KnownCluster(config.data_dir / "cluster.json", config.node)
        self._retention = LogRetention(config.data_dir / "launches", clock)
        self._ports = PortBlocks(config.first_port, config.last_port)
        self.offer = LauncherOffer(launchers)
        self.journal = Journal(config.data_dir / "journal")
        self.table = KnownLaunches()
        self.devices = DeviceWatch(
            devices,
            timeout_s=config.device_timeout_s,
            tolerance=Tolerance(config.foreign_memory_bytes, config.tolerated_processes),
            slots_per_device=config.slots_per_device,
            encoder_sessions=config.encoder_sessions,
            pids_visible=pids_visible,
        )
        self._outbox = Outbox(self.table.report, self.supervisor)
        self._orphans = Orphans(
            self._launchers.values(), mark=lambda: self._cluster.mark, is_known=self.table.knows, clock=clock
        )
        front_door = FrontDoorWay(partial(trust, config, identity), is_here=config.is_beside_server)
        self.entrance = ViewerEntrance(config, front_door)
        tools = LaunchTools(
            admission=Admission(
                self.devices,
                self.offer,
                self._ports,
                self.table,
                retention=self._retention,
                cluster=self._cluster,
                public_address=config.public_address,
                slots_per_device=config.slots_per_device,
                node_network=config.node_network,
            ),
            clock=clock,
            devices=self.devices,
            entrance_host=config.entrance_host,
            journal=self.journal,
            launchers=self._launchers,
            ports=self._ports,
            probes=probes,
            pull_timeout_s=config.pull_timeout_s,
            reports=self._outbox,
            supervisor=self.supervisor,
            driver_timeout_s=3 * config.device_timeout_s,
            wrong_device_s=config.wrong_device_s,
            front_door=front_door,
        )
        self.launches = Launches(self.table, tools, self._retention, self._orphans)
        self._description = NodeDescription(
            config, self.devices, self.offer, self.table, ports=self._ports, entrance=self.entrance
        )
        protocol = NodeProtocol(
            config.node,
            self.incarnation,
            description=self._description,
            cluster=self._cluster,
            table=self.table,
            launches=self.launches,
            front_door=front_door,
            supervisor=self.supervisor,
        )
        output = NodeOutput(self.table, self._retention, self._launchers)
        self._logs = LogTails(self._outbox, find=output.find, is_over=self.table.is_over)
        self.link = Link(config, protocol, self._outbox, self._logs, identity=identity, pace=pace)
        self._abandonment = Abandonment(self.table, self.link, self._cluster, clock)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; then end the launches or leave them, as configured."""
        structlog.contextvars.bind_contextvars(node=self.config.node)
        log = _log.bind(incarnation=self.incarnation)
        loops: list[asyncio.Task[None]] = []
        try:
            await self._start()
            log.info("agent_started", launches=len(self.table.records), devices=len(self.devices.inventory.devices))
            loops = [*self._loops(), *self._link_loops()]
            await stop.wait()
            log.info("agent_stopping", launches=len(self.table.alive), drain=self.config.drain_on_stop)
            if self.config.drain_on_stop:
                await self._drain()
            await self.link.close()
            log.info("agent_stopped", left_running=len(self.table.alive))
        finally:
            await self._close(loops)

    @contextlib.asynccontextmanager
    async def unlinked(self) -> AsyncIterator[None]:
        """Run launches without a control plane for the length of the block; what is not over then goes on."""
        self._cluster.learn(Welcome(cluster_id=new_id()))
        loops: list[asyncio.Task[None]] = []
        try:
            await self._start()
            loops = self._loops()
            yield
        finally:
            await self._close(loops)

    def launcher(self, name: str) -> Launcher:
        """Return one of its launchers. Raises InvalidArgument where it is not enabled."""
        if name not in self._launchers:
            enabled = ", ".join(self._launchers)
            raise InvalidArgument("launchers", f"{name} is not enabled; enabled are {enabled}. Enable it too.")
        return self._launchers[name]

    async def _start(self) -> None:
        restored = await asyncio.to_thread(self.journal.restore)
        for problem in restored.quarantined:
            _log.error("journal_entry_quarantined", problem=problem)
        self._description.add_notes(f"journal: {problem}" for problem in restored.quarantined)
        enabled = list(self._launchers)
        if not is_loopback(self.config.public_address) and self._launchers.keys() - {FAKE.name}:
            note = await asyncio.to_thread(firewall.shortcoming, firewall.FirewallSettings.of(self.config))
            self._description.add_notes([note] if note else [])
        self._open_others(restored.entries)
        # What runs is taken care of at once, whatever a driver or an engine does that hangs.
        async with asyncio.TaskGroup() as first:
            first.create_task(self.launches.restore(restored.entries))
            first.create_task(self.offer.refresh())
            first.create_task(self._refresh_devices())
            first.create_task(self.entrance.open())
        for name in enabled:
            self._description.add_notes(await asyncio.to_thread(LAUNCHERS[name].shortcomings))
        for note in self._description.notes:
            _log.info("note", note=note)

    async def _refresh_devices(self) -> None:
        with contextlib.suppress(DevicesSilent):
            await self.devices.refresh()

    def _open_others(self, entries: Iterable[JournalEntry]) -> None:
        """Open launchers that are no longer enabled, to end what they started and to remove what it left."""
        if self._open_launcher is None:
            return
        for name in sorted({traits_of(entry.plan.version).name for entry in entries} - self._launchers.keys()):
            with self.supervisor.isolated("starting", launcher=name):
                self._launchers[name] = self._open_launcher(name)
            text = f"the launcher {name} is no longer enabled, and used only for the launches that it started"
            self._description.add_notes([text])

    def _loops(self) -> list[asyncio.Task[None]]:
        supervise = self.supervisor.supervise
        retention_s = self.config.log_retention_s
        loops = {
            "devices": supervise("devices", self._watch_devices, every_s=self.config.device_interval_s),
            "launchers": supervise("launchers", self.offer.refresh, every_s=OFFER_CHECK_S),
            "log_retention": supervise(
                "log_retention",
                lambda: self._retention.sweep(retention_s, self.table.knows),
                every_s=min(log_retention.SWEEP_S, retention_s),
            ),
        }
        return [asyncio.create_task(loop, name=name) for name, loop in loops.items()]

    def _link_loops(self) -> list[asyncio.Task[None]]:
        supervise = self.supervisor.supervise
        loops = {
            "abandonment": supervise("abandonment", self._abandonment.look, every_s=0, wake=self._abandonment.wait),
            "orphans": supervise("orphans", self._look_for_orphans, every_s=orphans.EVERY_S),
            "link": supervise("link", self.link.hold, every_s=0),
        }
        if self.entrance.is_wanted:
            loops["entrance"] = supervise("entrance", self.entrance.open, every_s=ENTRANCE_RETRY_S)
        return [asyncio.create_task(loop, name=name) for name, loop in loops.items()]

    async def _close(self, loops: list[asyncio.Task[None]]) -> None:
        """Let go of everything, in order: the loops, the launches' watchers, the launchers, the devices."""
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._logs.close()
        await self.entrance.close()
        await self.launches.close()
        for name, launcher in self._launchers.items():
            with self.supervisor.isolated("stopping", launcher=name):
                await launcher.close()
        with contextlib.suppress(TimeoutError):
            await off_loop(self._devices_source.close, 1.0)

    async def _watch_devices(self) -> None:
        await self._refresh_devices()
        if (news := await self._description.news()) is not None:
            self._outbox.inventory(news)

    async def _look_for_orphans(self) -> None:
        if self.link.connected.is_set():
            await self._orphans.look()

    async def _drain(self) -> None:
        self.launches.close_to_new("The node's agent is being stopped.")
        alive = self.table.alive
        grace = max((runner.record.grace for runner in alive), default=0.0)
        for runner in alive:
            served = runner.record.state is LaunchState.READY
            state = LaunchState.EXITED if served else LaunchState.FAILED
            runner.end(LaunchEnding(state, "AGENT_STOPPED", "The node's agent was stopped, and its launches with it."))
        if not await self.launches.over(grace + _STOP_SLACK_S):
            _log.error("stopped_with_launches", launches=[runner.record.launch_id for runner in self.table.alive])
        if self.link.connected.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self.table.none_left.wait()
