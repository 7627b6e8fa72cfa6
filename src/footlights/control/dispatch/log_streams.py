"""Logs of launches, asked for over the links of this process."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from footlights import errors, ids
from footlights.control.dispatch.registry import unreachable
from footlights.v1 import agent_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from footlights.control.dispatch.link import AgentLink
    from footlights.control.dispatch.registry import LinkRegistry

LOG_TIMEOUT_S = 10.0
"""For the first part of an answer, and for every part of a log that is not followed."""

MAX_LOG_PARTS = 64
"""Parts that wait for one reader."""


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
        try:
            timeout_s: float | None = LOG_TIMEOUT_S
            while True:
                part = await parts.next(timeout_s)
                if part is None:
                    raise unreachable(node)
                if part.error:
                    raise errors.NotFound(
                        f"The log cannot be read: {part.error}",
                        reason=errors.Reason.LAUNCH_LOG_NOT_FOUND,
                        metadata={"launch_id": launch_id},
                    )
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
    """What an agent has answered to one request and was not read yet: the newest ``MAX_LOG_PARTS``."""

    def __init__(self, link: AgentLink) -> None:
        self.link = link
        self._parts: deque[agent_pb2.LogPart] = deque()
        self._more = asyncio.Event()

    def add(self, part: agent_pb2.LogPart) -> None:
        """Keep a part. A slow reader loses the oldest, is told so, and always learns of the end."""
        self._parts.append(part)
        if len(self._parts) > MAX_LOG_PARTS:
            self._parts.popleft()
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
        return self._parts.popleft() if self._parts else None
