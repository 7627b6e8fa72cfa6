"""The agent over a real link, with simulated applications and devices: what it does with what it is told.

Also the tests of ``main``, ``assembly``, ``launches``, ``record``, ``runner``, ``observer`` and
``admission``.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport
from footlights.agent.v1.recipe_pb2 import Needs
from footlights.v1.application_pb2 import Container, FakeBehavior, Version

from footlights.agent.config import AgentConfig
from footlights.agent.facts import node_facts
from footlights.launch.fake import FakeLauncher
from footlights.launch.launcher import LaunchError, LaunchPlan
from tests.agent.conftest import GPU, OTHER_GPU, Assign, Machine, Node, assignment, stopped
from tests.agent.hub import Hub


async def test_hello_says_everything(hub: Hub, node: Node) -> None:
    """The first message names the node, its incarnation, its facts and every device with its slots."""
    await hub.until(lambda: hub.connections)
    hello = hub.link.hello
    assert hello.node == "node-1"
    assert hello.incarnation
    assert list(hello.facts.launchers) == ["process", "fake"]
    isolation = {launcher.name: launcher.isolation for launcher in hello.facts.launcher_facts}
    assert isolation == {"process": Needs.NONE, "fake": Needs.CONTAINER}
    assert hello.facts.port_blocks == 10
    assert [(device.uuid, device.slots) for device in hello.inventory.devices] == [(GPU, 2), (OTHER_GPU, 2)]
    assert list(hello.launches) == []


class Unreadable(FakeLauncher):
    """A launcher that names a file whose name is no text."""

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        raise LaunchError("START_ERROR", f"cannot read {NO_TEXT}")


NO_TEXT = os.fsdecode(b"\xff.usd")


async def test_bytes_that_are_no_text_break_no_link(hub: Hub, config: AgentConfig, machine: Machine) -> None:
    """Names of files and processes may have them: they are told as escapes, in notes, devices and ends of launches."""
    launcher = Unreadable(config.data_dir / "launches")
    async with Node(config, machine, launchers={"fake": launcher}):
        await hub.until(lambda: hub.connections)
        machine.change(GPU, name=NO_TEXT)
        await hub.until(lambda: hub.inventories and hub.inventories[-1].devices[0].name == "\\udcff.usd")
        await hub.want(assignment("launch-1", Version(version="1.0.0", fake=FakeBehavior())))
        failed = await hub.until_state("launch-1", LaunchReport.FAILED)

    assert failed.message == "cannot read \\udcff.usd"
    facts = node_facts(config, driver_version="", launchers=["fake"], notes=[NO_TEXT], port_blocks=1)
    assert facts.notes == ["\\udcff.usd"]


async def test_a_launch_runs_and_ends(hub: Hub, node: Node, fake: Assign) -> None:
    """Assigned, it becomes ready with its ports; told to stop, it is gone, and once forgotten it is unknown."""
    await hub.until(lambda: hub.connections)
    wanted = fake(behavior={"viewers": 1})
    await hub.want(wanted)
    ready = await hub.until_state("launch-1", LaunchReport.READY)
    assert len({ready.signal_port, ready.media_port, ready.http_port}) == 3
    assert {step.stage for step in ready.steps} >= {"PROCESS_UP", "APPLICATION_READY"}
    assert ready.epoch == 1
    await hub.until(lambda: hub.reports["launch-1"].viewers == 1 and hub.reports["launch-1"].ever_connected)
    await hub.want(stopped(wanted))
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert over.exit_code == 0
    assert node.agent is not None
    await asyncio.wait_for(node.agent.table.none_left.wait(), 10)
    assert hub.states("launch-1")[-3:] == ["READY", "STOPPING", "EXITED"]


async def test_a_launch_that_must_be_isolated_more_is_not_started(hub: Hub, node: Node) -> None:
    """Also where a control plane of the release before placed it, which does not look at isolation."""
    await hub.until(lambda: hub.connections)
    version = Version(version="1.0.0", command=["/bin/true"])

    await hub.want(assignment("launch-1", version, needs={"isolation": Needs.PROCESS}))
    refused = await hub.until_state("launch-1", LaunchReport.REJECTED)

    assert refused.reason == "ISOLATION"
    assert "the process launcher gives NONE" in refused.message


async def test_states_only_grow(hub: Hub, node: Node, fake: Assign) -> None:
    """Whatever is coalesced on the way, no report goes back."""
    await hub.until(lambda: hub.connections)
    assigned = [fake(f"launch-{n}", device=GPU, slot=0) for n in range(4)]
    for one in assigned:
        await hub.want(one)
        await hub.until_state(one.launch_id, LaunchReport.READY)
        await hub.want(stopped(one))
        await hub.until_state(one.launch_id, LaunchReport.EXITED)
    for one in assigned:
        ranks = [LaunchReport.State.Value(name) for name in hub.states(one.launch_id)]
        assert ranks == sorted(ranks)


async def test_a_crash_is_seen_with_its_status_and_last_lines(hub: Hub, node: Node, fake: Assign) -> None:
    """After ready an exit is EXITED with its status; before ready it is FAILED, EXITED_EARLY."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake(behavior={"exit_after": 0.5, "exit_code": 7, "log_lines": ["one", "two"]}))
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert over.exit_code == 7
    assert over.reason == ""
    assert list(over.log_tail) == ["one", "two"]
    await hub.want(fake("launch-2", behavior={"exit_after": 0.2, "exit_code": 3, "never_ready": True}))
    failed = await hub.until_state("launch-2", LaunchReport.FAILED)
    assert (failed.reason, failed.exit_code) == ("EXITED_EARLY", 3)


