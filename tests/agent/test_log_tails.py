"""Output of launches in parts that fit a message, whatever was written."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from footlights.agent.v1.agent_pb2 import LinkRequest, LogRequest

from footlights.agent.link.log_tails import LogTails
from footlights.agent.link.outbox import Outbox
from footlights.launch.launcher import LogPart
from footlights.protocol.bounds import bound, cut
from footlights.supervision import Supervisor

LINES = bound("LogPart", "lines")


async def answered(written: list[str]) -> list[LinkRequest]:
    """The parts in which an agent answers with what an application has written."""

    async def log(*_: Any, **__: Any) -> LogPart:
        return LogPart(lines=tuple(written), cursor="end", truncated=False)

    outbox = Outbox(lambda _: None, Supervisor())
    launcher: Any = SimpleNamespace(log=log)
    plan: Any = None
    tails = LogTails(outbox, find=lambda _: (launcher, plan))
    tails.request(LogRequest(request_id="r", launch_id="l", tail_lines=10_000))
    parts: list[LinkRequest] = []
    async with asyncio.timeout(10):
        while not parts or not parts[-1].log_part.last:
            message = await outbox.next(10)
            assert message is not None
            parts.append(message)
    await tails.close()
    return parts


@pytest.mark.parametrize(
    "written", [["a"] * 5000, ["é" * 4000] * 500, ["x" * 60_000] * 30], ids=["many", "wide", "long"]
)
async def test_all_lines_arrive_in_parts_that_need_no_cutting(written: list[str]) -> None:
    """Counted in bytes, not characters."""
    parts = await answered(written)

    assert [line for part in parts for line in part.log_part.lines] == written
    assert all(cut(part) == [] for part in parts)


async def test_one_line_that_is_too_long_is_cut_and_marked() -> None:
    """The lines around it are whole."""
    parts = await answered(["before", "x" * 10_000_000, "after"])
    before, line, after = [line for part in parts for line in part.log_part.lines]

    assert (before, after) == ("before", "after")
    assert line.endswith("[cut]")
    assert len(line.encode()) <= LINES.size
