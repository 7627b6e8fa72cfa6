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
    """From ready until its end was asked for or seen; of what was started ahead, from when a session took it."""
    ending: float = 0.0
    """From then until it was proved gone."""
    warm: float = 0.0
    """From ready until a session took it that it was started ahead for."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.starting + self.used + self.ending + self.warm

    def __add__(self, other: Phases) -> Phases:
        return Phases(
            self.starting + other.starting,
            self.used + other.used,
            self.ending + other.ending,
            self.warm + other.warm,
        )

    def __mul__(self, slots: int) -> Phases:
        return Phases(self.starting * slots, self.used * slots, self.ending * slots, self.warm * slots)


def phases(
    began: datetime, ready: datetime | None, ending: datetime | None, ended: datetime, taken: datetime | None = None
) -> Phases:
    """Split the time from ``began`` to ``ended``; moments out of order, as after a clock was set, are sorted.

    ``taken`` is when a session took what was started ahead: the time of ``ended`` or later where none has.
    """
    ended = max(began, ended)
    stop = min(max(began, ending), ended) if ending is not None else ended
    start = min(max(began, ready), stop) if ready is not None else stop
    use = min(max(start, taken), stop) if taken is not None else start
    return Phases(
        (start - began).total_seconds(),
        (stop - use).total_seconds(),
        (ended - stop).total_seconds(),
        (use - start).total_seconds(),
    )