async def test_an_application_says_why_it_failed(hub: Hub, node: Node, fake: Assign) -> None:
    """A FOOTLIGHTS_FAILURE line is the report's reason and message."""
    await hub.until(lambda: hub.connections)
    line = 'FOOTLIGHTS_FAILURE: {"reason": "STAGE_NOT_FOUND", "message": "no such stage: /x.usd"}'
    behavior = {"exit_after": 0.2, "exit_code": 3, "never_ready": True, "log_lines": ["noise", line]}
    await hub.want(fake(behavior=behavior))
    failed = await hub.until_state("launch-1", LaunchReport.FAILED)
    assert (failed.reason, failed.message) == ("STAGE_NOT_FOUND", "no such stage: /x.usd")


async def test_a_start_that_takes_too_long_ends(hub: Hub, node: Node, fake: Assign) -> None:
    """Not ready within its start timeout: FAILED, START_TIMEOUT."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake(behavior={"never_ready": True}, limits={"start_timeout": 0.6}))
    failed = await hub.until_state("launch-1", LaunchReport.FAILED)
    assert failed.reason == "START_TIMEOUT"
    assert "0.6 s" in failed.message


class SlowPull(FakeLauncher):
    """Pulls until it is told that the image is here."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.here = asyncio.Event()

    async def prepare(self, plan: LaunchPlan) -> None:
        await self.here.wait()


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_pull_is_said_and_is_no_part_of_the_start(
    hub: Hub, config: AgentConfig, machine: Machine, arrives: bool
) -> None:
    """The start's time begins once the image is here; a pull that takes too long is the node's failure."""
    config = replace(config, launchers=("container",), pull_timeout_s=3600 if arrives else 0.3)
    slow = SlowPull(config.data_dir / "launches")
    node = Node(config, machine, launchers={"container": slow})
    version = Version(version="1.0.0", container=Container(image="localhost/large:1"))
    async with node:
        await pulls(hub, version, slow if arrives else None)


async def pulls(hub: Hub, version: Version, slow: SlowPull | None) -> None:
    await hub.until(lambda: hub.connections)
    await hub.want(assignment("launch-1", version, limits={"start_timeout": 0.4}))
    pulling = await hub.until_state("launch-1", LaunchReport.STARTING)

    assert "pulls image 'localhost/large:1'" in pulling.message
    assert [step.stage for step in pulling.steps] == ["PULLING"]
    if slow is not None:
        await hub.until(lambda: hub.reports["launch-1"].steps[0].age.ToMilliseconds() > 800)
        assert hub.reports["launch-1"].state == LaunchReport.STARTING
        assert not hub.reports["launch-1"].HasField("starting_for")
        slow.here.set()
        over = await hub.until_state("launch-1", LaunchReport.FAILED)
        assert (over.reason, over.message[:59]) == (
            "START_TIMEOUT",
            "The application was not ready within 0.4 s of its start: GE",
        )
        assert 350 < over.starting_for.ToMilliseconds() < over.steps[0].age.ToMilliseconds() - 700
    else:
        over = await hub.until_state("launch-1", LaunchReport.REJECTED)
        assert over.reason == "PULL_TIMEOUT"
        assert over.message.startswith("The image was not pulled within 0.3 s (pull_timeout of the node).")


async def test_stopping_while_starting(hub: Hub, node: Node, fake: Assign) -> None:
    """A launch that is not ready yet can be ended at once."""
    await hub.until(lambda: hub.connections)
    wanted = fake(behavior={"never_ready": True})
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.STARTING)
    await hub.want(stopped(wanted))
    await hub.until_state("launch-1", LaunchReport.EXITED)


