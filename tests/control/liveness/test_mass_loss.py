"""The mass-loss guard: when most nodes are gone at once, or we have stood still, nothing is marked and nothing ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, node_pb2, session_pb2

from footlights.control.liveness.mass_loss import MAX_MASS_LOSS_S, MassLossGuard, NodeSilence
from footlights.control.observability.metrics import Metrics
from footlights.store.nodes.links import LinkOpening
from tests.control.harness import Agent, Control, State, control, gpu, seconds, version
from tests.store.rows import link

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def listed(plane: Control) -> node_pb2.ListNodesResponse:
    answer: node_pb2.ListNodesResponse = await plane.call("NodeService.ListNodes", node_pb2.ListNodesRequest())
    return answer


async def states(plane: Control) -> list[str]:
    return [node_pb2.Node.State.Name(node.state) for node in (await listed(plane)).items]


async def fleet(plane: Control, count: int) -> list[Agent]:
    return [await plane.agent(f"node-{number}", gpu(f"GPU-{number}")) for number in range(count)]


async def beat(agent: Agent) -> None:
    await agent.say(heartbeat=agent_pb2.Heartbeat())
    await agent.settled()


async def test_most_nodes_at_once_are_not_called_silent(plane: Control) -> None:
    """No node is marked, the answer, the metric say so; what comes back is well, and the rest is then believed."""
    agents = await fleet(plane, 5)
    plane.clock.pass_s(16)
    await beat(agents[0])
    await plane.reap()
    braked = await listed(plane)
    metrics = (await plane.rest("GET", "/metrics")).text
    for agent in agents[1:4]:
        await beat(agent)
    await plane.reap()

    assert braked.brake.reason == "MASS_LOSS"
    assert braked.brake.message.startswith("4 of 5 nodes fell silent together")
    assert braked.brake.since_time.ToDatetime(UTC) == plane.clock.wall
    assert 'footlights_brake{reason="MASS_LOSS"} 1.0' in metrics
    assert {node.state for node in braked.items} == {node_pb2.Node.READY}
    assert not (await listed(plane)).HasField("brake")
    assert await states(plane) == ["READY", "READY", "READY", "READY", "UNREACHABLE"]
    assert 'footlights_brake{reason="MASS_LOSS"} 0.0' in (await plane.rest("GET", "/metrics")).text


async def test_no_deadline_passes_while_expiry_pauses(plane: Control) -> None:
    """A queue's deadline is put off by as long as it held."""
    limits = application_pb2.Limits(queue_timeout=seconds(60))
    await plane.apply(version("2.0.0", limits=limits, needs=application_pb2.Needs(slots=4)))
    agents = await fleet(plane, 3)
    made = await plane.create()
    await plane.reap()
    plane.clock.pass_s(70)
    await plane.reap()
    held = await plane.get(made.session_id)
    for agent in agents:
        await beat(agent)
    await plane.reap()
    after = await plane.get(made.session_id)
    plane.clock.pass_s(60)
    for agent in agents:
        await beat(agent)
    await plane.reap()

    assert (held.state, after.state) == (State.PENDING, State.PENDING)
    assert (await plane.get(made.session_id)).end_reason == session_pb2.Session.QUEUE_TIMEOUT


async def test_after_a_stall_everybody_gets_the_full_time_to_be_heard(plane: Control) -> None:
    """A server that was stopped for a minute calls no node silent for it, also a single node."""
    [agent] = await fleet(plane, 1)
    plane.clock.pass_s(60)
    await plane.plane.reaping.expire_once(late_s=59)
    braked = await listed(plane)
    await beat(agent)
    plane.clock.pass_s(14)
    await plane.reap()
    still = (await listed(plane)).brake.reason
    plane.clock.pass_s(1)
    await plane.reap()
    over = await listed(plane)
    plane.clock.pass_s(1)
    await plane.reap()

    assert (braked.brake.reason, braked.brake.message) == (
        "STALLED",
        "This server stood still for 59 s and heard no node.",
    )
    assert still == "STALLED"
    assert not over.HasField("brake")
    assert await states(plane) == ["UNREACHABLE"]


