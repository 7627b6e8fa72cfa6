"""Signals: hints that something has changed, never the change itself.

A topic is published to; each subscription keeps what was published since it was last read. Everything coalesces: an
item that changes a thousand times is kept once, so a slow reader costs no more memory than there are items. A signal
may be lost between two processes, so every reader also looks on its own after a period.

All of it belongs to one event loop and never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChangeSet(Generic[T]):
    """What was published since a subscription was last read."""

    items: frozenset[T] = frozenset()
    everything: bool = False
    """Whether items may be missing: any may have changed."""


class Topic(Generic[T]):
    """One kind of change, with the names of what has changed where readers need them."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription[T]] = set()
        self._idle: set[Subscription[T]] = set()
        """The subscriptions with nothing to read; only these are to be woken."""
        self._expected: dict[T, asyncio.Event] = {}

    def publish(self, *items: T, everything: bool = False, origin: Subscription[T] | None = None) -> None:
        """Tell every subscription except ``origin``, which brought the news; ``everything``: all may have changed."""
        if items or everything:
            for subscription in self._subscriptions:
                if subscription is not origin:
                    subscription.add(items, everything=everything)
        for item in items:
            if (event := self._expected.get(item)) is not None:
                event.set()
        idle, self._idle = self._idle, set()
        for subscription in idle:
            if subscription is origin:
                self._idle.add(subscription)
            else:
                subscription.wake()

    def subscribe(self, ready: asyncio.Event | None = None, *, pending: bool = False) -> Subscription[T]:
        """Return a new subscription; close it, or use it in a ``with`` statement.

        ``ready`` is set when there is something to read, to wait for several topics at once; ``pending``: now.
        """
        subscription = Subscription(self, ready or asyncio.Event())
        self._subscriptions.add(subscription)
        self.rest(subscription)
        if pending:
            self._idle.discard(subscription)
            subscription.wake()
        return subscription

    @contextlib.contextmanager
    def expect(self, item: T) -> Iterator[asyncio.Event]:
        """Give an event that is set when ``item`` is published, for a caller that waits for this one item."""
        event = self._expected.setdefault(item, asyncio.Event())
        try:
            yield event
        finally:
            self._expected.pop(item, None)

    def rest(self, subscription: Subscription[T]) -> None:
        """Note that a subscription has read everything."""
        self._idle.add(subscription)

    def forget(self, subscription: Subscription[T]) -> None:
        """Drop a subscription."""
        self._subscriptions.discard(subscription)
        self._idle.discard(subscription)


class Subscription(Generic[T]):
    """What one reader has not read yet of a topic."""

    __slots__ = ("_everything", "_items", "_ready", "_topic", "pending")

    def __init__(self, topic: Topic[T], ready: asyncio.Event) -> None:
        self._topic, self._ready = topic, ready
        self._items: set[T] = set()
        self._everything = self.pending = False

    async def ready(self, timeout_s: float) -> None:
        """Wait until there is something to read, or the time is over."""
        if not self.pending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()

    def take(self) -> ChangeSet[T]:
        """Return what was published since the last time, without waiting."""
        batch = ChangeSet(frozenset(self._items), self._everything)
        self._items.clear()
        self._everything = self.pending = False
        self._ready.clear()
        self._topic.rest(self)
        return batch

    async def next(self, timeout_s: float | None = None) -> ChangeSet[T] | None:
        """Return what was published since the last time as soon as there is something; None after ``timeout_s``.

        Not for a subscription that shares its event with others.
        """
        if not self.pending:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()
            except TimeoutError:
                return None
        return self.take()

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more."""
        self._topic.forget(self)

    def add(self, items: Iterable[T], *, everything: bool) -> None:
        """Keep what was published; the topic calls it."""
        self._items.update(items)
        self._everything |= everything

    def wake(self) -> None:
        """Say that there is something to read; the topic calls it."""
        self.pending = True
        self._ready.set()


class Signals:
    """The topics of one control plane, and what is published to them together."""

    def __init__(self) -> None:
        self.sessions: Topic[str] = Topic()
        """Some session has changed; without names. For watchers."""
        self.placing: Topic[str] = Topic()
        """A session waits, or these nodes may have room. For scheduling."""
        self.catalogue: Topic[str] = Topic()
        """Applications, versions, releases or profiles have changed; without names."""
        self.assignments: Topic[str] = Topic()
        """What these nodes are to run has changed. For the assignment sender."""
        self.identities: Topic[str] = Topic()
        """These nodes were revoked or enrolled again. For what ends their links."""
        self.decisions: Topic[str] = Topic()
        """Scheduling has decided on these sessions for the first time. For the calls that have just created them."""

    def session_changed(self, node: str = "") -> None:
        """Tell watchers and scheduling, and the link of the node where one is concerned."""
        self.sessions.publish()
        self.placing.publish()
        if node:
            self.assignments.publish(node)

    def node_changed(self, node: str) -> None:
        """Tell all that look at a node: watchers, whose sessions may show it, scheduling, and the node's link."""
        self.sessions.publish()
        self.placing.publish(node)
        self.assignments.publish(node)
