"""The guard, through the API: what fails before it is ready is left alone for a growing time, and nothing beside it."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import application_pb2, node_pb2, session_pb2
from google.protobuf.struct_pb2 import Struct

from footlights.lifecycle import REASONS, Fault, Retry
from footlights.lifecycle.derivation import MAX_LAUNCHES
from tests.control.harness import Agent, Control, Report, State, gpu, seconds, version

EndReason = session_pb2.Session.EndReason
WHY = "It said why."
SCENES = [application_pb2.Argument(name="scene", type=application_pb2.Argument.STRING)]
ELSEWHERE = [name for name, each in REASONS.items() if each.retry is Retry.ELSEWHERE]
OF_A_NODE = [name for name in ELSEWHERE if REASONS[name].fault is Fault.NODE]
OF_A_PLACE = [name for name in ELSEWHERE if REASONS[name].fault is Fault.PLACE]


async def begun(plane: Control, agent: Agent, **members: Any) -> str:
    """Create a session and have it placed on the agent's node."""
    made = await plane.create(**members)
    if not made.node:
        await plane.place()
    await agent.assignment(made.session_id)
    return made.session_id


async def fail(
    plane: Control, agent: Agent, reason: str = "EXITED_EARLY", state: str = "FAILED", **members: Any
) -> str:
    """Create a session and fail its launch after a second."""
    session_id = await begun(plane, agent, **members)
    plane.clock.pass_s(1)
    await agent.report(await agent.assignment(session_id), state, reason=reason, message=WHY)
    return session_id


async def crash(plane: Control, agent: Agent, username: str, scene: str, **members: Any) -> str:
    """Fail a session of a user, who gave it a scene."""
    return await fail(plane, agent, username=username, application_arguments=given(scene), **members)


def given(scene: str) -> Struct:
    """What a user gives."""
    found = Struct()
    found.update({"scene": scene})
    return found


async def where(plane: Control, username: str, scene: str, **members: Any) -> str:
    """Create a session, and return the node that it is placed on, empty where it waits; it is ended again."""
    made = await plane.create(username=username, application_arguments=given(scene), **members)
    await plane.place()
    node = (await plane.get(made.session_id)).node
    await plane.terminate(made.session_id)
    for agent in plane.agents:
        if agent.node == node:
            await agent.report(await agent.assignment(made.session_id, "STOPPED"), "EXITED", exit_code=0)
    return node


async def newest(agent: Agent, session_id: str, known: Set[str]) -> agent_pb2.Assignment:
    """Return the last assignment of a session; it is none of the launches that are known."""
    while True:
        mine = [each for each in agent.assigned.values() if each.session_id == session_id]
        if mine and mine[-1].launch_id not in known:
            return mine[-1]
        await agent.until("assignment")


async def explain(plane: Control, **members: Any) -> session_pb2.ExplainPlacementResponse:
    request = session_pb2.ExplainPlacementRequest(**({"application": "fake"} | members))
    answer: session_pb2.ExplainPlacementResponse = await plane.call("StreamingService.ExplainPlacement", request)
    return answer


async def get_node(plane: Control, name: str = "node-a") -> node_pb2.Node:
    node: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node=name))
    return node


def gpus(name: str, count: int) -> list[node_pb2.Device]:
    return [gpu(f"GPU-{name}-{number}") for number in range(count)]


# Nodes


@pytest.mark.parametrize("reason", ELSEWHERE)
@pytest.mark.parametrize("state", ["FAILED", "REJECTED"])
async def test_one_bad_node_swallows_no_session(plane: Control, reason: str, state: str) -> None:
    """All eight sessions run on the good node: the first meets the bad one, and goes on at once."""
    bad = await plane.agent("node-a", *gpus("a", 8))
    await plane.agent("node-b", *gpus("b", 8))
    first = await fail(plane, bad, reason, state, username="ann")
    back = await plane.get(first)
    await plane.place()
    others = [(await plane.create(username=f"user-{number}")).session_id for number in range(7)]
    await plane.place()
    found = [await plane.get(each) for each in (first, *others)]

    assert (back.state, back.status_message) == (State.PENDING, WHY)
    assert [(each.state, each.node) for each in found] == [(State.STARTING, "node-b")] * 8
    assert [each.launch_count for each in found] == [2] + [1] * 7


