"""Reads Linux's /proc: which process is which, whose child it is, what its environment marks it as (proc(5)).

Every function treats a process that vanishes while it is read as one that was not there.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROC = Path("/proc")
_PPID, _START = 1, 19
"""Places in /proc/PID/stat, counted from the state, which is the first field after the name."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot: a pid is used again, a pid with its start time is not."""

    pid: int
    start_ticks: int
    """Clock ticks from boot to its start, as /proc/PID/stat has it."""
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Read the identity of a running process; None where there is none or it is a zombie."""
        stat = read_stat(pid)
        return None if stat is None or stat.dead else cls(pid, stat.start_ticks, boot_id())

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Identity:
        """Read what ``to_json`` wrote. Raises ValueError."""
        pid, ticks, boot = value.get("pid"), value.get("start_ticks"), value.get("boot_id")
        if not isinstance(pid, int) or not isinstance(ticks, int) or not isinstance(boot, str):
            raise ValueError(f"{value!r} is not the identity of a process")
        return cls(pid, ticks, boot)

    def to_json(self) -> dict[str, object]:
        """Plain values, for ``from_json``."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}

    def alive(self) -> bool:
        """Say whether exactly this process still runs. A zombie does not."""
        return Identity.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal exactly this process; False where it is gone. The pidfd is opened before the identity is compared."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(descriptor)
        return True


@dataclass(frozen=True, slots=True)
class Stat:
    """The few members of /proc/PID/stat that are needed here."""

    pid: int
    state: str
    parent: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        """Whether nothing of it runs any more: a zombie waits only to be reaped."""
        return self.state in ("Z", "X", "x")


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> Stat | None:
    """Read /proc/PID/stat; None where there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    # The name is in parentheses and may itself hold any character, parentheses and spaces too.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(pid, fields[0], int(fields[_PPID]), int(fields[_START]))


def pids() -> Iterator[int]:
    """Yield the pid of every process that this namespace shows."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            yield int(entry.name)


def descendants(root: int) -> frozenset[int]:
    """Find every living process below ``root``, a subreaper, itself not included; zombies are left out."""
    children: dict[int, list[Stat]] = {}
    for pid in pids():
        stat = read_stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(stat)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for stat in children.get(waiting.pop(), ()):
            waiting.append(stat.pid)
            if not stat.dead:
                found.add(stat.pid)
    return frozenset(found)


def marked(marks: Mapping[str, str]) -> frozenset[int]:
    """Find every living process whose environment, as it was at its exec and may be read, holds all of ``marks``."""
    wanted = [f"{name}={value}".encode() for name, value in marks.items()]
    return frozenset(pid for pid, entries in _environments() if all(entry in entries for entry in wanted))


def marked_by(name: str, marks: Mapping[str, str]) -> dict[str, frozenset[int]]:
    """Group the processes that hold all of ``marks`` by the value of the variable ``name``."""
    wanted = [f"{key}={value}".encode() for key, value in marks.items()]
    prefix = f"{name}=".encode()
    groups: dict[str, set[int]] = {}
    for pid, entries in _environments():
        if all(entry in entries for entry in wanted):
            for entry in entries:
                if entry.startswith(prefix):
                    groups.setdefault(entry[len(prefix) :].decode("utf-8", "replace"), set()).add(pid)
    return {value: frozenset(group) for value, group in groups.items()}


def kill(targets: Iterable[int], number: signal.Signals) -> None:
    """Signal every one of ``targets`` that still is the process it was when this was called."""
    for identity in [Identity.of(pid) for pid in targets]:
        if identity is not None:
            identity.send(number)


def _environments() -> Iterator[tuple[int, frozenset[bytes]]]:
    for pid in pids():
        try:
            content = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        stat = read_stat(pid) if content else None
        if stat is not None and not stat.dead:
            yield pid, frozenset(content.split(b"\0"))
