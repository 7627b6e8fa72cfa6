"""An operator keeps what a session has made, and the next one of its version reads it."""

from __future__ import annotations

import asyncio

from footlights.agent.v1.agent_pb2 import LaunchReport
from typer.testing import CliRunner

from footlights.cli.app import app
from tests.agent.conftest import OTHER_GPU, Assign, Node, assignment, stopped
from tests.agent.hub import Hub
from tests.launch.plans import script


async def test_a_session_warms_those_after_it(hub: Hub, node: Node, fake: Assign) -> None:
    """Nothing is kept until an operator takes it, and then the next session has it."""
    text = "cat ~/.cache/app/shader || { mkdir -p ~/.cache/app; echo compiled >~/.cache/app/shader; }; exec sleep 60"
    made = script(text)
    made.application, made.cache_paths[:] = "app", ["~/.cache/app"]
    data_dir = ["--data-dir", str(node.config.data_dir)]
    await hub.until(lambda: hub.connections)
    first, second = assignment("first", made), assignment("second", made, device=OTHER_GPU)

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["caches", *arguments, *data_dir])
        return done.stdout + done.stderr

    await hub.want(first)
    await hub.until_state("first", LaunchReport.STARTING)
    assert "No caches are kept." in command("list")
    assert "no session other is on this node" in command("take", "other")
    taken = ""
    async with asyncio.timeout(15):
        while "for app@1.0.0 (generation 1)" not in taken:
            await asyncio.sleep(0.05)
            taken = command("take", "session-of-first")
    assert "app@1.0.0" in command("list")

    await hub.want(second)
    await hub.until_state("second", LaunchReport.STARTING)
    await hub.tail("second", "log", follow=True)
    await hub.until(lambda: hub.lines("log"))
    assert hub.lines("log") == ["compiled"]
    for each in (first, second):
        await hub.want(stopped(each))
    await hub.until(lambda: hub.reports["second"].state in (LaunchReport.EXITED, LaunchReport.FAILED))
    assert command("remove", "app", "1.0.0") == ""
    assert "No caches are kept for app 1.0.0." in command("remove", "app", "1.0.0")
