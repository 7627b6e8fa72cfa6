"""Who else is on a device: processes that none of our launches started."""

from __future__ import annotations

import enum
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from footlights.devices.reading import DeviceProcess, DeviceReading, ProcessKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial pid namespace: ``PID_NS_INIT_INO`` of Linux' ``include/uapi/linux/nsfs.h``, the same
on every kernel since 3.8. Asking ``/proc/1`` instead would compare a container's first process with itself,
and needs root."""


class Occupancy(enum.Enum):
    """Whether foreign processes are on a device."""

    FREE = "FREE"
    FOREIGN = "FOREIGN"
    UNKNOWN = "UNKNOWN"
    """It is unknown, and is not guessed; ``Foreign.why`` says what is missing."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """The judgement on one device."""

    occupancy: Occupancy
    processes: tuple[DeviceProcess, ...] = ()
    """Those that certainly are foreign, the largest first."""
    why: str = ""


def foreign(
    reading: DeviceReading, own_pids: Set[int], *, foreign_memory_bytes: int, pids_visible: bool | None
) -> Foreign:
    """Judge which other processes are on a device, by its newest reading.

    Foreign is a compute process, or any process above ``foreign_memory_bytes``, that is not in one of our launches'
    trees: a desktop's own X server with little memory is not. Without ``pids_visible`` it is unknown.
    """
    if not reading.kind.traits.lists_processes:
        return Foreign(Occupancy.FREE)
    if reading.processes is None:
        return Foreign(Occupancy.UNKNOWN, why="the driver does not list the processes on this device")
    if pids_visible is not True and not reading.kind.traits.simulated:
        why = "the driver's process ids are the host's, ours are not: run the agent with the host's pids"
        return Foreign(Occupancy.UNKNOWN, why=why)
    others = _by_pid(process for process in reading.processes if process.pid not in own_pids)
    certain = [p for p in others if p.kind is ProcessKind.COMPUTE or (p.used_memory_bytes or 0) > foreign_memory_bytes]
    if certain:
        certain.sort(key=lambda process: (-(process.used_memory_bytes or 0), process.pid))
        return Foreign(Occupancy.FOREIGN, tuple(certain))
    unsized = [process.pid for process in others if process.used_memory_bytes is None]
    if unsized:
        listed = ", ".join(str(pid) for pid in unsized)
        return Foreign(Occupancy.UNKNOWN, why=f"the driver does not say how much memory pid {listed} uses")
    return Foreign(Occupancy.FREE)


def pids_are_the_hosts() -> bool | None:
    """Whether our pids are the host's: True also in a container that shares them; None where it cannot be told."""
    if not sys.platform.startswith("linux"):
        return True if sys.platform == "win32" else None
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return None


def _by_pid(processes: Iterable[DeviceProcess]) -> list[DeviceProcess]:
    """One entry a pid: a process that computes and draws is listed twice, each time with its whole memory."""
    merged: dict[int, DeviceProcess] = {}
    for process in processes:
        before = merged.get(process.pid)
        sizes = [p.used_memory_bytes for p in (before, process) if p is not None and p.used_memory_bytes is not None]
        computes = ProcessKind.COMPUTE in (process.kind, before.kind if before else None)
        merged[process.pid] = DeviceProcess(
            process.pid,
            ProcessKind.COMPUTE if computes else ProcessKind.GRAPHICS,
            max(sizes, default=None),
            process.name or (before.name if before else None),
        )
    return list(merged.values())
