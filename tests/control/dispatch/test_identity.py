"""Two agents with one identity, and an agent that was restarted: told apart, and nothing is begun twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from footlights.v1 import agent_pb2, node_pb2, session_pb2

from footlights import errors
from footlights.store.nodes.links import LinkOpening
from tests.control.harness import Agent, Control, Report, State, known
from tests.store.rows import link, unlink


async def show(plane: Control) -> node_pb2.Node:
    node: node_pb2.Node = await plane.call("NodeService.GetNode", node_pb2.GetNodeRequest(node="node-a"))
    return node


def twin(plane: Control, agent: Agent) -> tuple[Agent, dict[str, Any]]:
    """A second agent with the first one's name and token, and its hello."""
    hello = {"incarnation": "two", "facts": node_pb2.NodeFacts(hostname="clone", launchers=["fake"])}
    return plane.new_agent("node-a", agent.token), hello


async def test_a_second_agent_is_refused_while_the_first_is_alive(plane: Control) -> None:
    """Both are told, the node shows it, and the first one's sessions are untouched."""
    first = await plane.agent()
    made = await plane.running(first)
    second, hello = twin(plane, first)
    opening = asyncio.create_task(second.open(hello=hello))
    asked = await first.until("log_request")
    await first.say(log_part=agent_pb2.LogPart(request_id=asked.request_id, error="unknown", last=True))

    with pytest.raises(errors.AlreadyExists, match="Another agent is linked as node-a and alive") as caught:
        await opening
    notice = await first.until("notice")
    await first.settled()
    node = await show(plane)

    assert caught.value.reason == "DUPLICATE_IDENTITY"
    assert caught.value.metadata == {"node": "node-a", "incarnation": "one"}
    assert notice.reason == "DUPLICATE_IDENTITY"
    assert "on clone" in notice.message
    assert [(each.reason, each.message) for each in node.notices] == [(notice.reason, notice.message)]
    assert (node.epoch, node.facts.hostname) == (1, "")
    assert second.assigned == {}
    assert (await plane.get(made.session_id)).state == State.READY


async def test_any_word_of_the_first_shows_that_it_lives(plane: Control) -> None:
    """Also an agent that does not answer what it is asked: its next heartbeat is enough."""
    first = await plane.agent()
    second, hello = twin(plane, first)
    opening = asyncio.create_task(second.open(hello=hello))
    await first.until("log_request")
    await first.say(heartbeat=agent_pb2.Heartbeat())

    with pytest.raises(errors.AlreadyExists):
        await opening


async def test_a_restarted_agent_is_let_in_as_soon_as_its_old_link_ends(plane: Control) -> None:
    """It adopts what runs, and is no duplicate."""
    first = await plane.agent()
    made = await plane.running(first)
    assignment = await first.assignment(made.session_id)
    again, hello = twin(plane, first)
    report = Report(launch_id=assignment.launch_id, epoch=assignment.epoch, state=Report.READY)
    opening = asyncio.create_task(again.open(launches=[report], hello=hello))
    await first.until("log_request")
    await first.close()

    await opening

    assert again.welcome.epoch == 2
    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING
    assert list((await show(plane)).notices) == []


async def test_last_words_of_an_agent_that_is_gone_are_not_its_life(plane: Control) -> None:
    """They and its end may arrive together."""
    first = await plane.agent()
    again, hello = twin(plane, first)
    opening = asyncio.create_task(again.open(hello=hello))
    await first.until("log_request")
    await first.say(heartbeat=agent_pb2.Heartbeat())
    await first.close()

    await opening

    assert again.welcome.epoch == 2


async def test_the_same_agent_may_dial_again_at_once(plane: Control) -> None:
    """Its own old link is not another agent's."""
    first = await plane.agent()

    again = await plane.new_agent("node-a", first.token).open()

    assert again.welcome.epoch == 2
    assert (await first.ended()).reason == "LINK_REPLACED"


async def test_a_notice_that_is_not_met_again_is_shown_no_longer(plane: Control) -> None:
    """The clone was renamed."""
    await test_any_word_of_the_first_shows_that_it_lives(plane)
    shown = len((await show(plane)).notices)
    plane.clock.pass_s(121)

    assert (shown, len((await show(plane)).notices)) == (1, 0)


# While the first one is cut off


def boot(boot_id: str, hostname: str = "first") -> dict[str, Any]:
    return {"facts": node_pb2.NodeFacts(hostname=hostname, launchers=["fake"], boot_id=boot_id)}


async def cut_off(plane: Control) -> tuple[Agent, str]:
    """A first agent whose session runs on, and whose link has ended; with the session's id."""
    first = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open(hello=boot("boot-1"))
    made = await plane.running(first)
    await first.close()
    await plane.unlinked()
    return first, made.session_id


async def second_agent(plane: Control, first: Agent, boot_id: str = "boot-2", **options: Any) -> Agent:
    """Another agent, on a clone of the first one's machine, that tries to link."""
    return await plane.new_agent("node-a", first.token).open(
        hello={"incarnation": "two", **boot(boot_id, "clone")}, **options
    )


