"""A cheap timer for things that are nearly always over before they are due.

Setting and cancelling a timer of the event loop costs more than a small call does. Things that are added here wait in a
set that one timer goes through: only those that are still there after one to two periods are called.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

PERIOD_S: Final = 0.02


class Swept(Protocol):
    """Something that can be added."""

    def linger(self) -> None:
        """Act: one to two periods have passed. Called once; must not raise."""


class Sweep:
    """The things of one event loop. While it is empty there is no timer."""

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
        """Remove a thing, if it is here."""
        self._young.discard(thing)
        self._old.discard(thing)

    def _turn(self) -> None:
        due, self._old, self._young = self._old, self._young, set()
        self._running = bool(self._old)
        if self._running:
            asyncio.get_running_loop().call_later(PERIOD_S, self._turn)
        for thing in due:
            thing.linger()