async def test_a_server_that_has_just_started_waits_for_its_nodes(tmp_path: Path, migrated: Path) -> None:
    """No deadline that passed while it was away ends anything before the nodes had their time to come back."""
    limits = application_pb2.Limits(queue_timeout=seconds(60))
    async with control(tmp_path, migrated) as first:
        await first.apply(version(limits=limits))
        await first.agent()
        running = await first.running(first.agents[0])
        waiting = await first.create()
        token = first.agents[0].token
        assignment = await first.agents[0].assignment(running.session_id)
        clock = first.clock
    clock.pass_s(120)
    async with control(tmp_path, clock=clock) as second:
        agent = second.new_agent("node-a", token)
        await second.reap()
        held = (await listed(second)).brake.reason, (await second.get(waiting.session_id)).state
        report = agent_pb2.LaunchReport(
            launch_id=assignment.launch_id, epoch=assignment.epoch, state=agent_pb2.LaunchReport.READY
        )
        await agent.open(launches=[report])
        await second.reap()

        assert held == ("STARTED", State.PENDING)
        assert not (await listed(second)).HasField("brake")
        assert (await second.get(running.session_id)).state == State.READY
        assert (await second.get(waiting.session_id)).end_reason == session_pb2.Session.QUEUE_TIMEOUT


async def test_a_node_that_does_not_come_back_after_a_start_is_called_silent(tmp_path: Path, migrated: Path) -> None:
    """But not before three heartbeats have passed."""
    async with control(tmp_path, migrated) as first:
        await first.store.write(lambda tx: link(tx, LinkOpening("node-a", "one", b"", [], NOW)))
    async with control(tmp_path) as second:
        await second.reap()
        second.clock.pass_s(15)
        await second.reap()
        early = await states(second)
        second.clock.pass_s(1)
        await second.reap()

        assert (early, await states(second)) == (["READY"], ["UNREACHABLE"])


async def test_the_loop_measures_its_own_lateness(plane: Control) -> None:
    """A loop that was stopped between two passes finds itself late; asyncio's own sleep is not trusted."""
    await fleet(plane, 1)
    plane.plane.reaping.PERIOD_S = 0.01
    loop = asyncio.create_task(plane.plane.reaping.run())
    try:
        await _until(lambda: plane.plane.reaping.passes > 1)
        plane.clock.pass_s(60)
        await _until(lambda: plane.plane.guard.pause is not None)
    finally:
        loop.cancel()

    assert (await listed(plane)).brake.reason == "STALLED"
    assert await states(plane) == ["READY"]


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if true():
                return
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("silences", "holds"),
    [
        ([], False),
        ([16], False),
        ([16, 16], True),
        ([16, 16, 0, 0], False),
        ([16, 16, 0], True),
        ([16, 11, 11], True),
        ([14, 14, 14], False),
        ([16, 9, 9], False),
    ],
)
def test_more_than_half_and_at_least_two_are_a_mass(silences: list[float], holds: bool) -> None:
    """Those that are over within the same window count together; the timeout is 15 s."""
    guard = MassLossGuard(15, Metrics(), lambda: NOW, lambda: 0.0)

    assert guard.judge({str(n): NodeSilence(s, linked=True) for n, s in enumerate(silences)}) is holds


def test_a_silence_that_lasts_is_believed() -> None:
    """A server that was well all the while does not show dead nodes as well indefinitely."""
    now = [0.0]
    guard = MassLossGuard(15, Metrics(), lambda: NOW, lambda: now[0])
    gone = {str(number): NodeSilence(100, linked=True) for number in range(4)}

    assert guard.judge(gone)
    now[0] = MAX_MASS_LOSS_S
    assert guard.judge(gone)
    now[0] += 1
    assert not guard.judge(gone)


def test_a_store_that_fails_holds_until_agents_had_time() -> None:
    """Their links broke with it."""
    now = [0.0]
    guard = MassLossGuard(15, Metrics(), lambda: NOW, lambda: now[0])

    guard.failed("The store cannot be used: disk full.")

    assert guard.pause is not None
    assert guard.pause.cause == "STORE_UNAVAILABLE"
    now[0] = 14
    assert guard.judge({})
    now[0] = 15
    assert not guard.judge({})
    assert guard.pause is None
