"""Calls whose client disconnects, or whose deadline passes, are cancelled.

Setting and cancelling a timer of the event loop, or starting a task that reads on, costs more than a small call does.
Guards wait in a set that one timer goes through: only those that are still there after one to two periods do either.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Receive

PERIOD_S: Final = 0.02


class Sweep:
    """The guards of one event loop. While it is empty there is no timer."""

    __slots__ = ("_guards", "_loop", "_old", "_running", "discard")

    def __init__(self) -> None:
        self._running = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._guards: set[CallGuard] = set()
        self._old: frozenset[CallGuard] = frozenset()
        self.discard = self._guards.discard
        """Remove a guard, if it is here."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, remembered: until Python 3.12 asking for it is a system call each time."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
        return self._loop

    def add(self, guard: CallGuard) -> None:
        """Call ``guard.linger`` unless it is discarded before."""
        self._guards.add(guard)
        if not self._running:
            self._running = True
            self.loop.call_later(PERIOD_S, self._turn)

    def _turn(self) -> None:
        due = self._old & self._guards
        self._guards -= due
        self._old = frozenset(self._guards)
        self._running = bool(self._old)
        if self._running:
            self.loop.call_later(PERIOD_S, self._turn)
        for guard in due:
            guard.linger()


class CallGuard:
    """Cancels the task that made it: when the client of its call disconnects, and at the deadline."""

    __slots__ = ("_cancelled", "_deadline", "_expired", "_loop", "_reader", "_receive", "_sweep", "_task", "_timer")

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._loop = sweep, sweep.loop
        self._task = asyncio.current_task(self._loop)
        self._receive: Receive | None = None
        self._reader: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled = self._expired = False

    def watch(self, receive: Receive) -> None:
        """Watch the client soon: read on after its request's body, which must have been read."""
        self._receive = receive
        self._sweep.add(self)

    def set_deadline(self, seconds: float) -> float:
        """Set the deadline; return it as the event loop's time."""
        loop = self._loop
        self._deadline = loop.time() + seconds
        if seconds <= 4 * PERIOD_S:
            self._timer = loop.call_at(self._deadline, self._expire)
        elif self._receive is None or self._reader is not None:
            # Otherwise it is in the sweep for its client's sake.
            self._sweep.add(self)
        return self._deadline

    def lift_deadline(self) -> None:
        """Take the deadline away, and a cancellation by it that the handler did not pass on."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
        if self._receive is None:
            self._sweep.discard(self)
        if self._expired and self._task is not None:
            self._task.uncancel()

    def stop(self) -> None:
        """End; must be called when the call is over."""
        self._sweep.discard(self)
        if self._reader is not None:
            self._reader.cancel()

    def cancel(self) -> None:
        """Cancel the call, as when its client has disconnected."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    @property
    def is_due(self) -> bool:
        """Whether it has cancelled the call."""
        return self._cancelled or self._expired

    def caused(self) -> bool:
        """Whether a cancellation that was just caught came from the client alone; take it back then."""
        return self._cancelled and self._task is not None and self._task.uncancel() == 0

    def has_expired(self) -> bool:
        """Whether a cancellation that was just caught came from the deadline alone; take it back then."""
        if not self._expired or self._task is None:
            return False
        self._expired = False
        return self._task.uncancel() == 0

    def linger(self) -> None:
        """Start what watches: the call was not over at once."""
        loop = self._loop
        if self._deadline is not None and self._timer is None:
            self._timer = loop.call_at(self._deadline, self._expire)
        if self._receive is not None and self._reader is None:
            self._reader = loop.create_task(self._read(self._receive))

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.cancel()
                return
