"""Wake-ups within one process: hints that something has changed, never the news itself."""

from __future__ import annotations

import asyncio
import contextlib


class Changes:
    """A counter that grows at every change, and a way to wait until it has.

    Bounded by nature: a waiter that sleeps through a thousand changes is woken once.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self.count = 0
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Wake everybody who waits."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Return the count as soon as it is not ``seen``, and in any case after ``timeout_s`` seconds."""
        if self.count == seen:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), timeout_s)
        return self.count


class Bus:
    """The wake-ups of one control plane, by who listens."""

    def __init__(self) -> None:
        """Begin with nobody woken."""
        self.sessions = Changes()
        """Some session has changed: watchers."""
        self.placing = Changes()
        """A session waits, or a slot is free: placing."""
        self.nodes: dict[str, Changes] = {}
        """What a node is to run has changed: its link."""

    def node(self, name: str) -> Changes:
        """Return the wake-ups for one node's link."""
        return self.nodes.setdefault(name, Changes())

    def session_changed(self, node: str = "") -> None:
        """Wake watchers and placing, and the link of the node where one is concerned."""
        self.sessions.wake()
        self.placing.wake()
        if node:
            self.node(node).wake()
