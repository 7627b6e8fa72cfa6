"""Two agents with one identity, and an agent that was restarted: told apart, and nothing is begun twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from footlights.v1 import agent_pb2, node_pb2

from footlights import errors
from tests.control.harness import Agent, Control, Report, State


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