@pytest.mark.parametrize("reason", OF_A_NODE)
async def test_a_node_that_fails_is_shown_unwell_and_left_alone(plane: Control, reason: str) -> None:
    """In its state, with the reason; in `explain`, in what waiting sessions are told, and in the metrics."""
    agent = await plane.agent("node-a", *gpus("a", 2))
    first = await fail(plane, agent, reason, username="ann")
    plane.clock.pass_s(1)
    other = (await plane.create(username="ben")).session_id
    placed = await plane.place()
    shown, told = await get_node(plane), await explain(plane)
    waiting = [(await plane.get(each)).queue.wait_reasons for each in (first, other)]
    await plane.reap()
    metrics = (await plane.rest("GET", "/metrics")).text

    assert placed == 0
    assert shown.state == node_pb2.Node.UNWELL
    [off] = shown.back_offs
    assert (off.reason, off.message, off.launcher, off.application) == (reason, WHY, "fake", "")
    assert off.until_time.ToDatetime(plane.clock().tzinfo) > plane.clock()
    assert (told.nodes[0].reason, told.nodes[0].message) == (
        "UNWELL",
        f"failed; next try in 29 s; last: {reason}: {WHY}",
    )
    assert [[each.reason for each in reasons] for reasons in waiting] == [["UNWELL"]] * 2
    assert f'footlights_launch_failures_total{{fault="NODE",reason="{reason}"}} 1.0' in metrics
    assert 'footlights_nodes{state="UNWELL"} 1.0' in metrics


async def test_one_session_at_a_time_tries_a_node_again(plane: Control) -> None:
    """After 30 s one does, then after 60 s; once one has come up, all do."""
    agent = await plane.agent("node-a", *gpus("a", 4))
    sessions = [await fail(plane, agent, "ENGINE_UNAVAILABLE", username="ann")]
    sessions += [(await plane.create(username=name)).session_id for name in ("ben", "cem", "dan")]

    async def trying() -> list[str]:
        return [each for each in sessions if (await plane.get(each)).node]

    plane.clock.pass_s(28)
    early = await plane.place()
    plane.clock.pass_s(2)
    trials = [await plane.place(), await plane.place()]
    [trial] = await trying()
    shown, told = await get_node(plane), await explain(plane)
    plane.clock.pass_s(1)
    refused = await newest(agent, trial, frozenset())
    await agent.report(refused, "REJECTED", reason="ENGINE_UNAVAILABLE", message=WHY)
    known = set(agent.assigned)
    plane.clock.pass_s(58)
    doubled = await plane.place()
    plane.clock.pass_s(2)
    again = await plane.place()
    [second] = await trying()
    up = Report.Step(stage="PROCESS_UP", age=seconds(0))
    await agent.report(await newest(agent, second, known), "STARTING", steps=[up])
    plane.clock.pass_s(1)
    rest = await plane.place()

    assert early == 0
    assert trials == [1, 0]
    assert (shown.state, shown.back_offs[0].trying) == (node_pb2.Node.UNWELL, True)
    assert told.nodes[0].message.startswith("failed; a session tries it now; last: ENGINE_UNAVAILABLE")
    assert (doubled, again) == (0, 1)
    assert rest == 3
    assert (await get_node(plane)).state == node_pb2.Node.READY


async def test_a_node_is_left_alone_for_one_launcher(plane: Control) -> None:
    """Its container engine is of no concern to what needs none; and what runs without one does not make it well."""
    await plane.apply(version(fake=None, container=application_pb2.Container(image="a")), application="boxed")
    agent = await plane.agent("node-a", *gpus("a", 4), facts={"launchers": ["fake", "container"]})
    await fail(plane, agent, "ENGINE_UNAVAILABLE", application="boxed")
    await plane.running(agent)

    assert (await explain(plane)).fits
    assert (await explain(plane, application="boxed")).nodes[0].reason == "UNWELL"
    assert (await get_node(plane)).state == node_pb2.Node.UNWELL


async def test_a_session_that_every_node_fails_ends_honestly(plane: Control) -> None:
    """After five launches, each on a node that had not failed it a moment ago."""
    agents = {name: await plane.agent(name, *gpus(name, 2)) for name in ("node-a", "node-b")}
    session_id = (await plane.create()).session_id
    tried: list[str] = []
    met: set[str] = set()
    while (found := await plane.get(session_id)).state != State.FAILED:
        await plane.place()
        plane.clock.pass_s(10)
        if (found := await plane.get(session_id)).node:
            assignment = await newest(agents[found.node], session_id, met)
            tried.append(found.node)
            met.add(assignment.launch_id)
            await agents[found.node].report(
                assignment, "REJECTED", reason="NODE_RESOURCES", message="The disk is full."
            )
    ended = await plane.get(session_id)

    assert len(tried) == MAX_LAUNCHES
    assert set(tried[:2]) == {"node-a", "node-b"}
    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.NODE_FAILED)
    assert ended.status_message == "Tried 5 times, the last time: The disk is full."