async def test_of_two_in_the_same_instant_one_is_let_in(plane: Control) -> None:
    """The other one finds the first one's link, and is refused as soon as that says something."""
    token = await plane.token("NODE", "node-a")
    agents = [plane.new_agent("node-a", token) for _ in range(2)]

    async def opened(agent: Agent, number: int) -> Agent | errors.Error:
        try:
            return await agent.open(hello={"incarnation": f"agent-{number}", **boot(f"boot-{number}")})
        except errors.Error as error:
            return error

    tasks = [asyncio.create_task(opened(agent, number)) for number, agent in enumerate(agents)]
    done, [waiting] = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    [winner] = [task.result() for task in done]
    assert isinstance(winner, Agent)
    await winner.until("log_request")
    await winner.say(heartbeat=agent_pb2.Heartbeat())
    loser = await waiting

    assert isinstance(loser, errors.AlreadyExists)
    assert loser.reason == "DUPLICATE_IDENTITY"
    assert (await show(plane)).epoch == winner.welcome.epoch == 1


async def test_a_clone_is_refused_while_the_first_is_cut_off(plane: Control) -> None:
    """Sessions run that it knows nothing of: it is told what to do, and an operator sees it."""
    first, session_id = await cut_off(plane)

    with pytest.raises(errors.AlreadyExists) as caught:
        await second_agent(plane, first)

    [notice] = (await show(plane)).notices
    assert caught.value.metadata == {"node": "node-a", "incarnation": "one"}
    assert "footlights nodes forget node-a" in caught.value.message
    assert "let in 2160 s after its first try" in caught.value.message
    assert "It does not know the 1 sessions that run as node-a" in notice.message
    assert (await show(plane)).epoch == 1
    assert (await plane.get(session_id)).state == State.READY


async def test_who_knows_what_runs_is_no_duplicate(plane: Control) -> None:
    """A machine that was started again, whose agent finds in its journal what ran there."""
    first, session_id = await cut_off(plane)
    assignment = await first.assignment(session_id)
    again = await second_agent(plane, first, launches=[known(assignment, "LOST", message="The machine was restarted.")])
    await again.settled()

    assert again.welcome.epoch == 2
    assert (await plane.get(session_id)).end_reason == session_pb2.Session.NODE_LOST


async def test_who_lost_its_journal_in_the_same_boot_is_no_duplicate(plane: Control) -> None:
    """It is the same machine: what it does not know, it is told to stop."""
    first, session_id = await cut_off(plane)
    again = await second_agent(plane, first, "boot-1")

    assert again.welcome.epoch == 2
    assert [each.desired for each in again.assigned.values()] == [agent_pb2.Assignment.STOPPED]
    assert [each.session_id for each in again.assigned.values()] == [session_id]


async def test_who_was_only_to_begin_something_has_nothing_to_lose(plane: Control) -> None:
    """A launch that no agent has begun is no reason to refuse one."""
    first = await plane.new_agent("node-a", await plane.token("NODE", "node-a")).open(hello=boot("boot-1"))
    await plane.create()
    await plane.place()
    await first.close()
    await plane.unlinked()

    assert (await second_agent(plane, first)).welcome.epoch == 2


async def test_forgetting_the_node_lets_the_new_machine_in(plane: Control) -> None:
    """An operator has said that the first one is gone; its sessions have ended."""
    first, session_id = await cut_off(plane)
    with pytest.raises(errors.AlreadyExists):
        await second_agent(plane, first)
    await plane.call("NodeService.ForgetNode", node_pb2.ForgetNodeRequest(node="node-a"))

    again = await second_agent(plane, first)

    assert again.welcome.epoch == 1
    assert again.assigned == {}
    assert (await plane.get(session_id)).end_reason == session_pb2.Session.NODE_LOST


async def test_a_second_agent_is_let_in_when_the_first_must_have_ended_everything(plane: Control) -> None:
    """After its claim time, which runs from its first try; not a second earlier."""
    first, session_id = await cut_off(plane)
    with pytest.raises(errors.AlreadyExists):
        await second_agent(plane, first)
    plane.clock.pass_s(2159)
    with pytest.raises(errors.AlreadyExists):
        await second_agent(plane, first)
    plane.clock.pass_s(1)

    again = await second_agent(plane, first)

    assert again.welcome.epoch == 2
    [assignment] = again.assigned.values()
    assert (assignment.session_id, assignment.desired) == (session_id, agent_pb2.Assignment.STOPPED)


async def test_a_second_agent_waits_again_once_the_first_was_back(plane: Control) -> None:
    """Also where the first one came back through another replica, which this one learns from the epoch alone."""
    first, session_id = await cut_off(plane)
    assignment = await first.assignment(session_id)
    with pytest.raises(errors.AlreadyExists):
        await second_agent(plane, first)
    arrival = LinkOpening(
        "node-a", "one", node_pb2.NodeFacts(boot_id="boot-1").SerializeToString(), (), plane.clock(), hub="another"
    )
    epoch = await plane.store.write(lambda tx: link(tx, arrival))
    plane.clock.pass_s(10_000)
    await plane.store.write(lambda tx: unlink(tx, "node-a", epoch, now=plane.clock()))

    with pytest.raises(errors.AlreadyExists):
        await second_agent(plane, first)

    again = await plane.new_agent("node-a", first.token).open(launches=[known(assignment)], hello=boot("boot-1"))
    assert again.assigned[assignment.launch_id].desired == agent_pb2.Assignment.RUNNING
