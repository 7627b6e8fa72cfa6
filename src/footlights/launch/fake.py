"""Runs nothing and behaves as its version says: for tests, and for simulated fleets of thousands of sessions.

What a launch of it is follows from when it was started and asked to stop: times that are kept in one small file.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from footlights.launch.launcher import LaunchError, LaunchPlan, LogPart, Phase, Status
from footlights.launch.recipe.checks import check_duration, refuse
from footlights.linux.files import replace_file
from footlights.linux.procfs import boot_id
from footlights.protocol.times import seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from footlights.v1.application_pb2 import FakeBehavior, Version

STATE = "fake.json"
SIGTERM, SIGKILL = -15, -9


def boot_time() -> float:
    """Seconds since boot, suspended time included: a clock that survives the agent."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class _Times:
    """What happened to one launch, on the boot-time clock."""

    boot_id: str
    cluster_id: str
    launch_id: str
    started: float
    stop: float = math.inf
    kill: float = math.inf
    """When it is killed, whatever it does."""

    def end(self, fake: FakeBehavior) -> tuple[float, int]:
        """Say when it ends, and with which status; never is infinity."""
        exits = self.started + seconds(fake.exit_after) if fake.HasField("exit_after") else math.inf
        ends = math.inf if fake.ignore_stop else self.stop + seconds(fake.stop_after)
        return min((exits, fake.exit_code), (ends, 0), (self.kill, SIGKILL), key=lambda end: end[0])


class FakeLauncher:
    """Keeps the `launcher.Launcher` protocol without a process."""

    name = "fake"

    def __init__(self, root: Path, *, clock: Callable[[], float] = boot_time) -> None:
        self._root = root
        self._clock = clock
        self._boot_id = boot_id()
        self._known: dict[Path, _Times] = {}

    async def unavailable(self) -> str:
        """Always empty."""
        return ""

    async def prepare(self, plan: LaunchPlan) -> None:
        """Refuse the devices that the version refuses, as an agent does that finds a device taken."""
        if plan.device_uuid in plan.version.fake.rejected_devices:
            text = f"device {plan.device_uuid} is taken, says the fake version."
            raise LaunchError("FOREIGN_PROCESS", text, rejected=True)

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        """Note the time."""
        if self._times(plan) is not None:
            return
        await self.prepare(plan)
        if plan.version.fake.start_error:
            raise LaunchError("START_ERROR", plan.version.fake.start_error)
        plan.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._note(plan, _Times(self._boot_id, plan.cluster_id, plan.launch_id, self._clock()))

    async def status(self, plan: LaunchPlan) -> Status:
        """Say what follows from the times."""
        times = self._times(plan)
        if times is None:
            return Status(Phase.UNKNOWN)
        if times.boot_id != self._boot_id:
            return Status(Phase.EXITED, message="the node was restarted while it ran: its exit status is lost.")
        end, code = times.end(plan.version.fake)
        if self._clock() < end:
            return Status(Phase.RUNNING)
        return Status(Phase.EXITED, exit_code=code, message=f"exited with status {code}.")

    async def stop(self, plan: LaunchPlan, *, kill: bool = False) -> None:
        """Note the time of the first order to stop, and the earliest time of a kill."""
        times, now = self._times(plan), self._clock()
        if times is None or now >= times.end(plan.version.fake)[0]:
            return
        stopping = now if times.stop == math.inf else times.stop
        due = now if kill else stopping + plan.stop_grace_s
        changed = replace(times, stop=stopping, kill=min(times.kill, due))
        if changed != times:
            self._note(plan, changed)

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        """Give the version's lines, once."""
        lines = tuple(plan.version.fake.log_lines) if self._times(plan) is not None else ()
        first = int(cursor) if cursor.isascii() and cursor.isdigit() and not tail_lines else 0
        first = max(first, len(lines) - tail_lines) if tail_lines > 0 else first
        return LogPart(lines[first:], truncated=tail_lines > 0 and first > 0, cursor=str(max(first, len(lines))))

    async def discard(self, plan: LaunchPlan) -> None:
        """Forget the times."""
        self._known.pop(plan.directory, None)
        (plan.directory / STATE).unlink(missing_ok=True)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        """Nothing of it is on the machine."""
        return {}

    async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
        """Nothing of it is on the machine."""

    async def close(self) -> None:
        """Nothing is held."""

    def _times(self, plan: LaunchPlan) -> _Times | None:
        known = self._known.get(plan.directory)
        if known is None:
            known = _read(plan.directory)
            if known is not None:
                self._known[plan.directory] = known
        return known

    def _note(self, plan: LaunchPlan, times: _Times) -> None:
        self._known[plan.directory] = times
        # Not durable: what a power cut takes away here ran nothing.
        replace_file(plan.directory / STATE, json.dumps(asdict(times)).encode(), durable=False)


def validate(version: Version) -> None:
    """Check the fake of a version. Raises InvalidArgument, as `recipe.validate` does."""
    fake = version.fake
    for name in ("ready_after", "exit_after", "stop_after"):
        if fake.HasField(name):
            check_duration(f"version.fake.{name}", getattr(fake, name), least=0)
    if fake.HasField("viewers") and fake.viewers < 0:
        raise refuse("version.fake.viewers", f"{fake.viewers} is negative: give a number of viewers.")
    for number, line in enumerate(fake.log_lines):
        if "\n" in line:
            raise refuse(f"version.fake.log_lines[{number}]", f"{line!r} holds a line break: write two lines.")


def is_ready(plan: LaunchPlan, *, clock: Callable[[], float] = boot_time) -> bool:
    """Say whether a fake launch is ready now."""
    fake, times = plan.version.fake, _read(plan.directory)
    if times is None or fake.never_ready:
        return False
    return times.started + seconds(fake.ready_after) <= clock() < times.end(fake)[0]


def viewers(plan: LaunchPlan) -> int | None:
    """Say how many viewers a fake launch claims; None where it does not know."""
    return plan.version.fake.viewers if plan.version.fake.HasField("viewers") else None


def _read(directory: Path) -> _Times | None:
    try:
        return _Times(**json.loads((directory / STATE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
