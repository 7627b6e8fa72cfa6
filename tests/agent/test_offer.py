"""A node offers only the launchers that can start something now; also covers ``facts``, which tells it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from footlights.agent.v1.agent_pb2 import LaunchReport
from footlights.agent.v1.recipe_pb2 import Needs
from footlights.v1.application_pb2 import Version

from footlights.agent.config import AgentConfig
from footlights.agent.facts import node_facts
from footlights.agent.launches.probes import ApplicationProbes
from footlights.agent.main import Agent
from footlights.agent.offer import LauncherOffer
from footlights.devices.fake import FakeDevices
from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.launcher import ContainerLauncher
from footlights.launch.container.rules import ContainerRules
from footlights.launch.fake import FakeLauncher
from tests.agent.conftest import PACE, Machine, assignment
from tests.agent.hub import Hub
from tests.agent.test_isolation import Running
from tests.launch.standin_engine import StandinEngine, serve


async def test_an_engine_that_comes_and_goes(hub: Hub, config: AgentConfig, machine: Machine, tmp_path: Path) -> None:
    """Without an engine the node offers no containers and says why; an engine that comes is used, one that goes is not.

    The control plane is told each time.
    """
    socket, root = tmp_path / "engine.sock", config.data_dir / "launches"
    agent = Agent(
        replace(config, launchers=("fake", "container")),
        devices=FakeDevices(lambda: machine.state),
        launchers={
            "fake": FakeLauncher(root),
            "container": ContainerLauncher(root, [DockerEngine(socket)], ContainerRules()),
        },
        probes=ApplicationProbes(),
        pace=PACE,
    )
    engine = StandinEngine()
    version = Version(version="1.0.0")
    version.container.image = "app:1"
    async with Running(agent):
        await hub.until(lambda: hub.connections)
        facts = hub.link.hello.facts
        assert list(facts.launchers) == ["fake"]
        assert any("launcher container is not offered: no container engine" in note for note in facts.notes)
        await hub.want(assignment("early", version))
        refused = await hub.until_state("early", LaunchReport.REJECTED)
        assert refused.reason == "NO_LAUNCHER"
        assert "docker" in refused.message

        runner = await serve(engine, socket)
        await agent.offer.refresh()
        await hub.until(lambda: list(hub.inventories[-1].facts.launchers) == ["fake", "container"])
        assert not any("container" in note for note in hub.inventories[-1].facts.notes)

        await runner.cleanup()
        await agent.offer.refresh()
        await hub.until(lambda: list(hub.inventories[-1].facts.launchers) == ["fake"])
    await engine.close()


async def test_what_is_not_configured_is_named(tmp_path: Path) -> None:
    """The refusal says what the node does offer."""
    offer = LauncherOffer({"fake": FakeLauncher(tmp_path)})
    assert "not asked yet" in offer.why_not("fake")
    await offer.refresh()
    assert offer.why_not("fake") == ""
    assert offer.why_not("container") == "this node does not offer the launcher container, but fake"
    assert offer.notes == ()


@pytest.mark.parametrize(("network", "level"), [("own", Needs.CONTAINER), ("node", Needs.NONE)])
def test_a_node_says_what_its_network_leaves_of_isolation(config: AgentConfig, network: str, level: int) -> None:
    """Where the operator gives containers the node's network, the control plane places nobody there who needs more."""
    facts = node_facts(
        replace(config, container_network=network), driver_version="", launchers=["container"], notes=[], port_blocks=1
    )

    assert [(each.name, each.isolation) for each in facts.launcher_facts] == [("container", level)]


def test_a_node_says_whether_it_knows_entry_points(config: AgentConfig) -> None:
    """A version that replaces its image's is placed nowhere else."""
    facts = node_facts(config, driver_version="", launchers=["process", "container"], notes=[], port_blocks=1)

    assert {each.name: each.entrypoints for each in facts.launcher_facts} == {"process": False, "container": True}
