"""Stands in for systemd and its journal where none is booted: starts what a unit's properties say, and nothing more.

What the properties mean is systemd's own affair, and is tested on a real one (marker ``real``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from footlights.launch.launcher import LogPart
from footlights.launch.systemd.manager import SystemdError, UnitState
from footlights.launch.systemd.unit import EXIT, UnitSettings
from footlights.linux import procfs


class StandinSystemd:
    """Keeps the `UnitManager` protocol, and reads output as `UnitJournal` does; outlives the launchers that use it."""

    def __init__(self, *, version: str = "257", features: str = "+SECCOMP +BPF_FRAMEWORK") -> None:
        self.started: list[Sequence[UnitSettings]] = []
        self.result = "done"
        """The result of the jobs that start units."""
        self.absent = ""
        """Why systemd cannot be reached."""
        self._facts = version, features
        self._units: dict[str, _Unit] = {}
        self.output: dict[str, bytearray] = {}

    async def facts(self) -> tuple[str, str]:
        self._must_be_here()
        return self._facts

    async def start(self, units: Sequence[UnitSettings]) -> str:
        self._must_be_here()
        name, properties = units[0].name, {name: value for name, _, value in units[0].properties}
        if name in self._units:
            raise SystemdError(f"Unit {name} was already loaded.", name="org.freedesktop.systemd1.UnitExists")
        self.started.append(units)
        exit_file = Path(next(source for source, inside, *_ in properties["BindPaths"] if inside.endswith("/exit")))
        assert exit_file.name == EXIT
        path, argv, _ = properties["ExecStartEx"][0]
        # It has no view of its own: what would be a unit's credential is read where that is loaded from.
        loaded = {f"/run/credentials/{name}/{known}": source for known, source in properties["LoadCredential"]}
        argv = [loaded.get(token, token) for token in argv]
        environment = dict(each.split("=", 1) for each in properties["Environment"])
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                executable=path,
                env=environment,
                cwd=exit_file.parent,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError:
            _record(exit_file, "exit-code exited 203")
            return "failed"
        grace_s = properties["TimeoutStopUSec"] / 1e6
        unit = self._units[name] = _Unit(process, grace_s, exit_file, self.output.setdefault(name, bytearray()))
        unit.task = asyncio.create_task(self._watch(name, unit), name=name)
        return self.result

    async def stop(self, unit: str) -> None:
        found = self._units.get(unit)
        if found is not None and found.stopping is None:
            found.stopping = asyncio.create_task(found.stop(), name=f"stop {unit}")

    async def kill(self, unit: str, number: int) -> None:
        if unit in self._units:
            self._units[unit].signal(signal.Signals(number))

    async def state(self, unit: str) -> UnitState | None:
        self._must_be_here()
        return UnitState("active", "running", "") if unit in self._units else None

    async def processes(self, unit: str) -> frozenset[int]:
        found = self._units.get(unit)
        return frozenset() if found is None else procfs.descendants(found.process.pid) | {found.process.pid}

    async def find(self, pattern: str) -> list[str]:
        beginning, _, end = pattern.partition("*")
        return [name for name in self._units if name.startswith(beginning) and name.endswith(end)]

    async def close(self) -> None:
        """Nothing is held."""

    async def end(self) -> None:
        """End everything."""
        for unit in list(self._units.values()):
            unit.signal(signal.SIGKILL)
            assert unit.task is not None
            await unit.task

    # The journal

    async def read(self, unit: str, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        lines = self.output.get(unit, b"").decode().splitlines()
        start = max(len(lines) - tail_lines, 0) if tail_lines else int(cursor or 0)
        return LogPart(tuple(lines[start:]), truncated=bool(tail_lines and start), cursor=str(len(lines)))

    async def complaints(self, unit: str) -> str:
        return "Failed to execute it" if unit else ""

    async def flush(self) -> None:
        """Everything is read at once."""

    async def _watch(self, name: str, unit: _Unit) -> None:
        assert unit.process.stdout is not None
        while piece := await unit.process.stdout.read(65536):
            unit.output += piece
        code = await unit.process.wait()
        if unit.stopping is not None:
            unit.stopping.cancel()
        end = f"signal killed {signal.Signals(-code).name[3:]}" if code < 0 else f"exit-code exited {code}"
        _record(unit.exit_file, end)
        del self._units[name]

    def _must_be_here(self) -> None:
        if self.absent:
            raise SystemdError(self.absent)


class _Unit:
    def __init__(self, process: asyncio.subprocess.Process, grace_s: float, exit_file: Path, output: bytearray) -> None:
        self.process, self.grace_s, self.exit_file, self.output = process, grace_s, exit_file, output
        self.task: asyncio.Task[Any] | None = None
        self.stopping: asyncio.Task[Any] | None = None

    async def stop(self) -> None:
        self.signal(signal.SIGTERM)
        await asyncio.sleep(self.grace_s)
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _record(exit_file: Path, text: str) -> None:
    with exit_file.open("r+") as file:
        file.write(f"{text}\n")
