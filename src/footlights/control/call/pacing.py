"""Keeps REST from starving agents' links where one process serves both.

A process whose event loop is never idle rarely releases the interpreter: the thread that carries gRPC's events waits
for milliseconds at each step, and heartbeats arrive seconds late although the loop itself is on time. So while agents
are linked here, REST calls start only until a share of the current window's processor time is used. Then they wait for
the next window, in order, and beyond a bound they are refused. The rest of each window stays idle for the links; the
more messages they send, the more. In a process without links nothing is held back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pacing:
    """Says when a REST call may start."""

    WINDOW_S = 0.02
    LEAST_SHARE = 0.7
    """The share of one processor that this process may always use, however many messages the links send."""
    MESSAGE_S = 0.001
    """Processor time that is left idle for each message of a link."""
    LOOK_S = 0.001
    AT_ONCE = 8
    """Calls that start before their cost is measured."""
    LONGEST_WAIT_S = 2.0

    def __init__(
        self,
        links: Callable[[], int],
        messages: Callable[[], int],
        *,
        most_waiting: int,
        monotonic: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ) -> None:
        self._links, self._messages, self._most_waiting = links, messages, most_waiting
        self._share, self._counted = self.LEAST_SHARE, (messages(), monotonic())
        self._monotonic, self._worked = monotonic, worked
        self._ends, self._most = 0.0, 0.0
        self._looks_at, self._room = 0.0, True
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next: asyncio.Handle | None = None

    async def __call__(self) -> bool:
        """Wait for a call's turn; return False where it is refused."""
        if not self._links() or (not self._waiting and self._has_room()):
            return True
        if len(self._waiting) >= self._most_waiting:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._look_again()
        try:
            async with asyncio.timeout(self.LONGEST_WAIT_S):
                await turn
        except TimeoutError:
            return False
        finally:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
        return True

    def _has_room(self) -> bool:
        now = self._monotonic()
        if now < self._looks_at:
            return self._room
        # Reading the processor time costs a system call; once a millisecond is enough.
        worked, self._looks_at = self._worked(), now + self.LOOK_S
        if now >= self._ends:
            self._ends, self._most = now + self.WINDOW_S, worked + self._share_at(now) * self.WINDOW_S
        self._room = worked < self._most
        return self._room

    def _share_at(self, now: float) -> float:
        count, since = self._counted
        if now - since >= 1.0:
            rate = (self._messages() - count) / (now - since)
            self._share = max(self.LEAST_SHARE, 1 - self.MESSAGE_S * rate)
            self._counted = self._messages(), now
        return self._share

    def _start(self) -> None:
        self._next = None
        if self._has_room():
            for _ in range(min(self.AT_ONCE, len(self._waiting))):
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
        if self._waiting:
            self._look_again()

    def _look_again(self) -> None:
        if self._next is not None:
            return
        loop = asyncio.get_running_loop()
        # While there is room: right after the first step of those that have started. Else in the next window.
        left = self._ends - self._monotonic()
        self._next = loop.call_soon(self._start) if self._has_room() else loop.call_later(left, self._start)
