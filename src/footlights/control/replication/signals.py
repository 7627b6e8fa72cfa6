"""Wake-ups: hints that something has changed, never the change itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


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


class News:
    """What has changed since it was last passed on: bounded by what there is, however often it changes."""

    __slots__ = ("catalogue", "decided", "fleet", "nodes", "placing", "sessions")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.sessions = False
        self.placing = False
        self.catalogue = False
        self.nodes: set[str] = set()
        self.fleet: set[str] = set()
        self.decided: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.sessions or self.placing or self.catalogue or self.nodes or self.fleet or self.decided)


class Bus:
    """The wake-ups of one control plane, by who listens.

    Each is heard in this process at once. Where there are other replicas, ``pass_on`` is set and is called when there
    is news for them; what they say is ``heard``.
    """

    def __init__(self) -> None:
        """Begin with nobody woken."""
        self.sessions = Changes()
        """Some session has changed: watchers."""
        self.placing = Changes()
        """A session waits, or a slot is free: placing."""
        self.catalogue = Changes()
        """What can be streamed has changed: whoever remembers it."""
        self.decisions = Decisions()
        """What placing has decided for the first time: who has just created a session."""
        self.on_assigned: Callable[[str], bool] = lambda _: False
        """What a node is to run has changed: the hub, which says whether it has the node's link."""
        self.on_missed: Callable[[], None] = lambda: None
        """It may have changed for any node."""
        self.fleet: set[str] = set()
        """Nodes of which placing does not know the newest."""
        self.pass_on: Callable[[], None] | None = None
        self.news = News()

    def session_changed(self, node: str = "") -> None:
        """Wake watchers and placing, and the link of the node where one is concerned."""
        self.watchers()
        self.waiting()
        if node:
            self.assigned(node)

    def node_changed(self, node: str) -> None:
        """Wake whoever looks at a node: watchers, for its sessions may show it, placing, and its link."""
        self.watchers()
        self.waiting(node)
        self.assigned(node)

    def watchers(self) -> None:
        """Say that some session has changed."""
        self.sessions.wake()
        self.news.sessions = True
        self._pass_on()

    def waiting(self, *nodes: str) -> None:
        """Say that a session waits, or that these nodes have changed: a slot is free, a device is well again."""
        self.fleet.update(nodes)
        self.placing.wake()
        self.news.placing = True
        self.news.fleet.update(nodes)
        self._pass_on()

    def catalogue_changed(self) -> None:
        """Say that applications, versions, releases or profiles have changed."""
        self.catalogue.wake()
        self.news.catalogue = True
        self._pass_on()

    def assigned(self, node: str) -> None:
        """Say that what a node is to run has changed."""
        if not self.on_assigned(node):
            self.news.nodes.add(node)
            self._pass_on()

    def decided(self, session_ids: Iterable[str]) -> None:
        """Say that placing has decided on these for the first time."""
        session_ids = list(session_ids)
        self.decisions.made(session_ids)
        if self.pass_on is not None:
            self.news.decided.update(session_ids)
            self.pass_on()

    def heard(self, news: News) -> None:
        """Wake whom another replica's news concerns."""
        if news.sessions:
            self.sessions.wake()
        if news.placing or news.fleet:
            self.fleet |= news.fleet
            self.placing.wake()
        if news.catalogue:
            self.catalogue.wake()
        for node in news.nodes:
            self.on_assigned(node)
        self.decisions.made(news.decided)

    def missed(self) -> None:
        """Wake everybody: news may have been lost."""
        self.sessions.wake()
        self.placing.wake()
        self.catalogue.wake()
        self.on_missed()

    def _pass_on(self) -> None:
        if self.pass_on is not None:
            self.pass_on()
