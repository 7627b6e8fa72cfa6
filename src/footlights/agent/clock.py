"""The clock that launches are timed by."""

from __future__ import annotations

import time
from typing import Protocol

from footlights.linux import procfs


class Clock(Protocol):
    """Seconds that only grow, also over an agent's restart, and count while the machine sleeps."""

    @property
    def boot_id(self) -> str:
        """Which run of the machine the seconds belong to: marks of another one mean nothing."""

    def now(self) -> float:
        """Seconds since the machine was started."""


class BootClock:
    """CLOCK_BOOTTIME (clock_gettime(2)); the wall clock may jump."""

    def __init__(self) -> None:
        try:
            self.boot_id = procfs.boot_id()
        except OSError:
            # Unknown: with an id of this process's own, no mark is taken for one of this boot.
            self.boot_id = f"unknown-{time.time_ns()}"
        self._clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> float:
        """Seconds since boot, suspended time included."""
        return time.clock_gettime(self._clock)
