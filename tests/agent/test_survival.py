"""What dies and what lives on: agents and shims that are killed, journals that are lost, disks that refuse.

Also the tests of ``orphans`` and ``clock``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, LaunchReport

from footlights.agent.clock import BootClock
from footlights.agent.config import AgentConfig
from footlights.agent.launches.orphans import Orphans
from footlights.agent.launches.record import Record
from footlights.agent.link.cluster import mark
from footlights.agent.main import run
from footlights.errors import FailedPrecondition, InvalidArgument
from footlights.launch.process.launcher import ProcessLauncher
from footlights.lifecycle import Stage
from footlights.linux import procfs
from tests.agent.conftest import Applications, Assign, Machine, Node, stopped
from tests.agent.hub import Hub
from tests.agent.test_processes import pid_of

Spawn = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def spawn(config: AgentConfig, tmp_path: Path) -> AsyncIterator[Spawn]:
    """Start agents as processes of their own."""
    running: list[asyncio.subprocess.Process] = []
    gpus = tmp_path / "gpus.json"
    gpus.write_text(json.dumps({"gpus": [{"uuid": "GPU-0"}, {"uuid": "GPU-1"}]}))

    async def start(**members: object) -> asyncio.subprocess.Process:
        path = tmp_path / "config.json"
        given = {
            "data_dir": str(config.data_dir),
            "server": config.server,
            "token": config.token,
            "node": config.node,
            "first_port": config.first_port,
            "last_port": config.last_port,
            "launchers": ["process", "fake"],
            "devices": f"fake:{gpus}",
            "device_interval_s": 0.2,
            **members,
        }
        path.write_text(json.dumps(given))
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.agent.node_process", str(path))
        running.append(process)
        return process

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.01)


async def started(hub: Hub, launch_id: str) -> int:
    """Wait until a process is ready; return its pid."""
    await hub.until_state(launch_id, LaunchReport.READY)
    request = f"pid-of-{launch_id}-{len(hub.parts)}"
    await hub.tail(launch_id, request)
    await hub.until(lambda: hub.done(request))
    return pid_of(hub, request)


async def test_an_agent_that_is_killed_is_followed_by_one_that_adopts(
    hub: Hub, spawn: Spawn, application: Applications
) -> None:
    """SIGKILL hurts no application; the next agent has it READY in its hello; SIGTERM with drain leaves nothing."""
    first = await spawn()
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    pid = await started(hub, "launch-1")
    first.send_signal(signal.SIGKILL)
    await first.wait()
    os.kill(pid, 0)
    links = len(hub.connections)
    second = await spawn(drain_on_stop=True)
    await hub.until(lambda: len(hub.connections) > links)
    assert [launch.state for launch in hub.link.hello.launches] == [LaunchReport.READY]
    assert await started(hub, "launch-1") == pid
    second.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(second.wait(), 20) == 0
    assert hub.reports["launch-1"].state == LaunchReport.EXITED
    await until_gone(pid)


async def test_a_shim_that_is_killed_ends_its_launch(hub: Hub, node: Node, application: Applications) -> None:
    """Without its shim an application is ended, and the launch is over with a reason."""
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    pid = await started(hub, "launch-1")
    stat = procfs.read_stat(pid)
    assert stat is not None
    os.kill(stat.parent, signal.SIGKILL)
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert "shim" in over.message
    assert not over.HasField("exit_code")
    await until_gone(pid)


async def test_a_launch_whose_record_is_lost_is_ended_before_it_is_lost(
    hub: Hub, node: Node, application: Applications, config: AgentConfig
) -> None:
    """A journal entry that cannot be read is moved aside; LOST is said when nothing of the launch runs any more."""
    await hub.until(lambda: hub.connections)
    wanted = application()
    await hub.want(wanted)
    pid = await started(hub, "launch-1")
    await node.crash()
    (config.data_dir / "journal" / "launch-1.json").write_text("{")
    await hub.want(stopped(wanted))
    links = len(hub.connections)
    await node.start()
    await hub.until(lambda: len(hub.connections) > links)
    assert any("launch-1.json" in note for note in hub.link.hello.facts.notes)
    await hub.until_state("launch-1", LaunchReport.LOST)
    await until_gone(pid)


async def test_orphans_are_ended_after_their_grace_only(
    hub: Hub, node: Node, application: Applications, config: AgentConfig
) -> None:
    """Never on first contact, never one that is known, never another node's."""
    await hub.until(lambda: hub.connections)
    await hub.want(application("known", slot=0))
    await hub.want(application("orphan", slot=1))
    known, orphan = await started(hub, "known"), await started(hub, "orphan")
    now = [100.0]

    class Hand:
        boot_id = "boot"

        def now(self) -> float:
            return now[0]

    launcher = ProcessLauncher(config.data_dir / "launches")

    def orphans(name: str) -> Orphans:
        return Orphans(
            [launcher],
            mark=lambda: mark(hub.cluster_id, name),
            is_known=lambda launch_id: launch_id == "known",
            clock=Hand(),
            grace_s=60,
        )

    elsewhere, here = orphans("node-2"), orphans("node-1")
    for watch in (elsewhere, here):
        await watch.look()
        now[0] += 59
        await watch.look()
        os.kill(orphan, 0)
    now[0] += 1
    await elsewhere.look()
    os.kill(orphan, 0)
    await here.look()
    await until_gone(orphan)
    os.kill(known, 0)


