"""How smooth one stream is, and what it costs: frames that a player decodes, and the CPU of the application.

The player decodes in this process, so its own CPU is not counted; on a small machine it does compete for the cores.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil

from tests.bench.figures import Bench, Figure
from tests.bench.streaming import create, end, player, ready, streaming

ROUNDS = 3
WINDOW_S = 10.0
SETTLE_S = 2.0
"""The encoder's rate control and the player's jitter buffer settle first."""


async def measure(directory: Path) -> list[Figure]:
    """Take all three over the same windows of one stream that is played."""
    fps: list[float] = []
    cpu: list[float] = []
    memory: list[float] = []
    async with streaming(directory) as stack:
        session_id = await create(stack)
        await ready(stack, session_id)
        tree = _tree(session_id)
        async with await player(stack, session_id) as client:
            await client.next_frame(timeout=15)
            await asyncio.sleep(SETTLE_S)
            for _ in range(ROUNDS):
                began, frames, spent = time.perf_counter(), client.frames_decoded, _cpu_s(tree)
                await asyncio.sleep(WINDOW_S)
                took = time.perf_counter() - began
                fps.append((client.frames_decoded - frames) / took)
                cpu.append((_cpu_s(tree) - spent) / took)
                memory.append(sum(process.memory_info().rss for process in tree) / 2**20)
        await end(stack, session_id)
    return [
        Figure("fps", fps, "1/s", "decoded at 1280x720, windows of 10 s", "30"),
        Figure("cpu_per_stream", cpu, "", "cores of the application's processes while it is watched", "< 1"),
        Figure("memory_per_stream_mib", memory, "MiB", "resident memory of the application's processes"),
    ]


def _tree(session_id: str) -> list[psutil.Process]:
    """Find the processes of a session: those that carry its name in their environment."""
    mark = f"FOOTLIGHTS_SESSION_ID={session_id}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
        except OSError:
            continue
    assert found, f"no process carries {mark!r}"
    return found


def _cpu_s(tree: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in tree))


BENCH = Bench(("fps", "cpu_per_stream", "memory_per_stream_mib"), measure)
