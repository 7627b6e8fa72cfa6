"""SIGTERM to an agent that is a process of its own: it ends in order, and leaves or ends its launches as configured.

The process is the command ``footlights agent`` itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport

from footlights.agent.config import AgentConfig
from tests.agent.conftest import Applications, Assign
from tests.agent.hub import Hub
from tests.agent.test_survival import started, until_gone

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start(config: AgentConfig, tmp_path: Path) -> AsyncIterator[Start]:
    """Start ``footlights agent`` with more options."""
    running: list[asyncio.subprocess.Process] = []
    gpus = tmp_path / "gpus.json"
    gpus.write_text(json.dumps({"gpus": [{"uuid": "GPU-0"}, {"uuid": "GPU-1"}]}))

    async def run(*options: str, server: str = "") -> asyncio.subprocess.Process:
        arguments = {
            "--data-dir": config.data_dir,
            "--server": server or config.server,
            "--token": config.token,
            "--node": config.node,
            "--first-port": config.first_port,
            "--last-port": config.last_port,
            "--devices": f"fake:{gpus}",
            "--log-format": "json",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "footlights", "agent"),
            *(str(part) for pair in arguments.items() for part in pair),
            *("--launchers", "process", "--launchers", "fake", *options),
            stderr=asyncio.subprocess.PIPE,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stop(process: asyncio.subprocess.Process) -> tuple[int, list[dict[str, object]]]:
    """Send SIGTERM; return the exit status and the log. Everything on standard error must be a line of the log."""
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode is not None
    lines = [json.loads(line) for line in said.decode().splitlines()]
    assert not any("exception" in line for line in lines), said.decode()
    return process.returncode, lines


def closing_code(lines: list[dict[str, object]]) -> object:
    """With which status the link's stream ended: OK where both sides ended it, not where the agent cut it off."""
    return next(line["code"] for line in lines if line["event"] == "link_closed")


async def test_launches_are_left_running(hub: Hub, start: Start, application: Applications) -> None:
    """Exit 0, no traceback, the stream half-closed by the agent; the application goes on, and the next agent has it."""
    agent = await start()
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    pid = await started(hub, "launch-1")
    status, lines = await stop(agent)
    assert status == 0
    assert closing_code(lines) == "OK"
    stopped = next(line for line in lines if line["event"] == "agent_stopped")
    assert stopped["left_running"] == 1
    os.kill(pid, 0)

    agent = await start("--drain-on-stop")
    await hub.until(lambda: len(hub.connections) == 2)
    assert [launch.state for launch in hub.link.hello.launches] == [LaunchReport.READY]
    status, _ = await stop(agent)
    assert status == 0
    await until_gone(pid)


async def test_launches_are_ended_and_told_of_before_the_link(hub: Hub, start: Start, fake: Assign) -> None:
    """With --drain-on-stop every end has reached the control plane when the stream ends."""
    agent = await start("--drain-on-stop")
    await hub.until(lambda: hub.connections)
    for slot, device in enumerate(("GPU-0", "GPU-1")):
        await hub.want(fake(f"launch-{slot}", device=device))
        await hub.until_state(f"launch-{slot}", LaunchReport.READY)
    hub.forgets = True
    status, lines = await stop(agent)
    assert status == 0
    assert closing_code(lines) == "OK"
    assert {report.state for report in hub.reports.values()} == {LaunchReport.EXITED}
    assert {report.reason for report in hub.reports.values()} == {"AGENT_STOPPED"}


async def test_without_a_control_plane(start: Start) -> None:
    """An agent that never had a link ends at once, and as quietly."""
    agent = await start(server="127.0.0.1:9")
    assert agent.stderr is not None
    lines: list[str] = []
    while not any("not_linked" in line for line in lines):
        lines.append((await asyncio.wait_for(agent.stderr.readline(), 30)).decode())
    status, _ = await stop(agent)
    assert status == 0
