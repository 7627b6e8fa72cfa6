"""Timers for things that are nearly always over before they are due.

Setting and cancelling a timer of the loop costs more than a small call does by itself. What is added here waits in a
set, which one timer looks through: only what is still there after a while gets what it was added for.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

PERIOD_S: Final = 0.02


class Swept(Protocol):
    """What can be added."""

    def linger(self) -> None:
        """It is still there, one to two periods later. Called once; must not raise."""


class Sweep:
    """The things of one event loop, which is the one that runs when they are added. Empty, it has no timer."""

    __slots__ = ("_old", "_running", "_young")

    def __init__(self) -> None:
        self._running = False
        self._young: set[Swept] = set()
        self._old: set[Swept] = set()

    def add(self, thing: Swept) -> None:
        """Call ``thing.linger`` unless it is discarded before."""
        self._young.add(thing)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_later(PERIOD_S, self._turn)

    def discard(self, thing: Swept) -> None:
        """It is over; nothing happens where it is not here."""
        self._young.discard(thing)
        self._old.discard(thing)

    def _turn(self) -> None:
        due, self._old, self._young = self._old, self._young, set()
        self._running = bool(self._old)
        if self._running:
            asyncio.get_running_loop().call_later(PERIOD_S, self._turn)
        for thing in due:
            thing.linger()
