"""An exception that is none of ours, in each loop of the agent: it is logged, and every other launch and loop goes on.

Also covers the agent's ``table`` and ``protocol``, which every launch passes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import Assignment, Assignments, Forget, Hello, LaunchReport, LinkResponse, Welcome
from structlog.testing import capture_logs

from footlights.agent.clock import BootClock
from footlights.agent.config import AgentConfig
from footlights.agent.launches.journal import Journal, JournalEntry
from footlights.agent.launches.orphans import Orphans
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.link.link import Link
from footlights.agent.link.log_tails import LogTails
from footlights.agent.link.outbox import Outbox
from footlights.agent.main import Agent
from footlights.devices.fake import FakeDevices
from footlights.devices.reading import DeviceInventory
from footlights.launch.fake import FakeLauncher
from footlights.launch.launcher import Launcher, LaunchPlan, LogPart, Status
from footlights.launch.probes.readiness import ViewerPresence
from footlights.supervision import Supervisor
from tests.agent.conftest import GPU, OTHER_GPU, PACE, Applications, Assign, Machine, Node, stopped
from tests.agent.hub import Hub
from tests.launch.plans import command, make_plan

BAD = "bad"


class Surprise(Exception):
    """Nothing of Footlights expects it."""


class SurprisingLauncher(FakeLauncher):
    """A fake launcher one of whose methods raises for the launch ``bad``."""

    def __init__(self, root: Path, method: str) -> None:
        super().__init__(root)
        self._method = method

    def _surprise(self, method: str, launch_id: str = BAD) -> None:
        if method == self._method and launch_id == BAD:
            raise Surprise(method)

    async def unavailable(self) -> str:
        self._surprise("unavailable")
        return ""

    async def prepare(self, plan: LaunchPlan) -> None:
        self._surprise("prepare", plan.launch_id)
        await super().prepare(plan)

    async def start(self, plan: LaunchPlan, secrets: bytes) -> None:
        self._surprise("start", plan.launch_id)
        await super().start(plan, secrets)

    async def status(self, plan: LaunchPlan) -> Status:
        self._surprise("status", plan.launch_id)
        return await super().status(plan)

    async def stop(self, plan: LaunchPlan, *, kill: bool = False) -> None:
        self._surprise("stop", plan.launch_id)
        await super().stop(plan, kill=kill)

    async def log(self, plan: LaunchPlan, *, tail_lines: int = 0, cursor: str = "") -> LogPart:
        self._surprise("log", plan.launch_id)
        return await super().log(plan, tail_lines=tail_lines, cursor=cursor)

    async def discard(self, plan: LaunchPlan) -> None:
        self._surprise("discard", plan.launch_id)
        await super().discard(plan)

    async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
        self._surprise("find")
        return await super().find(cluster_id)

    async def close(self) -> None:
        self._surprise("close")
        await super().close()


class SurprisingProbes(ApplicationProbes):
    """Probes that break their word, and raise for the launch ``bad``."""

    async def why_unready(self, launcher: Launcher, plan: LaunchPlan, secret: str = "", timeout_s: float = 3.0) -> str:
        if plan.launch_id == BAD:
            raise Surprise("ready")
        return await super().why_unready(launcher, plan, secret, timeout_s)

    async def presence(self, plan: LaunchPlan, secret: str = "", pids: frozenset[int] = frozenset()) -> ViewerPresence:
        raise Surprise("presence")

    async def left_over(self, plan: LaunchPlan, pids: frozenset[int]) -> str:
        if plan.launch_id == BAD:
            raise Surprise("left_over")
        return await super().left_over(plan, pids)


class SurprisingDevices(FakeDevices):
    """Devices whose readings make no sense once they are told to."""

    broken = False

    def read(self) -> DeviceInventory:
        found = super().read()
        if self.broken:
            return replace(found, devices=tuple(replace(one, index="first") for one in found.devices))  # type: ignore[arg-type]
        return found


class Running:
    """An agent that runs, and is ended however its test ends."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.stop = asyncio.Event()

    async def __aenter__(self) -> Agent:
        self._task = asyncio.create_task(self.agent.run(self.stop))
        return self.agent

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await asyncio.wait_for(self._task, 30)


