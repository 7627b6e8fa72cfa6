"""How a time is spread: the distributions that a profile may name, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from footlights.errors import InvalidArgument

if TYPE_CHECKING:
    import random

_NORMAL = NormalDist()
_Z99 = _NORMAL.inv_cdf(0.99)


@dataclass(frozen=True, slots=True)
class Spread:
    """One distribution; of its members exactly one form is given. Raises InvalidArgument."""

    constant: float | None = None
    median: float | None = None
    """With ``p99``: lognormal, as start and think times are."""
    p99: float | None = None
    least: float | None = None
    """With ``most``: uniform."""
    most: float | None = None
    mean: float | None = None
    """Alone: exponential, as times between independent events are."""

    def __post_init__(self) -> None:
        given = {name for name in self.__slots__ if getattr(self, name) is not None}
        if given not in ({"constant"}, {"median", "p99"}, {"least", "most"}, {"mean"}):
            shown = ", ".join(sorted(given)) or "nothing"
            raise InvalidArgument(
                "spread", f"has {shown}. Give a number, median and p99, least and most, or mean, in seconds."
            )
        for name in given:
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InvalidArgument(name, f"must be at least 0 seconds (got {getattr(self, name)!r}).")
        for low, high in (("median", "p99"), ("least", "most")):
            if low in given and getattr(self, low) > getattr(self, high):
                raise InvalidArgument(high, f"{getattr(self, high):g} is below {low}, {getattr(self, low):g}.")
        if self.median == 0:
            raise InvalidArgument("median", "0 has no lognormal spread. Give a plain 0 instead.")

    @classmethod
    def from_number(cls, seconds: float) -> Spread:
        """Make a constant of a plain number."""
        return cls(constant=seconds)

    def draw(self, dice: random.Random) -> float:
        """Draw one value; every form takes the same one number from ``dice``."""
        share = dice.random()
        if self.constant is not None:
            return self.constant
        if self.median is not None and self.p99 is not None:
            sigma = math.log(self.p99 / self.median) / _Z99
            return self.median * math.exp(sigma * _NORMAL.inv_cdf(share or 0.5))
        if self.least is not None and self.most is not None:
            return self.least + share * (self.most - self.least)
        assert self.mean is not None
        return -self.mean * math.log1p(-share)