async def test_a_launcher_that_cannot_start_it(hub: Hub, node: Node, fake: Assign) -> None:
    """What the launcher says is what is reported."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake(behavior={"start_error": "no such image"}))
    failed = await hub.until_state("launch-1", LaunchReport.FAILED)
    assert (failed.reason, failed.message) == ("START_ERROR", "no such image")


async def test_refusals_are_rejections_with_reasons(hub: Hub, node: Node, machine: Machine, fake: Assign) -> None:
    """Each thing that this node or device lacks is REJECTED with its own reason, so that another is tried."""
    await hub.until(lambda: hub.connections)
    machine.change(OTHER_GPU, memory_used_bytes=47 << 30)
    cases = {
        "a": (fake("a", device="GPU-none"), "MISSING"),
        "b": (fake("b", slot=7), "NO_SLOT"),
        "c": (fake("c", device=OTHER_GPU, needs={"min_memory_bytes": 8 << 30}), "MEMORY"),
        "d": (fake("d", behavior={"rejected_devices": [GPU]}), "FOREIGN_PROCESS"),
    }
    for launch_id, (wanted, reason) in cases.items():
        await hub.want(wanted)
        report = await hub.until_state(launch_id, LaunchReport.REJECTED)
        assert report.reason == reason, report


async def test_a_slot_has_one_launch(hub: Hub, node: Node, fake: Assign) -> None:
    """A second launch for a slot is refused whatever the control plane thinks; the other slot is free."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake("a", slot=0))
    await hub.want(fake("b", slot=0))
    await hub.want(fake("c", slot=1))
    refused = await hub.until_state("b", LaunchReport.REJECTED)
    assert refused.reason == "SLOT_HELD"
    await hub.until_state("c", LaunchReport.READY)
    await hub.until_state("a", LaunchReport.READY)


async def test_what_is_not_in_the_full_set_is_ended(hub: Hub, node: Node, fake: Assign) -> None:
    """After a new link the full set rules: what it lacks is ended, what it has goes on."""
    await hub.until(lambda: hub.connections)
    await hub.want(fake("keep", slot=0))
    await hub.want(fake("drop", slot=1))
    await hub.until_state("keep", LaunchReport.READY)
    await hub.until_state("drop", LaunchReport.READY)
    del hub.assignments["drop"]
    await hub.hang_up()
    over = await hub.until_state("drop", LaunchReport.EXITED)
    assert over.reason == "UNASSIGNED"
    assert hub.reports["keep"].state == LaunchReport.READY
    assert {launch.launch_id for launch in hub.link.hello.launches} == {"keep", "drop"}


async def test_an_older_epoch_is_refused(hub: Hub, node: Node, fake: Assign) -> None:
    """A command of an older lease changes nothing; one of a newer lease is obeyed."""
    await hub.until(lambda: hub.connections)
    wanted = fake(epoch=5)
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(stopped(wanted, epoch=4))
    beats = hub.link.heartbeats
    await hub.until(lambda: hub.link.heartbeats >= beats + 2)
    assert hub.reports["launch-1"].state == LaunchReport.READY
    await hub.want(stopped(wanted, epoch=6))
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert over.epoch == 6


async def test_an_unknown_launch_that_should_stop_is_lost(hub: Hub, node: Node, fake: Assign) -> None:
    """Only an agent that does not know a launch says LOST; and it is not begun after that."""
    await hub.until(lambda: hub.connections)
    await hub.want(stopped(fake("gone")))
    await hub.until_state("gone", LaunchReport.LOST)
    count = len(hub.history)
    await hub.want(fake("gone"))
    await hub.until(lambda: len(hub.history) > count)
    assert hub.states("gone") == ["LOST"]


async def test_a_forgotten_launch_is_not_begun_again(hub: Hub, node: Node, fake: Assign) -> None:
    """An assignment that comes late, after the end was recorded, starts nothing."""
    await hub.until(lambda: hub.connections)
    wanted = fake()
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(stopped(wanted))
    await hub.until_state("launch-1", LaunchReport.EXITED)
    assert node.agent is not None
    await asyncio.wait_for(node.agent.table.none_left.wait(), 10)
    count = len(hub.history)
    await hub.want(wanted)
    await hub.until(lambda: len(hub.history) > count)
    assert hub.states("launch-1")[-1] == "EXITED"
    assert node.agent.table.alive == []


async def test_limits_that_run_out_are_told_at_once(hub: Hub, node: Node, fake: Assign) -> None:
    """The control plane hears that a timer has run out without waiting for a heartbeat."""
    hub.heartbeat_s = 60.0
    await hub.until(lambda: hub.connections)
    await hub.want(fake(behavior={"viewers": 0}, limits={"never_connected_timeout": 1.0}))
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.until(lambda: hub.reports["launch-1"].ready_for.ToMilliseconds() >= 1000, timeout=5)
    assert hub.link.heartbeats == 0
    assert not hub.reports["launch-1"].ever_connected
    assert hub.reports["launch-1"].HasField("idle_for")


async def test_what_will_not_stop_is_killed(hub: Hub, node: Node, fake: Assign) -> None:
    """After its grace a launch is killed, and its status says by what."""
    await hub.until(lambda: hub.connections)
    wanted = fake(behavior={"ignore_stop": True})
    wanted.limits.stop_grace_period.FromMilliseconds(300)
    await hub.want(wanted)
    await hub.until_state("launch-1", LaunchReport.READY)
    await hub.want(stopped(wanted))
    over = await hub.until_state("launch-1", LaunchReport.EXITED)
    assert over.exit_code == -9
    assert over.reason == "STOPPED"
    assert over.message == ("The application did not end within 0.3 s of SIGTERM (stop_grace_period), and was killed.")
