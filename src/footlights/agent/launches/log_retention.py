"""Directories of launches: where they lie, and how long the output and the end of those that are forgotten is kept."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError

from footlights.agent.launches.journal import is_safe
from footlights.agent.v1.agent_pb2 import LaunchReport
from footlights.launch.plan import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from footlights.agent.clock import Clock
    from footlights.launch.launcher import LaunchPlan

_NAME = "retired.json"
_END = "retired.end"
_SINCE = "retired.since"
SWEEP_S = 600.0
_SETTLED_S = 3600.0
"""After a start, the wall clock is given so long to be set right before an age is reckoned by it."""
_log = structlog.get_logger(__name__)


class LogRetention:
    """One directory a launch. One that is forgotten keeps its plan beside its output, so that it can still be read."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root.absolute()
        self._clock, self._started = clock, clock.now()

    def directory(self, launch_id: str) -> Path:
        """A launch's own directory."""
        return self._root / launch_id

    def keep(self, plan: LaunchPlan, end: LaunchReport) -> None:
        """Keep a forgotten launch's plan and final report. Blocks on the disk.

        Losing them costs a log, or a word in a restored control plane's database, so errors are only logged.
        """
        try:
            if plan.directory.is_dir():
                (plan.directory / _END).write_bytes(end.SerializeToString())
                (plan.directory / _NAME).write_text(to_json(plan), encoding="utf-8")
                (plan.directory / _SINCE).write_text(f"{self._clock.boot_id} {self._clock.now()}", encoding="utf-8")
        except OSError as error:
            _log.warning("log_not_kept", launch_id=plan.launch_id, error=str(error))

    def plan(self, launch_id: str) -> LaunchPlan | None:
        """The plan of a forgotten launch; None where it is not kept any more."""
        if not is_safe(launch_id):
            return None
        try:
            return from_json((self._root / launch_id / _NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def ends(self, most: int) -> list[LaunchReport]:
        """The newest final reports that are kept, the oldest of them first; unreadable ones are left out. Blocking."""
        found = []
        for path in sorted(self._root.glob(f"*/{_END}"))[-most:]:
            try:
                found.append(LaunchReport.FromString(path.read_bytes()))
            except (OSError, DecodeError) as error:
                _log.warning("end_unreadable", launch_id=path.parent.name, error=str(error))
        return found

    async def sweep(self, retention_s: float, is_known: Callable[[str], bool]) -> None:
        """Remove what has been forgotten for longer than ``retention_s``."""
        for path in await asyncio.to_thread(self._older_than, retention_s):
            if not is_known(path.name):
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    def _older_than(self, retention_s: float) -> list[Path]:
        found: list[Path] = []
        try:
            for path in self._root.iterdir():
                age = self._age_s(path)
                if age is not None and age > retention_s:
                    found.append(path)
        except OSError:
            return found
        return found

    def _age_s(self, path: Path) -> float | None:
        """How long ago a launch was forgotten, for another boot by the wall clock. None while that may be wrong."""
        now = self._clock.now()
        try:
            boot_id, _, since = (path / _SINCE).read_text(encoding="utf-8").rpartition(" ")
            if boot_id == self._clock.boot_id:
                return now - float(since)
        except (OSError, ValueError):
            pass
        if now - self._started < _SETTLED_S:
            return None
        marker = path / _NAME
        return time.time() - (marker if marker.is_file() else path).stat().st_mtime
