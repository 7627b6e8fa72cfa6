"""Whether a launch may begin on this node now. The second guard: the control plane's picture is always a little old."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from footlights.agent.devices.inventory import DevicesSilent, DeviceWatch
from footlights.agent.devices.ports import PortBlocks, PortsExhausted
from footlights.agent.launches.journal import is_safe
from footlights.devices.admission import DeviceRefusal, Need, admit
from footlights.launch.launcher import DeviceAccess, LaunchError, LaunchPlan, Ports
from footlights.launch.launchers import traits_of
from footlights.launch.plan import render
from footlights.lifecycle import LaunchState

if TYPE_CHECKING:
    from footlights.agent.launches.log_retention import LogRetention
    from footlights.agent.launches.record import Record
    from footlights.agent.link.cluster import KnownCluster
    from footlights.devices.reading import DeviceReading
    from footlights.v1.agent_pb2 import Assignment

_AGAIN_S = 0.2


class Rejected(Exception):
    """The launch does not begin. REJECTED: this node or device will not do, another may. FAILED: none would."""

    def __init__(self, reason: str, message: str, state: LaunchState = LaunchState.REJECTED) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.state = state


class NodeLaunches(Protocol):
    """The other launches of the node."""

    def holder(self, device_uuid: str, slot: int, apart_from: str) -> str:
        """Which launch that is not over holds a slot; empty where none does."""

    async def own_pids(self) -> frozenset[int]:
        """The pids of all our launches' trees, read now."""


class OfferedLaunchers(Protocol):
    """The launchers of the node."""

    def why_not(self, name: str) -> str:
        """Why a launcher is not offered; empty where it is."""


class PlanRenderer:
    """Makes a launch's plan of what this node knows."""

    def __init__(self, public_address: str, retention: LogRetention, cluster: KnownCluster) -> None:
        self._public_address, self._retention, self._cluster = public_address, retention, cluster

    def render(self, assignment: Assignment, reading: DeviceReading, ports: Ports) -> LaunchPlan:
        """Fill in the recipe. Raises LaunchError where it cannot be rendered."""
        traits = reading.kind.traits
        return render(
            assignment,
            ports=ports,
            public_address=self._public_address,
            device=DeviceAccess(reading.kind.value, reading.index, traits.variables, traits.cdi_class),
            directory=self._retention.directory(assignment.launch_id),
            cluster_id=self._cluster.mark,
        )


class Admission:
    """Looks at everything a launch needs of the node, takes its ports, and renders its plan."""

    def __init__(
        self,
        devices: DeviceWatch,
        offer: OfferedLaunchers,
        ports: PortBlocks,
        others: NodeLaunches,
        renderer: PlanRenderer,
        *,
        slots_per_device: int,
    ) -> None:
        self._devices, self._offer, self._ports, self._others = devices, offer, ports, others
        self._renderer, self._slots_per_device = renderer, slots_per_device

    async def admit(self, record: Record) -> LaunchPlan:
        """Take a launch on: on return its ports are held. Raises Rejected: it cannot begin; nothing is held."""
        assignment = record.assignment
        self._check_node(assignment)
        record.claim()  # before anything is awaited: of two launches for one slot the second is refused
        reading = await self._check_device(assignment)
        try:
            # Binding some sockets is quick, but not when most of a wide range is taken.
            ports = self._ports.take(record.launch_id)
        except PortsExhausted as error:
            raise Rejected("NO_PORTS", str(error)) from error
        try:
            return self._renderer.render(assignment, reading, ports)
        except LaunchError as error:
            self._ports.release(record.launch_id)
            state = LaunchState.REJECTED if error.rejected else LaunchState.FAILED
            raise Rejected(error.reason, error.message, state) from error
        except BaseException:
            self._ports.release(record.launch_id)
            raise

    def _check_node(self, assignment: Assignment) -> None:
        if not is_safe(assignment.launch_id):
            raise Rejected("BAD_ASSIGNMENT", f"the launch id {assignment.launch_id!r} cannot name a directory")
        if why := self._offer.why_not(traits_of(assignment.version).name):
            raise Rejected("NO_LAUNCHER", why)
        for slot in assignment.slots:
            if not 0 <= slot < self._slots_per_device:
                raise Rejected("NO_SLOT", f"slot {slot} does not exist: devices have {self._slots_per_device}")
            holder = self._others.holder(assignment.device_uuid, slot, apart_from=assignment.launch_id)
            if holder:
                text = f"slot {slot} of {assignment.device_uuid} is held by launch {holder}, whose end is not proved"
                raise Rejected("SLOT_HELD", text)

    async def _check_device(self, assignment: Assignment) -> DeviceReading:
        reading, refusal = await self._look(assignment)
        if refusal is not None and refusal.reason == "FOREIGN_PROCESS":
            # A new child of one of our applications may have been listed before it was counted as ours.
            await asyncio.sleep(_AGAIN_S)
            reading, refusal = await self._look(assignment)
        if refusal is not None:
            raise Rejected(refusal.reason, f"{assignment.device_uuid}: {refusal}")
        if reading is None:
            raise Rejected("MISSING", f"{assignment.device_uuid}: no such device on this node")
        return reading

    async def _look(self, assignment: Assignment) -> tuple[DeviceReading | None, DeviceRefusal | None]:
        try:
            reading = await self._devices.read_one(assignment.device_uuid)
        except DevicesSilent as error:
            raise Rejected("DEVICE_SILENT", f"{assignment.device_uuid}: {error}") from error
        occupants = None
        if reading is not None:
            occupants = self._devices.foreign(reading, await self._others.own_pids())
        needs = assignment.needs
        need = Need(
            min_memory_bytes=needs.min_memory_bytes,
            graphics=needs.graphics,
            encoder=needs.encoder,
            hardware=needs.gpu,
        )
        return reading, admit(reading, need, occupants)
