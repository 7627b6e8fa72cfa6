"""An application's output: asked for over the link, or what was kept of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from footlights.agent.v1 import agent_pb2
from footlights.v1 import session_pb2

from footlights import errors
from tests.control.harness import Agent, Control, gpu

Session = session_pb2.Session


async def _serve(agent: Agent, *parts: dict[str, Any]) -> agent_pb2.LogRequest:
    request: agent_pb2.LogRequest = await agent.until("log_request")
    for part in parts:
        await agent.say(log_part=agent_pb2.LogPart(request_id=request.request_id, **part))
    return request


async def test_a_log_is_fetched_from_the_agent(plane: Control) -> None:
    """As many lines as were asked for, in parts."""
    agent = await plane.agent()
    made = await plane.running(agent)
    assignment = await agent.assignment(made.session_id)

    asking = asyncio.create_task(plane.rest("GET", f"/stream/{made.session_id}/log", params={"tail_lines": 7}))
    request = await _serve(agent, {"lines": ["a"], "truncated": True}, {"lines": ["b"], "last": True})

    assert (request.launch_id, request.tail_lines, request.follow) == (assignment.launch_id, 7, False)
    assert (await asking).json() == {"lines": ["a", "b"], "truncated": True}


async def test_a_log_that_the_agent_has_not_is_404(plane: Control) -> None:
    """With the agent's own words."""
    agent = await plane.agent()
    made = await plane.running(agent)

    asking = asyncio.create_task(plane.rest("GET", f"/stream/{made.session_id}/log"))
    await _serve(agent, {"error": "it was rotated away", "last": True})

    answer = await asking
    assert answer.status_code == 404
    assert "it was rotated away" in answer.text


def tail(plane: Control, session_id: str) -> Any:
    return plane.stream("StreamingService.TailSessionLog", session_pb2.TailSessionLogRequest(session_id=session_id))


async def test_a_log_is_followed_until_its_last_part(plane: Control) -> None:
    """Parts as they come; who leaves tells the agent to stop."""
    agent = await plane.agent()
    made = await plane.running(agent)
    async with aclosing(tail(plane, made.session_id)) as stream, asyncio.timeout(10):
        first = asyncio.create_task(anext(stream))
        request = await _serve(agent, {"lines": ["a"]})
        assert list((await first).lines) == ["a"]
        await agent.say(log_part=agent_pb2.LogPart(request_id=request.request_id, lines=["b"]))
        assert list((await anext(stream)).lines) == ["b"]
    cancel = await agent.until("log_request")

    assert (request.follow, request.tail_lines) == (True, 50)
    assert (cancel.request_id, cancel.cancel) == (request.request_id, True)


async def test_a_follower_is_told_when_the_link_ends(plane: Control) -> None:
    """It does not wait indefinitely for an agent that is gone."""
    agent = await plane.agent()
    made = await plane.running(agent)
    async with aclosing(tail(plane, made.session_id)) as stream, asyncio.timeout(10):
        first = asyncio.create_task(anext(stream))
        await _serve(agent, {"lines": ["a"]})
        await first
        await agent.close()
        with pytest.raises(errors.Unavailable) as caught:
            await anext(stream)

    assert caught.value.reason == "NODE_UNREACHABLE"


async def test_an_agent_cannot_answer_for_another(plane: Control) -> None:
    """Parts of a log are taken from the agent that was asked."""
    agent = await plane.agent()
    other = await plane.agent("node-b", gpu("GPU-9"))
    made = await plane.running(agent)

    asking = asyncio.create_task(plane.rest("GET", f"/stream/{made.session_id}/log"))
    request = await agent.until("log_request")
    await other.say(log_part=agent_pb2.LogPart(request_id=request.request_id, lines=["forged"], last=True))
    await other.settled()
    await agent.say(log_part=agent_pb2.LogPart(request_id=request.request_id, lines=["true"], last=True))

    assert (await asking).json()["lines"] == ["true"]


async def test_the_last_lines_of_what_ended_are_kept(plane: Control) -> None:
    """Where the agent is gone, they are the log; in a failure they are in the session, too."""
    agent = await plane.agent()
    made = await plane.running(agent)
    await agent.report(await agent.assignment(made.session_id), "EXITED", exit_code=3, log_tail=["one", "two"])
    await agent.close()
    await plane.unlinked()

    read = (await plane.rest("GET", f"/stream/{made.session_id}/log", params={"tail_lines": 1})).json()
    followed = [list(part.lines) async for part in tail(plane, made.session_id)]
    ended = await plane.get(made.session_id)
    listed = (await plane.rest("GET", "/stream", params={"state": "FAILED"})).json()["items"]

    assert read == {"lines": ["two"], "truncated": True}
    assert followed == [["one", "two"]]
    assert (list(ended.log_tail), ended.exit_code) == (["one", "two"], 3)
    assert [(item["session_id"], item["log_tail"]) for item in listed] == [(made.session_id, [])]


async def test_there_is_no_log_before_the_first_launch_and_none_from_a_silent_node(plane: Control) -> None:
    """404 for what never ran; 503 for what runs where no agent can be asked."""
    waiting = await plane.create()
    never = await plane.rest("GET", f"/stream/{waiting.session_id}/log")
    agent = await plane.agent()
    await plane.place()
    await agent.ready(waiting.session_id)
    await agent.close()
    await plane.unlinked()

    silent = await plane.rest("GET", f"/stream/{waiting.session_id}/log")

    assert never.status_code == 404
    assert (silent.status_code, silent.headers["retry-after"]) == (503, "5")
