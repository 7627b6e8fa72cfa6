"""Who else is on a device: processes that none of our launches started."""

from __future__ import annotations

import enum
import fnmatch
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
    tolerated: tuple[DeviceProcess, ...] = ()
    """Those that are not ours and do not matter, by pid: a desktop's compositor."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Which processes of others may share a device with sessions."""

    memory_bytes: int = 256 << 20
    """None with more GPU memory than this."""
    names: tuple[str, ...] = ()
    """Names, with the wildcards ``*`` and ``?``, of those that only compute. Those that draw need no name: with little
    memory they are a desktop's X server, compositor or browser, many of which compute as well."""


def foreign(reading: DeviceReading, own_pids: Set[int], *, tolerance: Tolerance, pids_visible: bool | None) -> Foreign:
    """Judge which other processes are on a device, by its newest reading.

    Foreign is what is not in one of our launches' trees and not tolerated. Without ``pids_visible`` it is unknown.
    """
    if not reading.kind.traits.lists_processes:
        return Foreign(Occupancy.FREE)
    if reading.processes is None:
        return Foreign(Occupancy.UNKNOWN, why="the driver does not list the processes on this device")
    if pids_visible is not True and not reading.kind.traits.simulated:
        why = "the driver's process ids are the host's, ours are not: run the agent with the host's pids"
        return Foreign(Occupancy.UNKNOWN, why=why)
    others = _by_pid(process for process in reading.processes if process.pid not in own_pids)
    drawing = {process.pid for process in reading.processes if process.kind is ProcessKind.GRAPHICS}

    def is_certain(process: DeviceProcess) -> bool:
        if (process.used_memory_bytes or 0) > tolerance.memory_bytes:
            return True
        return process.pid not in drawing and not _named(process, tolerance.names)

    certain = sorted(filter(is_certain, others), key=lambda process: (-(process.used_memory_bytes or 0), process.pid))
    tolerated = tuple(process for process in others if not is_certain(process))
    if certain:
        return Foreign(Occupancy.FOREIGN, tuple(certain), tolerated=tolerated)
    unsized = [process.pid for process in others if process.used_memory_bytes is None]
    if unsized:
        listed = ", ".join(str(pid) for pid in unsized)
        why = f"the driver does not say how much memory pid {listed} uses"
        return Foreign(Occupancy.UNKNOWN, why=why, tolerated=tolerated)
    return Foreign(Occupancy.FREE, tolerated=tolerated)


def pids_are_the_hosts() -> bool | None:
    """Whether our pids are the host's: True also in a container that shares them; None where it cannot be told."""
    if not sys.platform.startswith("linux"):
        return True if sys.platform == "win32" else None
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return None


def _named(process: DeviceProcess, names: Iterable[str]) -> bool:
    name = (process.name or "").split(" ", 1)[0].rpartition("/")[2]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in names) if name else False


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
