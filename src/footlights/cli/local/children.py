"""The processes of ``footlights up``: started, monitored, and ended without leaving any behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from footlights.cli.exits import ERROR, Failed
from footlights.cli.local.bond import PARENT, reap_orphans
from footlights.redaction import redact

_LAST_LINES: Final = 15


@dataclass(frozen=True, slots=True)
class Child:
    """One process: a Footlights command, its output in a file."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    log_start: int
    """Where its output begins in ``log``, in bytes; before that is the output of earlier runs."""

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], log: Path, environ: Mapping[str, str]) -> Child:
        """Start ``footlights ARGUMENTS``, in its own process group: the parent handles the terminal's Ctrl-C."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            log_start = output.tell()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "footlights.cli", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                env={**environ, PARENT: str(os.getpid()), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            )
        return cls(name, process, log, log_start)

    async def ended(self) -> Failed:
        """Wait until it ends by itself, which is a failure, and return that."""
        code = await self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        lines = [
            f"the {self.name} {how}. The last lines of {self.log}:",
            *(f"    {line}" for line in self.last_lines()),
        ]
        return Failed("\n".join(lines), ERROR)

    def last_lines(self) -> list[str]:
        """Return the end of its output, without secrets."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.log_start)
            return [redact(line.rstrip()) for line in deque(file, _LAST_LINES)]

    async def stop(self, timeout_s: float) -> bool:
        """Send SIGTERM and wait; return whether it ended in time."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        try:
            async with asyncio.timeout(timeout_s):
                await self.process.wait()
        except TimeoutError:
            return False
        return True


def end_descendants() -> int:
    """Kill all remaining descendants and return their number. ``adopt_orphans`` makes sure that all are found."""
    reap_orphans(())
    remaining = [process for process in psutil.Process().children(recursive=True) if _runs(process)]
    for process in remaining:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(remaining, timeout=5)
    reap_orphans(())
    return len(remaining)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
