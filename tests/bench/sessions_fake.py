"""How many sessions a whole Footlights can bring up and end: everything real but the applications.

Sixteen workers create a session over REST, wait until it is READY, terminate it and wait until it is TERMINATED,
which is said when its slot is free again. They learn of changes from one watch over all sessions, as a service does
that keeps many. The fake launcher starts nothing, so this is the control plane, its store on disk, the link and the
agent. Both fsync before they answer, so the disk shows in it; the server's processor time for one whole life, which is
given beside it, hardly knows the disk.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil

from tests.bench.figures import Bench, Figure
from tests.system.stack import Stack

ROUNDS = 4
ROUND_S = 5.0
WORKERS = 16
DEVICES = 64


async def measure(directory: Path) -> list[Figure]:
    """Take ``sessions_per_s_fake`` and ``session_cpu_ms``."""
    async with Stack(directory) as stack:
        await stack.start_agent(
            "node-a", "--launchers", "fake", "--devices", "software", "--software-devices", str(DEVICES)
        )
        await stack.register_fake()
        board = _Board()
        following = asyncio.create_task(board.follow(stack))
        try:
            await _round(stack, board, 1.0)
            rates = [await _round(stack, board, ROUND_S) for _ in range(ROUNDS)]
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    what = f"created, ready, terminated, slot free; {WORKERS} workers over REST"
    return [
        Figure("sessions_per_s_fake", [rate for rate, _ in rates], "1/s", what),
        Figure("session_cpu_ms", [spent for _, spent in rates], "ms", "the server's processor time for one of those"),
    ]


async def _round(stack: Stack, board: _Board, duration_s: float) -> tuple[float, float]:
    """Return how many lives passed in a second, and the server's processor time for one in milliseconds."""
    assert stack.server is not None
    server = psutil.Process(stack.server.pid)
    before, began = server.cpu_times(), time.perf_counter()
    done = 0

    async def work() -> None:
        nonlocal done
        while time.perf_counter() - began < duration_s:
            session_id = str((await stack.post("/stream", {"application": "fake"}))["session_id"])
            await board.until(session_id, "READY")
            await stack.delete(f"/stream/{session_id}")
            await board.until(session_id, "TERMINATED")
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work())
    after = server.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return done / (time.perf_counter() - began), 1e3 * spent / done


class _Board:
    """The last known state of every session, from one watch."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._changed = asyncio.Condition()

    async def follow(self, stack: Stack) -> None:
        """Read the watch until cancelled."""
        async with stack.watching("/stream:watch") as changes:
            async for session in changes:
                async with self._changed:
                    self._states[session["session_id"]] = session["state"]
                    self._changed.notify_all()

    async def until(self, session_id: str, state: str) -> None:
        """Wait until a session is in a state; fail where it ends in another."""
        async with asyncio.timeout(30), self._changed:
            while (now := self._states.get(session_id)) != state:
                assert now not in ("TERMINATED", "FAILED"), f"{session_id} ended as {now} before it was {state}"
                await self._changed.wait()
            if state == "TERMINATED":
                del self._states[session_id]


BENCH = Bench(("sessions_per_s_fake", "session_cpu_ms"), measure)
