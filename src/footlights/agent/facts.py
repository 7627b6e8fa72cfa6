"""What the agent says of its node: the machine, what it offers, its devices, and notes for an operator."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import footlights
from footlights.agent.devices.inventory import worth_reporting
from footlights.agent.v1.agent_pb2 import Inventory
from footlights.agent.v1.node_pb2 import NodeFacts
from footlights.agent.v1.recipe_pb2 import Needs
from footlights.launch.launchers import LAUNCHERS
from footlights.linux.procfs import boot_id
from footlights.protocol import bounds
from footlights.protocol.enums import number_of
from footlights.protocol.output import encodable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from footlights.agent.config import AgentConfig
    from footlights.agent.devices.inventory import DeviceWatch
    from footlights.agent.devices.ports import PortBlocks
    from footlights.agent.entrance import ViewerEntrance
    from footlights.agent.launches.table import KnownLaunches
    from footlights.agent.offer import LauncherOffer
    from footlights.agent.v1.node_pb2 import Device


class NodeDescription:
    """The node as it is, and as it was last reported."""

    def __init__(
        self,
        config: AgentConfig,
        devices: DeviceWatch,
        offer: LauncherOffer,
        table: KnownLaunches,
        *,
        ports: PortBlocks,
        entrance: ViewerEntrance,
    ) -> None:
        self._config, self._devices, self._offer, self._table = config, devices, offer, table
        self._ports, self._entrance = ports, entrance
        self._notes = list(config.warnings)
        self._told = Inventory()

    def add_notes(self, notes: Iterable[str]) -> None:
        """Add sentences for an operator that hold from now on."""
        self._notes += notes

    @property
    def notes(self) -> list[str]:
        """Sentences for an operator, as they hold now."""
        silence = self._devices.silence
        return [
            *self._notes,
            *self._offer.notes,
            *self._table.notes,
            *self._devices.inventory.notes,
            *self._entrance.notes,
            *([silence] if silence else []),
        ]

    def facts(self) -> NodeFacts:
        """What is configured, and what the machine is."""
        return node_facts(
            self._config,
            driver_version=self._devices.inventory.driver_version or "",
            launchers=self._offer.names,
            notes=self.notes,
            port_blocks=self._ports.capacity,
            ports=self._ports.range,
            entrance=self._entrance.facts,
        )

    def inventory(self) -> Inventory:
        """Everything, as it was last read."""
        self._told = self._bounded(self._devices.to_protos(self._table.known_pids, self._table.holdings))
        return self._told

    async def news(self) -> Inventory | None:
        """Everything, where it has changed by more than the noise of its figures since it was last reported."""
        pids = self._table.known_pids
        if self._devices.unexplained(pids):
            # A child that an application has just made is on the device before it is counted as ours.
            pids = await self._table.own_pids()
        now = self._bounded(self._devices.to_protos(pids, self._table.holdings))
        if now.facts == self._told.facts and not worth_reporting(list(self._told.devices), list(now.devices)):
            return None
        self._told = now
        return now

    def _bounded(self, devices: Sequence[Device]) -> Inventory:
        """Return the inventory as a message carries it; what has no room is noted for an operator."""
        inventory = Inventory(devices=devices, facts=self.facts())
        if left_out := bounds.cut(inventory):
            notes = inventory.facts.notes
            del notes[bounds.bound("NodeFacts", "notes").items - 1 :]
            notes.append(f"the node has more than its agent can report: {'; '.join(left_out)}")
        return inventory


def node_facts(
    config: AgentConfig,
    *,
    driver_version: str,
    launchers: Sequence[str],
    notes: Sequence[str],
    port_blocks: int,
    ports: tuple[int, int] | None = None,
    entrance: NodeFacts.Entrance | None = None,
) -> NodeFacts:
    """Put together what is configured and what the machine is."""
    return NodeFacts(
        hostname=encodable(platform.node()),
        os=encodable(_os()),
        agent_version=footlights.__version__,
        driver_version=driver_version,
        public_address=config.public_address,
        signal_address=config.signal_address or config.public_address,
        launchers=launchers,
        launcher_facts=[
            NodeFacts.Launcher(name=name, isolation=_isolation(name, config), entrypoints=LAUNCHERS[name].entrypoints)
            for name in launchers
        ],
        labels=dict(config.labels),
        notes=[encodable(note) for note in notes],
        port_blocks=port_blocks,
        ports=None if ports is None else NodeFacts.PortRange(first=ports[0], last=ports[1]),
        boot_id=boot_id(),
        entrance=entrance,
        starts_ahead=True,
    )


def _isolation(launcher: str, config: AgentConfig) -> Needs.Isolation.ValueType:
    level = LAUNCHERS[launcher].isolation_with(node_network=config.node_network)
    return number_of(Needs.Isolation, level.name)


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
