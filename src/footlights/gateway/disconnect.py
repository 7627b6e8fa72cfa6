"""A client that disconnects ends its call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Receive

    from footlights.gateway.sweep import Sweep


class DisconnectWatch:
    """Reads on after a request's body, and cancels the task that made this watch once the client has disconnected.

    Most calls end before the sweep starts the reading: those need no watching.
    """

    __slots__ = ("_cancelled", "_receive", "_serving", "_sweep", "_task")

    def __init__(self, receive: Receive, sweep: Sweep) -> None:
        self._receive, self._sweep, self._cancelled = receive, sweep, False
        self._serving = asyncio.current_task()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin soon; the body must have been read, or not be wanted."""
        self._sweep.add(self)

    def stop(self) -> None:
        """End; must be called when the call is over."""
        self._sweep.discard(self)
        if self._task is not None:
            self._task.cancel()

    def cancel(self) -> None:
        """Cancel the call."""
        self._cancelled = True
        if self._serving is not None:
            self._serving.cancel()

    def caused(self) -> bool:
        """Say whether a cancellation that was just caught came from here, and from nowhere else; take it back then."""
        return self._cancelled and self._serving is not None and self._serving.uncancel() == 0

    def linger(self) -> None:
        """Start reading: the call was not over at once."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.cancel()
                return