@pytest.mark.parametrize("reason", OF_A_PLACE)
async def test_what_no_other_node_could_run_ends_at_once(plane: Control, reason: str) -> None:
    """A version whose command or image is missing does not wait for a node that will never come."""
    agent = await plane.agent()
    session_id = await fail(plane, agent, reason)
    await plane.place()
    ended = await plane.get(session_id)

    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.LAUNCH_FAILED)
    assert ended.status_message == "It said why. No other node could run it."


async def test_an_agent_that_does_not_say_why_leaves_no_sentence_empty(plane: Control) -> None:
    """What the reason means stands for it."""
    agent = await plane.agent()
    session_id = await begun(plane, agent)
    await agent.report(await agent.assignment(session_id), "REJECTED", reason="IMAGE_NOT_FOUND")
    await plane.place()

    assert (await plane.get(session_id)).status_message == (
        "The application could not be launched: the image is not there. No other node could run it."
    )


@pytest.mark.parametrize("reason", ["NO_PORTS", "OF_A_LATER_AGENT", ""])
async def test_a_node_that_refuses_is_not_asked_for_each_of_its_devices(plane: Control, reason: str) -> None:
    """What is not of the device is of the node: the next try is elsewhere, also for a reason that is not known."""
    bad = await plane.agent("node-a", *gpus("a", 8))
    await plane.agent("node-b", *gpus("b", 1))
    session_id = await fail(plane, bad, reason, "REJECTED")
    await plane.place()
    found = await plane.get(session_id)

    assert (found.node, found.launch_count) == ("node-b", 2)


async def test_what_another_node_could_run_waits_for_it(plane: Control) -> None:
    """All slots of that one are leased now."""
    full = await plane.agent("node-b", gpu("GPU-9"))
    await plane.running(full)
    agent = await plane.agent("node-a")
    session_id = await fail(plane, agent, "IMAGE_PULL_FAILED")
    await plane.place()
    waiting = await plane.get(session_id)

    assert waiting.state == State.PENDING
    assert {each.reason for each in waiting.queue.wait_reasons} == {"NO_SLOT", "CRASH_LOOP"}


async def test_what_a_node_without_a_link_could_run_waits_for_it(plane: Control) -> None:
    """It may be back in a moment, as all are after a server was restarted."""
    gone = await plane.agent("node-b", gpu("GPU-9"))
    await gone.close()
    await plane.unlinked("node-b")
    agent = await plane.agent("node-a")
    session_id = await fail(plane, agent, "IMAGE_PULL_FAILED")
    await plane.place()
    waiting = await plane.get(session_id)
    await plane.agent("node-b", gpu("GPU-9"))
    await plane.place()

    assert waiting.state == State.PENDING
    assert {each.reason for each in waiting.queue.wait_reasons} == {"UNREACHABLE", "CRASH_LOOP"}
    assert (await plane.get(session_id)).node == "node-b"


async def test_a_version_that_a_node_lacks_goes_elsewhere_and_others_stay(plane: Control) -> None:
    """An image that cannot be pulled says nothing of other images; the node shows which."""
    await plane.apply(version(), application="other")
    agent = await plane.agent("node-a", *gpus("a", 4))
    await plane.agent("node-b", *gpus("b", 4))
    await fail(plane, agent, "IMAGE_PULL_FAILED")

    told, other, shown = await explain(plane), await explain(plane, application="other"), await get_node(plane)

    assert {each.node: each.reason for each in told.nodes} == {"node-a": "CRASH_LOOP", "node-b": "FITS"}
    assert {each.node: each.reason for each in other.nodes} == {"node-a": "FITS", "node-b": "FITS"}
    assert shown.state == node_pb2.Node.UNWELL
    assert [(each.application, each.application_version, each.reason) for each in shown.back_offs] == [
        ("fake", "1.0.0", "IMAGE_PULL_FAILED")
    ]