async def test_a_disk_that_refuses_starts_nothing(
    hub: Hub, node: Node, application: Applications, config: AgentConfig
) -> None:
    """Nothing is executed that the journal does not know; the refusal has its reason; later launches work again."""
    await hub.until(lambda: hub.connections)
    blocked = config.data_dir / "journal" / "launch-1.json"
    blocked.mkdir()
    await hub.want(application())
    refused = await hub.until_state("launch-1", LaunchReport.REJECTED)
    assert refused.reason == "JOURNAL_UNAVAILABLE"
    assert not (config.data_dir / "launches" / "launch-1" / "order.json").exists()
    blocked.rmdir()
    await hub.want(application("launch-2"))
    await hub.until_state("launch-2", LaunchReport.READY)


async def test_no_secret_reaches_the_journal(hub: Hub, node: Node, fake: Assign, config: AgentConfig) -> None:
    """Secrets are nowhere on the disk but in the application's own session file."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake(secrets=b'{"nucleus_connection_config": [{"password": "hunter2"}]}'))
    await hub.until_state("launch-1", LaunchReport.READY)
    for path in config.data_dir.rglob("*"):
        if path.is_file() and path.name != "session.json":
            assert b"hunter2" not in path.read_bytes(), path


def test_secrets_are_kept_until_the_start_whatever_is_assigned_in_between() -> None:
    """They are sent once: a new limit comes without them. What runs needs them no more."""
    record = Record.assigned(Assignment(launch_id="launch-1", secrets=b"hush"), BootClock())
    record.reassign(Assignment(launch_id="launch-1", epoch=2))
    assert (record.assignment.epoch, record.take_secrets()) == (2, b"hush")
    record.begin()
    record.reassign(Assignment(launch_id="launch-1", secrets=b"hush"))
    assert record.take_secrets() == b""


async def test_one_agent_a_directory(hub: Hub, config: AgentConfig, spawn: Spawn) -> None:
    """A second agent on the same journal would start everything twice: it refuses, naming the directory."""
    await spawn()
    await hub.until(lambda: hub.connections)
    with pytest.raises(FailedPrecondition, match=str(config.data_dir)):
        await run(config, asyncio.Event())


async def test_devices_that_cannot_be_had_are_named(config: AgentConfig, tmp_path: Path) -> None:
    """A missing file of simulated GPUs is an error of the option that named it."""
    with pytest.raises(InvalidArgument) as caught:
        await run(replace(config, devices=f"fake:{tmp_path / 'none.json'}"), asyncio.Event())
    assert caught.value.field == "devices"


async def test_a_launch_that_was_not_begun_is_not_begun_by_the_next_agent(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """An entry that was journalled before its start ends as FAILED, AGENT_STOPPED: another launch is tried instead."""
    node = Node(config, machine)
    await node.start()
    await hub.until(lambda: hub.connections)
    await hub.want(fake())
    await hub.until_state("launch-1", LaunchReport.READY)
    assert node.agent is not None
    record = node.agent.table.get("launch-1")
    assert record is not None
    await node.crash()
    record.begun = False
    record.marks.clear()
    node.agent.journal.write(record.entry())
    await node.start()
    await hub.until(lambda: len(hub.connections) == 2)
    told = hub.link.hello.launches[0]
    assert (told.state, told.reason) == (LaunchReport.FAILED, "AGENT_STOPPED")
    await node.stop()


async def test_a_start_that_its_agent_did_not_live_to_see_is_undone_and_may_be_tried_again(
    hub: Hub, config: AgentConfig, machine: Machine, application: Applications
) -> None:
    """Begun, not ready, and no traces: whatever of it is on its way all the same is ended before it is REJECTED."""
    node = Node(config, machine)
    await node.start()
    await hub.until(lambda: hub.connections)
    await hub.want(application())
    pid = await started(hub, "launch-1")
    assert node.agent is not None
    record = node.agent.table.get("launch-1")
    assert record is not None
    await node.crash()
    del record.marks[Stage.APPLICATION_READY]
    node.agent.journal.write(record.entry())
    (config.data_dir / "launches" / "launch-1" / "shim.json").unlink()

    await node.start()

    refused = await hub.until_state("launch-1", LaunchReport.REJECTED)
    assert refused.reason == "TRACES_GONE"
    await until_gone(pid)
    await node.stop()


async def test_what_has_ended_is_not_started_for_a_control_plane_that_was_restored(
    hub: Hub, config: AgentConfig, machine: Machine, application: Applications
) -> None:
    """Not by the next agent either: it says how it ended, as its user had wanted."""
    node = Node(config, machine)
    await node.start()
    await hub.until(lambda: hub.connections)
    assignment = application()
    await hub.want(assignment)
    pid = await started(hub, "launch-1")
    await hub.want(stopped(assignment))
    await hub.until_state("launch-1", LaunchReport.EXITED)
    await until_gone(pid)
    await hub.until(lambda: not (config.data_dir / "journal" / "launch-1.json").exists())
    await node.crash()
    hub.reports.clear()

    hub.assignments["launch-1"] = assignment
    await node.start()
    ended = await hub.until_state("launch-1", LaunchReport.EXITED)
    await node.stop()

    assert ended.reason == "STOPPED"
    assert list((config.data_dir / "launches" / "launch-1").glob("order.json")) == []
