"""A bounded queue between the two ends of a local stream."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

WINDOW: Final = 4
"""How many messages a writer may be ahead of its reader."""


class Closed(Exception):
    """There are no more messages to read, or no reader to write for."""


class Pipe:
    """Messages in order. Futures carry wake-ups only, so no message is lost when a waiter is cancelled."""

    __slots__ = ("_closed", "_items", "_waiters")

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []

    async def put(self, item: object) -> None:
        """Add a message; waits while the window is full.

        Raises:
            Closed: The pipe was closed.
        """
        while len(self._items) >= WINDOW and not self._closed:
            await self._wait()
        if self._closed:
            raise Closed
        self._items.append(item)
        self._wake()

    async def get(self) -> Any:
        """Return the next message.

        Raises:
            Closed: There is none, and there will be none.
        """
        while not self._items:
            if self._closed:
                raise Closed
            await self._wait()
        item = self._items.popleft()
        self._wake()
        return item

    def close(self) -> None:
        """Accept no more messages; those inside can still be read."""
        self._closed = True
        self._wake()

    def drop(self) -> None:
        """Close, and drop the messages inside."""
        self._items.clear()
        self.close()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
