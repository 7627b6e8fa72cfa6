"""Logs over links: what a slow reader gets. How they are asked for is in services/test_logs."""

from __future__ import annotations

import asyncio

import pytest
from footlights.agent.v1 import agent_pb2

from footlights import errors
from footlights.control.dispatch.link import AgentLink
from footlights.control.dispatch.log_streams import LOG_TOTAL_S, MAX_LOG_BYTES, MAX_LOG_PARTS, LogStreams
from footlights.control.dispatch.registry import LinkRegistry
from tests.control.harness import Clock


async def test_a_slow_reader_of_a_log_loses_the_oldest_and_is_told() -> None:
    """Memory is bounded, the gap is marked, the end arrives."""
    registry, link = LinkRegistry(), AgentLink("n", "one", 1, set())
    registry.add(link)
    logs, sent = LogStreams(registry), asyncio.Queue[agent_pb2.LinkResponse]()
    holding = asyncio.create_task(link.hold(sent.put, asyncio.Event().wait))
    reading = logs.read("n", "launch", tail_lines=100, follow=False)

    async def read() -> list[agent_pb2.LogPart]:
        return [part async for part in reading]

    asking = asyncio.create_task(read())
    request_id = (await sent.get()).log_request.request_id
    count = MAX_LOG_PARTS + 10
    for number in range(count):
        part = agent_pb2.LogPart(request_id=request_id, lines=[str(number)], last=number == count - 1)
        logs.add(link, part)

    parts = await asking
    link.close()
    await holding

    assert len(parts) == MAX_LOG_PARTS
    assert (list(parts[0].lines), parts[0].truncated) == (["10"], True)
    assert not any(part.truncated for part in parts[1:])
    assert parts[-1].last


class _Agent:
    """A link, and what is asked over it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = LinkRegistry(self.clock.monotonic)
        self.link = AgentLink("n", "one", 1, set(), monotonic=self.clock.monotonic)
        self.registry.add(self.link)
        self.logs = LogStreams(self.registry)
        self._sent: asyncio.Queue[agent_pb2.LinkResponse] = asyncio.Queue()
        self._holding = asyncio.create_task(self.link.hold(self._sent.put, asyncio.Event().wait))

    async def asked(self) -> str:
        return (await self._sent.get()).log_request.request_id

    def answer(self, request_id: str, *lines: str, last: bool = False) -> None:
        self.logs.add(self.link, agent_pb2.LogPart(request_id=request_id, lines=lines, last=last))

    async def close(self) -> None:
        self.link.close()
        await self._holding


async def test_an_agent_that_answers_without_end_is_cut_off_at_what_was_asked() -> None:
    """Its reader has as many lines as were asked for, and that is the end."""
    agent = _Agent()
    reading = agent.logs.read("n", "launch", tail_lines=3, follow=False)
    first = asyncio.create_task(anext(reading))
    request_id = await agent.asked()
    for number in range(MAX_LOG_PARTS):
        agent.answer(request_id, *(f"{number}-{line}" for line in range(1000)))

    lines = [*(await first).lines, *[line async for part in reading for line in part.lines]]
    await agent.close()

    assert len(lines) == 3


async def test_what_waits_for_a_reader_is_bounded_in_bytes() -> None:
    """Large parts are dropped earlier than many: a lying agent took 1.2 GiB."""
    agent = _Agent()
    reading = agent.logs.read("n", "launch", tail_lines=10_000, follow=True)
    first = asyncio.create_task(anext(reading))
    request_id = await agent.asked()
    for _ in range(MAX_LOG_PARTS):
        agent.answer(request_id, "x" * (1 << 20))
    agent.answer(request_id, last=True)

    parts = [await first, *[part async for part in reading]]
    await agent.close()

    assert sum(part.ByteSize() for part in parts) <= MAX_LOG_BYTES
    assert (parts[0].truncated, parts[-1].last) == (True, True)


async def test_an_answer_that_trickles_ends_in_time() -> None:
    """A part now and then keeps no call of a log that is not followed."""
    agent = _Agent()
    reading = agent.logs.read("n", "launch", tail_lines=1000, follow=False)
    first = asyncio.create_task(anext(reading))
    request_id = await agent.asked()
    agent.answer(request_id, "a")
    await first
    agent.clock.pass_s(LOG_TOTAL_S + 1)
    agent.answer(request_id, "b")

    with pytest.raises(errors.Unavailable):
        await anext(reading)
    await agent.close()
