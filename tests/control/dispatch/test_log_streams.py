"""Logs over links: what a slow reader gets. How they are asked for is in services/test_logs."""

from __future__ import annotations

import asyncio

from footlights.agent.v1 import agent_pb2

from footlights.control.dispatch.link import AgentLink
from footlights.control.dispatch.log_streams import MAX_LOG_PARTS, LogStreams
from footlights.control.dispatch.registry import LinkRegistry


async def test_a_slow_reader_of_a_log_loses_the_oldest_and_is_told() -> None:
    """Memory is bounded, the gap is marked, the end arrives."""
    registry, link = LinkRegistry(), AgentLink("n", "one", 1, set())
    registry.add(link)
    logs, sent = LogStreams(registry), asyncio.Queue[agent_pb2.LinkResponse]()
    holding = asyncio.create_task(link.hold(sent.put, asyncio.Event().wait))
    reading = logs.read("n", "launch", tail_lines=1, follow=False)

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
