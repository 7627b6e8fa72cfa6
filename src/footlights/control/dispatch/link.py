"""The agents' links: each one's state in this process, and what is asked of agents over them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

from footlights import errors, ids
from footlights.v1 import agent_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from footlights.lifecycle import TimeLimits

Fingerprint = tuple[str, int, bytes, datetime | None]
"""What an assignment follows from that may change while its launch lives."""

MAX_UNSAID = 1000
"""Messages that wait for one agent; then it is told no more until it has taken some."""


class OpenLink:
    """One agent's open stream. Thousands of them are open, so it holds as little as can be while nothing is said."""

    __slots__ = (
        "_holder",
        "_write",
        "closed",
        "epoch",
        "farewell",
        "gone",
        "heard",
        "incarnation",
        "interval_s",
        "known",
        "limits",
        "node",
        "outbox",
        "over",
        "passed_over",
        "peer",
        "reported",
        "speaker",
        "spoke",
        "told",
        "welcomed",
    )

    def __init__(
        self,
        node: str,
        incarnation: str,
        epoch: int,
        known: set[str],
        *,
        peer: str = "inproc:",
        interval_s: float = 5.0,
    ) -> None:
        """Take whose link it is.

        Args:
            node: The node.
            incarnation: Of the agent.
            epoch: The link's.
            known: The launches that the agent said it knows; those that are assigned over this link are added.
            peer: Where it comes from, as gRPC says it.
            interval_s: How often it was told to say that it lives.
        """
        self.node, self.incarnation, self.epoch, self.known = node, incarnation, epoch, known
        self.peer, self.interval_s = peer, interval_s
        self.heard = 0.0
        """When it was last heard, on the hub's monotonic clock."""
        self.outbox: deque[agent_pb2.LinkResponse] | None = None
        """What to say next; None where there is nothing."""
        self.speaker: asyncio.Task[None] | None = None
        """Says it; lives only while there is something to say."""
        self._write: Callable[[agent_pb2.LinkResponse], Awaitable[None]] | None = None
        self._holder: asyncio.Task[Any] | None = None
        self.told: dict[str, Fingerprint] = {}
        """By launch, what the assignment that the agent has follows from."""
        self.limits: dict[str, TimeLimits] = {}
        self.reported: dict[str, bytes] = {}
        """The last report of each launch without its durations: equal ones need not be recorded."""
        self.welcomed = False
        """Whether it was told the full set."""
        self.passed_over = False
        """Whether it was not told something because it had not been told the full set."""
        self.over = False
        self.farewell: Exception | None = None
        """Why it is over, for the agent; None where it was the agent's own wish."""
        self.gone = False
        """Whether it is no longer its node's link."""
        self.closed: asyncio.Event | None = None
        """Set once it is gone; made by whoever waits for that."""
        self.spoke: asyncio.Event | None = None
        """Set when it is heard; made by whoever waits for that."""

    def say(self, message: agent_pb2.LinkResponse) -> bool:
        """Queue a message; False where the agent does not keep up."""
        if self.outbox is None:
            self.outbox = deque()
        if len(self.outbox) >= MAX_UNSAID:
            return False
        self.outbox.append(message)
        self._begin_to_speak()
        return True

    async def hold(
        self, write: Callable[[agent_pb2.LinkResponse], Awaitable[None]], listen: Callable[[], Awaitable[None]]
    ) -> None:
        """Say with ``write`` whatever is queued, until ``listen`` returns or the link is ended.

        Raises:
            errors.Error: the farewell, where the link was ended for a reason.
        """
        task = asyncio.current_task()
        assert task is not None
        self._write, self._holder = write, task
        self._begin_to_speak()
        try:
            if not self.over:
                await listen()
        except asyncio.CancelledError:
            # Ended by us, unless the stream itself is gone.
            if not self.over or task.uncancel():
                raise
        finally:
            self._write = self._holder = None
            if self.speaker is not None:
                self.speaker.cancel()
        if self.farewell is not None:
            raise self.farewell

    def _begin_to_speak(self) -> None:
        if self._write is not None and self.outbox and self.speaker is None:
            self.speaker = asyncio.create_task(self._speak(self._write), name=f"speak-{self.node}")

    async def _speak(self, write: Callable[[agent_pb2.LinkResponse], Awaitable[None]]) -> None:
        try:
            while self.outbox:
                await write(self.outbox.popleft())
            self.outbox = None
        except Exception as error:
            self.end(errors.Unavailable(f"The link is broken: {error}", reason="LINK_BROKEN"))
        finally:
            self.speaker = None

    def end(self, farewell: Exception | None) -> None:
        """End the link, for a reason that the agent is told."""
        if not self.over:
            self.over, self.farewell = True, farewell
            if self._holder is not None:
                self._holder.cancel()

    def close(self) -> None:
        """Note that it is no longer its node's link: whoever waits for an answer over it waits in vain."""
        self.end(None)
        self.gone = True
        if self.closed is not None:
            self.closed.set()

    def closing(self) -> asyncio.Event:
        """Return what is set once it is no longer its node's link."""
        if self.closed is None:
            self.closed = asyncio.Event()
            if self.gone:
                self.closed.set()
        return self.closed

    def speaking(self) -> asyncio.Event:
        """Return what is set when it is heard next."""
        self.spoke = self.spoke or asyncio.Event()
        return self.spoke


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
        self._silent_since: dict[str, tuple[int, float]] = {}
        self._started = monotonic()
        self.messages = 0
        """How many were heard in all."""
        self.fleet_size = 0
        """How many nodes have a link to any replica, as last counted."""

    def add(self, link: OpenLink) -> None:
        """Make ``link`` its node's link; an older one is ended."""
        older = self._links.get(link.node)
        self._links[link.node] = link
        self.hear(link)
        self._silent_since.pop(link.node, None)
        if older is not None:
            older.end(replaced(link.node, link.incarnation))
            older.close()

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
        closing, speaking = link.closing(), link.speaking()
        link.say(agent_pb2.LinkResponse(log_request=agent_pb2.LogRequest(request_id=ids.new_id())))
        spoke, closed = asyncio.ensure_future(speaking.wait()), asyncio.ensure_future(closing.wait())
        try:
            await asyncio.wait((spoke, closed), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if spoke.done():
                # Where we stood still ourselves, the last words of a dead agent and its end are read together.
                await asyncio.wait((closed,), timeout=self.LAST_WORDS_S)
        finally:
            spoke.cancel()
            closed.cancel()
        return link if speaking.is_set() and not closing.is_set() else None

    def remove(self, link: OpenLink) -> bool:
        """Forget a link; False where a newer one has taken its place."""
        link.close()
        if self._links.get(link.node) is not link:
            return False
        del self._links[link.node]
        self._silent_since[link.node] = (link.epoch, self._monotonic())
        return True

    def hear(self, link: OpenLink) -> None:
        """Note that a link was heard at this moment."""
        if link.spoke is not None:
            link.spoke.set()
            link.spoke = None
        self.messages += 1
        link.heard = self._monotonic()

    def get(self, node: str) -> OpenLink | None:
        """Return a node's link."""
        return self._links.get(node)

    def __contains__(self, node: object) -> bool:
        """Return whether a node's link is here."""
        return node in self._links

    def __len__(self) -> int:
        """Return how many links are open."""
        return len(self._links)

    @property
    def links(self) -> list[OpenLink]:
        """The links that are open."""
        return list(self._links.values())

    def keep(self, nodes: set[str]) -> None:
        """Forget how long it is since any other node was heard: it was forgotten."""
        for gone in self._silent_since.keys() - nodes:
            del self._silent_since[gone]

    def linked(self, node: str) -> bool:
        """Say whether a node has had a link to this process."""
        return node in self._links or node in self._silent_since

    def knows(self, node: str, epoch: int) -> bool:
        """Say whether the newest link of a node, by its epoch, is or was one of this process."""
        link = self._links.get(node)
        if link is not None:
            return link.epoch == epoch
        return node in self._silent_since and self._silent_since[node][0] == epoch

    def silence_s(self, node: str) -> float:
        """Return for how many seconds nothing was heard of a node, at most since this process began."""
        link = self._links.get(node)
        since = link.heard if link is not None else self._silent_since.get(node, (0, self._started))[1]
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
            request_id=ids.new_id(), launch_id=launch_id, tail_lines=tail_lines, follow=follow
        )
        if link is None or not link.say(agent_pb2.LinkResponse(log_request=request)):
            raise unreachable(node)
        parts = self._logs[request.request_id] = _Parts(link, self.MAX_LOG_PARTS)
        try:
            patience: float | None = self.LOG_TIMEOUT_S
            while True:
                part = await parts.next(patience)
                if part is None:
                    raise unreachable(node)
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
            waits = [asyncio.ensure_future(self._more.wait()), asyncio.ensure_future(self.link.closing().wait())]
            try:
                await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return self._parts.popleft() if self._parts else None


def replaced(node: str, incarnation: str) -> errors.AlreadyExists:
    """Return what an agent is told whose node has a newer link."""
    return errors.AlreadyExists(
        f"Node {node} has opened another link. If two machines have this name, rename one of them.",
        reason="LINK_REPLACED",
        metadata={"node": node, "incarnation": incarnation},
    )


def unreachable(node: str) -> errors.Unavailable:
    """Return what is said where a node's agent cannot be asked."""
    return errors.Unavailable(
        f"Node {node} cannot be asked: its agent is not connected or does not answer. Try again in a moment.",
        reason="NODE_UNREACHABLE",
        metadata={"node": node},
        retry_after_s=5,
    )
