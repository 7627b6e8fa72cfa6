"""Wake-ups within one process: hints that something has changed, never the news itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator


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


class Decisions:
    """Sessions whose first decision somebody waits for: created a moment ago, placed or queued in a moment."""

    def __init__(self) -> None:
        """Begin with none."""
        self._expected: dict[str, asyncio.Event] = {}

    def made(self, session_ids: Iterable[str]) -> None:
        """Wake whoever waits for one of these."""
        for session_id in session_ids:
            if (event := self._expected.get(session_id)) is not None:
                event.set()

    @contextlib.contextmanager
    def expected(self, session_id: str) -> Iterator[asyncio.Event]:
        """Give the event that is set once the session's first decision is written."""
        event = self._expected[session_id] = asyncio.Event()
        try:
            yield event
        finally:
            del self._expected[session_id]


class Bus:
    """The wake-ups of one control plane, by who listens."""

    def __init__(self) -> None:
        """Begin with nobody woken."""
        self.sessions = Changes()
        """Some session has changed: watchers."""
        self.placing = Changes()
        """A session waits, or a slot is free: placing."""
        self.decisions = Decisions()
        """What placing has decided for the first time: who has just created a session."""
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
