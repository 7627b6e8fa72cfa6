"""How long to wait between two dials."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between dials."""

    first_s: float = 0.2
    last_s: float = 5.0
    refused_s: float = 30.0
    """After a refusal: an operator has to act, and retrying often does not help."""


@dataclass(slots=True)
class Backoff:
    """Grows from the first to the last pause, with jitter: a thousand agents do not come back in one instant."""

    pace: Pace = field(default_factory=Pace)
    dice: random.Random = field(default_factory=random.Random)
    _tries: int = 0

    def welcomed(self) -> None:
        """There was a link: start again with the first pause."""
        self._tries = 0

    def next(self, *, refused: bool) -> float:
        """Seconds to wait now: between half and all of the pause that is due."""
        pause = min(self.pace.last_s, self.pace.first_s * 2 ** min(self._tries, 30))
        self._tries += 1
        return (self.pace.refused_s if refused else pause) * self.dice.uniform(0.5, 1.0)
