"""How long a user waits: from the request to a session that is ready, and to the first decoded frame.

Through REST, the session's watch, the front door and WHEP, with aiortc as the player. Warm: one session before the
first round has the code and the stage in the page cache; each round is a new process of the application.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.figures import Bench, Figure
from tests.bench.streaming import create, end, player, ready, streaming

ROUNDS = 5


async def measure(directory: Path) -> list[Figure]:
    """Take ``ready_s`` and ``first_frame_s``, both from the same sessions."""
    ready_s: list[float] = []
    first_frame_s: list[float] = []
    async with streaming(directory) as stack:
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            session_id = await create(stack)
            await ready(stack, session_id)
            ready_s.append(time.perf_counter() - began)
            async with await player(stack, session_id) as client:
                await client.next_frame(timeout=15)
                first_frame_s.append(time.perf_counter() - began)
            await end(stack, session_id)
    return [
        Figure("ready_s", ready_s[1:], "s", "create to READY, warm"),
        Figure("first_frame_s", first_frame_s[1:], "s", "create to first decoded frame, warm", "< 3 s"),
    ]


BENCH = Bench(("ready_s", "first_frame_s"), measure)
