"""A real server that stands still believes nobody silent for it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.system.stack import JSON, Stack, until

PATIENCE_S = 3.0
"""Three heartbeats of one second."""


async def test_a_server_that_was_stopped_calls_nobody_silent(tmp_path: Path) -> None:
    """Stopped for longer than three heartbeats: the node stays READY, the answer says STALLED, and it passes."""
    async with Stack(tmp_path / "stack", server_options=("--heartbeat-interval", "1s")) as stack:
        await stack.start_agent()
        assert stack.server is not None
        stack.server.kill(signal.SIGSTOP)
        try:
            # The fault itself: nothing could be waited for, since nobody answers.
            await asyncio.sleep(PATIENCE_S + 1)
        finally:
            stack.server.kill(signal.SIGCONT)
        answers: list[JSON] = []

        async def over() -> bool:
            answers.append(await stack.get("/nodes"))
            return any(answer.get("brake") for answer in answers) and not answers[-1].get("brake")

        await until(over, what="the brake to let go")

    held = [answer["brake"]["reason"] for answer in answers if answer.get("brake")]
    assert held
    assert set(held) == {"STALLED"}
    assert {node["state"] for answer in answers for node in answer["items"]} == {"READY"}
