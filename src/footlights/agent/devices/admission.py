"""Whether a launch may begin on this node now. The second guard: the control plane's picture is always a little old."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from footlights.agent.devices.inventory import DevicesSilent, DeviceWatch
from footlights.agent.devices.ports import PortBlocks, PortsExhausted
from footlights.agent.launches.journal import is_safe
from footlights.devices.admission import ALONE, Need, admit
from footlights.launch.launcher import DeviceAccess, LaunchError, LaunchPlan, Ports
from footlights.launch.launchers import traits_of
from footlights.launch.plan import render
from footlights.protocol.enums import field_name

if TYPE_CHECKING:
    from footlights.agent.launches.log_retention import LogRetention
    from footlights.agent.launches.record import Record
    from footlights.agent.launches.table import KnownLaunches
    from footlights.agent.link.cluster import KnownCluster
    from footlights.agent.offer import LauncherOffer
    from footlights.agent.v1.agent_pb2 import Assignment
    from footlights.devices.reading import DeviceReading

_AGAIN_S = 0.2


class Admission:
    """Looks at everything a launch needs of the node, takes its ports, and renders its plan."""

    def __init__(
        self,
        devices: DeviceWatch,
        offer: LauncherOffer,
        ports: PortBlocks,
        table: KnownLaunches,
        *,
        retention: LogRetention,
        cluster: KnownCluster,
        public_address: str,
        slots_per_device: int,
        node_network: bool = False,
    ) -> None:
        self._devices, self._offer, self._ports, self._table = devices, offer, ports, table
        self._retention, self._cluster = retention, cluster
        self._public_address, self._slots_per_device = public_address, slots_per_device
        self._node_network = node_network

    async def admit(self, record: Record) -> LaunchPlan:
        """Take a launch on: on return its ports are held. Raises LaunchError: nothing is held."""
        assignment = record.assignment
        self._check_node(assignment)
        record.claim()  # before anything is awaited: of two launches for one slot the second is refused
        reading = await self._check_device(assignment)
        try:
            # Binding some sockets is quick, but not when most of a wide range is taken.
            ports = self._ports.take(record.launch_id)
        except PortsExhausted as error:
            raise _rejected("NO_PORTS", str(error)) from error
        try:
            return self._render(
                assignment, reading, ports.with_splice() if _needs_splice(record) else ports.without_splice()
            )
        except BaseException:
            self._ports.release(record.launch_id)
            raise

    def _render(self, assignment: Assignment, reading: DeviceReading, ports: Ports) -> LaunchPlan:
        traits = reading.kind.traits
        return render(
            assignment,
            ports=ports,
            public_address=self._public_address,
            device=DeviceAccess(reading.kind.value, reading.index, traits.variables, traits.cdi_class, traits.hardware),
            directory=self._retention.directory(assignment.launch_id),
            cluster_id=self._cluster.mark,
            own_network=traits_of(assignment.version).own_network and not self._node_network,
        )

    def _check_node(self, assignment: Assignment) -> None:
        if not is_safe(assignment.launch_id):
            raise _rejected("BAD_ASSIGNMENT", f"the launch id {assignment.launch_id!r} cannot name a directory")
        traits = traits_of(assignment.version)
        if why := self._offer.why_not(traits.name):
            raise _rejected("NO_LAUNCHER", why)
        given = traits.isolation_with(node_network=self._node_network)
        if assignment.needs.isolation > given:
            wanted = field_name(assignment.needs, "isolation")
            text = f"the isolation {wanted} is needed; the {traits.name} launcher gives {given.name} here"
            raise _rejected("ISOLATION", text)
        for slot in assignment.slots:
            if not 0 <= slot < self._slots_per_device:
                raise _rejected("NO_SLOT", f"slot {slot} does not exist: devices have {self._slots_per_device}")
            holder = self._table.holder(assignment.device_uuid, slot, apart_from=assignment.launch_id)
            if holder:
                text = f"slot {slot} of {assignment.device_uuid} is held by launch {holder}, whose end is not proved"
                raise _rejected("SLOT_HELD", text)

    async def _check_device(self, assignment: Assignment) -> DeviceReading:
        try:
            return await self._look(assignment)
        except LaunchError as refusal:
            if refusal.reason != "FOREIGN_PROCESS":
                raise
        # A new child of one of our applications may have been listed before it was counted as ours.
        await asyncio.sleep(_AGAIN_S)
        return await self._look(assignment)

    async def _look(self, assignment: Assignment) -> DeviceReading:
        uuid, needs = assignment.device_uuid, assignment.needs
        try:
            reading = await self._devices.read_one(uuid)
        except DevicesSilent as error:
            raise _rejected("DEVICE_SILENT", f"{uuid}: {error}") from error
        shared = reading is not None and reading.kind.traits.lists_processes
        own_pids = await self._table.own_pids() if shared else frozenset()
        occupants = self._devices.foreign(reading, own_pids) if reading is not None and shared else None
        need = Need(
            min_memory_bytes=needs.min_memory_bytes,
            graphics=needs.graphics,
            encoder=needs.encoder,
            hardware=needs.gpu,
        )
        others = self._table.holdings_apart_from(assignment.launch_id).get(uuid, ())
        refusal = admit(reading, need, occupants, ALONE if reading is None else self._devices.shared(reading, others))
        if refusal is not None:
            raise _rejected(refusal.reason, f"{uuid}: {refusal}")
        assert reading is not None  # it would have been refused
        return reading


def _needs_splice(record: Record) -> bool:
    """Whether the agent is to take the connections of signalling itself, because the application checks no secret."""
    version = record.assignment.version
    offered = version.signaling.whep_path or version.signaling.websocket_path
    simulated = traits_of(version).answers is not None
    return bool(record.secret and offered and not simulated and not version.signaling.checks_secret)


def _rejected(reason: str, message: str) -> LaunchError:
    return LaunchError(reason, message, rejected=True)
