"""May a launch start on this device now? The agent asks afresh before each one. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from footlights.devices.foreign import Foreign, Occupancy
from footlights.devices.reading import DeviceHealth, DeviceReading

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
class DeviceRefusal:
    """Why not. ``str()`` is one line for people: ``FOREIGN_PROCESS 3.1 GiB pid 123 python``."""

    reason: str
    """``MISSING``, ``LOST``, ``UNHEALTHY``, ``NO_HARDWARE``, ``NO_GRAPHICS``, ``NO_ENCODER``,
    ``FOREIGN_PROCESS`` or ``MEMORY``."""
    message: str

    def __str__(self) -> str:
        return f"{self.reason} {self.message}" if self.message else self.reason


def admit(reading: DeviceReading | None, need: Need, occupants: Foreign | None = None) -> DeviceRefusal | None:
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
    if occupants is not None and occupants.occupancy is Occupancy.FOREIGN:
        worst = occupants.processes[0]
        size = "?" if worst.used_memory_bytes is None else _size(worst.used_memory_bytes)
        more = f" and {len(occupants.processes) - 1} more" if len(occupants.processes) > 1 else ""
        return DeviceRefusal("FOREIGN_PROCESS", f"{size} pid {worst.pid} {worst.name or ''}".rstrip() + more)
    free = reading.memory_free_bytes
    if free is not None and free < need.min_memory_bytes:
        return DeviceRefusal("MEMORY", _less(free, need.min_memory_bytes))
    return None


def _size(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{math.ceil(size / _MIB)} MiB"


def _less(free: int, needed: int) -> str:
    """``11<16 GiB``: rounded apart, so that it never reads ``16<16``."""
    unit, name = (_GIB, "GiB") if needed >= _GIB else (_MIB, "MiB")
    return f"{free * 10 // unit / 10:g}<{-(-needed * 10 // unit) / 10:g} {name}"
