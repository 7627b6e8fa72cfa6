"""The agents' links: each one's state in this process, and what is asked of agents over them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from footlights import errors, names
from footlights.lifecycle import TimeLimits
from footlights.v1 import agent_pb2


@dataclass(slots=True, eq=False)
class OpenLink:
    """One agent's open stream."""

    node: str
    incarnation: str
    epoch: int
    known: set[str]
    """The launches that the agent said it knows, and those that were assigned over this link."""
    peer: str = "inproc:"
    """Where it comes from, as gRPC says it."""
    heard: float = 0.0
    """When it was last heard, on the hub's monotonic clock."""
    outbox: asyncio.Queue[agent_pb2.LinkResponse | None] = field(default_factory=lambda: asyncio.Queue(1000))
    """What to say next; None ends the link."""
    limits: dict[str, TimeLimits] = field(default_factory=dict)
    reported: dict[str, bytes] = field(default_factory=dict)
    """The last report of each launch without its durations: equal ones need not be recorded."""
    farewell: errors.Error | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is no longer its node's link: whoever waits for an answer over it waits in vain."""

    spoke: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever it is heard; whoever waits for that clears it first."""

    def say(self, message: agent_pb2.LinkResponse) -> bool:
        """Queue a message; False where the agent does not keep up."""
        try:
            self.outbox.put_nowait(message)
        except asyncio.QueueFull:
            return False
        return True

    def end(self, farewell: errors.Error) -> None:
        """End the link for a reason that the agent is told."""
        self.farewell = farewell
        with contextlib.suppress(asyncio.QueueFull):
            self.outbox.put_nowait(None)


class Hub:
    """The links of this process, by node."""

    LOG_TIMEOUT_S = 10.0
    MAX_LOG_PARTS = 64
    LAST_WORDS_S = 0.25

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin without a link."""
        self._monotonic = monotonic
        self._links: dict[str, OpenLink] = {}
        self._logs: dict[str, _Parts] = {}
        self._silent_since: dict[str, float] = {}
        self._started = monotonic()

    def add(self, link: OpenLink) -> None:
        """Make ``link`` its node's link; an older one is ended."""
        older = self._links.get(link.node)
        self._links[link.node] = link
        self.hear(link)
        self._silent_since.pop(link.node, None)
        if older is not None:
            older.closed.set()
            older.end(
                errors.AlreadyExists(
                    f"Node {link.node} has opened another link. If two machines have this name, rename one of them.",
                    reason="LINK_REPLACED",
                    metadata={"node": link.node, "incarnation": link.incarnation},
                )
            )

    async def rival(self, node: str, incarnation: str, patience_s: float) -> OpenLink | None:
        """Return the link of another agent under this name that is alive; None where the way is free.

        An agent that was restarted leaves a link behind that ends, or says nothing more. One that still speaks is
        another agent, and of the two it has the node's launches. It is asked something, so that it need not wait for
        its next heartbeat: whoever knows no such launch says so at once.

        Args:
            node: The name under which a new link is to be opened.
            incarnation: Of the agent that opens it.
            patience_s: How long a link may take to speak; what was silent for longer before is not asked.
        """
        link = self._links.get(node)
        if link is None or link.incarnation == incarnation or self._monotonic() - link.heard > patience_s:
            return None
        link.spoke.clear()
        link.say(agent_pb2.LinkResponse(log_request=agent_pb2.LogRequest(request_id=names.new_id())))
        spoke, closed = asyncio.ensure_future(link.spoke.wait()), asyncio.ensure_future(link.closed.wait())
        try:
            await asyncio.wait((spoke, closed), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if spoke.done():
                # Where we stood still ourselves, the last words of a dead agent and its end are read together.
                await asyncio.wait((closed,), timeout=self.LAST_WORDS_S)
        finally:
            spoke.cancel()
            closed.cancel()
        return link if link.spoke.is_set() and not link.closed.is_set() else None

    def remove(self, link: OpenLink) -> bool:
        """Forget a link; False where a newer one has taken its place."""
        link.closed.set()
        if self._links.get(link.node) is not link:
            return False
        del self._links[link.node]
        self._silent_since[link.node] = self._monotonic()
        return True

    def hear(self, link: OpenLink) -> None:
        """Note that a link was heard at this moment."""
        link.spoke.set()
        link.heard = self._monotonic()

    def get(self, node: str) -> OpenLink | None:
        """Return a node's link."""
        return self._links.get(node)

    def linked(self, node: str) -> bool:
        """Say whether a node has had a link to this process."""
        return node in self._links or node in self._silent_since

    def silence_s(self, node: str) -> float:
        """Return for how many seconds nothing was heard of a node, at most since this process began."""
        link = self._links.get(node)
        since = link.heard if link is not None else self._silent_since.get(node, self._started)
        return self._monotonic() - since

    def log_part(self, link: OpenLink, part: agent_pb2.LogPart) -> None:
        """Hand a part of a log to whoever asked for it over this link."""
        waiting = self._logs.get(part.request_id)
        if waiting is not None and waiting.link is link:
            waiting.add(part)

    async def log(
        self, node: str, launch_id: str, *, tail_lines: int, follow: bool
    ) -> AsyncIterator[agent_pb2.LogPart]:
        """Ask an agent for a launch's output.

        Raises:
            errors.Unavailable: the agent is not connected, does not answer, or its link ends before the log does.
            errors.NotFound: the agent has no output of the launch any more.
        """
        link = self._links.get(node)
        request = agent_pb2.LogRequest(
            request_id=names.new_id(), launch_id=launch_id, tail_lines=tail_lines, follow=follow
        )
        if link is None or not link.say(agent_pb2.LinkResponse(log_request=request)):
            raise _unreachable(node)
        parts = self._logs[request.request_id] = _Parts(link, self.MAX_LOG_PARTS)
        try:
            patience: float | None = self.LOG_TIMEOUT_S
            while True:
                part = await parts.next(patience)
                if part is None:
                    raise _unreachable(node)
                if part.error:
                    raise errors.NotFound(f"The log cannot be read: {part.error}", reason="LOG_NOT_FOUND")
                yield part
                if part.last:
                    return
                if follow:
                    # An application may be silent for ever; the link's end ends the wait.
                    patience = None
        finally:
            del self._logs[request.request_id]
            if follow:
                cancel = agent_pb2.LogRequest(request_id=request.request_id, launch_id=launch_id, cancel=True)
                link.say(agent_pb2.LinkResponse(log_request=cancel))


class _Parts:
    """What an agent has answered to one request for a log and was not read yet: the newest so many parts."""

    def __init__(self, link: OpenLink, most: int) -> None:
        self.link = link
        self._most = most
        self._parts: deque[agent_pb2.LogPart] = deque()
        self._more = asyncio.Event()

    def add(self, part: agent_pb2.LogPart) -> None:
        """Keep a part. A slow reader loses the oldest, is told so, and always learns of the end."""
        self._parts.append(part)
        if len(self._parts) > self._most:
            self._parts.popleft()
            self._parts[0].truncated = True
        self._more.set()

    async def next(self, timeout_s: float | None) -> agent_pb2.LogPart | None:
        """Return the next part; None where the link has ended or nothing came for ``timeout_s`` seconds."""
        if not self._parts:
            self._more.clear()
            waits = [asyncio.ensure_future(self._more.wait()), asyncio.ensure_future(self.link.closed.wait())]
            try:
                await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return self._parts.popleft() if self._parts else None


def _unreachable(node: str) -> errors.Unavailable:
    return errors.Unavailable(
        f"Node {node} cannot be asked: its agent is not connected or does not answer. Try again in a moment.",
        reason="NODE_UNREACHABLE",
        metadata={"node": node},
        retry_after_s=5,
    )
