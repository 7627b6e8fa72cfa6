"""Rates: what one agent says is recorded at a rate, whatever it sends; others and its own bursts are not held back."""

from __future__ import annotations

import pytest
from footlights.v1 import node_pb2

from footlights import errors
from footlights.control.dispatch.link import AgentLink
from footlights.control.dispatch.rates import HELLOS, Allowance, Rate
from footlights.store.nodes import device_history
from tests.control.harness import Clock, Control, Report, gpu, inventory, known
from tests.system.stack import until

ALLOWANCE = Allowance(10, 50)


def test_a_burst_is_taken_and_what_follows_waits_at_the_rate() -> None:
    """Each as long as its own amount takes, and after a pause there is room again."""
    clock = Clock()
    rate = Rate(clock.monotonic)

    assert [rate.take(1, ALLOWANCE) for _ in range(50)] == [0] * 50
    assert [round(rate.take(2, ALLOWANCE), 6) for _ in range(3)] == [0.2] * 3
    clock.pass_s(1)
    assert rate.take(10, ALLOWANCE) == pytest.approx(0, abs=1e-6)
    assert not rate.is_unused(ALLOWANCE)
    clock.pass_s(6)
    assert rate.is_unused(ALLOWANCE)


async def test_inventories_are_written_at_a_rate_and_the_last_one_counts(plane: Control) -> None:
    """An agent that flips its devices a thousand times costs a few writes."""
    agent = await plane.agent()
    for number in range(1000):
        health = node_pb2.Device.UNHEALTHY if number % 2 else node_pb2.Device.OK
        await agent.say(inventory=inventory(gpu("GPU-0", health=health)))
    await agent.say(inventory=inventory(gpu("GPU-9")))

    async def shown() -> bool:
        node = (await plane.rest("GET", "/nodes/node-a")).json()
        return [device["uuid"] for device in node["devices"]] == ["GPU-9"]

    await until(shown, timeout_s=60)
    events = await plane.store.read(device_history.events)
    assert max((event.number for event in events), default=0) < 30


async def test_a_node_that_opens_its_link_again_and_again_is_told_to_wait(plane: Control) -> None:
    """Each opening is written; another node is not concerned."""
    token = await plane.token("NODE", "node-a")
    agent = plane.new_agent("node-a", token)
    for _ in range(int(HELLOS.burst)):
        await agent.open()
        await agent.close()
    with pytest.raises(errors.Exhausted) as caught:
        await agent.open()
    assert (caught.value.reason, caught.value.metadata) == ("LINK_TOO_OFTEN", {"node": "node-a"})

    await plane.agent("node-b", gpu("GPU-1"))
    plane.clock.pass_s(2)
    await plane.new_agent("node-a", token).open()


async def test_a_hello_that_is_refused_counts_too(plane: Control) -> None:
    """That it was refused is written of the node."""
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    for _ in range(int(HELLOS.burst)):
        with pytest.raises(errors.InvalidArgument):
            await agent.open(hello={"incarnation": ""})
    with pytest.raises(errors.Exhausted) as caught:
        await agent.open(hello={"incarnation": ""})

    assert caught.value.reason == "LINK_TOO_OFTEN"


async def test_reports_of_launches_that_are_not_the_nodes_are_dropped(plane: Control) -> None:
    """Made up, another node's, or named by a hello: they change nothing, and the agent may forget them."""
    other = await plane.agent("node-b", gpu("GPU-9"))
    theirs = await plane.running(other)
    stolen = await other.assignment(theirs.session_id)
    invented = [Report(launch_id=f"x-{number}", epoch=1, state=Report.EXITED) for number in range(100)]
    agent = plane.new_agent("node-a", await plane.token("NODE", "node-a"))
    await agent.open(launches=[*invented[:50], known(stolen, "EXITED")])
    for report in invented[50:]:
        await agent.say(report=report)
    await agent.settled()
    while len(agent.forgotten) <= 100:
        await agent.until("forget")

    assert set(agent.forgotten) >= {*(report.launch_id for report in invented), stolen.launch_id}
    assert (await plane.get(theirs.session_id)).state == theirs.state


def test_a_link_expects_reports_of_what_is_assigned_or_was_named_and_is_the_nodes() -> None:
    """Of nothing else: what an agent makes up takes no memory."""
    link = AgentLink("n", "one", 1, {"named", "not-ours"})
    link.disown("not-ours")

    assert [link.expects(each) for each in ("named", "not-ours", "made-up")] == [True, False, False]
