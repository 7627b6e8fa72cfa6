"""May a launch start on this device now? The agent asks afresh before each one. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights.devices.foreign import Foreign, Occupancy
from footlights.devices.reading import DeviceHealth, DeviceReading
from footlights.protocol import shares

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Set

_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Need:
    """What a version asks of its device."""

    min_memory_bytes: int = 0
    """Free GPU memory. A software renderer has none of its own, and is not refused for it: ask for
    ``hardware``."""
    graphics: bool = False
    encoder: bool = False
    hardware: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What is kept of a device for a launch that is on it."""

    memory_bytes: int
    encoder: bool
    pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Shared:
    """What other launches of ours are on a device, as far as one more is concerned."""

    holdings: Collection[Holding] = ()
    pids_visible: bool = True
    """Whether their processes can be told among those of a reading."""
    encoder_limit: int | None = None
    """How many encoder sessions the device has at the most; None where no limit is known."""


ALONE = Shared()


@dataclass(frozen=True, slots=True)
class DeviceRefusal:
    """Why not. ``str()`` is one line for people: ``FOREIGN_PROCESS 3.1 GiB pid 123 python``."""

    reason: str
    """``MISSING``, ``LOST``, ``UNHEALTHY``, ``NO_HARDWARE``, ``NO_GRAPHICS``, ``NO_ENCODER``,
    ``FOREIGN_PROCESS``, ``ENCODER_FULL`` or ``MEMORY``."""
    message: str

    def __str__(self) -> str:
        return f"{self.reason} {self.message}" if self.message else self.reason


def admit(
    reading: DeviceReading | None, need: Need, occupants: Foreign | None = None, shared: Shared = ALONE
) -> DeviceRefusal | None:
    """The first reason to refuse, or None. Only what is known refuses: unknown memory or occupancy does not."""
    if reading is None:
        return DeviceRefusal("MISSING", "no such device on this node")
    if reading.health in (DeviceHealth.LOST, DeviceHealth.UNHEALTHY):
        reasons = "; ".join(f"{r.reason}: {r.message}" for r in reading.health_reasons)
        return DeviceRefusal(reading.health.value, reasons)
    if need.hardware and not reading.kind.traits.hardware:
        return DeviceRefusal("NO_HARDWARE", f"{reading.name} renders on the CPU")
    if need.graphics and not reading.graphics:
        return DeviceRefusal("NO_GRAPHICS", f"{reading.name} has no graphics")
    if need.encoder and not reading.encoder:
        return DeviceRefusal("NO_ENCODER", f"{reading.name} has no hardware video encoder")
    return _use_refusal(reading, need, occupants, shared)


def _use_refusal(reading: DeviceReading, need: Need, occupants: Foreign | None, shared: Shared) -> DeviceRefusal | None:
    if occupants is not None and occupants.occupancy is Occupancy.FOREIGN:
        worst = occupants.processes[0]
        size = "?" if worst.used_memory_bytes is None else _size(worst.used_memory_bytes)
        more = f" and {len(occupants.processes) - 1} more" if len(occupants.processes) > 1 else ""
        return DeviceRefusal("FOREIGN_PROCESS", f"{size} pid {worst.pid} {worst.name or ''}".rstrip() + more)
    if need.encoder and (full := _encoder_full(reading, shared)):
        return DeviceRefusal("ENCODER_FULL", full)
    free = memory_left(reading, shared)
    if free is not None and free < need.min_memory_bytes:
        return DeviceRefusal("MEMORY", _less(free, need.min_memory_bytes))
    return None


def memory_of(reading: DeviceReading, pids: Set[int]) -> int | None:
    """How much of a device's memory processes have; None where the driver does not say it of one of them."""
    sizes: dict[int, int] = {}
    for process in reading.processes or ():
        if process.pid in pids:
            if process.used_memory_bytes is None:
                return None
            # One that computes and draws is listed twice, each time with all of it.
            sizes[process.pid] = max(sizes.get(process.pid, 0), process.used_memory_bytes)
    return sum(sizes.values())


def memory_used(reading: DeviceReading, holdings: Iterable[Holding]) -> int | None:
    """How much launches use of what is kept for them, of each at most that; None where it cannot be known."""
    if reading.processes is None:
        return None
    sizes = [(holding, memory_of(reading, holding.pids)) for holding in holdings]
    known = [min(size, holding.memory_bytes) for holding, size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def memory_left(reading: DeviceReading, shared: Shared) -> int | None:
    """How much memory one more launch may have: what is promised is kept, and counted once when it is used."""
    return shares.memory_left(
        reading.memory_free_bytes,
        reading.memory_total_bytes,
        kept=sum(holding.memory_bytes for holding in shared.holdings),
        used=memory_used(reading, shared.holdings) if shared.pids_visible else None,
    )


def _encoder_full(reading: DeviceReading, shared: Shared) -> str:
    return shares.encoder_full(
        reading.encoder_sessions,
        promised=sum(holding.encoder for holding in shared.holdings),
        limit=shared.encoder_limit,
        capacity=reading.encoder_capacity_percent,
    )


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{math.ceil(size / _MIB)} MiB"


def _less(free: int, needed: int) -> str:
    """``11<16 GiB``: rounded apart, so that it never reads ``16<16``."""
    unit, name = (_GIB, "GiB") if needed >= _GIB else (_MIB, "MiB")
    return f"{free * 10 // unit / 10:g}<{-(-needed * 10 // unit) / 10:g} {name}"
