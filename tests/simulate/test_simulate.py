"""The whole simulator against a real server: twenty nodes in two processes, and everything that can go wrong.

Also the tests of ``main``, ``worker``, ``settings``, ``demand``, ``node`` and ``fleet``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.stack import Process, Stack, until

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(180)]

PROFILE = """
gpus:
  - {name: NVIDIA L40S, memory_gib: 48, weight: 2}
  - {name: NVIDIA L4, memory_gib: 24}
applications:
  - {name: simulated-small, weight: 3, start_timeout_s: 2}
  - {name: simulated-large, memory_gib: 40, start_timeout_s: 2, idle_s: 3, never_connected_s: 3}
start:
  process_s: 0.02
  cold_s: {median: 0.3, p99: 1}
  warm_s: {median: 0.1, p99: 0.3}
  refused: 0.1
  failed: 0.1
  never_ready: 0.02
sessions:
  length_s: {median: 2, p99: 6}
  completed: 0.2
  crashed: 0.1
  abandoned: 0.1
  stop_s: 0.05
  connect_s: 0.1
  visit_s: {median: 2, p99: 5}
  away_s: 0.5
nodes:
  link_lost: {per_hour: 200, for_s: 0.5}
  agent_restarted: {per_hour: 100, for_s: 0.3}
  machine_gone: {per_hour: 60, for_s: 0.5}
"""


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path / "stack", server_options=("--heartbeat-interval", "1s")) as running:
        yield running


async def simulate(stack: Stack, *options: str, server: str = "") -> Process:
    argv = [sys.executable, "-m", "footlights", "simulate", "--server", server or stack.grpc]
    argv += ["--token-file", str(stack.directory / "server" / "admin.token"), *options]
    return await Process.start("simulate", argv, stack.directory / "simulate.log")


async def test_a_rough_fleet_is_served_without_loss(stack: Stack, tmp_path: Path) -> None:
    """
    Starts fail, links break and machines die under a hundred sessions; every one that was acknowledged is known at the
    end, no slot was held twice, every kind of failure was seen, and nothing of the simulation is left.
    """
    profile, figures = tmp_path / "test.yaml", tmp_path / "figures.json"
    profile.write_text(PROFILE)
    options = ("--nodes", "20", "--gpus", "4", "--processes", "2", "--profile", str(profile), "--report", str(figures))

    running = await simulate(stack, *options, "--sessions-per-s", "12", "--duration", "10s", "--seed", "3")
    status = await asyncio.wait_for(running.process.wait(), 150)

    assert status == 0, running.tail()
    found: dict[str, Any] = json.loads(figures.read_text())
    assert found["sound"], found
    assert found["audited"]
    assert found["acknowledged"] == found["asked"] > 80
    assert found["errors"] == {}
    assert found["launches_left"] == 0
    assert sum(found["states"].values()) == found["acknowledged"]
    assert set(found["states"]) <= {"TERMINATED", "FAILED"}
    assert found["refused"]["FOREIGN_PROCESS"] > 0
    assert {"START_ERROR", "EXITED_EARLY"} <= set(found["failed"])
    assert {"USER_TERMINATED", "COMPLETED"} <= set(found["ended"])
    assert all(found["mishaps"].values()), found["mishaps"]
    assert found["links_opened"] > 20
    assert found["times"]["create_s"]["count"] == found["acknowledged"]
    assert found["times"]["ready_s"]["p50_s"] > 0.05
    assert "No acknowledged session was lost" in running.tail()
    assert (await stack.get("/nodes"))["items"] == []
    tokens = (await stack.get("/tokens"))["items"]
    assert all(token["revoked_time"] for token in tokens if token["role"] == "NODE")


async def test_it_stops_in_order_when_it_is_interrupted(stack: Stack, tmp_path: Path) -> None:
    """
    Ctrl-C ends an endless simulation with its report: sessions are ended, nodes forgotten, no process is left.
    """
    figures = tmp_path / "figures.json"
    options = ("--nodes", "4", "--gpus", "2", "--sessions-per-s", "4", "--report", str(figures))
    running = await simulate(stack, *options)

    async def some() -> bool:
        return len((await stack.get("/stream"))["items"]) >= 3

    await until(some, timeout_s=40, what="sessions are asked for")
    children = _children(running)
    running.kill(signal.SIGINT)
    status = await asyncio.wait_for(running.process.wait(), 60)

    assert status == 0, running.tail()
    assert json.loads(figures.read_text())["acknowledged"] >= 3
    assert (await stack.get("/stream"))["items"] == []
    assert (await stack.get("/nodes"))["items"] == []
    assert children
    assert not any(_runs(child) for child in children)


async def test_nodes_end_with_the_process_that_began_them(stack: Stack) -> None:
    """
    A simulation that is killed leaves no process behind: its nodes lose their links.
    """
    running = await simulate(stack, "--nodes", "3")

    async def linked() -> bool:
        items = (await stack.get("/nodes"))["items"]
        return len(items) == 3 and all(node["state"] == "READY" for node in items)

    await until(linked, timeout_s=40, what="the nodes are linked")
    children = _children(running)
    running.kill()

    async def gone() -> bool:
        return not any(_runs(child) for child in children)

    assert children
    await until(gone, what="the processes have ended")


async def test_a_session_of_somebody_else_is_not_placed_on_simulated_nodes(stack: Stack) -> None:
    """
    Simulated nodes next to real ones take no GPU's session: they offer the fake launcher on fake devices only.
    """
    running = await simulate(stack, "--nodes", "2")

    async def linked() -> bool:
        return len((await stack.get("/nodes"))["items"]) == 2

    await until(linked, timeout_s=40, what="the nodes are linked")
    version = {"version": "1.0.0", "command": ["/bin/true"], "needs": {"gpu": True}}
    await stack.put("/applications/real", {"application": {}, "versions": [version], "releases": {"default": "1.0.0"}})
    session = await stack.post("/stream", {"application": "real"})

    assert session["state"] == "PENDING"
    assert session["queue"]["set_aside"]
    assert session["queue"]["reasons"][1:] == ["NO_LAUNCHER: 2 nodes"]
    running.kill(signal.SIGINT)
    await asyncio.wait_for(running.process.wait(), 60)


async def test_a_token_that_may_not_is_refused_before_anything_begins(stack: Stack) -> None:
    """
    A developer's token cannot make nodes: one line says so, and nothing is left.
    """
    secret = (await stack.post("/tokens", {"role": "DEVELOPER", "subject": "dev"}))["secret"]
    argv = [sys.executable, "-m", "footlights", "simulate", "--server", stack.grpc, "--nodes", "2"]
    running = await Process.start("denied", argv, stack.directory / "denied.log", {"FOOTLIGHTS_TOKEN": secret})

    assert await asyncio.wait_for(running.process.wait(), 30) == 4
    assert "error: " in running.tail()


def _children(of: Process) -> list[str]:
    return Path(f"/proc/{of.pid}/task/{of.pid}/children").read_text().split()


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True