def agent_with(
    config: AgentConfig, machine: Machine, *, method: str = "", probes: ApplicationProbes | None = None
) -> Running:
    config = replace(config, launchers=("fake",))
    return Running(
        Agent(
            config,
            devices=FakeDevices(lambda: machine.state),
            launchers={"fake": SurprisingLauncher(config.data_dir / "launches", method)},
            probes=probes or ApplicationProbes(),
            pace=PACE,
        )
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def one_whole_life(hub: Hub, fake: Assign, launch_id: str = "good") -> None:
    """A launch on the other device starts, is ready, and is ended."""
    wanted = fake(launch_id, device=OTHER_GPU)
    await hub.want(wanted)
    await hub.until_state(launch_id, LaunchReport.READY)
    await hub.want(stopped(wanted))
    await hub.until_state(launch_id, LaunchReport.EXITED)


@pytest.mark.parametrize("method", ["prepare", "start", "status", "stop", "log", "discard", "find", "close"])
async def test_a_launcher_that_raises_costs_no_other_launch(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign, method: str
) -> None:
    """Whatever it raises at for one launch, another one lives and ends as ever, and the agent stops in order."""
    async with agent_with(config, machine, method=method) as agent:
        await hub.until(lambda: hub.connections)
        await hub.want(fake(BAD, device=GPU))
        await hub.until(lambda: BAD in hub.reports)
        await one_whole_life(hub, fake)
        await hub.want(stopped(fake(BAD, device=GPU)))
        beats = hub.link.heartbeats
        await hub.until(lambda: hub.link.heartbeats > beats)
        assert len(hub.connections) == 1
        assert agent.supervisor.failing == []


async def test_what_a_session_left_is_removed_before_its_launch_is_forgotten(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """Until it is gone, its entry stays in the journal and a note says why; the next agent removes it."""
    entry = config.data_dir / "journal" / f"{BAD}.json"
    async with agent_with(config, machine, method="discard"):
        await hub.until(lambda: hub.connections)
        await hub.want(fake(BAD, device=GPU))
        await hub.until_state(BAD, LaunchReport.READY)
        await hub.want(stopped(fake(BAD, device=GPU)))
        await hub.until_state(BAD, LaunchReport.EXITED)
        await hub.say(LinkResponse(forget=Forget(launch_id=BAD)))
        await hub.until(lambda: any(f"the state of launch {BAD}" in note for note in hub.inventories[-1].facts.notes))
        assert entry.exists()

    async with agent_with(config, machine):
        await hub.until(lambda: BAD in [launch.launch_id for launch in hub.link.hello.launches])
        await hub.say(LinkResponse(forget=Forget(launch_id=BAD)))
        await until(lambda: not entry.exists())


async def test_a_launcher_that_is_no_longer_enabled_ends_what_it_started(
    hub: Hub, node: Node, application: Applications
) -> None:
    """The next agent offers it no more, and still asks it, ends by it, and has it remove what is left."""
    assigned = application("kept")
    await hub.until(lambda: hub.connections)
    await hub.want(assigned)
    await hub.until_state("kept", LaunchReport.READY)
    await node.crash()
    links = len(hub.connections)

    node.config = replace(node.config, launchers=("fake",))
    agent = await node.start()
    await hub.until(lambda: len(hub.connections) > links)
    assert list(hub.link.hello.facts.launchers) == ["fake"]
    assert any("the launcher process is no longer enabled" in note for note in hub.link.hello.facts.notes)
    assert hub.link.hello.launches[0].state == LaunchReport.READY
    await hub.want(application("new", device=OTHER_GPU))
    assert (await hub.until_state("new", LaunchReport.REJECTED)).reason == "NO_LAUNCHER"

    await hub.want(stopped(assigned))
    ended = await hub.until_state("kept", LaunchReport.EXITED)
    assert ended.exit_code == -signal.SIGTERM
    await hub.say(LinkResponse(forget=Forget(launch_id="kept")))
    await until(lambda: not agent.table.knows("kept"))
    await until(lambda: not (node.config.data_dir / "journal" / "kept.json").exists())
    assert not (node.config.data_dir / "launches" / "kept" / "session.json").exists()


async def test_what_a_launcher_left_that_cannot_be_opened_is_told(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """It is not taken for removed."""
    async with agent_with(config, machine, method="discard"):
        await hub.until(lambda: hub.connections)
        await hub.want(fake(BAD, behavior={"exit_after": 0.01}))
        await hub.until_state(BAD, LaunchReport.EXITED)

    links = len(hub.connections)
    agent = Agent(
        config, devices=FakeDevices(lambda: machine.state), launchers={}, probes=ApplicationProbes(), pace=PACE
    )
    async with Running(agent):
        await hub.until(lambda: len(hub.connections) > links)
        await hub.say(LinkResponse(forget=Forget(launch_id=BAD)))
        await hub.until(lambda: any("has no launcher fake any more" in note for note in agent._description.notes))
    assert (config.data_dir / "journal" / f"{BAD}.json").exists()


async def test_probes_that_raise_are_logged_and_made_again(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """A launch whose readiness cannot be asked stays starting, with the traceback in the log; its neighbour lives."""
    with capture_logs() as logs:
        async with agent_with(config, machine, probes=SurprisingProbes()) as agent:
            await hub.until(lambda: hub.connections)
            bad = fake(BAD, device=GPU)
            await hub.want(bad)
            await one_whole_life(hub, fake)
            await until(
                lambda: sum(line.get("launch_id") == BAD and line["loop"] == "probe" for line in skipped(logs)) >= 2
            )
            assert hub.reports[BAD].state == LaunchReport.STARTING
            await hub.want(stopped(bad))
            await until(lambda: any(line["event"] == "loop_failed" for line in logs))
            assert agent.table.knows(BAD)
    assert any(line["event"] == "loop_failed" and line["loop"] == f"launch {BAD}" and line["exc_info"] for line in logs)


def skipped(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] == "item_skipped"]


async def test_devices_that_cannot_be_told_cost_no_launch(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """The device loop fails and is tried again; launches are told of and ended meanwhile."""
    devices = SurprisingDevices(lambda: machine.state)
    agent = Agent(
        replace(config, launchers=("fake",)),
        devices=devices,
        launchers={"fake": FakeLauncher(config.data_dir / "launches")},
        probes=ApplicationProbes(),
        pace=PACE,
    )
    with capture_logs() as logs:
        async with Running(agent):
            await hub.until(lambda: hub.connections)
            wanted = fake()
            await hub.want(wanted)
            await hub.until_state("launch-1", LaunchReport.READY)
            devices.broken = True
            await until(lambda: any(line["event"] == "loop_failed" for line in logs))
            await hub.want(stopped(wanted))
            await hub.until_state("launch-1", LaunchReport.EXITED)
            devices.broken = False
            machine.change(GPU, memory_used_bytes=20 << 30)
            await hub.until(lambda: hub.inventories[-1].devices[0].memory_free_bytes < 30 << 30)
    failed = next(line for line in logs if line["event"] == "loop_failed")
    assert failed["loop"] == "devices"
    assert isinstance(failed["exc_info"], Exception)


async def test_a_launcher_that_cannot_be_checked_is_not_offered(
    hub: Hub, config: AgentConfig, machine: Machine
) -> None:
    """The node says so, and is linked."""
    async with agent_with(config, machine, method="unavailable"):
        await hub.until(lambda: hub.connections)
        facts = hub.link.hello.facts
        assert list(facts.launchers) == []
        assert any("launcher fake is not offered: it cannot be checked: unavailable" in note for note in facts.notes)


async def test_an_entry_that_cannot_be_restored_is_skipped(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """A journal entry that says what no release writes keeps no agent from starting, and no launch from running."""
    journal = Journal(config.data_dir / "journal")
    journal.restore()
    plan = make_plan(command("true"), config.data_dir / "launches", launch_id=BAD)
    journal.write(JournalEntry(Assignment(launch_id=BAD), plan, begun=True, ending=("NONSENSE", "", "")))
    with capture_logs() as logs:
        async with agent_with(config, machine):
            await hub.until(lambda: hub.connections)
            assert list(hub.link.hello.launches) == []
            await one_whole_life(hub, fake)
    assert [line["launch_id"] for line in skipped(logs)] == [BAD]


async def test_a_message_that_cannot_be_taken_in_costs_the_link_nothing(
    hub: Hub, config: AgentConfig, machine: Machine, fake: Assign
) -> None:
    """An assignment without a launch id, in a full set and alone, is passed over; its neighbours are taken in."""
    async with agent_with(config, machine):
        await hub.until(lambda: hub.connections)
        nameless = fake("", device=GPU)
        good = fake("good", device=OTHER_GPU)
        await hub.say(LinkResponse(assignment=nameless))
        await hub.say(LinkResponse(assignments=Assignments(assignments=[nameless, good])))
        await hub.until_state("good", LaunchReport.READY)
        assert len(hub.connections) == 1
        await hub.want(stopped(good))
        await hub.until_state("good", LaunchReport.EXITED)


async def test_a_link_that_fails_by_a_fault_of_ours_is_dialled_again(hub: Hub, config: AgentConfig) -> None:
    """A hello that cannot be made is logged with its traceback, and made again."""

    class Stammering:
        said = 0

        def hello(self) -> Hello:
            self.said += 1
            if self.said == 1:
                raise Surprise("hello")
            return Hello(node="node-1", incarnation="i")

        def welcomed(self, welcome: Welcome) -> None:
            pass

        def received(self, message: LinkResponse) -> None:
            pass

        def reports(self) -> list[LaunchReport]:
            return []

        def left_out(self) -> list[str]:
            return []

    supervisor = Supervisor()
    outbox = Outbox(lambda _: None, supervisor)
    link = Link(config, Stammering(), outbox, LogTails(outbox), pace=PACE)
    with capture_logs() as logs:
        task = asyncio.create_task(supervisor.supervise("link", link.hold, every_s=0))
        await hub.until(lambda: hub.connections)
        await link.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert any(line["event"] == "loop_failed" and isinstance(line["exc_info"], Surprise) for line in logs)


async def test_a_report_that_cannot_be_made_holds_up_no_other() -> None:
    """The outbox logs it and sends the next one."""

    def report(launch_id: str) -> LaunchReport:
        if launch_id == BAD:
            raise Surprise(launch_id)
        return LaunchReport(launch_id=launch_id)

    outbox = Outbox(report, Supervisor())
    outbox.changed(BAD)
    outbox.changed("good")
    message = await outbox.next(1.0)
    assert message is not None
    assert message.report.launch_id == "good"


async def test_a_launcher_that_cannot_look_for_orphans_hides_no_others(tmp_path: Path) -> None:
    """What the other launchers find is found."""
    ended: list[str] = []

    class Finding(FakeLauncher):
        async def find(self, cluster_id: str) -> dict[str, frozenset[int]]:
            return {} if ended else {"orphan": frozenset({1})}

        async def end_orphan(self, cluster_id: str, launch_id: str) -> None:
            ended.append(launch_id)

    orphans = Orphans(
        [SurprisingLauncher(tmp_path, "find"), Finding(tmp_path)],
        mark=lambda: "c/n",
        is_known=lambda _: False,
        clock=BootClock(),
        grace_s=0,
    )
    await orphans.look()
    await orphans.look()
    assert ended == ["orphan"]
