"""Logs of launches, asked for over the links of this process."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from footlights import errors, ids
from footlights.agent.v1 import agent_pb2
from footlights.control.dispatch.registry import unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from footlights.control.dispatch.link import AgentLink
    from footlights.control.dispatch.registry import LinkRegistry

log = structlog.get_logger(__name__)

LOG_TIMEOUT_S = 10.0
"""For the first part of an answer, and for every part of a log that is not followed."""

LOG_TOTAL_S = 30.0
"""For all of a log that is not followed: an agent reads it in 15 s."""

MAX_LOG_PARTS = 64
"""Parts that wait for one reader."""

MAX_LOG_BYTES = 4 << 20
"""The same in bytes."""

DEFAULT_LINES = 100
"""What an agent sends where no number of lines is asked for."""


class LogStreams:
    """The requests for logs that are under way."""

    def __init__(self, links: LinkRegistry) -> None:
        self._links = links
        self._parts: dict[str, _Parts] = {}

    def add(self, link: AgentLink, part: agent_pb2.LogPart) -> None:
        """Hand a part of a log to the reader that asked for it over this link."""
        parts = self._parts.get(part.request_id)
        if parts is not None and parts.link is link:
            parts.add(part)

    async def read(
        self, node: str, launch_id: str, *, tail_lines: int, follow: bool
    ) -> AsyncGenerator[agent_pb2.LogPart, None]:
        """Ask an agent for a launch's output.

        Raises:
            errors.Unavailable: the agent is not connected, does not answer, or its link ends before the log does.
            errors.NotFound: the agent has no output of the launch any more.
        """
        link = self._links.get(node)
        request = agent_pb2.LogRequest(
            request_id=ids.new_id(), launch_id=launch_id, tail_lines=tail_lines, follow=follow
        )
        if link is None or not link.send(agent_pb2.LinkResponse(log_request=request)):
            raise unreachable(node)
        parts = self._parts[request.request_id] = _Parts(link)
        room = tail_lines or DEFAULT_LINES
        try:
            timeout_s: float | None = LOG_TIMEOUT_S
            ends = self._links.monotonic() + LOG_TOTAL_S
            while True:
                part = await parts.next(timeout_s)
                if part is None or (not follow and self._links.monotonic() > ends):
                    raise unreachable(node)
                if part.error:
                    raise errors.NotFound(
                        f"The log cannot be read: {part.error}",
                        reason=errors.Reason.LAUNCH_LOG_NOT_FOUND,
                        metadata={"launch_id": launch_id},
                    )
                if not follow and len(part.lines) > room:
                    # It sends more than it was asked for, and maybe without end.
                    log.warning("log_answer_cut", node=node, launch_id=launch_id, asked=tail_lines)
                    yield agent_pb2.LogPart(lines=part.lines[:room], truncated=part.truncated, last=True)
                    return
                room -= len(part.lines)
                yield part
                if part.last:
                    return
                if follow:
                    # An application may write nothing for days; the link's end ends the wait.
                    timeout_s = None
        finally:
            del self._parts[request.request_id]
            if follow:
                cancel = agent_pb2.LogRequest(request_id=request.request_id, launch_id=launch_id, cancel=True)
                link.send(agent_pb2.LinkResponse(log_request=cancel))


class _Parts:
    """What an agent has answered to one request and was not read yet: the newest of it."""

    def __init__(self, link: AgentLink) -> None:
        self.link = link
        self._parts: deque[agent_pb2.LogPart] = deque()
        self._size = 0
        self._more = asyncio.Event()

    def add(self, part: agent_pb2.LogPart) -> None:
        """Keep a part. A slow reader loses the oldest, is told so, and always learns of the end."""
        self._parts.append(part)
        self._size += part.ByteSize()
        while len(self._parts) > MAX_LOG_PARTS or (self._size > MAX_LOG_BYTES and len(self._parts) > 1):
            self._size -= self._parts.popleft().ByteSize()
            self._parts[0].truncated = True
        self._more.set()

    async def next(self, timeout_s: float | None) -> agent_pb2.LogPart | None:
        """Return the next part; None where the link has ended or nothing came for ``timeout_s`` seconds."""
        if not self._parts:
            self._more.clear()
            waits = [asyncio.ensure_future(self._more.wait()), asyncio.ensure_future(self.link.closed().wait())]
            try:
                await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if not self._parts:
            return None
        part = self._parts.popleft()
        self._size -= part.ByteSize()
        return part
