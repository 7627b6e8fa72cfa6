"""A session of the reference application with a real viewer, that must not notice what happens around it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from dataclasses import dataclass, field

from tests.faults.cluster import Cluster
from tests.system.stack import Process

PATIENCE_S = 20.0


@dataclass(slots=True)
class Audience:
    """One session and its viewer. ``session_id`` is empty until the picture is there."""

    cluster: Cluster
    session_id: str = ""
    launch_ids: frozenset[str] = frozenset()
    seconds_with_frames: list[float] = field(default_factory=list)
    """When it was said, on the monotonic clock."""
    lost: str = ""
    """Why the viewer has no picture any more."""
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a second of frames."""
        times = self.seconds_with_frames
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    async def start(self) -> None:
        """Start the session and the viewer, and wait for the first picture."""
        body = {"application": "viewer", "max_duration": "3600s", "request_id": "audience"}
        session_id = str((await self.cluster.post("/stream", body))["session_id"])
        await self.cluster.session_in(session_id, "READY", "ACTIVE", timeout_s=60)
        grant = await self.cluster.post(f"/stream/{session_id}:connect", {})
        argv = [sys.executable, "-m", "tests.faults.watcher", grant["whep_url"], "--patience", str(PATIENCE_S)]
        log = self.cluster.directory / "watcher.log"
        with log.open("ab") as file:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=file
            )
        assert self._process.stdin is not None
        self.cluster.others.append(Process("watcher", log, self._process))
        self._process.stdin.write(f"{grant['token']}\n".encode())
        await self._process.stdin.drain()
        self.session_id = session_id
        self._reading = asyncio.create_task(self._read())
        deadline = time.monotonic() + 40
        while not self.seconds_with_frames:
            if self.lost or time.monotonic() > deadline:
                raise AssertionError(f"the viewer sees nothing: {self.lost}\n{log.read_text()[-1500:]}")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Let the viewer go."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while await self._process.stdout.readline():
            self.seconds_with_frames.append(time.monotonic())
        self.lost = f"the viewer ended with status {await self._process.wait()}"
