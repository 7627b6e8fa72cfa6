"""A control plane of a later release and an agent of this one: values that the agent does not know.

The enums come from the descriptor of an assignment: a new one is covered by itself.
"""

from __future__ import annotations

import pytest
from footlights.v1.agent_pb2 import Assignment, LaunchReport

from footlights.agent.config import AgentConfig
from tests.agent.conftest import (
    GPU,
    OTHER_GPU,
    Assign,
    Machine,
    Node,
    _next_port,
    config,
    fake,
    hub,
    machine,
    node,
    ports,
)
from tests.agent.hub import Hub
from tests.skew.test_invented_rows import NUMBER, enum_fields, put

__all__ = ["AgentConfig", "Machine", "config", "fake", "hub", "machine", "_next_port", "node", "ports"]

PATHS = [path for path, _ in enum_fields(Assignment.DESCRIPTOR) if path != ("desired",)]


async def test_what_an_agent_does_not_know_to_do_changes_nothing(hub: Hub, node: Node, fake: Assign) -> None:
    """A launch that runs goes on, also at the next link, and one that does not is not started."""
    await hub.until(lambda: hub.connections)
    running, other, odd = fake("launch-1", slot=0), fake("launch-2", device=OTHER_GPU), fake("launch-3", slot=1)
    await hub.want(running)
    await hub.until_state("launch-1", LaunchReport.READY)
    for unknown in (running, odd):
        changed = Assignment()
        changed.CopyFrom(unknown)
        changed.desired = NUMBER  # type: ignore[assignment]
        await hub.want(changed)
    await hub.want(other)
    await hub.until_state("launch-2", LaunchReport.READY)
    await hub.hang_up()
    await hub.until_links(2)
    beats = hub.link.heartbeats
    await hub.until(lambda: hub.link.heartbeats > beats)

    assert hub.states("launch-1")[-1] == "READY"
    assert hub.states("launch-3") == []


@pytest.mark.parametrize("path", PATHS, ids=".".join)
async def test_a_recipe_with_an_unknown_value_runs_or_fails_alone(
    hub: Hub, node: Node, fake: Assign, path: tuple[str, ...]
) -> None:
    """Its agent says what became of it, and starts the next one."""
    await hub.until(lambda: hub.connections)
    odd = fake("launch-1", device=GPU)
    put(odd, path, NUMBER)
    await hub.want(odd)
    await hub.want(fake("launch-2", device=OTHER_GPU))

    await hub.until_state("launch-2", LaunchReport.READY)
    await hub.until(lambda: "launch-1" in hub.reports and hub.reports["launch-1"].state >= LaunchReport.READY)
