"""How much an agent may say in a time: bursts are taken, what goes on beyond its rate has to wait or is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Allowance(NamedTuple):
    """How much may be taken."""

    per_s: float
    burst: float


MESSAGES: Final = Allowance(200, 1000)
"""Of one link. An agent of a hundred sessions that all change at once sends a few hundred."""
BYTES: Final = Allowance(8 << 20, 32 << 20)
"""The same in bytes: outputs that are followed are the most."""
INVENTORIES: Final = Allowance(1, 10)
"""Of one link: agents look at their devices every two seconds."""
HELLOS: Final = Allowance(1, 60)
"""Of one node, here: an agent that is refused waits between its tries."""


class Rate:
    """A bucket that leaks at a rate and holds a burst: one for each thing that is bounded of each link."""

    __slots__ = ("_at", "_monotonic", "_used")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._used, self._at = 0.0, monotonic()

    def take(self, amount: float, allowance: Allowance) -> float:
        """Take an amount; return for how many seconds it comes too early, 0 where it does not."""
        used = self._used_now(allowance) + amount
        # Who waits for as long as is said has waited for all of it.
        self._used = min(used, allowance.burst)
        return max(0.0, used - allowance.burst) / allowance.per_s

    def refuses(self, allowance: Allowance) -> bool:
        """Take one where there is one; say whether there is none."""
        if self._used_now(allowance) + 1 > allowance.burst:
            return True
        self._used += 1
        return False

    def is_unused(self, allowance: Allowance) -> bool:
        """Say whether nothing was taken recently."""
        return self._used_now(allowance) == 0

    def _used_now(self, allowance: Allowance) -> float:
        now = self._monotonic()
        self._used, self._at = max(0.0, self._used - (now - self._at) * allowance.per_s), now
        return self._used
