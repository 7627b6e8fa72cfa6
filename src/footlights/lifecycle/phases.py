"""What a launch spent its time on, so that every second of a lease is accounted for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of one launch, or slot-seconds where they were multiplied. They sum to how long it held its slots."""

    starting: float = 0.0
    """From placed to ready."""
    used: float = 0.0
    """From ready until its end was asked for or seen."""
    ending: float = 0.0
    """From then until it was proved gone."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.starting + self.used + self.ending

    def __add__(self, other: Phases) -> Phases:
        """Add phase by phase."""
        return Phases(self.starting + other.starting, self.used + other.used, self.ending + other.ending)

    def __mul__(self, slots: int) -> Phases:
        """Return what so many slots spent."""
        return Phases(self.starting * slots, self.used * slots, self.ending * slots)


def phases(began: datetime, ready: datetime | None, ending: datetime | None, ended: datetime) -> Phases:
    """Split the time from ``began`` to ``ended``; moments out of order, as after a clock was set, are sorted."""
    ended = max(began, ended)
    stop = min(max(began, ending), ended) if ending is not None else ended
    start = min(max(began, ready), stop) if ready is not None else stop
    return Phases((start - began).total_seconds(), (stop - start).total_seconds(), (ended - stop).total_seconds())