async def test_versions_that_are_well_elsewhere_tell_that_it_is_the_node(plane: Control) -> None:
    """Two crash there and run here: the third is not tried there."""
    for name in ("one", "two", "three"):
        await plane.apply(version(), application=name)
    good = await plane.agent("node-b", *gpus("b", 8))
    for name in ("one", "two"):
        await plane.running(good, application=name)
    bad = await plane.agent("node-a", *gpus("a", 8))
    await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node="node-b"))
    for number, name in enumerate(("one", "two")):
        await fail(plane, bad, application=name, username=f"user-{number}")

    told = await explain(plane, application="three")

    assert {each.node: each.reason for each in told.nodes} == {"node-a": "UNWELL", "node-b": "CORDONED"}


async def test_a_node_that_has_failed_comes_last(plane: Control) -> None:
    """One crash blocks nothing; but failing fast must not make a node the emptiest, and so the first."""
    bad = await plane.agent("node-a", *gpus("a", 4))
    await plane.agent("node-b", *gpus("b", 4))
    await fail(plane, bad)
    told = await explain(plane)

    assert (told.fits, told.node) == (True, "node-b")
    assert {each.node: each.reason for each in told.nodes} == {"node-a": "FITS", "node-b": "FITS"}


@pytest.mark.parametrize("reason", ["SLOT_HELD", "MISSING", "DEVICE_SILENT"])
async def test_a_device_that_refuses_again_and_again_is_left_alone(plane: Control, reason: str) -> None:
    """A refusal is a moment's; three are not."""
    agent = await plane.agent()
    for number in range(3):
        await fail(plane, agent, reason, "REJECTED", username=f"user-{number}")
        for each in (await plane.call("StreamingService.ListSessions", session_pb2.ListSessionsRequest())).items:
            await plane.terminate(each.session_id)
    [device] = (await explain(plane)).nodes[0].devices
    [off] = (await get_node(plane)).back_offs
    plane.clock.pass_s(41)

    assert (device.reason, device.message) == (
        "QUARANTINED",
        f"failed 3 times in 2 s; next try in 40 s; last: {reason}: {WHY}",
    )
    assert (off.device, off.reason) == ("GPU-0", reason)
    assert (await explain(plane)).fits


# Versions, and what users give them


async def test_a_version_that_fails_for_several_users_is_blocked_on_the_node(plane: Control) -> None:
    """Whatever they gave it. The next one waits with the reason, and is not told what others' said."""
    await plane.apply(version("1.1.0", arguments=SCENES))
    agent = await plane.agent()
    ended = [await plane.get(await crash(plane, agent, *each)) for each in (("ann", "a"), ("ben", "b"), ("ann", "c"))]
    plane.clock.pass_s(5)
    made = await plane.create(username="dan", application_arguments=given("d"))
    placed = await plane.place()
    waiting, told, shown = await plane.get(made.session_id), await explain(plane), await get_node(plane)
    plane.clock.pass_s(35)

    assert [(each.state, each.end_reason) for each in ended] == [(State.FAILED, session_pb2.Session.LAUNCH_FAILED)] * 3
    assert placed == 0
    assert list(waiting.queue.reasons) == ["CRASH_LOOP: 1 node"]
    assert [(each.reason, each.message) for each in told.nodes] == [
        (
            "CRASH_LOOP",
            "failed 3 times in 2 s; next try in 35 s; last: EXITED_EARLY: the application ended before it was ready",
        )
    ]
    assert not told.fits
    assert shown.state == node_pb2.Node.READY
    assert await plane.place() == 1


async def test_one_users_crashing_argument_blocks_nobody_else(plane: Control) -> None:
    """That user with that argument waits; the same user with another, and all others, do not."""
    await plane.apply(version("1.1.0", arguments=SCENES))
    agent = await plane.agent("node-a", *gpus("a", 4))
    for _ in range(4):
        if await where(plane, "ann", "broken") == "":
            break
        await crash(plane, agent, "ann", "broken")

    assert await where(plane, "ann", "broken") == ""
    assert await where(plane, "ann", "good") == "node-a"
    assert await where(plane, "ben", "broken") == "node-a"
    assert await where(plane, "ben", "good") == "node-a"


async def test_one_users_many_crashing_arguments_block_nobody_else(plane: Control) -> None:
    """Ten scenes of one user are one user's."""
    await plane.apply(version("1.1.0", arguments=SCENES))
    agent = await plane.agent("node-a", *gpus("a", 4))
    for number in range(10):
        await crash(plane, agent, "ann", f"broken-{number}")

    assert await where(plane, "ben", "good") == "node-a"
    assert await where(plane, "ann", "good") == "node-a"


