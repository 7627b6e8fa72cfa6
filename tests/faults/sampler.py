"""Looks from the outside while everything goes on: who holds which slot, and whose processes live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.evidence import Hold, LeaseRow, Meeting, read_live_leases

CLUSTER, LAUNCH = b"FOOTLIGHTS_CLUSTER_ID=", b"FOOTLIGHTS_LAUNCH_ID="
_SHIM = b"footlights.launch.process.shim"


@dataclass(frozen=True, slots=True)
class Marked:
    """A living process that carries a launch's mark."""

    pid: int
    cluster: str
    launch_id: str
    shim: bool


def marked(pid: int) -> Marked | None:
    """Read one process's mark; None where it has none, is gone or is a zombie."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if CLUSTER not in environment:
            return None
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return None
    entries = environment.split(b"\0")
    cluster = next((entry.removeprefix(CLUSTER) for entry in entries if entry.startswith(CLUSTER)), b"")
    launch = next((entry.removeprefix(LAUNCH) for entry in entries if entry.startswith(LAUNCH)), b"")
    if not launch or state in (b"Z", b"X"):
        return None
    return Marked(pid, cluster.decode(), launch.decode(), _SHIM in command)


def living(cluster_id: str) -> list[Marked]:
    """Find every process of the cluster on this machine."""
    found = (marked(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [each for each in found if each is not None and each.cluster.partition("/")[0] == cluster_id]


def by_launch(processes: list[Marked], *, shims: bool = False) -> dict[str, tuple[int, ...]]:
    """Group the pids by launch: the applications', or the shims'."""
    groups: dict[str, list[int]] = {}
    for process in processes:
        if process.shim is shims:
            groups.setdefault(process.launch_id, []).append(process.pid)
    return {launch_id: tuple(pids) for launch_id, pids in groups.items()}


@dataclass(slots=True)
class Sampler:
    """Collects holds and meetings until cancelled."""

    database: Path
    cluster_id: str
    period_s: float = 0.2
    holds: dict[str, Hold] = field(default_factory=dict)
    meetings: list[Meeting] = field(default_factory=list)
    samples: int = 0

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self.period_s)

    def look(self) -> None:
        """Take one sample of both."""
        leases = self._leases()
        now = time.monotonic()
        for lease in leases:
            known = self.holds.get(lease.lease_id)
            self.holds[lease.lease_id] = (
                replace(known, last=now)
                if known is not None
                else Hold(lease.lease_id, lease.launch_id, lease.session_id, lease.slot, now, now)
            )
        self._meet(by_launch(living(self.cluster_id)))
        self.samples += 1

    def _leases(self) -> tuple[LeaseRow, ...]:
        with contextlib.suppress(sqlite3.Error):  # it is being restarted, or its disk is full
            connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=1.0)
            try:
                connection.row_factory = sqlite3.Row
                return read_live_leases(connection)
            finally:
                connection.close()
        return ()

    def _meet(self, alive: Mapping[str, tuple[int, ...]]) -> None:
        """Note two sessions on one slot. A sample takes time, so both are looked at again before it is believed."""
        slots = {(hold.slot, hold.launch_id): hold for hold in self.holds.values() if hold.launch_id in alive}
        first: dict[tuple[str, str, int], Hold] = {}
        for (slot, launch_id), hold in slots.items():
            other = first.setdefault(slot, hold)
            if other.session_id != hold.session_id and _runs(hold, alive) and _runs(other, alive):
                self.meetings.append(Meeting(time.monotonic(), slot, (other.launch_id, launch_id)))


def _runs(hold: Hold, alive: Mapping[str, tuple[int, ...]]) -> bool:
    found = (marked(pid) for pid in alive[hold.launch_id])
    return any(each is not None and each.launch_id == hold.launch_id for each in found)
