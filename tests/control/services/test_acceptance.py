"""New nodes, and nodes with new hardware: an operator accepts them before sessions are placed there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from footlights.v1 import node_pb2, session_pb2

from footlights import errors
from tests.control.harness import Control, State, control, gpu, inventory

Node = node_pb2.Node


@pytest.fixture
async def plane(tmp_path: Path, migrated: Path) -> AsyncIterator[Control]:
    """A control plane as an operator starts it: it accepts no node by itself."""
    async with control(tmp_path, migrated, auto_accept=False) as running:
        await running.apply()
        yield running


async def get(plane: Control) -> Node:
    found: Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    return found


async def accept(plane: Control, etag: str = "") -> Node:
    request = node_pb2.AcceptNodeRequest(node="node-a", etag=etag)
    found: Node = await plane.call("NodeService.AcceptNode", request)
    return found


async def test_nothing_is_placed_on_a_new_node_before_it_is_accepted(plane: Control) -> None:
    """Its owner and its operator read why; once it is accepted, the session that waits is placed."""
    agent = await plane.agent()
    made = await plane.create()
    await plane.place()

    waiting = await plane.get(made.session_id)
    assert waiting.state == State.PENDING
    assert [(why.reason, why.message) for why in waiting.queue.wait_reasons] == [
        ("NOT_ACCEPTED", "1 node: new, or with new hardware, and not accepted by an operator yet")
    ]
    shown = await get(plane)
    assert (shown.state, shown.acceptance.reason, shown.scheduling.reason) == (Node.CORDONED, "NEW_NODE", "NEW_NODE")
    assert shown.acceptance.message == ("The node is new. If that is as it should be: footlights nodes accept node-a.")
    listed = await plane.call("NodeService.ListNodes", node_pb2.ListNodesRequest(filter="cordoned = true"))
    assert [node.node for node in listed.items] == ["node-a"]

    accepted = await accept(plane)
    await plane.place()

    assert (accepted.state, accepted.HasField("acceptance"), accepted.scheduling.cordoned) == (Node.READY, False, False)
    await agent.assignment(made.session_id)


async def test_an_accepted_node_with_a_new_gpu_takes_no_more_sessions(plane: Control) -> None:
    """What runs there continues; the new device is named, and dividing a GPU into MIG instances is none."""
    agent = await plane.agent("node-a", gpu("GPU-0", slots=2))
    await accept(plane)
    running = await plane.running(agent)
    halves = [gpu(f"MIG-{n}", kind=node_pb2.Device.MIG, parent_uuid="GPU-0") for n in range(2)]
    await agent.say(inventory=inventory(gpu("GPU-0", slots=2), *halves))
    await agent.settled()
    assert (await get(plane)).state == Node.READY

    await agent.say(inventory=inventory(gpu("GPU-0", slots=2), gpu("GPU-9", name="NVIDIA H200")))
    await agent.settled()
    shown, waiting = await get(plane), await plane.create()
    await plane.place()

    assert (shown.state, shown.scheduling.reason) == (Node.CORDONED, "HARDWARE_CHANGED")
    assert "has devices that were not accepted: NVIDIA H200 GPU-9." in shown.acceptance.message
    assert (await plane.get(waiting.session_id)).state == State.PENDING
    assert (await plane.get(running.session_id)).state == State.READY

    await accept(plane, shown.etag)
    await plane.place()
    assert (await plane.get(waiting.session_id)).state == State.STARTING


async def test_what_an_operator_has_not_seen_is_not_accepted(plane: Control) -> None:
    """With the etag of what was read, hardware that has changed since is refused."""
    agent = await plane.agent()
    await accept(plane)
    await agent.say(inventory=inventory(gpu("GPU-1")))
    await agent.settled()
    read = await get(plane)
    await agent.say(inventory=inventory(gpu("GPU-2")))
    await agent.settled()

    with pytest.raises(errors.Conflict):
        await accept(plane, read.etag)
    assert (await get(plane)).acceptance.reason == "HARDWARE_CHANGED"


async def test_uncordoning_accepts_nothing_and_accepting_uncordons_nothing(plane: Control) -> None:
    """They are two decisions: the one who cordoned a node for its fan need not be the one who knows the machine."""
    await plane.agent()
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a", message="broken fan"))
    both = await get(plane)

    uncordoned = await plane.call("NodeService.UncordonNode", node_pb2.UncordonNodeRequest(node="node-a"))
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-a"))
    accepted = await accept(plane)

    assert (both.scheduling.reason, both.acceptance.reason) == ("OPERATOR", "NEW_NODE")
    assert (uncordoned.state, uncordoned.scheduling.reason) == (Node.CORDONED, "NEW_NODE")
    assert (accepted.state, accepted.scheduling.reason) == (Node.CORDONED, "OPERATOR")


async def test_developers_and_nodes_accept_nothing(plane: Control) -> None:
    """A node would accept itself."""
    await plane.agent()
    for role, subject in (("DEVELOPER", "ann"), ("SERVICE", "portal"), ("NODE", "node-a")):
        with pytest.raises(errors.PermissionDenied):
            await plane.call(
                "NodeService.AcceptNode", node_pb2.AcceptNodeRequest(node="node-a"), await plane.token(role, subject)
            )


async def test_a_control_plane_that_accepts_by_itself_places_at_once(tmp_path: Path, migrated: Path) -> None:
    """Labs and ``footlights up``."""
    async with control(tmp_path, migrated, auto_accept=True) as running:
        await running.apply()
        agent = await running.agent()
        made = await running.running(agent)
        await agent.say(inventory=inventory(gpu("GPU-0"), gpu("GPU-7")))
        await agent.settled()

        assert made.state == session_pb2.Session.READY
        assert (await get(running)).state == Node.READY
