"""The crash-loop guard, through the API: what fails to start again and again is left alone for a growing time."""

from __future__ import annotations

from typing import Any

from footlights.v1 import node_pb2, session_pb2

from tests.control.harness import Agent, Control, State, gpu, version

EndReason = session_pb2.Session.EndReason


async def fail(plane: Control, agent: Agent, reason: str = "EXITED_EARLY", **members: Any) -> str:
    """Create a session, have it placed, and fail its launch after a second."""
    made = await plane.create(**members)
    assert await plane.place() == 1
    plane.clock.pass_s(1)
    assignment = await agent.assignment(made.session_id)
    await agent.report(assignment, "FAILED", reason=reason, message="The application exited with status 1.")
    return made.session_id


async def explain(plane: Control, **members: Any) -> session_pb2.ExplainPlacementResponse:
    request = session_pb2.ExplainPlacementRequest(**({"application": "fake"} | members))
    answer: session_pb2.ExplainPlacementResponse = await plane.call("StreamingService.ExplainPlacement", request)
    return answer


async def test_three_failed_starts_on_a_node_block_it_for_the_application(plane: Control) -> None:
    """Each session ends as ever; the next one waits, with the reason, until the time is over."""
    agent = await plane.agent()
    ended = [await plane.get(await fail(plane, agent)) for _ in range(3)]
    plane.clock.pass_s(5)
    made = await plane.create()
    placed = await plane.place()
    waiting = await plane.get(made.session_id)
    told = await explain(plane)
    plane.clock.pass_s(35)

    assert [(each.state, each.end_reason) for each in ended] == [(State.FAILED, EndReason.Value("LAUNCH_FAILED"))] * 3
    assert placed == 0
    assert list(waiting.queue.reasons) == ["CRASH_LOOP: 1 node"]
    assert [(node.reason, node.message) for node in told.nodes] == [
        ("CRASH_LOOP", "failed 3 times in 2 s; next try in 35 s")
    ]
    assert not told.fits
    assert await plane.place() == 1


async def test_a_failed_try_doubles_the_next_block_and_a_good_one_ends_it(plane: Control) -> None:
    """40 s, then 80 s; then the application is as good as new."""
    agent = await plane.agent()
    for _ in range(3):
        await fail(plane, agent)
    plane.clock.pass_s(40)
    await fail(plane, agent)
    doubled = (await explain(plane)).nodes[0].message
    plane.clock.pass_s(80)
    good = await plane.running(agent)
    await plane.terminate(good.session_id)
    assignment = await agent.assignment(good.session_id, "STOPPED")
    await agent.report(assignment, "EXITED", exit_code=0)

    assert doubled == "failed 4 times in 43 s; next try in 80 s"
    for _ in range(2):
        await fail(plane, agent)
    assert (await explain(plane)).fits


async def test_another_node_and_another_application_are_not_blocked(plane: Control) -> None:
    """What fails on one node may be that node's fault; the application goes elsewhere."""
    await plane.apply(version(), application="other")
    agent = await plane.agent("node-a")
    for _ in range(3):
        await fail(plane, agent)
    await plane.agent("node-b", gpu("GPU-9"))

    told = await explain(plane)
    other = await explain(plane, application="other")

    assert (told.fits, told.node) == (True, "node-b")
    assert {node.node: node.reason for node in told.nodes} == {"node-a": "CRASH_LOOP", "node-b": "FITS"}
    assert {node.node: node.reason for node in other.nodes} == {"node-a": "FITS", "node-b": "FITS"}


async def test_a_version_that_fails_everywhere_is_blocked_everywhere(plane: Control) -> None:
    """Also on a node that it has not seen; the version before it goes on."""
    await plane.apply(version("1.0.0"), version("2.0.0"), releases={"default": "2.0.0"})
    agents = [await plane.agent(f"node-{name}", gpu(f"GPU-{name}")) for name in "abc"]
    for agent in agents:
        for _ in range(2):
            await fail(plane, agent)
        await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node=agent.node))
    await plane.agent("node-d", gpu("GPU-d"))

    broken = await explain(plane)
    before = await explain(plane, application_version="1.0.0")

    assert {node.node: node.reason for node in broken.nodes}["node-d"] == "CRASH_LOOP"
    assert "failed 6 times in" in broken.nodes[-1].message
    assert (before.fits, before.node) == (True, "node-d")


async def test_what_an_application_says_itself_blocks_no_other_application(plane: Control) -> None:
    """One user's missing stage is not a crash: others may still start."""
    agent = await plane.agent()
    for _ in range(4):
        await fail(plane, agent, reason="STAGE_NOT_FOUND")

    assert (await explain(plane)).fits


async def test_what_was_to_be_ended_did_not_crash(plane: Control) -> None:
    """A user who gives up while it starts blocks no other."""
    agent = await plane.agent()
    for _ in range(4):
        made = await plane.create()
        await plane.place()
        await plane.terminate(made.session_id)
        await agent.report(await agent.assignment(made.session_id, "STOPPED"), "FAILED", reason="EXITED_EARLY")

    assert (await explain(plane)).fits