async def test_one_crashing_argument_of_many_users_blocks_that_argument(plane: Control) -> None:
    """Also for a user who has not tried it; not for other arguments."""
    await plane.apply(version("1.1.0", arguments=SCENES))
    agent = await plane.agent("node-a", *gpus("a", 4))
    for name in ("ann", "ben", "cem"):
        await crash(plane, agent, name, "broken")

    assert await where(plane, "dan", "broken") == ""
    assert await where(plane, "dan", "good") == "node-a"


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
    await agent.report(await agent.assignment(good.session_id, "STOPPED"), "EXITED", exit_code=0)

    assert doubled == f"failed 4 times in 43 s; next try in 80 s; last: EXITED_EARLY: {WHY}"
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
    await plane.apply(
        version("1.1.0", arguments=SCENES), version("2.0.0", arguments=SCENES), releases={"default": "2.0.0"}
    )
    for name in "abc":
        agent = await plane.agent(f"node-{name}", gpu(f"GPU-{name}"))
        for username in ("ann", "ben"):
            await crash(plane, agent, username, f"{agent.node}-{username}")
        await plane.call("NodeService.CordonNode", node_pb2.CordonNodeRequest(node=agent.node))
    await plane.agent("node-d", gpu("GPU-d"))

    broken = await explain(plane)
    before = await explain(plane, application_version="1.1.0")

    assert {node.node: node.reason for node in broken.nodes}["node-d"] == "CRASH_LOOP"
    assert "failed 6 times in" in broken.nodes[-1].message
    assert (before.fits, before.node) == (True, "node-d")


async def test_an_image_that_no_node_can_pull_makes_no_node_unwell(plane: Control) -> None:
    """It is the version's fault where three nodes have tried."""
    agents = {name: await plane.agent(name, gpu(f"GPU-{name}")) for name in ("node-a", "node-b", "node-c", "node-d")}
    session_id = (await plane.create()).session_id
    for _ in range(3):
        await plane.place()
        plane.clock.pass_s(1)
        agent = agents[(await plane.get(session_id)).node]
        await agent.report(
            await agent.assignment(session_id), "FAILED", reason="IMAGE_PULL_FAILED", message="no such image"
        )
    await plane.place()
    ended = await plane.get(session_id)

    assert (ended.state, ended.end_reason) == (State.FAILED, session_pb2.Session.LAUNCH_FAILED)
    assert {(await get_node(plane, name)).state for name in agents} == {node_pb2.Node.READY}


async def test_a_rollback_restores_service_at_once(plane: Control) -> None:
    """The good version's sessions do not wait for the bad one's block, nor behind the bad ones that are queued."""
    await plane.apply(
        version("1.1.0", arguments=SCENES), version("2.0.0", arguments=SCENES), releases={"default": "2.0.0"}
    )
    agent = await plane.agent()
    for username in ("ann", "ben", "cem"):
        await crash(plane, agent, username, username)
    bad = [await plane.create(username=name, application_arguments=given(name)) for name in ("dan", "eva")]
    blocked = await plane.place()
    await plane.apply(
        version("1.1.0", arguments=SCENES), version("2.0.0", arguments=SCENES), releases={"default": "1.1.0"}
    )
    plane.clock.pass_s(41)
    good = await plane.create(username="fay", application_arguments=given("fay"))
    placed = await plane.place()

    assert blocked == 0
    assert placed == 1
    assert (await plane.get(good.session_id)).node == "node-a"
    assert {(await plane.get(each.session_id)).state for each in bad} == {State.PENDING}


@pytest.mark.parametrize("reason", ["STAGE_NOT_FOUND", "OUT_OF_LICENSES"])
async def test_what_an_application_says_itself_blocks_nobody(plane: Control, reason: str) -> None:
    """One user's missing stage is not a crash: others may still start, and the user may try again."""
    agent = await plane.agent()
    for _ in range(4):
        await fail(plane, agent, reason)

    assert (await explain(plane)).fits
    assert (await get_node(plane)).state == node_pb2.Node.READY


async def test_what_was_to_be_ended_did_not_crash(plane: Control) -> None:
    """A user who gives up while it starts blocks no other."""
    agent = await plane.agent()
    for _ in range(4):
        made = await plane.create()
        await plane.place()
        await plane.terminate(made.session_id)
        await agent.report(await agent.assignment(made.session_id, "STOPPED"), "FAILED", reason="EXITED_EARLY")

    assert (await explain(plane)).fits
