"""Two real agents with one identity, and one agent that is killed and started again: told apart."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path

from tests.system.stack import JSON, Process, Stack, until


async def test_a_cloned_machine_is_refused_and_hurts_no_session(stack: Stack) -> None:
    """Both agents log it, the node shows it, and the session runs on at the first."""
    first = await stack.start_agent()
    await stack.register_fake()
    made = await stack.post("/stream", {"application": "fake"})
    ready = await stack.session_in(made["session_id"], "READY")
    shutil.copy(stack.directory / "node-a.token", stack.directory / "clone.token")
    argv = [sys.executable, "-m", "footlights", "agent", "--node", "node-a", "--server", stack.grpc]
    argv += ["--token-file", str(stack.directory / "clone.token"), "--data-dir", str(stack.directory / "clone")]
    argv += ["--launchers", "fake", "--software-devices", "2"]
    clone = await Process.start("clone", argv, stack.directory / "clone.log")
    try:

        async def notices() -> list[JSON]:
            found: list[JSON] = (await stack.get("/nodes/node-a")).get("notices", [])
            return found

        async def told() -> bool:
            return "DUPLICATE_IDENTITY" in first.tail(1000) and "Another agent is linked as node-a" in clone.tail(1000)

        [notice] = await until(notices, what="the node's notice")
        await until(told, what="both agents being told")
        session = await stack.get(f"/stream/{made['session_id']}")
        node = await stack.get("/nodes/node-a")
    finally:
        await clone.stop()

    assert notice["reason"] == "DUPLICATE_IDENTITY"
    assert (session["state"], session["revision"]) == ("READY", ready["revision"])
    assert node["epoch"] == "1"


async def test_an_agent_that_was_killed_and_started_again_is_no_duplicate(tmp_path: Path) -> None:
    """It is let in at once: a silent link would be waited for for 12 s. Nobody is warned."""
    async with Stack(tmp_path / "stack", server_options=("--heartbeat-interval", "10s")) as stack:
        first = await stack.start_agent()
        first.kill()
        await asyncio.wait_for(first.process.wait(), 10)
        began = time.monotonic()
        await stack.start_agent(wait=False)

        async def linked() -> bool:
            return bool((await stack.get("/nodes/node-a"))["epoch"] == "2")

        await until(linked, what="the second link")
        took = time.monotonic() - began
        node = await stack.get("/nodes/node-a")

    assert took < 11
    assert not node.get("notices")
