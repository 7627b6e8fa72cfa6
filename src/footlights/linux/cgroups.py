"""A control group for each launch, where the agent may make them: who is in it, and its end (cgroups(7), version 2).

A process cannot leave its group by forking, by a new session or by clearing its environment, and a group is killed
whole: so an empty group is a proof.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from footlights.linux.procfs import PROC

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOK_AGAIN_S = 0.005
_KILL, _PROCESSES, _EVENTS = "cgroup.kill", "cgroup.procs", "cgroup.events"


def own_group() -> Path | None:
    """Return the directory of this process's group; None where there is no hierarchy of version 2, or it is too old."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
        mounts = (PROC / "self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    within = next((line[3:] for line in lines if line.startswith("0::")), None)
    mounted = next((fields[4] for line in mounts if (fields := line.split())[fields.index("-") + 1] == "cgroup2"), None)
    if within is None or mounted is None:
        return None
    found = Path(mounted, within.lstrip("/"))
    return found if (found / _PROCESSES).exists() else None


def make(parent: Path, name: str) -> Path | None:
    """Make a group below one, and return its directory; None where that is not allowed, or it could not be killed."""
    group = parent / name
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    if os.access(group / _KILL, os.W_OK) and os.access(group / _PROCESSES, os.W_OK):
        return group
    remove(group)
    return None


def join(group: Path) -> None:
    """Put this process into a group. Raises OSError."""
    (group / _PROCESSES).write_text("0")


def populated(group: Path) -> bool:
    """Say whether a process is in a group, or in one below it; a group that is not there has none."""
    with _unless_gone():
        return "populated 1" in (group / _EVENTS).read_text().splitlines()
    return False


def members(group: Path) -> frozenset[int]:
    """Return the processes of a group and of those below it, in this pid namespace."""
    found: set[int] = set()
    for directory, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (Path(directory) / _PROCESSES).read_text().split())
    return frozenset(found - {0})


def kill(group: Path) -> None:
    """Send SIGKILL to every process of a group and of those below it, at once."""
    with _unless_gone():
        (group / _KILL).write_text("1")


def end(group: Path, timeout_s: float = 5.0) -> bool:
    """Kill a group until it is empty; return whether it is. Blocking."""
    give_up = time.monotonic() + timeout_s
    while populated(group):
        if time.monotonic() >= give_up:
            return False
        kill(group)
        time.sleep(_LOOK_AGAIN_S)
    return True


def remove(group: Path) -> None:
    """Remove a group and those below it; what still has a process stays."""
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """Leave the block where the group is gone, also when it goes while one of its files is open."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
