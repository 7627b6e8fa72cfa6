"""What a node can know of a device, and the protocol by which the agent asks."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from footlights.devices.kinds import DeviceKind


class DeviceHealth(enum.Enum):
    """Whether a device may be given to a session."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    """Still usable; an operator should look (correctable errors, a pending row remap)."""
    UNHEALTHY = "UNHEALTHY"
    LOST = "LOST"
    """Off the bus, or gone from the driver's list."""


class ProcessKind(enum.Enum):
    """What a process does on a device."""

    COMPUTE = "COMPUTE"
    GRAPHICS = "GRAPHICS"


@dataclass(frozen=True, slots=True)
class DeviceProcess:
    """A process that holds a context on a device. ``pid`` is in the driver's (the host's) namespace."""

    pid: int
    kind: ProcessKind
    used_memory_bytes: int | None
    """None where the driver does not say (MIG, WDDM, another namespace)."""
    name: str | None = None
    """The program's short name; None where it cannot be looked up (another namespace)."""


@dataclass(frozen=True, slots=True)
class HealthReason:
    """Why a device is not in order."""

    reason: str
    """UPPER_SNAKE, stable: ``GPU_IS_LOST``, ``ECC_UNCORRECTED``, ``ROW_REMAP_FAILED``, ``PAGES_PENDING``,
    ..."""
    message: str


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One device at one moment. ``None`` means "the driver does not say": never zero, never a guess."""

    uuid: str
    kind: DeviceKind
    name: str
    index: int
    """Position in the driver's enumeration at this moment; display only, never a key."""
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_percent: int | None = None
    encoder_sessions: int | None = None
    encoder_capacity_percent: int | None = None
    """What is left of the encoder. A driver also says 0 of one that it knows nothing of."""
    processes: tuple[DeviceProcess, ...] | None = None
    """None where processes cannot be read: then "foreign" cannot be judged, and is not guessed."""
    graphics: bool = True
    """Whether it can draw (a MIG instance cannot)."""
    encoder: bool = True
    health: DeviceHealth = DeviceHealth.OK
    health_reasons: tuple[HealthReason, ...] = ()
    parent_uuid: str | None = None
    """The GPU that a MIG instance was cut from."""
    mig_profile: str | None = None
    pci_bus_id: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeviceInventory:
    """Everything one node offers, as read once."""

    devices: tuple[DeviceReading, ...]
    driver_version: str | None = None
    library_version: str | None = None
    notes: tuple[str, ...] = field(default=())
    """Plain sentences for an operator: why there is no GPU, which calls the driver does not support."""


class Devices(Protocol):
    """A source of devices, safe to use from several threads. Calls block: the agent makes them off its event loop."""

    def read(self) -> DeviceInventory:
        """Read every device now; one that fails never hides the others. Raises TimeoutError: an earlier read hangs."""

    def read_one(self, uuid: str) -> DeviceReading:
        """Read one device afresh. Raises LookupError (a lost one is returned, as LOST) or TimeoutError."""

    def forget(self, uuid: str) -> None:
        """Stop reporting a device that is gone for good; one that is there is not affected."""

    def close(self) -> None:
        """Release what was opened; later calls may open again."""
